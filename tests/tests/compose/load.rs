//! Orders from outside, through the gateway's published port.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::engine::programs;

/// The longest that anything is waited for: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// What came of some orders, a line of `shop load`.
#[derive(Debug)]
pub(crate) struct Seen(Value);

impl Seen {
    pub(crate) fn orders(&self) -> u64 {
        self.0["orders"].as_u64().unwrap()
    }

    pub(crate) fn failed(&self) -> u64 {
        self.0["failed"].as_u64().unwrap()
    }

    pub(crate) fn order_p99_ms(&self) -> f64 {
        self.0["order_p99_ns"].as_f64().unwrap() / 1e6
    }

    pub(crate) fn hops(&self, path: &str) -> u64 {
        self.0["hops_by_path"][path].as_u64().unwrap_or(0)
    }

    /// Whether all went well, over this path alone.
    pub(crate) fn is_all(&self, path: &str) -> bool {
        let paths = self.0["hops_by_path"].as_object().unwrap();
        self.failed() == 0 && self.orders() > 0 && paths.keys().eq([path])
    }

    /// Whether whatever failed is told as what it is: a service that can't be reached, or was too late.
    pub(crate) fn fails_cleanly(&self) -> bool {
        let failures = self.0["failures"].as_object().unwrap();
        let codes = ["UNAVAILABLE", "DEADLINE_EXCEEDED"];
        failures
            .keys()
            .all(|failure| codes.iter().any(|code| failure.contains(code)))
    }
}

/// Places so many orders; none may fail.
pub(crate) fn place(gateway: &str, orders: u32, rate: u32) -> Seen {
    let seen = try_place(gateway, orders, rate);
    assert_eq!(
        (seen.orders(), seen.failed()),
        (orders.into(), 0),
        "{seen:?}"
    );
    seen
}

/// The same, whatever comes of them.
pub(crate) fn try_place(gateway: &str, orders: u32, rate: u32) -> Seen {
    let output = shop_load(gateway, rate)
        .args(["--every=3600", &format!("--orders={orders}")])
        .output()
        .unwrap();
    seen(std::str::from_utf8(&output.stdout).unwrap())
}

fn shop_load(gateway: &str, rate: u32) -> Command {
    let mut command = Command::new(programs().join("shop"));
    command
        .args(["load", "--gateway", gateway, &format!("--rate={rate}")])
        .stdin(Stdio::null());
    command
}

fn seen(line: &str) -> Seen {
    Seen(serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
}

/// Orders that go on until this is dropped.
pub(crate) struct Load {
    process: Child,
    lines: Receiver<Seen>,
}

impl Load {
    /// So many orders a second.
    pub(crate) fn start(gateway: &str, rate: u32) -> Self {
        let mut command = shop_load(gateway, rate);
        command.arg("--every=1").stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines() {
                // Nobody listens any more when the test is over.
                let _ = sender.send(seen(&line.unwrap()));
            }
        });
        Self { process, lines }
    }

    /// What is seen from now on, second by second, up to the one for which `condition` holds.
    pub(crate) fn until(&self, what: &str, condition: impl Fn(&Seen) -> bool) -> Vec<Seen> {
        // What was going on before is not meant.
        while self.lines.try_recv().is_ok() {}
        let start = Instant::now();
        let mut all = Vec::new();
        loop {
            let left = PATIENCE.saturating_sub(start.elapsed());
            let next = self.lines.recv_timeout(left);
            all.push(next.unwrap_or_else(|_| {
                let last = &all[all.len().saturating_sub(3)..];
                panic!("never came true: {what}; at last {last:#?}")
            }));
            if condition(all.last().unwrap()) {
                return all;
            }
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// A page's text.
pub(crate) fn page(server: &str, path: &str) -> String {
    try_page(server, path).unwrap_or_else(|| panic!("no answer at {server}{path}"))
}

/// The same, if the server is there and answers 200.
pub(crate) fn try_page(server: &str, path: &str) -> Option<String> {
    let mut connection = TcpStream::connect(server).ok()?;
    // By HTTP/1.0, so that it comes in one piece and ends with the connection.
    write!(connection, "GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n").ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.contains(" 200 ").then(|| body.to_owned())
}

/// Looks again until `condition` holds.
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
