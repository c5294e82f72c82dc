//! The program `shop`: its services found by names of their own, its probe, its load.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

fn shop(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shop"));
    command.args(arguments).env("RINGWAY_DIR", directory);
    command
}

fn free_port() -> u16 {
    shop_demo::free_port().unwrap().port()
}

/// The shop as processes, which end with this.
struct Shop {
    directory: tempfile::TempDir,
    services: Vec<Child>,
    gateway: String,
    catalog: String,
}

impl Drop for Shop {
    fn drop(&mut self) {
        for service in &mut self.services {
            service.kill().unwrap();
            service.wait().unwrap();
        }
    }
}

impl Shop {
    /// Each service listens on a port that nobody dials, and is found by its name alone.
    fn start() -> Self {
        let mut shop = Self {
            directory: tempfile::tempdir().unwrap(),
            services: Vec::new(),
            gateway: format!("127.0.0.1:{}", free_port()),
            catalog: format!("0.0.0.0:{}", free_port()),
        };
        let catalog = shop.catalog.clone();
        shop.run(&["catalog", "--name", "catalog:1", "--listen", &catalog]);
        for (service, name) in [
            ("inventory", "inventory:1"),
            ("media", "media:1"),
            ("payments", "payments:1"),
        ] {
            let listen = format!("127.0.0.1:{}", free_port());
            shop.run(&[service, "--name", name, "--listen", &listen]);
        }
        let peers = [
            ["--catalog", "catalog:1"],
            ["--inventory", "inventory:1"],
            ["--media", "media:1"],
        ];
        let listen = format!("127.0.0.1:{}", free_port());
        let mut orders = vec!["orders", "--name", "orders:1", "--listen", &listen];
        orders.extend(peers.as_flattened());
        orders.extend(["--payments", "payments:1"]);
        shop.run(&orders);
        let gateway = shop.gateway.clone();
        let mut edge = vec!["gateway", "--listen", &gateway, "--orders", "orders:1"];
        edge.extend(peers.as_flattened());
        shop.run(&edge);
        shop
    }

    fn run(&mut self, arguments: &[&str]) {
        let mut command = shop(self.directory.path(), arguments);
        self.services
            .push(command.stdin(Stdio::null()).spawn().unwrap());
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        shop(self.directory.path(), arguments).output().unwrap()
    }

    fn eventually(&self, arguments: &[&str]) -> Output {
        let start = Instant::now();
        loop {
            let output = self.ask(arguments);
            if output.status.success() {
                return output;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "{output:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn services_are_found_by_their_names_and_probed_where_they_listen() {
    let shop = Shop::start();
    shop.eventually(&["probe", &shop.catalog]);
    shop.eventually(&["probe", "shm://catalog:1"]);
    shop.eventually(&["probe", &format!("http://{}/healthz", shop.gateway)]);
    let missing = shop.ask(&["probe", &format!("http://{}/missing", shop.gateway)]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("404"));
    let nobody = shop.ask(&["probe", "127.0.0.1:1"]);
    assert_eq!(nobody.status.code(), Some(1));

    let load = ["load", "--gateway", &shop.gateway, "--rate", "200"];
    let load = [&load[..], &["--orders", "40"]].concat();
    let output = shop.eventually(&load);
    let line = output.stdout.rsplit(|byte| *byte == b'\n').nth(1).unwrap();
    let line: Value = serde_json::from_slice(line).unwrap();
    assert_eq!((&line["orders"], &line["failed"]), (&40.into(), &0.into()));
    assert_eq!(line["hops_by_path"]["shm"], 280, "{line}");
}

#[test]
fn a_load_without_a_gateway_says_what_failed() {
    let nowhere = tempfile::tempdir().unwrap();
    let load = [
        "load",
        "--gateway",
        "127.0.0.1:1",
        "--rate",
        "500",
        "--orders",
        "3",
    ];
    let output = shop(nowhere.path(), &load).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("can't connect to 127.0.0.1:1"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("3 of 3 orders failed"));
}
