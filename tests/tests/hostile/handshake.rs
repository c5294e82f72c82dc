//! Lies told before there is any memory to share.

use std::io::Write;

use ringway_tests::descriptors;
use ringway_wire::{Capabilities, Config, Hello, Role};

use crate::siege::{HANDSHAKE_TIMEOUT, MAX_CONNECTIONS};
use crate::{NAME, SHM, assert_hung_up, assert_timed_out, besiege, connect, greet, hello};

#[test]
fn a_handshake_stalled_at_each_byte() {
    besiege(|root| {
        let bytes = hello().encode().unwrap();
        // In lots, so that all of them stay below the limit of connections.
        for lot in (0..bytes.len())
            .collect::<Vec<_>>()
            .chunks(MAX_CONNECTIONS / 2)
        {
            let stalled: Vec<_> = lot
                .iter()
                .map(|sent| {
                    let mut stream = connect(root);
                    stream.write_all(&bytes[..*sent]).unwrap();
                    stream
                })
                .collect();
            for stream in stalled {
                assert_timed_out("stalled", &stream);
            }
        }
        let stalled = greet(root);
        assert_timed_out("stalled before its region", &stalled);
    });
}

#[test]
fn hellos_that_lie() {
    besiege(|root| {
        let good = hello().encode().unwrap();
        let with = |at: usize, bytes: &[u8]| {
            let mut hello = good.clone();
            hello[at..at + bytes.len()].copy_from_slice(bytes);
            hello
        };
        let other_name = Hello::new(Role::Client, &Config::default(), 7, "another:1", SHM);
        let as_server = Hello::new(Role::Server, &Config::default(), 7, NAME, SHM);
        let without_shm = Hello::new(Role::Client, &Config::default(), 7, NAME, Capabilities(0));
        for (what, bytes) in [
            ("magic", with(0, b"HTTP/1.1")),
            ("a version to come", with(8, &[9, 0, 9, 0])),
            ("versions the wrong way round", with(8, &[9, 0, 1, 0])),
            ("length 0", with(12, &[0, 0])),
            ("length 65535", with(12, &[255, 255])),
            ("a length that is short", with(12, &[20, 0])),
            ("role 3", with(14, &[3])),
            ("no window", with(44, &[0; 8])),
            ("a window of 4 GiB", with(44, &[255; 8])),
            ("no slots", with(40, &[0; 4])),
            ("a name beyond its end", with(52, &[255, 255])),
            ("another's name", other_name.encode().unwrap()),
            ("a server", as_server.encode().unwrap()),
            ("no shared memory", without_shm.encode().unwrap()),
            (
                "a request of HTTP/2",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            ),
            ("zeroes", vec![0; 200]),
        ] {
            let mut stream = connect(root);
            let sent = stream.write_all(&bytes);
            sent.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_hung_up(what, &stream);
        }
    });
}

#[test]
fn a_flood_of_connections() {
    besiege(|root| {
        let before = descriptors();
        let flood: Vec<_> = (0..4 * MAX_CONNECTIONS).map(|_| connect(root)).collect();
        // Long enough to accept them all, shorter than a handshake may take.
        std::thread::sleep(HANDSHAKE_TIMEOUT / 2);
        let held = descriptors().saturating_sub(before + flood.len());
        assert!(
            held <= MAX_CONNECTIONS,
            "{held} half-open connections are held"
        );
        for stream in &flood {
            assert_timed_out("idle", stream);
        }
    });
}
