//! A plugin: the test binary, started again to serve its parent over pipes.
//!
//! A test file that uses it has a test called `plugin_process` that calls [`serve_as_plugin`].

use std::fmt;
use std::io::Read;
use std::process::{Command, Stdio};

use ringway::Server;
use ringway_proto::bench::bench_server::BenchServer;

use crate::ours::Handler;
use crate::process::policy_of_child;

const MANNER: &str = "RINGWAY_TEST_MANNER";

/// What a plugin does beside serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Prints to its standard output while it serves, and ends when its parent hangs up.
    Talkative,
    /// Exits with status 3 when its standard input ends.
    Leaving,
    /// Closes its pipes when its standard input ends, and runs on.
    Mute,
    /// Runs on when its parent has hung up.
    Stubborn,
    /// Starts a program that inherits its pipes, and prints that one's process id.
    Careless,
    /// Starts a plugin of its own, prints that one's process id, and serves nobody.
    Host,
}

impl fmt::Display for Manner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

const MANNERS: [Manner; 6] = [
    Manner::Talkative,
    Manner::Leaving,
    Manner::Mute,
    Manner::Stubborn,
    Manner::Careless,
    Manner::Host,
];

/// How to start a plugin. Its standard input and output are pipes.
pub fn plugin(manner: Manner) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "plugin_process", "--nocapture"])
        .env(MANNER, manner.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

/// Serves the parent, if this process was started for it; else returns at once.
pub async fn serve_as_plugin() {
    let Ok(name) = std::env::var(MANNER) else {
        return;
    };
    let manner = MANNERS
        .into_iter()
        .find(|manner| manner.to_string() == name);
    match manner.unwrap() {
        Manner::Talkative => println!("\nhere I am"),
        Manner::Leaving => {
            std::thread::spawn(|| {
                wait_for_end_of_input();
                std::process::exit(3);
            });
        }
        Manner::Mute => return serve_until_end_of_input().await,
        Manner::Stubborn => {}
        Manner::Careless => {
            let mut heir = Command::new("sleep").arg("60").spawn().unwrap();
            println!("\n{}", heir.id());
            std::thread::spawn(move || heir.wait());
        }
        Manner::Host => {
            let mut command = plugin(Manner::Talkative);
            command.stdin(Stdio::null()).stdout(Stdio::null());
            let child = ringway::Child::spawn(command).await.unwrap();
            println!("\n{}", child.id());
            std::future::pending().await
        }
    }
    server().serve_pipe().await.unwrap();
    match manner {
        Some(Manner::Talkative) => println!("\nfarewell"),
        Some(Manner::Stubborn) => std::future::pending().await,
        _ => {}
    }
}

fn server() -> ringway::ServerBuilder {
    Server::builder()
        .handler_policy(policy_of_child())
        .add_service(BenchServer::new(Handler::default()))
}

async fn serve_until_end_of_input() {
    let serving = tokio::spawn(server().serve_pipe());
    tokio::task::spawn_blocking(wait_for_end_of_input)
        .await
        .unwrap();
    serving.abort();
    std::future::pending().await
}

fn wait_for_end_of_input() {
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input).unwrap();
}
