//! The example shop as processes: the test binary, started again as each of its services.
//!
//! A test file that uses it has a test called `service_process` that calls a service's code with
//! [`service_arguments`].

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path as FilePath;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::addresses::free_address;

const ARGUMENTS: &str = "RINGWAY_TEST_SERVICE";
/// An order that the shop's first products fill.
const ORDER: &str = r#"{"lines":[{"product":1,"quantity":1},{"product":2,"quantity":2}],"card":"4111111111111111"}"#;

/// An order is confirmed without pictures where media is not there, and then makes a call less.
fn shows_pictures(answer: &str) -> bool {
    answer.contains(r#""preview":"#)
}

/// What this process is to be as a service of the shop, if it was started for that: its name and
/// arguments.
pub fn service_arguments() -> Option<Vec<String>> {
    let arguments = std::env::var(ARGUMENTS).ok()?;
    Some(arguments.split_whitespace().map(str::to_owned).collect())
}

/// An address that no other test of this process was given: it is free until a service listens.
fn own_address() -> SocketAddr {
    static TAKEN: Mutex<BTreeSet<SocketAddr>> = Mutex::new(BTreeSet::new());
    loop {
        let address = free_address();
        if TAKEN.lock().unwrap().insert(address) {
            return address;
        }
    }
}

/// The services, each a process; dropped, they are killed.
#[derive(Debug)]
pub struct Shop {
    directory: tempfile::TempDir,
    services: Vec<Child>,
    gateway: SocketAddr,
}

impl Shop {
    /// Starts all of them, calling each other by `scheme` (`shm`, `socket`, `grpc`), with these
    /// environment variables.
    pub async fn start(scheme: &str, environment: &[(&str, &str)]) -> Self {
        let mut shop = Self {
            directory: tempfile::tempdir().unwrap(),
            services: Vec::new(),
            gateway: own_address(),
        };
        // Local names are this directory's own.
        let address = |name: &str| match scheme {
            "grpc" => format!("grpc://{}", own_address()),
            local => format!("{local}://{name}:1"),
        };
        let names = ["catalog", "inventory", "media", "payments", "orders"];
        let places = names.map(|name| (name, address(name)));
        let to = |known: &[&str]| -> String {
            let known = places.iter().filter(|(name, _)| known.contains(name));
            known
                .map(|(name, place)| format!(" --{name} {place}"))
                .collect()
        };
        for (name, place) in &places {
            let peers = match *name {
                "orders" => to(&["catalog", "inventory", "media", "payments"]),
                _ => String::new(),
            };
            shop.run(&format!("{name} --listen {place}{peers}"), environment);
        }
        let peers = to(&["orders", "catalog", "inventory", "media"]);
        shop.run(
            &format!("gateway --listen {}{peers}", shop.gateway),
            environment,
        );
        shop
    }

    fn run(&mut self, arguments: &str, environment: &[(&str, &str)]) {
        let mut command = Command::new("/proc/self/exe");
        command
            .args(["--exact", "service_process", "--nocapture"])
            .env(ARGUMENTS, arguments)
            .env("RINGWAY_DIR", self.directory())
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        self.services.push(command.spawn().unwrap());
    }

    /// Where the services find each other.
    pub fn directory(&self) -> &FilePath {
        self.directory.path()
    }

    /// Places an order, again and again until all services are there; how long the one took that was
    /// confirmed. `headers` go with it, each a line.
    pub async fn order(&self, headers: &str) -> Duration {
        let begin = Instant::now();
        loop {
            let asked = Instant::now();
            let answer = self.post(headers).await.unwrap_or_default();
            if answer.contains("confirmed") && shows_pictures(&answer) {
                return asked.elapsed();
            }
            assert!(
                begin.elapsed() < Duration::from_secs(30),
                "no order goes through: {answer}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn post(&self, headers: &str) -> std::io::Result<String> {
        let mut gateway = TcpStream::connect(self.gateway).await?;
        let len = ORDER.len();
        let request = format!(
            "POST /orders HTTP/1.1\r\nhost: shop\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {len}\r\n{headers}\r\n{ORDER}"
        );
        gateway.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        gateway.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// Tells all services to end, and waits until they have; how long that took.
    pub fn end(mut self) -> Duration {
        let begin = Instant::now();
        for service in &self.services {
            let pid = Pid::from_child(service);
            kill_process(pid, Signal::TERM).unwrap();
        }
        for service in &mut self.services {
            assert!(service.wait().unwrap().success());
        }
        self.services.clear();
        begin.elapsed()
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        for service in &mut self.services {
            // It may have ended by itself.
            let _ = service.kill();
            let _ = service.wait();
        }
    }
}
