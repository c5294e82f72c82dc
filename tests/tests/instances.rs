//! Several local instances of a service.
#![allow(clippy::unwrap_used)]

use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use ringway::{BackoffOptions, Channel, Directory, Endpoint, OutlierOptions, Server};
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench::bench_server::BenchServer;
use ringway_tests::ours::Handler;
use ringway_tests::{Seen, client_of, payload, within};
use tokio::task::JoinHandle;
use tonic::{Code, Request};

const NAME: &str = "several:50051";
const SCHEMES: [&str; 3] = ["shm", "socket", "inproc"];

/// One instance, until this is dropped.
struct Instance {
    seen: Arc<Seen>,
    serving: JoinHandle<Result<(), ringway::Error>>,
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(directory: &FilePath, name: &str) -> Instance {
    let handler = Handler::default();
    let seen = Arc::clone(&handler.seen);
    let server = Server::builder()
        .directory(directory)
        .name(name)
        .add_service(BenchServer::new(handler));
    let server = server.bind().await.unwrap();
    let serving = tokio::spawn(server.serve());
    Instance { seen, serving }
}

/// `inproc` knows no directory: the tests of this process must have names of their own.
fn named(scheme: &str, directory: &FilePath) -> (String, Endpoint) {
    let own = directory.file_name().unwrap().to_string_lossy();
    let name = format!("{}-{NAME}", own.trim_start_matches('.'));
    let endpoint = Endpoint::new(format!("{scheme}://{name}")).unwrap();
    (name, endpoint.directory(directory))
}

/// Calls until each instance has been called since.
async fn all_called(client: &mut BenchClient<Channel>, instances: &[&Instance]) {
    let before: Vec<_> = instances.iter().map(|one| one.seen.entered()).collect();
    let pairs = || instances.iter().zip(&before);
    while pairs().any(|(one, before)| one.seen.entered() == *before) {
        client.unary(payload(1, 10)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_call_after_the_other_is_spread_over_all() {
    within(async {
        for scheme in SCHEMES {
            let directory = tempfile::tempdir().unwrap();
            let (name, endpoint) = named(scheme, directory.path());
            let instances = [
                serve(directory.path(), &name).await,
                serve(directory.path(), &name).await,
                serve(directory.path(), &name).await,
            ];
            let mut client = client_of(&endpoint).await;
            all_called(&mut client, &instances.iter().collect::<Vec<_>>()).await;
            let before: Vec<_> = instances.iter().map(|one| one.seen.entered()).collect();
            for _ in 0..3000 {
                client.unary(payload(1, 10)).await.unwrap();
            }
            for (one, before) in instances.iter().zip(before) {
                let calls = one.seen.entered() - before;
                assert!((800..=1200).contains(&calls), "{scheme}: {calls} of 3000");
            }
        }
    })
    .await;
}

/// The handlers of an instance that hangs hold its calls: the others take the rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_go_where_fewer_are_in_flight() {
    within(async {
        for scheme in SCHEMES {
            let directory = tempfile::tempdir().unwrap();
            let (name, endpoint) = named(scheme, directory.path());
            let instances = [
                serve(directory.path(), &name).await,
                serve(directory.path(), &name).await,
            ];
            let client = client_of(&endpoint).await;
            all_called(&mut client.clone(), &instances.iter().collect::<Vec<_>>()).await;
            let hanging: Vec<_> = (0..40)
                .map(|_| {
                    let mut client = client.clone();
                    let mut request = Request::new(payload(1, 10));
                    request
                        .metadata_mut()
                        .insert("x-do", "hang".parse().unwrap());
                    tokio::spawn(async move { client.unary(request).await })
                })
                .collect();
            let inside = || instances.iter().map(|one| one.seen.inside());
            while inside().sum::<u64>() < 40 {
                tokio::task::yield_now().await;
            }
            // Two workers may choose at once, neither seeing the other's call.
            assert!(
                inside().all(|calls| calls.abs_diff(20) <= 2),
                "{:?}",
                inside().collect::<Vec<_>>()
            );
            hanging.iter().for_each(JoinHandle::abort);
            join_all(hanging).await;
        }
    })
    .await;
}

/// A channel that has an instance hears of one that comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_comes_later_is_called_too() {
    within(async {
        for scheme in SCHEMES {
            let directory = tempfile::tempdir().unwrap();
            let (name, endpoint) = named(scheme, directory.path());
            let first = serve(directory.path(), &name).await;
            let mut client = client_of(&endpoint).await;
            client.unary(payload(1, 10)).await.unwrap();
            let second = serve(directory.path(), &name).await;
            all_called(&mut client, &[&first, &second]).await;
            drop(first);
            all_called(&mut client, &[&second]).await;
        }
    })
    .await;
}

/// One that fails call after call gets none for a while, and then some again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_fails_is_put_aside_and_comes_back() {
    within(async {
        for scheme in SCHEMES {
            let directory = tempfile::tempdir().unwrap();
            let (name, endpoint) = named(scheme, directory.path());
            let (good, bad) = (
                serve(directory.path(), &name).await,
                serve(directory.path(), &name).await,
            );
            // Longer than two hundred calls take, also where others are busy.
            let aside = Duration::from_secs(3);
            let endpoint = endpoint.outliers(OutlierOptions {
                consecutive_failures: 5,
                base_time: aside,
                max_time: aside,
            });
            let mut client = client_of(&endpoint).await;
            all_called(&mut client, &[&good, &bad]).await;
            bad.seen.fail_from_now_on(true);
            let mut failures = 0;
            while failures < 5 {
                match client.unary(payload(1, 10)).await {
                    Ok(_) => {}
                    Err(status) => {
                        assert_eq!(status.code(), Code::Unavailable);
                        failures += 1;
                    }
                }
            }
            let before = bad.seen.entered();
            for _ in 0..200 {
                client.unary(payload(1, 10)).await.unwrap();
            }
            assert_eq!(bad.seen.entered(), before, "{scheme}: it still gets calls");
            bad.seen.fail_from_now_on(false);
            all_called(&mut client, &[&bad]).await;
        }
    })
    .await;
}

/// One that can't be connected to stands in nobody's way, and is tried again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_refuses_is_tried_again() {
    within(async {
        let directory = tempfile::tempdir().unwrap();
        let (name, endpoint) = named("shm", directory.path());
        let good = serve(directory.path(), &name).await;
        let sockets = ringway::Directory::at(directory.path())
            .of_name(&name)
            .unwrap();
        // Sorted before the server's own.
        let listener = tokio::net::UnixListener::bind(sockets.join("0-bad.sock")).unwrap();
        let (tried, mut tries) = tokio::sync::mpsc::unbounded_channel();
        let refusing = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                drop(stream);
                let _ = tried.send(());
            }
        });
        let endpoint = endpoint.backoff(BackoffOptions {
            initial: Duration::from_millis(10),
            ..BackoffOptions::default()
        });
        let mut client = client_of(&endpoint).await;
        for _ in 0..200 {
            client.unary(payload(1, 10)).await.unwrap();
        }
        for _ in 0..3 {
            tries.recv().await.unwrap();
        }
        refusing.abort();
        assert_eq!(good.seen.entered(), 200);
    })
    .await;
}

/// Instances that take connections and answer nothing, as processes that are stopped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_that_are_silent_hold_up_neither_a_start_nor_a_first_call() {
    within(async {
        for scheme in ["shm", "socket"] {
            let directory = tempfile::tempdir().unwrap();
            let (name, endpoint) = named(scheme, directory.path());
            let gone = serve(directory.path(), &name).await;
            let sockets = Directory::at(directory.path()).of_name(&name).unwrap();
            // Sorted before the server's own.
            let silent: Vec<_> = (0..5)
                .map(|index| sockets.join(format!("0-silent-{index}.sock")))
                .map(|path| std::os::unix::net::UnixListener::bind(path).unwrap())
                .collect();
            drop(gone);
            let began = Instant::now();
            let _there = serve(directory.path(), &name).await;
            let mut client = client_of(&endpoint).await;
            client.unary(payload(1, 10)).await.unwrap();
            // Each of them takes five seconds to be given up.
            let took = began.elapsed();
            assert!(took < Duration::from_secs(2), "{scheme}: {took:?}");
            // One that comes to it later is found as well.
            let second = serve(directory.path(), &name).await;
            all_called(&mut client, &[&second]).await;
            drop(silent);
        }
    })
    .await;
}

/// Programs that remove old files, a logout, somebody's `rm -rf`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_socket_is_taken_away_is_found_again() {
    within(async {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("ringway");
        let (name, endpoint) = named("shm", &directory);
        let server = serve(&directory, &name).await;
        let mut older = client_of(&endpoint).await;
        let sockets = Directory::at(&directory).of_name(&name).unwrap();
        for gone in [&sockets, &directory] {
            older.unary(payload(1, 10)).await.unwrap();
            std::fs::remove_dir_all(gone).unwrap();
            endpoint.connect().await.unwrap_err();
            while endpoint.connect().await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let mut newer = client_of(&endpoint).await;
            newer.unary(payload(1, 10)).await.unwrap();
            older.unary(payload(1, 10)).await.unwrap();
        }
        assert_eq!(server.seen.entered(), 6);
    })
    .await;
}
