//! How often a client pings a server that says nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ringway_net::{CallSettings, NetOptions, Target, connect_lazy, streaming};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::Request;

use crate::echo::path;

/// What a default server of grpc-go, gRPC's C core or grpc-java allows.
const ALLOWED: Duration = Duration::from_secs(300);
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;

#[derive(Debug, Default)]
struct Counts {
    calls: AtomicUsize,
    pings: AtomicUsize,
}

/// Reads frames (RFC 9113), answers pings, and says nothing else.
async fn be_quiet(mut stream: TcpStream, counts: &Counts) -> std::io::Result<()> {
    const PREFACE_BYTES: usize = 24;
    const ACK: u8 = 1;
    stream
        .write_all(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0])
        .await?;
    stream.read_exact(&mut [0; PREFACE_BYTES]).await?;
    loop {
        let mut header = [0; 9];
        stream.read_exact(&mut header).await?;
        let len = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let mut payload = vec![0; len as usize];
        stream.read_exact(&mut payload).await?;
        match (header[3], header[4]) {
            (HEADERS, _) => drop(counts.calls.fetch_add(1, Ordering::SeqCst)),
            (SETTINGS, flags) if flags & ACK == 0 => {
                stream
                    .write_all(&[0, 0, 0, SETTINGS, ACK, 0, 0, 0, 0])
                    .await?;
            }
            (PING, flags) if flags & ACK == 0 => {
                counts.pings.fetch_add(1, Ordering::SeqCst);
                header[4] = ACK;
                stream.write_all(&header).await?;
                stream.write_all(&payload).await?;
            }
            _ => {}
        }
    }
}

async fn eventually(mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(10), waiting).await;
    waited.expect("it never came true");
}

/// Lets `time` pass for timers, and then what they have brought about.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
    tokio::time::sleep(Duration::from_millis(200)).await;
}

#[tokio::test]
async fn a_quiet_stream_is_pinged_no_more_often_than_servers_allow() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target: Target = listener.local_addr().unwrap().to_string().parse().unwrap();
    let counts = Arc::new(Counts::default());
    let counted = Arc::clone(&counts);
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        // A client that goes away is nothing to fail for.
        let _ = be_quiet(stream, &counted).await;
    });
    let pool = connect_lazy(&target, &NetOptions::default()).unwrap();
    tokio::spawn(async move {
        let (settings, quiet) = (CallSettings::default(), tokio_stream::pending::<String>());
        streaming::<_, _, _, String>(pool, path("Bidi"), &settings, Request::new(quiet)).await
    });
    eventually(|| counts.calls.load(Ordering::SeqCst) == 1).await;
    for round in 0..2 {
        pass(ALLOWED - Duration::from_secs(5)).await;
        assert_eq!(
            counts.pings.load(Ordering::SeqCst),
            round,
            "it pings too soon"
        );
        pass(Duration::from_secs(20)).await;
        eventually(|| counts.pings.load(Ordering::SeqCst) == round + 1).await;
    }
}
