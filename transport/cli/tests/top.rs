//! `ringway top` against a server process under load.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ringway::Endpoint;
use ringway_proto::grpc_testing::Empty;
use ringway_proto::grpc_testing::test_service_client::TestServiceClient;
use ringway_tests::{InteropServer, Running, Way, within};
use serde_json::Value;

const RINGWAY: &str = env!("CARGO_BIN_EXE_ringway");
const NAME: &str = "watched:1";

async fn top(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(RINGWAY);
    command
        .args(["top", "--json"])
        .args(arguments)
        .env("RINGWAY_DIR", directory);
    let run = tokio::task::spawn_blocking(move || command.output().unwrap());
    run.await.unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    said.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The connection by `path` on which the server is called most.
fn busiest<'a>(interval: &'a Value, path: &str) -> &'a Value {
    let connections = interval["connections"].as_array().unwrap();
    connections
        .iter()
        .filter(|row| row["path"] == path && row["role"] == "server")
        .max_by(|one, other| calls_per_s(one).total_cmp(&calls_per_s(other)))
        .unwrap_or_else(|| panic!("nobody calls by {path}: {interval:#}"))
}

fn calls_per_s(row: &Value) -> f64 {
    row["calls_per_s"].as_f64().unwrap()
}

/// Calls `endpoint` until told to stop.
async fn load(endpoint: Endpoint, stop: Arc<AtomicBool>) {
    let mut client = TestServiceClient::new(endpoint.connect().await.unwrap());
    while !stop.load(Ordering::Relaxed) {
        client.empty_call(Empty {}).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_servers_connections_are_told_by_path() {
    within(async {
        let directory = tempfile::tempdir().unwrap();
        let server = InteropServer::start(RINGWAY, directory.path(), NAME, None);
        let stop = Arc::new(AtomicBool::new(false));
        let loads = [
            format!("shm://{NAME}"),
            format!("socket://{NAME}"),
            format!("grpc://{}", server.tcp()),
        ]
        .map(|address| {
            let endpoint = Endpoint::new(address).unwrap().directory(directory.path());
            tokio::spawn(load(endpoint, Arc::clone(&stop)))
        });
        // By its name, and by its network address.
        for address in [NAME.to_owned(), format!("grpc://{}", server.tcp())] {
            let looks = ["--iterations", "3", "--interval", "0.2", &address];
            let intervals = lines(&top(directory.path(), &looks).await);
            assert_eq!(intervals.len(), 3);
            let last = &intervals[2];
            assert_eq!(
                (&last["server"], &last["pid"]),
                (&address.into(), &server.pid().into())
            );
            for path in ["shm", "socket", "grpc"] {
                let row = busiest(last, path);
                assert!(calls_per_s(row) > 0.0, "{row:#}");
                let quantile = |name| row[name].as_u64().unwrap();
                assert!(
                    0 < quantile("p50_ns") && quantile("p50_ns") <= quantile("p99_ns"),
                    "{row:#}"
                );
                let summed = last["paths"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .find(|sum| sum["path"] == path);
                assert!(calls_per_s(summed.unwrap()) >= calls_per_s(row), "{last:#}");
            }
            let shm = busiest(last, "shm");
            assert_eq!(shm["name"], NAME);
            let own = format!("pid {},", std::process::id());
            assert!(shm["peer"].as_str().unwrap().starts_with(&own), "{shm:#}");
            assert!(shm["ring_fill"].is_f64(), "{shm:#}");
            let methods = last["methods"].as_array().unwrap();
            let called = methods
                .iter()
                .find(|method| method["path"] == "/grpc.testing.TestService/EmptyCall");
            let called = called.unwrap_or_else(|| panic!("{last:#}"));
            assert_eq!(called["policy"], "adaptive", "{called:#}");
            let runs = called["runs"].as_str().unwrap();
            assert!(matches!(runs, "inline" | "task"), "{called:#}");
            assert!(called["mean_poll_ns"].as_u64().unwrap() > 0, "{called:#}");
        }
        // Whoever names none finds all.
        let found = top(
            directory.path(),
            &["--iterations", "1", "--interval", "0.1"],
        )
        .await;
        assert_eq!(lines(&found)[0]["server"], NAME);
        stop.store(true, Ordering::Relaxed);
        for load in loads {
            load.await.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_offer_it_is_one_clear_error() {
    within(async {
        let running = Running::start(Way::GrpcTcp).await;
        let address = format!("grpc://{}", running.address());
        let refused = top(&running.root(), &[&address]).await;
        assert!(!refused.status.success());
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(
            said.contains(&address) && said.contains("introspection()"),
            "{said}"
        );
        let nobody = top(&running.root(), &[]).await;
        let said = String::from_utf8(nobody.stderr).unwrap();
        assert!(
            said.contains("RINGWAY_DIR") || said.contains("could not look"),
            "{said}"
        );
        running.stop().await;
    })
    .await;
}
