//! Each mechanism between two threads, and between two processes.

use std::process::Command;
use std::thread;

use super::*;

const AS_CHILD: &str = "RINGWAY_TEST_FLOOR_CHILD";

fn message(round: u8) -> Message {
    std::array::from_fn(|index| round.wrapping_mul(17) ^ u8::try_from(index).unwrap())
}

/// `None` where the kernel leaves the mechanism out.
fn prepared(mechanism: Mechanism) -> Option<(ParentEnd, ChildEnd)> {
    match prepare(mechanism) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
            eprintln!("{mechanism}: {error}");
            None
        }
        prepared => Some(prepared.unwrap()),
    }
}

/// This test binary once more, as the child.
fn spawn(child: ChildEnd) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "floor::tests::child_process", "--nocapture"])
        .env(AS_CHILD, "1")
        .stdout(Stdio::null());
    child.spawn(command).unwrap()
}

/// Not a test by itself: what [`spawn`] starts.
#[test]
fn child_process() {
    if std::env::var_os(AS_CHILD).is_some() {
        let mechanism = std::env::args().next_back().unwrap().parse().unwrap();
        let child = ChildEnd::from_stdin(mechanism).unwrap();
        child.echo_until_closed().unwrap();
    }
}

#[test]
fn between_processes() {
    for mechanism in Mechanism::ALL {
        let Some((mut parent, child)) = prepared(mechanism) else {
            continue;
        };
        let mut child = spawn(child);
        for round in 0..100 {
            let answer = parent.round_trip(&message(round)).unwrap();
            assert_eq!(answer, message(round), "{mechanism}");
        }
        drop(parent);
        assert!(child.wait().unwrap().success(), "{mechanism}");
    }
}

#[test]
fn between_threads() {
    for mechanism in Mechanism::ALL {
        let Some((mut parent, child)) = prepared(mechanism) else {
            continue;
        };
        let echo = thread::spawn(|| child.echo_until_closed());
        for round in 0..100 {
            let answer = parent.round_trip(&message(round)).unwrap();
            assert_eq!(answer, message(round), "{mechanism}");
        }
        // Another thread may go on.
        let parent = thread::spawn(move || {
            assert_eq!(parent.round_trip(&message(7)).unwrap(), message(7));
            parent
        });
        drop(parent.join().unwrap());
        echo.join().unwrap().unwrap();
    }
}

#[test]
fn a_killed_child_is_an_error() {
    for mechanism in Mechanism::ALL {
        let Some((mut parent, child)) = prepared(mechanism) else {
            continue;
        };
        let mut child = spawn(child);
        parent.round_trip(&message(1)).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let start = Instant::now();
        let error = parent.round_trip(&message(2)).unwrap_err();
        assert!(is_closed(&error), "{mechanism}: {error}");
        assert!(start.elapsed() < PATIENCE);
    }
}

#[test]
fn names_go_there_and_back() {
    for mechanism in Mechanism::ALL {
        assert_eq!(
            mechanism.to_string().parse::<Mechanism>().unwrap(),
            mechanism
        );
    }
    assert!(matches!(
        "telepathy".parse::<Mechanism>(),
        Err(Error::UnknownMechanism(name)) if name == "telepathy"
    ));
}
