//! What a user meets where the socket directory is of no use: the network path, and one warning that
//! names the cause and what to do.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixListener;
use std::path::Path as FilePath;
use std::time::{Duration, Instant};

use ringway::{Directory, Endpoint, Path};
use ringway_proto::bench::Payload;
use ringway_tests::{Log, Running, Way, can_be_another_user, client_of, within};

/// Calls a server that listens on TCP alone, by an endpoint that looks into `directory` first; what was
/// logged meanwhile.
async fn log_of_calls(address: &str, directory: &FilePath) -> Log {
    let (log, _logging) = Log::begin();
    let endpoint = Endpoint::new(address).unwrap().directory(directory);
    let mut client = client_of(&endpoint).await;
    // For longer than a missing server is not looked for again: so there is more than one look.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(250) {
        let response = client.unary(Payload::default()).await.unwrap();
        assert_eq!(Path::of(&response), Some(Path::Grpc));
    }
    log
}

fn assert_one_warning(log: &Log, of: &[&str]) {
    assert_eq!(log.count("WARN"), 1, "{}", log.text());
    for words in of {
        assert_eq!(log.count(words), 1, "`{words}` in {}", log.text());
    }
}

async fn networked() -> (Running, String) {
    let running = Running::start(Way::GrpcTcp).await;
    let address = running.address().to_string();
    (running, address)
}

#[tokio::test]
async fn a_missing_directory_is_one_warning() {
    within(async {
        let (_running, address) = networked().await;
        let temporary = tempfile::tempdir().unwrap();
        let missing = temporary.path().join("missing");
        let log = log_of_calls(&address, &missing).await;
        let says = format!("no socket directory {}", missing.display());
        assert_one_warning(&log, &[&says, "shared volume", "RINGWAY_DIR"]);
    })
    .await;
}

#[tokio::test]
async fn a_directory_of_another_owner_is_one_warning() {
    if !can_be_another_user() {
        return;
    }
    within(async {
        let (_running, address) = networked().await;
        let temporary = tempfile::tempdir().unwrap();
        let of_name = Directory::at(temporary.path()).of_name(&address).unwrap();
        fs::create_dir_all(&of_name).unwrap();
        chown(&of_name, Some(4321), None).unwrap();
        let log = log_of_calls(&address, temporary.path()).await;
        let says = format!("{} belongs to uid 4321", of_name.display());
        assert_one_warning(&log, &[&says, "RINGWAY_DIR"]);
    })
    .await;
}

#[tokio::test]
async fn a_stale_socket_is_one_warning() {
    within(async {
        let (_running, address) = networked().await;
        let temporary = tempfile::tempdir().unwrap();
        let of_name = Directory::at(temporary.path()).of_name(&address).unwrap();
        fs::create_dir_all(&of_name).unwrap();
        let socket = of_name.join("1-0.sock");
        drop(UnixListener::bind(&socket).unwrap());
        let log = log_of_calls(&address, temporary.path()).await;
        let says = format!("nobody listens on {}", socket.display());
        assert_one_warning(&log, &[&says, "remove the file"]);
    })
    .await;
}

/// It may well be on another host: no warning, but a word for who wonders.
#[tokio::test]
async fn a_server_that_is_elsewhere_is_no_warning() {
    within(async {
        let (_running, address) = networked().await;
        let temporary = tempfile::tempdir().unwrap();
        let log = log_of_calls(&address, temporary.path()).await;
        assert_eq!(log.count("WARN"), 0, "{}", log.text());
        assert_eq!(log.count("going over the network"), 1, "{}", log.text());
    })
    .await;
}
