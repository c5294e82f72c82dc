//! What the machine's bare mechanisms cost: the floors under every path.

use std::io;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use clap::Args;
use ringway_sys::floor::{ChildEnd, Mechanism, Message, ParentEnd, prepare};

use super::error::{Error, Failure};
use super::measure::{Latencies, Tally};
use super::part::{Process, Usage};
use super::payload::Mismatch;

/// The options of the hidden `bench-floor`.
#[derive(Debug, Args)]
pub(crate) struct FloorOptions {
    /// The mechanism to echo over; standard input is the other end
    mechanism: Mechanism,
}

/// The process `bench-floor`: echoes until its parent lets go.
pub(crate) fn run(options: FloorOptions) -> Result<(), Error> {
    ChildEnd::from_stdin(options.mechanism)
        .and_then(ChildEnd::echo_until_closed)
        .map_err(|source| Error::Floor {
            mechanism: options.mechanism,
            source,
        })
}

/// Two processes joined by a mechanism, and nothing else.
pub(crate) struct FloorPair {
    parent: ParentEnd,
    child: Far,
    sequence: u64,
}

impl FloorPair {
    /// Starts the far end.
    pub(crate) fn start(mechanism: Mechanism) -> Result<Self, Error> {
        let command = Process::command("bench-floor")?;
        FloorPair::start_command(mechanism, command)
            .map_err(|source| Error::Floor { mechanism, source })
    }

    fn start_command(mechanism: Mechanism, command: Command) -> io::Result<Self> {
        let (parent, child) = prepare(mechanism)?;
        Ok(FloorPair {
            parent,
            child: Far(child.spawn(command)?),
            sequence: 0,
        })
    }

    /// Sends messages there and back for `duration`, on a thread that the runtime knows nothing of.
    pub(crate) fn run(&mut self, duration: Duration) -> Result<Tally, Failure> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| self.ping_pong(duration));
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn ping_pong(&mut self, duration: Duration) -> Result<Tally, Failure> {
        let mut latencies = Latencies::new();
        let start = Instant::now();
        loop {
            let message = message(self.sequence);
            let begun = Instant::now();
            if begun - start >= duration {
                break;
            }
            let reply = self.parent.round_trip(&message)?;
            let ended = Instant::now();
            check(&reply, &message, self.sequence)?;
            latencies.record(ended - begun);
            self.sequence += 1;
        }
        Ok(Tally {
            latencies,
            elapsed: start.elapsed(),
            cpu_ns: 0,
        })
    }

    /// CPU time of both processes so far.
    pub(crate) fn cpu_ns(&self) -> u64 {
        Usage::cpu_of_self().cpu_ns + self.child.cpu_ns().unwrap_or(0)
    }
}

/// The process at the far end. Ends once the near end is dropped, which is a field before it.
struct Far(Child);

impl Far {
    /// The kernel's own count: the process has one thread, and standard input is taken.
    fn cpu_ns(&self) -> Option<u64> {
        let file = format!("/proc/{}/schedstat", self.0.id());
        let running_and_waiting = std::fs::read_to_string(file).ok()?;
        running_and_waiting.split(' ').next()?.parse().ok()
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        // An error means that it was waited for already.
        let _ = self.0.wait();
    }
}

/// 64 bytes that differ from call to call, as the paths' payloads do.
fn message(sequence: u64) -> Message {
    let mut message = [0x5A; 64];
    message[..8].copy_from_slice(&sequence.to_le_bytes());
    message
}

fn check(reply: &Message, sent: &Message, sequence: u64) -> Result<(), Mismatch> {
    match reply
        .iter()
        .zip(sent)
        .position(|(found, expected)| found != expected)
    {
        None => Ok(()),
        Some(offset) => Err(Mismatch::Bytes { offset, sequence }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_differ_and_wrong_ones_are_caught() {
        let sent = message(5);
        assert_ne!(sent, message(6));
        check(&sent, &sent, 5).unwrap();
        let mut wrong = sent;
        wrong[63] ^= 1;
        let caught = Mismatch::Bytes {
            offset: 63,
            sequence: 5,
        };
        assert_eq!(check(&wrong, &sent, 5), Err(caught));
    }
}
