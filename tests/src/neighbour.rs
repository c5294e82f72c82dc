//! An honest client in a process of its own, that makes one small call after another: how it is served is how
//! much an attack on its server costs others.
//!
//! A test file that uses it has a test called `neighbour_process` that calls [`call_as_neighbour`].

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringway::{Channel, Endpoint};
use ringway_proto::bench::bench_client::BenchClient;

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
    /// The call that 99 of 100 are no longer than, less the lateness of a thread of that process meanwhile.
    pub p99: Duration,
    /// The longest call, less that lateness.
    pub worst: Duration,
}

/// The calls of this process, one after the other.
#[derive(Debug, Default)]
pub struct Calls(Mutex<Tally>);

#[derive(Debug, Default)]
struct Tally {
    answered: u64,
    failed: u64,
    took: Vec<Duration>,
    began: Option<Instant>,
}

impl Tally {
    /// Counts a call that lasts, or has lasted, until now.
    fn note(&mut self, control: &Control) {
        if let Some(began) = self.began {
            let now = Instant::now();
            let took = (now - began).saturating_sub(control.lateness(began, now));
            self.took.push(took);
        }
    }
}

impl Calls {
    /// Makes one, and pauses.
    pub async fn call(&self, control: &Control, client: &mut BenchClient<Channel>) {
        self.0.lock().unwrap().began = Some(Instant::now());
        let answered = client.unary(payload(0, 100)).await;
        {
            let mut tally = self.0.lock().unwrap();
            tally.note(control);
            tally.began = None;
            if answered.is_ok() {
                tally.answered += 1;
            } else {
                tally.failed += 1;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }

    /// Returns how they were served since this was called last.
    pub fn take(&self, control: &Control) -> Served {
        let mut tally = self.0.lock().unwrap();
        tally.note(control);
        let began = tally.began;
        let Tally {
            answered,
            failed,
            mut took,
            ..
        } = std::mem::take(&mut *tally);
        tally.began = began;
        took.sort_unstable();
        Served {
            calls: answered,
            failed,
            p99: percentile_99(&took),
            worst: took.last().copied().unwrap_or_default(),
        }
    }
}

/// Returns the shortest time that 99 of 100 do not exceed; `sorted` begins with the shortest.
fn percentile_99(sorted: &[Duration]) -> Duration {
    let beyond = sorted.len() / 100;
    let at = sorted.len().checked_sub(beyond + 1);
    at.map_or(Duration::ZERO, |at| sorted[at])
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
    let (calls, control) = (Arc::<Calls>::default(), Control::start());
    let answering = (Arc::clone(&calls), control.clone());
    std::thread::spawn(move || answer(&answering.0, &answering.1));
    loop {
        calls.call(&control, &mut client).await;
    }
}

/// Answers each line with what came of the calls since the one before.
fn answer(calls: &Calls, control: &Control) {
    for _ in std::io::stdin().lock().lines().map_while(Result::ok) {
        let served = calls.take(control);
        let (p99, worst) = (served.p99.as_micros(), served.worst.as_micros());
        println!("\n{SERVED}{} {} {p99} {worst}", served.calls, served.failed);
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
            p99: Duration::from_micros(answer[2]),
            worst: Duration::from_micros(answer[3]),
        }
    }

    /// Returns how it is served beside as many threads that spin, for as long as that.
    pub fn served_beside_spinners(&mut self, spinners: usize, lasts: Duration) -> Served {
        let _spinning = Spinners::start(spinners);
        self.served();
        std::thread::sleep(lasts);
        self.served()
    }
}

/// Threads that only spin, until this is dropped.
#[derive(Debug)]
pub struct Spinners(Arc<AtomicBool>);

impl Spinners {
    /// Starts as many.
    pub fn start(spinners: usize) -> Self {
        let spinning = Arc::new(AtomicBool::new(true));
        for _ in 0..spinners {
            let spin = Arc::clone(&spinning);
            std::thread::spawn(move || {
                while spin.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(spinning)
    }
}

impl Drop for Spinners {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        // It may be dead already; then there is nothing to kill.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}
