//! The driver of all attacks on a client: a process calls a false server over and over and an honest one meanwhile,
//! which is another process; judged is how the honest one's answers come, how the calls to the false one end, and
//! what is left of its connections.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use ringway::{Channel, Endpoint as Address};
use ringway_local::LocalConfig;
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench::{Payload, StreamRequest};
use ringway_tests::{
    Calls, ChildServer, Served, Spinners, alone_for, client_of, descriptors, eventually,
    mapped_regions, payload, resident_bytes,
};
use tokio::runtime::Handle;
use tonic::{Code, Request, Status};

use crate::NAME;
use crate::servers::Link;
use crate::siege::{
    BARS, CONTROL, HANDSHAKE_TIMEOUT, KEPT_BYTES, LIMIT, Round, Rounds, lasts, longest_hang_up,
};

const HONEST: &str = "honest:50051";
/// Of a call to a false server that can't be found out. It ends by then, whatever that server does.
const DEADLINE: Duration = Duration::from_millis(100);
/// Of a call to one that has to be found out sooner, however busy the machine is. A call that no server has taken is
/// sent again until then, over a new connection to the same false server, and fails sooner where that is seen to have
/// ended before the call is sent.
const FAR_DEADLINE: Duration = Duration::from_secs(2);

/// How a call to the false server ended.
pub(crate) type End = Result<(), Status>;

/// A false server, and how calls to it may end.
pub(crate) struct False {
    link: Link,
    /// Serves one connection, which is the n-th.
    serve: Arc<dyn Fn(UnixStream, usize) + Send + Sync>,
    /// Of each call.
    deadline: Duration,
    /// Panics at an end that must not be.
    judge: fn(&End),
}

impl False {
    /// One that may end calls in any way, as long as they do end.
    pub(crate) fn new(
        link: Link,
        serve: impl Fn(UnixStream, usize) + Send + Sync + 'static,
    ) -> Self {
        Self {
            link,
            serve: Arc::new(serve),
            deadline: DEADLINE,
            judge: |_| {},
        }
    }

    /// One that has to be found out: no call that it took waits for its deadline. How soon the client hangs up on it
    /// is for `serve` to note.
    pub(crate) fn found_out(
        link: Link,
        serve: impl Fn(UnixStream, usize) + Send + Sync + 'static,
    ) -> Self {
        Self {
            judge: |end| {
                let found_out = end.as_ref().is_err_and(|status| {
                    status.code() != Code::DeadlineExceeded
                        || status.message().contains("no server took the call")
                });
                assert!(found_out, "the false server was not found out: {end:?}");
            },
            deadline: FAR_DEADLINE,
            ..Self::new(link, serve)
        }
    }

    /// One that must not answer any call with success.
    pub(crate) fn refused(
        link: Link,
        serve: impl Fn(UnixStream, usize) + Send + Sync + 'static,
    ) -> Self {
        Self {
            judge: |end| assert!(end.is_err(), "the false server was believed"),
            ..Self::new(link, serve)
        }
    }
}

/// Listens where clients look for a server, and has `serve` serve each connection on a thread of its own.
pub(crate) fn listen(root: &Path, serve: Arc<dyn Fn(UnixStream, usize) + Send + Sync>) {
    let directory = ringway::Directory::at(root).of_name(NAME).unwrap();
    std::fs::create_dir_all(&directory).unwrap();
    for made in [root, &directory] {
        std::fs::set_permissions(made, std::fs::Permissions::from_mode(0o700)).unwrap();
    }
    let listener = UnixListener::bind(directory.join("1-1-1.sock")).unwrap();
    std::thread::spawn(move || {
        let streams = listener.incoming().map_while(Result::ok);
        for (nth, stream) in streams.enumerate() {
            let serve = Arc::clone(&serve);
            std::thread::spawn(move || serve(stream, nth));
        }
    });
}

/// Has a client call the false server for a while, and an honest one beside it.
pub(crate) fn beset(server: False) {
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    alone_for(LIMIT, under_attack(&name, &server));
}

async fn under_attack(name: &str, server: &False) {
    LazyLock::force(&CONTROL);
    let directory = tempfile::tempdir().unwrap();
    let _honest = ChildServer::start(directory.path(), HONEST);
    let honest = Address::new(format!("shm://{HONEST}")).unwrap();
    let mut honest = client_of(&honest.directory(directory.path())).await;
    honest.unary(payload(0, 100_000)).await.unwrap();
    let mut rounds = Rounds::default();
    while !rounds.are_within(BARS) {
        longest_hang_up();
        let root = tempfile::tempdir().unwrap();
        listen(root.path(), Arc::clone(&server.serve));
        let held = held();
        let memory = resident_bytes();
        let calls = Calls::default();
        let calling = tokio::spawn(keep_calling(
            root.path().to_owned(),
            server.link,
            server.deadline,
        ));
        serve_meanwhile(&calls, &mut honest, || calling.is_finished()).await;
        let (ends, longest) = calling.await.unwrap();
        let attacked = calls.take(&CONTROL);
        ends.iter().for_each(server.judge);
        eventually("nothing is left of the false server's connections", || {
            let now = self::held();
            now.0 <= held.0 && now.1 <= held.1 && now.2 <= held.2
        })
        .await;
        let grown = resident_bytes().saturating_sub(memory);
        assert!(grown < KEPT_BYTES, "{} MiB are kept", grown >> 20);
        let compared = compare(&calls, &mut honest).await;
        let round = Round {
            attacked,
            compared,
            // Or what the end of a call was late, behind a handshake that has a timeout.
            hang_up: longest
                .saturating_sub(server.deadline + HANDSHAKE_TIMEOUT)
                .max(longest_hang_up()),
        };
        println!("{name}: {round:?}, {} calls ended", ends.len());
        rounds.note(round);
    }
}

/// Calls the honest server until it `is_over`.
async fn serve_meanwhile(
    calls: &Calls,
    honest: &mut BenchClient<Channel>,
    is_over: impl Fn() -> bool,
) {
    while !is_over() {
        calls.call(&CONTROL, honest).await;
    }
}

async fn compare(calls: &Calls, honest: &mut BenchClient<Channel>) -> Served {
    let began = Instant::now();
    let _spinning = Spinners::start(1);
    serve_meanwhile(calls, honest, || began.elapsed() > lasts()).await;
    calls.take(&CONTROL)
}

/// Calls the false server over new connections for a while: how the calls ended, and what the longest took.
async fn keep_calling(
    root: std::path::PathBuf,
    link: Link,
    deadline: Duration,
) -> (Vec<End>, Duration) {
    let (began, mut ends, mut longest) = (Instant::now(), Vec::new(), Duration::ZERO);
    let config = LocalConfig {
        handshake_timeout: HANDSHAKE_TIMEOUT,
        ..LocalConfig::default()
    };
    while began.elapsed() < lasts() {
        let address = Address::new(link.address()).unwrap().directory(&root);
        let called = Instant::now();
        match address.local_config(config.clone()).connect().await {
            Ok(channel) => ends.extend(calls(channel, deadline).await),
            Err(error) => ends.push(Err(Status::unavailable(error.to_string()))),
        }
        let now = Instant::now();
        longest = longest.max((now - called).saturating_sub(CONTROL.lateness(called, now)));
    }
    (ends, longest)
}

/// A call of each kind, at once.
async fn calls(channel: Channel, deadline: Duration) -> [End; 2] {
    let (mut one, mut other) = (BenchClient::new(channel.clone()), BenchClient::new(channel));
    let mut asked = Request::new(Payload::default());
    asked.set_timeout(deadline);
    let mut listens = Request::new(StreamRequest::default());
    listens.set_timeout(deadline);
    let unary = async { one.unary(asked).await.map(drop) };
    let stream = async {
        let mut messages = other.server_stream(listens).await?.into_inner();
        while messages.message().await?.is_some() {}
        Ok(())
    };
    let (unary, stream) = tokio::join!(unary, stream);
    [unary, stream]
}

/// Descriptors, mappings and tasks; the false server's are threads of this process.
fn held() -> (usize, usize, usize) {
    let tasks = Handle::current().metrics().num_alive_tasks();
    (descriptors(), mapped_regions(), tasks)
}
