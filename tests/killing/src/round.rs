//! A round: who is killed, over which transport, and when; and the judgement of what came of it.

use std::fmt;
use std::path::{Path as FilePath, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringway::{Channel, Endpoint, Server};
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench::bench_server::BenchServer;
use ringway_tests::ours::Handler;
use ringway_tests::{Control, Seen, payload, resident_bytes};
use rustix::process::Signal;
use tokio::task::spawn_blocking;
use tonic::Code;

use crate::journal::Journal;
use crate::load::{Ends, Load};
use crate::process::{self, Dying, NAME, Victim, send};
use crate::resources::Held;

/// The load goes on for so long after a server was killed that has a successor.
const AFTERWARDS: Duration = Duration::from_millis(5);
/// Calls that have ended before anything happens.
const CALLS_BEFORE: u64 = 16;
/// Calls that a client makes when it was stopped and goes on, at least.
const CALLS_AFTERWARDS: u64 = 16;
/// The process comes to rest before the first round.
const SETTLING: Duration = Duration::from_millis(300);
/// A round that waits longer for something has failed.
const LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Shm,
    Socket,
    Epoll,
    Pipe,
}

impl Link {
    /// In turn.
    const ALL: [Self; 4] = [Self::Shm, Self::Socket, Self::Epoll, Self::Pipe];

    fn address(self) -> String {
        let scheme = match self {
            Self::Shm => "shm",
            Self::Socket => "socket",
            Self::Epoll => "socket+epoll",
            Self::Pipe => "pipe",
        };
        format!("{scheme}://{NAME}")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Client,
    Server,
    /// A server, when another one of the name serves already.
    Replaced,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Kill,
    Stop,
    StopAndKill,
}

/// All that is random about a round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice {
    pub(crate) seed: u64,
    link: Link,
    target: Target,
    action: Action,
    /// From the first calls to the signal.
    delay: Duration,
    /// From the first signal to the second.
    pause: Duration,
}

impl Choice {
    pub(crate) fn of(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let link = Link::ALL[usize::try_from(seed % 4).unwrap()];
        let target = match random.u8(..6) {
            0..3 => Target::Client,
            3 if link != Link::Pipe => Target::Replaced,
            _ => Target::Server,
        };
        let action = match random.u8(..8) {
            0 => Action::Stop,
            1 => Action::StopAndKill,
            _ => Action::Kill,
        };
        Self {
            seed,
            link,
            target,
            action,
            delay: Duration::from_micros(random.u64(..4_000)),
            pause: Duration::from_micros(random.u64(..20_000)),
        }
    }

    /// Sends the signals at their instants; when the last of them was sent. Blocks the thread.
    fn strike(self, pid: u32) -> Instant {
        std::thread::sleep(self.delay);
        if self.action != Action::Kill {
            send(pid, Signal::STOP);
            std::thread::sleep(self.pause);
        }
        let struck = Instant::now();
        let last = if self.action == Action::Stop {
            Signal::CONT
        } else {
            Signal::KILL
        };
        send(pid, last);
        struck
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:?} {:?} {:?}",
            self.link, self.target, self.action
        )
    }
}

/// What came of a round.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    pub(crate) calls: u64,
    /// How long after the last signal each call ended that was in flight then.
    pub(crate) lateness: Vec<Duration>,
    /// The time that the kernel took to end the killed process, where the round has watched it. Calls are not late
    /// by it.
    pub(crate) dying: Duration,
    pub(crate) problems: Vec<String>,
    pub(crate) resident_bytes: usize,
}

/// This process as a server, for clients that are killed, and as a client of its own that is not.
#[derive(Debug)]
pub(crate) struct Survivor {
    seen: Arc<Seen>,
    directory: tempfile::TempDir,
    neighbour: BenchClient<Channel>,
    /// Counts what this process holds between two rounds.
    held: Held,
}

impl Survivor {
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let handler = Handler::default();
        let seen = Arc::clone(&handler.seen);
        let server = Server::builder()
            .directory(directory.path().join("ringway"))
            .name(NAME)
            .add_service(BenchServer::new(handler));
        tokio::spawn(server.bind().await.unwrap().serve());
        let channel = connect(Link::Shm, &directory.path().join("ringway")).await;
        let mut neighbour = BenchClient::new(channel);
        // A first call, so that the counts that rounds are held against have the neighbour's connection in them.
        neighbour.unary(payload(0, 100)).await.unwrap();
        tokio::time::sleep(SETTLING).await;
        Self {
            seen,
            directory,
            neighbour,
            held: Held::now(),
        }
    }

    /// Waits until all that the rounds have started in this process has ended; returns what has not.
    pub(crate) async fn is_at_rest(&self) -> Option<String> {
        self.held.and_tasks_are_returned_to().await
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("ringway")
    }
}

/// Plays a round, and judges it.
pub(crate) async fn play(choice: &Choice, survivor: &Survivor, control: &Control) -> Judged {
    let scratch = tempfile::tempdir().unwrap();
    let journal = Journal::new(scratch.path().join("journal"));
    let root = scratch.path().join("ringway");
    let mut judged = if choice.target == Target::Client {
        kill_client(*choice, survivor, &journal, control).await
    } else {
        kill_server(*choice, &root, &journal, control).await
    };
    judged.problems.extend(survivor.held.is_returned_to().await);
    judged.problems.extend(files_beside_sockets(&root));
    judged.resident_bytes = resident_bytes();
    judged
}

async fn connect(link: Link, root: &FilePath) -> Channel {
    let endpoint = Endpoint::new(link.address()).unwrap().directory(root);
    endpoint.connect().await.unwrap()
}

async fn started(command: Command) -> Victim {
    spawn_blocking(move || Victim::start(command))
        .await
        .unwrap()
}

async fn kill_server(
    choice: Choice,
    root: &FilePath,
    journal: &Journal,
    control: &Control,
) -> Judged {
    if choice.link == Link::Pipe {
        let mut command = process::plugin();
        command.env(ringway_tests::EXECUTIONS_VARIABLE, journal.path());
        let child = ringway::Child::spawn(command).await.unwrap();
        let load = Load::start(&child.channel(), choice.action != Action::Stop);
        let judged = struck_under(load, choice, child.id(), Duration::ZERO, journal, control).await;
        // Reaped by a task of the runtime.
        drop(child);
        return judged;
    }
    let server = || process::server(root, journal.path());
    let victim = started(server()).await;
    let channel = connect(choice.link, root).await;
    let is_replaced = choice.target == Target::Replaced;
    let hanging = choice.action != Action::Stop && !is_replaced;
    let load = Load::start(&channel, hanging);
    let mut successor = None;
    if is_replaced {
        load.until(CALLS_BEFORE).await;
        successor = Some(started(server()).await);
    }
    let afterwards = if is_replaced {
        AFTERWARDS
    } else {
        Duration::ZERO
    };
    let judged = struck_under(load, choice, victim.id(), afterwards, journal, control).await;
    drop(channel);
    spawn_blocking(|| drop((victim, successor))).await.unwrap();
    judged
}

/// Strikes a server under this load, and judges how its calls ended.
async fn struck_under(
    load: Load,
    choice: Choice,
    pid: u32,
    afterwards: Duration,
    journal: &Journal,
    control: &Control,
) -> Judged {
    load.until(CALLS_BEFORE).await;
    let dying = (choice.action != Action::Stop).then(|| Dying::watch(pid));
    let struck = spawn_blocking(move || choice.strike(pid)).await.unwrap();
    let gone = spawn_blocking(move || dying.map(Dying::gone));
    tokio::time::sleep(afterwards).await;
    load.stop();
    let ends = load.ends().await;
    let mut judged = Judged {
        calls: ends.calls,
        problems: journal.judge(&ends.answered),
        ..Judged::default()
    };
    judge_ends(&ends, choice, struck, control, &mut judged);
    let gone = gone.await.unwrap();
    judged.dying = gone.map_or(Duration::ZERO, |gone| gone - struck);
    judged
}

fn judge_ends(
    ends: &Ends,
    choice: Choice,
    struck: Instant,
    control: &Control,
    judged: &mut Judged,
) {
    let endless = ends.endless.iter();
    let endless = endless.map(|kind| format!("a call of kind {kind:?} has no end"));
    judged.problems.extend(endless);
    for end in &ends.noted {
        let allowed = match choice.action {
            Action::Stop => &[Code::Ok][..],
            Action::Kill | Action::StopAndKill => &[Code::Ok, Code::Unavailable],
        };
        if !allowed.contains(&end.code) {
            let (kind, code, sequence) = (end.kind, end.code, end.sequence);
            let problem = format!("call {sequence} of kind {kind:?} ended {code:?}");
            judged.problems.push(problem);
        }
        if end.began <= struck && end.ended > struck {
            let late = control.lateness(struck, end.ended);
            judged
                .lateness
                .push((end.ended - struck).saturating_sub(late));
        }
    }
}

async fn kill_client(
    choice: Choice,
    survivor: &Survivor,
    journal: &Journal,
    control: &Control,
) -> Judged {
    let mut judged = Judged::default();
    let entered = survivor.seen.entered();
    let command = match choice.link {
        Link::Pipe => process::host(journal.path()),
        link => process::client(&survivor.root(), &link.address()),
    };
    let victim = started(command).await;
    let pid = victim.id();
    let dying = Dying::watch(pid);
    let mut struck = spawn_blocking(move || choice.strike(pid)).await.unwrap();
    if choice.action == Action::Stop {
        if choice.link != Link::Pipe && !goes_on(&survivor.seen).await {
            judged.problems.push("the client did not go on".to_owned());
        }
        struck = Instant::now();
    }
    let gone = spawn_blocking(move || {
        victim.kill();
        Instant::now()
    });
    let inside = survivor.seen.inside();
    let gone = gone.await.unwrap();
    let ended = spawn_blocking(move || dying.gone()).await.unwrap();
    judged.dying = ended.saturating_duration_since(struck);
    if choice.link == Link::Pipe {
        // Its server has ended, too: it held the output open.
        let late = control.lateness(struck, gone);
        judged.lateness.push((gone - struck).saturating_sub(late));
        judged.problems.extend(journal.judge(&[]));
    } else {
        judged.calls = survivor.seen.entered() - entered;
        judge_handlers(&survivor.seen, inside, struck, control, &mut judged).await;
    }
    let answer = survivor.neighbour.clone().unary(payload(0, 100)).await;
    if let Err(status) = answer {
        judged
            .problems
            .push(format!("the client beside it: {status}"));
    }
    judged
}

/// Waits until more calls come.
async fn goes_on(seen: &Seen) -> bool {
    let (goal, began) = (seen.entered() + CALLS_AFTERWARDS, Instant::now());
    while seen.entered() < goal {
        if began.elapsed() > LIMIT {
            return false;
        }
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    true
}

/// Waits until no handler of the dead client's is left: each of them has learnt of its end.
async fn judge_handlers(
    seen: &Seen,
    inside: u64,
    struck: Instant,
    control: &Control,
    judged: &mut Judged,
) {
    while seen.inside() > 0 {
        if struck.elapsed() > LIMIT {
            let left = seen.inside();
            judged
                .problems
                .push(format!("{left} handlers of a dead client go on"));
            return;
        }
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    let left = seen.last_left().filter(|left| *left > struck);
    if let (Some(left), 1..) = (left, inside) {
        let late = control.lateness(struck, left);
        judged.lateness.push((left - struck).saturating_sub(late));
    }
}

/// Files that are no sockets of a server.
fn files_beside_sockets(directory: &FilePath) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_beside_sockets(&path));
        } else if path.extension().is_none_or(|extension| extension != "sock") {
            found.push(format!("a file is left: {}", path.display()));
        }
    }
    found
}
