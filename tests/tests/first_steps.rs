//! What somebody meets who runs the first server and the first client: names, and the errors of everybody's first
//! hour, as they are seen without a subscriber.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use ringway::{BoundServer, Endpoint, Error, Server};
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench::bench_server::BenchServer;
use ringway_tests::ours::Handler;
use ringway_tests::{ChildServer, Log, client_of, free_address, payload, serve_as_child, within};
use tonic::{Code, Status};

/// Not a test: what a child process runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_process() {
    serve_as_child().await;
}

fn server(directory: &Path) -> Server {
    Server::builder()
        .directory(directory)
        .add_service(BenchServer::new(Handler::default()))
}

fn at(address: &str, directory: &Path) -> Endpoint {
    Endpoint::new(address).unwrap().directory(directory)
}

/// Serves until the test ends; the names by which it is found.
fn serving(bound: BoundServer) -> Vec<String> {
    let names = bound.names().to_vec();
    tokio::spawn(bound.serve());
    names
}

async fn path_to(address: &str, directory: &Path) -> ringway::Path {
    let mut client = client_of(&at(address, directory)).await;
    let answer = client.unary(payload(1, 1)).await.unwrap();
    ringway::Path::of(&answer).unwrap()
}

#[tokio::test]
async fn a_server_is_named_by_the_port_that_it_got() {
    within(async {
        let directory = tempfile::tempdir().unwrap();
        let server = server(directory.path())
            .name("greeter:0")
            .name_from_listen();
        let bound = server.listen("127.0.0.1:0").unwrap().bind().await.unwrap();
        let address = bound.addresses()[0].to_string();
        let port = address.rsplit_once(':').unwrap().1.to_owned();
        let expected = ["greeter", "localhost", "127.0.0.1"].map(|host| format!("{host}:{port}"));
        assert_eq!(serving(bound), expected);
        for name in expected {
            assert_eq!(path_to(&name, directory.path()).await, ringway::Path::Shm);
        }
    })
    .await;
}

#[tokio::test]
async fn another_program_of_the_same_name_is_told_of() {
    within(async {
        let directory = tempfile::tempdir().unwrap();
        let (log, _logging) = Log::begin();
        let here = ChildServer::start(directory.path(), "greeter:1");
        let bound = server(directory.path()).name("greeter:1").bind().await;
        assert_eq!(
            log.count("another server of this name"),
            0,
            "{}",
            log.text()
        );
        drop((bound, here));
        let elsewhere = tempfile::tempdir().unwrap();
        let _there = ChildServer::start_within(elsewhere.path(), directory.path(), "greeter:1");
        drop(server(directory.path()).name("greeter:1").bind().await);
        assert_eq!(
            log.count("another server of this name"),
            1,
            "{}",
            log.text()
        );
        let said = elsewhere.path().canonicalize().unwrap();
        assert!(
            log.text().contains(&said.display().to_string()),
            "{}",
            log.text()
        );
    })
    .await;
}

/// Both ways in which an error is printed say the parts, in this order.
fn says(error: &Error, parts: &[&str]) {
    for said in [error.to_string(), format!("{error:?}")] {
        in_order(&said, parts);
    }
}

fn in_order(said: &str, parts: &[&str]) {
    let mut rest = said;
    for part in parts {
        let found = rest.split_once(part);
        (_, rest) = found.unwrap_or_else(|| panic!("no `{part}` where it belongs in: {said}"));
    }
}

async fn call(endpoint: &Endpoint) -> Status {
    let mut client = BenchClient::new(endpoint.connect_lazy());
    client.unary(payload(1, 1)).await.unwrap_err()
}

/// Each says what happened, to what, and what to do.
#[tokio::test]
async fn a_client_is_told_why_there_is_no_server() {
    within(async {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let place = root.display().to_string();

        // The server is not started, or at another port.
        let unused = free_address().to_string();
        let not_started = at(&unused, root);
        let parts: &[&str] = &[
            &format!("no server called `{unused}` listens in {place}"),
            "over the network",
            &unused,
            "refused",
            "is its server running",
        ];
        says(&not_started.connect().await.unwrap_err(), parts);
        let status = call(&not_started).await;
        assert_eq!(status.code(), Code::Unavailable);
        in_order(status.message(), parts);

        // It runs, under another name, over shared memory alone.
        let bound = server(root).name("greeter:50051").bind().await.unwrap();
        serving(bound);
        let parts: &[&str] = &[
            "no server called `localhost:1` listens",
            "there are: `greeter:50051`",
            "name()",
            "over the network",
        ];
        let dialled = at("localhost:1", root);
        says(&dialled.connect().await.unwrap_err(), parts);
        in_order(call(&dialled).await.message(), parts);

        // It runs, with another directory.
        let other = tempfile::tempdir().unwrap();
        let parts: &[&str] = &[
            "no server called `greeter:50051` listens in",
            &other.path().display().to_string(),
            "with the same RINGWAY_DIR?",
        ];
        let wrong = at("shm://greeter:50051", other.path());
        says(&wrong.connect().await.unwrap_err(), parts);
        in_order(call(&wrong).await.message(), parts);
        let nowhere = other.path().join("nowhere");
        let parts: &[&str] = &[
            "no socket directory",
            &nowhere.display().to_string(),
            "`greeter:50051`",
            "RINGWAY_DIR",
        ];
        let wrong = at("shm://greeter:50051", &nowhere);
        says(&wrong.connect().await.unwrap_err(), parts);

        // A server that has ended is not told of as one that is there.
        let bound = server(root).name("ended:1").bind().await.unwrap();
        drop(bound);
        let error = at("localhost:1", root).connect().await.unwrap_err();
        assert!(!error.to_string().contains("ended:1"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_client_is_told_what_is_wrong_with_its_address() {
    within(async {
        for (address, parts) in [
            ("greeter", &["`greeter`", "port", "use host:port"][..]),
            ("", &["``", "use host:port"]),
            ("http://", &["`http://`", "use host:port"]),
            ("tcp://greeter:1", &["`tcp://greeter:1`", "use host:port"]),
            ("greeter:99999", &["`greeter:99999`", "use host:port"]),
            ("unix:", &["`unix:`", "unix:/path"]),
            ("pipe://greeter:1", &["`greeter:1`", "ringway::Child"]),
        ] {
            says(&Endpoint::new(address).unwrap_err(), parts);
            let lazy = Endpoint::from_static(address);
            says(&lazy.connect().await.unwrap_err(), parts);
            let status = call(&lazy).await;
            assert_eq!(status.code(), Code::FailedPrecondition, "{address}");
            in_order(status.message(), parts);
        }
        let without_tls = Endpoint::new("https://greeter:1").unwrap();
        let parts = &["https://greeter:1", "TLS", "tls_config"];
        says(&without_tls.connect().await.unwrap_err(), parts);
        in_order(call(&without_tls).await.message(), parts);
    })
    .await;
}

#[tokio::test]
async fn a_server_is_told_why_it_can_not_be_reached() {
    within(async {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let nameless = server(root).bind().await.unwrap_err();
        says(&nameless, &["neither a name nor an address", "call name()"]);

        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = taken.local_addr().map(|address| (taken, address)).unwrap();
        let address = taken.1.to_string();
        let refused = server(root).listen(&address).unwrap().bind().await;
        let refused = refused.unwrap_err();
        says(
            &refused,
            &["could not listen on", &address, "taken", "choose another"],
        );
        assert!(format!("{refused:?}").contains("in use"), "{refused:?}");

        let no_address = server(root).listen("greeter:50051").unwrap_err();
        says(
            &no_address,
            &["`greeter:50051`", "write ip:port or unix:/path"],
        );
        let no_name = server(root).name("a/b").bind().await.unwrap_err();
        says(&no_name, &["`a/b`", "use host:port"]);
        let no_port = server(root).name("greeter:0").bind().await.unwrap_err();
        says(&no_port, &["`greeter:0`", "no TCP address", "call listen("]);

        let file = root.join("file");
        std::fs::write(&file, "").unwrap();
        let no_directory = server(&file).name("greeter:1").bind().await.unwrap_err();
        says(&no_directory, &["file", "RINGWAY_DIR"]);

        let twice = server(root).add_service(BenchServer::new(Handler::default()));
        let twice = twice.name("greeter:1").bind().await.unwrap_err();
        says(
            &twice,
            &["ringway.bench.v1.Bench", "twice", "leave one out"],
        );
    })
    .await;
}

#[tokio::test]
async fn a_message_over_the_limit_says_how_long_it_was_and_might_be() {
    within(async {
        let directory = tempfile::tempdir().unwrap();
        let server = server(directory.path()).name_from_listen();
        let bound = server.listen("127.0.0.1:0").unwrap().bind().await.unwrap();
        let names = serving(bound);
        for address in [names[0].clone(), format!("grpc://{}", names[1])] {
            let mut client = client_of(&at(&address, directory.path())).await;
            let status = client.unary(payload(1, 5 << 20)).await.unwrap_err();
            assert_eq!(status.code(), Code::OutOfRange);
            in_order(
                status.message(),
                &["found 52428", "the limit is: 4194304 bytes"],
            );
        }
    })
    .await;
}
