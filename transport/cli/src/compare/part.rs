//! The processes of a comparison: this binary again, in another part.
//!
//! A parent holds its child's standard input. When that ends, because the parent is done, died or
//! was killed, the child ends. Until then each line on it is a question, answered by a line of
//! JSON on the child's standard output.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::error::Error;
use super::switch::{OFF, ON, SPANS, Spans, Switch};

/// How long a child may take to end after its standard input did.
const END_TIMEOUT: Duration = Duration::from_secs(3);

/// A server's first line: where it is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ready {
    pub(crate) address: String,
}

/// The answer to any question about what the machine is used for.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// User and system time since the process began.
    pub(crate) cpu_ns: u64,
    /// Proportional set size; zero unless asked for, since the kernel walks all mappings for it.
    pub(crate) pss_bytes: u64,
}

impl Usage {
    /// The CPU time of this process.
    pub(crate) fn cpu_of_self() -> Self {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        let cpu_ns = time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs();
        Usage {
            cpu_ns,
            pss_bytes: 0,
        }
    }

    /// CPU time and memory of this process.
    pub(crate) fn of_self() -> io::Result<Self> {
        let rollup = std::fs::read_to_string("/proc/self/smaps_rollup")?;
        Ok(Usage {
            pss_bytes: pss_bytes(&rollup).ok_or(io::ErrorKind::InvalidData)?,
            ..Usage::cpu_of_self()
        })
    }

    /// What two processes use together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Usage {
            cpu_ns: self.cpu_ns + other.cpu_ns,
            pss_bytes: self.pss_bytes + other.pss_bytes,
        }
    }
}

fn pss_bytes(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The parent's questions, until standard input ends.
pub(crate) fn questions() -> impl Iterator<Item = String> {
    io::stdin().lines().map_while(Result::ok)
}

/// Answers the parent's questions on a thread of its own, with a `switch` those about traces, too;
/// resolves when standard input ends.
pub(crate) fn attend(switch: Option<Switch>) -> oneshot::Receiver<()> {
    let (over, is_over) = oneshot::channel();
    std::thread::spawn(move || {
        for question in questions() {
            answer(&question, switch.as_ref());
        }
        let _ = over.send(());
        // Whoever does not take the hint is not waited for.
        std::thread::sleep(END_TIMEOUT / 2);
        std::process::exit(0);
    });
    is_over
}

fn answer(question: &str, switch: Option<&Switch>) {
    match (question, switch) {
        ("memory", _) => announce(&Usage::of_self().unwrap_or_default()),
        (ON | OFF, Some(switch)) => {
            switch.set(question == ON);
            announce(&Spans::default());
        }
        (SPANS, Some(switch)) => announce(&switch.lost()),
        _ => announce(&Usage::cpu_of_self()),
    }
}

/// Ends this process as soon as its standard input does.
pub(crate) fn end_with_stdin() {
    std::thread::spawn(|| {
        questions().for_each(drop);
        std::process::exit(0);
    });
}

/// One line of JSON to the parent. A parent that is gone is noticed at standard input.
pub(crate) fn announce(said: &impl Serialize) {
    let mut line = serde_json::to_string(said).expect("plain structs serialize");
    line.push('\n');
    let mut stdout = io::stdout().lock();
    let _ = stdout
        .write_all(line.as_bytes())
        .and_then(|()| stdout.flush());
}

/// What is asked of a child, and what it answers.
#[derive(Debug)]
pub(crate) struct Talk {
    what: String,
    asked: Option<File>,
    answers: BufReader<File>,
}

impl Talk {
    /// By both pipes of the child that errors call `what`.
    pub(crate) fn with(what: String, asked: OwnedFd, answers: OwnedFd) -> Self {
        Talk {
            what,
            asked: Some(File::from(asked)),
            answers: BufReader::new(File::from(answers)),
        }
    }

    /// Asks, and waits for the answer.
    pub(crate) fn ask<T: DeserializeOwned>(&mut self, question: &str) -> Result<T, Error> {
        let line = format!("{question}\n");
        let asked = match &mut self.asked {
            Some(asked) => asked.write_all(line.as_bytes()),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        asked.map_err(|source| Error::Process {
            what: format!("{} does not listen", self.what),
            source,
        })?;
        self.hear()
    }

    /// Waits for the child's next line.
    pub(crate) fn hear<T: DeserializeOwned>(&mut self) -> Result<T, Error> {
        let mut line = String::new();
        let heard = self.answers.read_line(&mut line);
        let ended = || io::Error::from(io::ErrorKind::UnexpectedEof);
        heard
            .and_then(|len_bytes| if len_bytes == 0 { Err(ended()) } else { Ok(()) })
            .map_err(|source| Error::Process {
                what: format!("{} ended early", self.what),
                source,
            })?;
        serde_json::from_str(&line).map_err(|_| Error::Answer {
            what: self.what.clone(),
            line,
        })
    }
}

/// A child process of this binary. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    talk: Talk,
}

impl Process {
    /// This binary again, as `part`. Its caller adds arguments and hands it to [`Process::start`].
    pub(crate) fn command(part: &str) -> Result<Command, Error> {
        let program = std::env::current_exe().map_err(|source| Error::Process {
            what: "could not find this program's own file".to_owned(),
            source,
        })?;
        let mut command = Command::new(program);
        command.arg(part);
        Ok(command)
    }

    /// Starts `command`, to be called `what` in errors.
    pub(crate) fn start(what: impl Into<String>, mut command: Command) -> Result<Self, Error> {
        let what = what.into();
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        started
            .and_then(|child| Process::adopt(what.clone(), child))
            .map_err(|source| Error::Process {
                what: format!("could not start {what}"),
                source,
            })
    }

    /// Starts this binary as `part` with `args`.
    pub(crate) fn start_part<A: AsRef<OsStr>>(
        part: &str,
        args: impl IntoIterator<Item = A>,
    ) -> Result<Self, Error> {
        let mut command = Process::command(part)?;
        command.args(args);
        Process::start(part, command)
    }

    fn adopt(what: String, mut child: Child) -> io::Result<Self> {
        let (Some(asked), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        Ok(Process {
            child,
            talk: Talk::with(what, asked.into(), answers.into()),
        })
    }

    /// The child's CPU time so far.
    pub(crate) fn cpu_ns(&mut self) -> Result<u64, Error> {
        self.ask("cpu").map(|usage: Usage| usage.cpu_ns)
    }

    /// The child's CPU time and memory.
    pub(crate) fn usage(&mut self) -> Result<Usage, Error> {
        self.ask("memory")
    }

    /// Asks, and waits for the answer.
    pub(crate) fn ask<T: DeserializeOwned>(&mut self, question: &str) -> Result<T, Error> {
        self.talk.ask(question)
    }

    /// Waits for the child's next line.
    pub(crate) fn hear<T: DeserializeOwned>(&mut self) -> Result<T, Error> {
        self.talk.hear()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.talk.asked = None;
        let asked = Instant::now();
        while asked.elapsed() < END_TIMEOUT {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process `bench-busy`: a core's worth of nothing.
pub(crate) fn busy() -> ! {
    end_with_stdin();
    loop {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_rollup() {
        let rollup = "55d0-7ffd ---p 0 00:00 0 [rollup]\nRss:  2048 kB\nPss:   1234 kB\n";
        assert_eq!(pss_bytes(rollup), Some(1234 * 1024));
        assert_eq!(pss_bytes("Rss: 1 kB"), None);
        assert!(Usage::of_self().unwrap().pss_bytes > 0);
    }

    #[test]
    fn a_child_that_ended_is_named() {
        let mut process = Process::start("the mute", Command::new("true")).unwrap();
        let error = process.hear::<Ready>().unwrap_err();
        assert!(error.to_string().contains("the mute"), "{error}");
    }
}
