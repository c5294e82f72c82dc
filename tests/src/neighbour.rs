//! An honest client in a process of its own, that makes one small call after another: how it is served is how
//! much an attack on its server costs others.
//!
//! A test file that uses it has a test called `neighbour_process` that calls [`call_as_neighbour`].

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringway::Endpoint;

use crate::{Control, client_of, payload};

const CALLS: &str = "RINGWAY_TEST_NEIGHBOUR_CALLS";
const DIRECTORY: &str = "RINGWAY_TEST_NEIGHBOUR_DIRECTORY";
/// Before each answer of the child: a test prints lines of its own.
const SERVED: &str = "served: ";
/// Between two calls.
const PAUSE: Duration = Duration::from_millis(1);

/// How a client was served for some time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Served {
    /// Calls that were answered.
    pub calls: u64,
    /// Calls that were not.
    pub failed: u64,
    /// The longest call, less what a thread of that process was late meanwhile.
    pub worst: Duration,
}

/// The calls of this process.
#[derive(Debug, Default)]
struct Calls {
    served: Served,
    began: Option<Instant>,
}

impl Calls {
    /// Counts a call that lasts, or has lasted, until now.
    fn note(&mut self, control: &Control) {
        if let Some(began) = self.began {
            let now = Instant::now();
            let took = (now - began).saturating_sub(control.lateness(began, now));
            self.served.worst = self.served.worst.max(took);
        }
    }
}

/// Calls until its parent hangs up, if this process was started for it; else returns at once.
pub async fn call_as_neighbour() {
    let Ok(address) = std::env::var(CALLS) else {
        return;
    };
    let directory = std::env::var(DIRECTORY).unwrap();
    let endpoint = Endpoint::new(address).unwrap().directory(directory);
    let mut client = client_of(&endpoint).await;
    client.unary(payload(0, 100)).await.unwrap();
    let (calls, control) = (Arc::<Mutex<Calls>>::default(), Control::start());
    let answering = (Arc::clone(&calls), control.clone());
    std::thread::spawn(move || answer(&answering.0, &answering.1));
    loop {
        calls.lock().unwrap().began = Some(Instant::now());
        let answered = client.unary(payload(0, 100)).await;
        {
            let mut calls = calls.lock().unwrap();
            calls.note(&control);
            calls.began = None;
            if answered.is_ok() {
                calls.served.calls += 1;
            } else {
                calls.served.failed += 1;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Answers each line with what came of the calls since the one before.
fn answer(calls: &Mutex<Calls>, control: &Control) {
    for _ in std::io::stdin().lock().lines().map_while(Result::ok) {
        let mut calls = calls.lock().unwrap();
        calls.note(control);
        let Served {
            calls: answered,
            failed,
            worst,
        } = std::mem::take(&mut calls.served);
        println!("\n{SERVED}{answered} {failed} {}", worst.as_micros());
    }
    std::process::exit(0);
}

/// Such a process; it ends when this is dropped.
#[derive(Debug)]
pub struct Neighbour {
    child: Child,
    asks: ChildStdin,
    said: Lines<BufReader<ChildStdout>>,
}

impl Neighbour {
    /// Starts it, and returns when its first call was answered. Blocks the thread.
    pub fn start(directory: &Path, address: &str) -> Self {
        let mut command = Command::new("/proc/self/exe");
        command
            .args(["--exact", "neighbour_process", "--nocapture"])
            .env(CALLS, address)
            .env(DIRECTORY, directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let asks = child.stdin.take().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut neighbour = Self { child, asks, said };
        neighbour.served();
        neighbour
    }

    /// Returns how it was served since this was called last. Blocks the thread.
    pub fn served(&mut self) -> Served {
        self.asks.write_all(b"\n").unwrap();
        let answer = self.said.by_ref().map(Result::unwrap).find_map(|line| {
            let numbers = line.strip_prefix(SERVED)?;
            let numbers = numbers.split(' ').map(|number| number.parse().unwrap());
            Some(numbers.collect::<Vec<u64>>())
        });
        let answer = answer.expect("the client beside the attack has ended");
        Served {
            calls: answer[0],
            failed: answer[1],
            worst: Duration::from_micros(answer[2]),
        }
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        // It may be dead already; then there is nothing to kill.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}
