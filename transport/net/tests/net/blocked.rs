//! A handler that blocks its thread for good: its own call hangs, and no other.

use std::time::Duration;

use ringway_net::{CallSettings, NetOptions, Target, connect_lazy, unary};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tonic::Request;

use crate::echo::{path, start};

const ROUNDS: usize = 20;
const CLIENTS: usize = 30;

fn runtime(workers: usize) -> Runtime {
    let mut builder = Builder::new_multi_thread();
    let builder = builder.worker_threads(workers).enable_all();
    builder.build().unwrap()
}

/// A runtime that is left behind, as one of its workers never ends.
struct Blocked(Option<Runtime>);

impl Drop for Blocked {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

async fn call(target: Target, method: &str) {
    let pool = connect_lazy(&target, &NetOptions::default()).unwrap();
    let (settings, request) = (CallSettings::default(), Request::new(String::new()));
    let answer = unary::<_, String, String>(pool, path(method), &settings, request).await;
    answer.unwrap();
}

#[test]
fn a_handler_that_blocks_its_thread_stops_no_other_client() {
    for round in 0..ROUNDS {
        let (serving, calling) = (Blocked(Some(runtime(3))), runtime(2));
        let listening = start(|server| server.listen("127.0.0.1:0".parse().unwrap()));
        let server = serving.0.as_ref().unwrap().block_on(listening);
        let target = || server.targets[0].clone();
        calling.block_on(async {
            call(target(), "Unary").await;
            tokio::spawn(call(target(), "Block"));
            for client in 0..CLIENTS {
                let answered = timeout(Duration::from_secs(10), call(target(), "Unary")).await;
                assert!(answered.is_ok(), "client {client} of round {round} waits");
            }
        });
    }
}
