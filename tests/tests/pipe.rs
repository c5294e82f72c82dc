//! A server that is a child process, as plugins are: how it comes, how it goes, what stays behind.
#![allow(clippy::unwrap_used)]

use std::path::Path as FilePath;
use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use ringway::{Channel, Child, Error, Path, Server};
use ringway_local::LocalConfig;
use ringway_proto::bench::StreamRequest;
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench::bench_server::BenchServer;
use ringway_tests::ours::Handler;
use ringway_tests::{
    Manner, alone, asking, descriptors, eventually, payload, payloads, plugin, serve_as_plugin,
    within,
};
use ringway_wire::KeepAlive;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tonic::{Code, Status};

/// What an ended call may take from the child's death.
const LIMIT: Duration = Duration::from_millis(100);
/// Deaths, of which one has to be within the limit: the machine may have been busy at the others.
const ROUNDS: usize = 4;

/// Not a test: what a child process runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plugin_process() {
    serve_as_plugin().await;
}

/// Whether the process is no more, or waits for somebody else to take note of its end.
fn has_ended(pid: u32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit_once(") ").unwrap().1.starts_with(['Z', 'X']),
        Err(_) => true,
    }
}

/// Whether nothing is left of the process.
fn is_waited_for(pid: u32) -> bool {
    !FilePath::new(&format!("/proc/{pid}")).exists()
}

/// The process id that a child prints.
async fn pid_printed_by(child: &mut Child) -> u32 {
    let mut lines = BufReader::new(child.take_stdout().unwrap()).lines();
    loop {
        if let Ok(pid) = lines.next_line().await.unwrap().unwrap().parse() {
            return pid;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_serves_every_kind_and_may_print() {
    within(async {
        let mut child = Child::spawn(plugin(Manner::Talkative)).await.unwrap();
        let mut client = BenchClient::new(child.channel());
        let response = client.unary(payload(1, 100)).await.unwrap();
        assert_eq!(Path::of(&response), Some(Path::Pipe));
        assert_eq!(response.into_inner(), payload(1, 100));
        let request = StreamRequest {
            count: 1000,
            size_bytes: 1000,
        };
        let stream = client.server_stream(request).await.unwrap().into_inner();
        assert_eq!(stream.map(Result::unwrap).count().await, 1000);
        let requests = payloads(100, 100);
        let summary = client.client_stream(requests).await.unwrap().into_inner();
        assert_eq!(summary.messages, 100);
        let requests = payloads(100, 100);
        let replies = client.bidi(requests).await.unwrap().into_inner();
        assert_eq!(replies.map(Result::unwrap).count().await, 100);
        let mut said = String::new();
        let mut stdout = child.take_stdout().unwrap();
        let status = child.stop(Duration::from_secs(20)).await.unwrap();
        assert!(status.success(), "{status}");
        stdout.read_to_string(&mut said).await.unwrap();
        assert!(
            said.contains("here I am") && said.contains("farewell"),
            "{said}"
        );
    })
    .await;
}

/// How long after the child's death the last of the calls ended, and that each says how it died.
async fn died_during<F>(calls: Vec<F>, end: impl FnOnce() + Send + 'static, how: &str) -> Duration
where
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let calls: Vec<_> = calls.into_iter().map(tokio::spawn).collect();
    // Until each of them waits.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let ended_at = tokio::task::spawn_blocking(move || {
        end();
        Instant::now()
    });
    let ended = join_all(calls).await;
    let took = Instant::now().saturating_duration_since(ended_at.await.unwrap());
    for end in ended {
        let status = end.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(status.message().contains(how), "{status:?}");
    }
    took
}

/// One unary call or one stream that never ends.
async fn wait_for_ever(mut client: BenchClient<Channel>, number: u64) -> Result<(), Status> {
    if number.is_multiple_of(2) {
        return client
            .unary(asking("hang", payload(number, 100)))
            .await
            .map(drop);
    }
    let request = StreamRequest {
        count: 3,
        size_bytes: 100,
    };
    let mut stream = client
        .server_stream(asking("hang", request))
        .await?
        .into_inner();
    while stream.message().await?.is_some() {}
    Ok(())
}

fn waiting_calls(child: &Child) -> Vec<impl Future<Output = Result<(), Status>> + use<>> {
    let client = BenchClient::new(child.channel());
    let calls = (0..16).map(|number| wait_for_ever(client.clone(), number));
    calls.collect()
}

fn kill(pid: u32) {
    let process = ringway_sys::process::Process::open(pid).unwrap();
    process.kill().unwrap();
    assert!(process.wait_exit(Duration::from_secs(10)).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_say_how_a_child_died() {
    within(async {
        let mut shortest = Duration::MAX;
        for _ in 0..ROUNDS {
            let child = Child::spawn(plugin(Manner::Stubborn)).await.unwrap();
            let (calls, pid) = (waiting_calls(&child), child.id());
            let took = died_during(calls, move || kill(pid), "signal: 9").await;
            shortest = shortest.min(took);
            let mut client = BenchClient::new(child.channel());
            let status = client.unary(payload(1, 100)).await.unwrap_err();
            assert_eq!(status.code(), Code::Unavailable);
            assert!(status.message().contains("signal: 9"), "{status:?}");
            assert_eq!(child.wait().await.unwrap().code(), None);
        }
        assert!(shortest < LIMIT, "{shortest:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_say_how_a_child_left() {
    within(async {
        let mut child = Child::spawn(plugin(Manner::Leaving)).await.unwrap();
        let stdin = child.take_stdin().unwrap();
        died_during(waiting_calls(&child), move || drop(stdin), "exit status: 3").await;
        assert_eq!(child.wait().await.unwrap().code(), Some(3));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_closes_its_pipes_is_given_up() {
    within(async {
        let mut child = Child::spawn(plugin(Manner::Mute)).await.unwrap();
        let (stdin, pid) = (child.take_stdin().unwrap(), child.id());
        died_during(waiting_calls(&child), move || drop(stdin), "runs on").await;
        assert!(!has_ended(pid));
        drop(child);
        eventually("it is killed", || is_waited_for(pid)).await;
    })
    .await;
}

/// It hangs up no pipe: only its silence tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_is_stopped_is_given_up() {
    within(async {
        // Longer than a busy host keeps a process from running.
        let patience = Duration::from_secs(1);
        let mut config = LocalConfig::default();
        config.wire.keepalive = Some(KeepAlive {
            interval: Duration::from_millis(100),
            timeout: patience,
            while_idle: false,
        });
        let child = Child::spawn_with(plugin(Manner::Stubborn), &config).await;
        let child = child.unwrap();
        let mut client = BenchClient::new(child.channel());
        let hung = tokio::spawn(async move { client.unary(asking("hang", payload(1, 100))).await });
        // Longer than a ping and its answer: a child that runs keeps its calls.
        tokio::time::sleep(patience * 3 / 2).await;
        assert!(!hung.is_finished());
        let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
        rustix::process::kill_process(pid, Signal::STOP).unwrap();
        let status = hung.await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_inherited_the_pipes_keeps_no_call_waiting() {
    within(async {
        let mut shortest = Duration::MAX;
        for _ in 0..ROUNDS {
            let mut child = Child::spawn(plugin(Manner::Careless)).await.unwrap();
            let heir = pid_printed_by(&mut child).await;
            let (calls, pid) = (waiting_calls(&child), child.id());
            shortest = shortest.min(died_during(calls, move || kill(pid), "signal: 9").await);
            assert!(!has_ended(heir));
            kill(heir);
        }
        assert!(shortest < LIMIT, "{shortest:?}");
    })
    .await;
}

#[test]
fn a_dropped_child_leaves_nothing_behind() {
    alone(async {
        // The first child opens what the runtime keeps.
        drop(Child::spawn(plugin(Manner::Stubborn)).await.unwrap());
        let before = descriptors();
        for _ in 0..3 {
            let child = Child::spawn(plugin(Manner::Stubborn)).await.unwrap();
            let (pid, channel) = (child.id(), child.channel());
            drop(child);
            let status = BenchClient::new(channel)
                .unary(asking("hang", payload(1, 100)))
                .await;
            assert_eq!(status.unwrap_err().code(), Code::Unavailable);
            eventually("it is killed and waited for", || is_waited_for(pid)).await;
        }
        eventually("the descriptors are closed", || descriptors() <= before).await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_does_not_end_when_told_is_killed() {
    within(async {
        let child = Child::spawn(plugin(Manner::Stubborn)).await.unwrap();
        let pid = child.id();
        let status = child.stop(Duration::from_millis(50)).await.unwrap();
        assert_eq!(status.to_string(), "signal: 9 (SIGKILL)");
        assert!(is_waited_for(pid));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_ends_when_its_parent_is_killed() {
    within(async {
        let mut host = tokio::process::Command::from(plugin(Manner::Host));
        let mut host = host.kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(host.stdout.take().unwrap()).lines();
        let child = loop {
            if let Ok(pid) = lines.next_line().await.unwrap().unwrap().parse() {
                break pid;
            }
        };
        assert!(!has_ended(child));
        host.kill().await.unwrap();
        eventually("the child ends", || has_ended(child)).await;
    })
    .await;
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

async fn refused(command: Command, config: &LocalConfig) -> String {
    let refused = Child::spawn_with(command, config).await.unwrap_err();
    assert!(matches!(refused, Error::Local(_)), "{refused:?}");
    refused.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_plugin_is_an_error_that_says_why() {
    within(async {
        let config = LocalConfig::default();
        let error = refused(Command::new("/no/such/plugin"), &config).await;
        assert!(
            error.contains("/no/such/plugin") && error.contains("No such file"),
            "{error}"
        );
        let error = refused(shell("exit 7"), &config).await;
        assert!(
            error.contains("exit status: 7") && error.contains("serve_pipe"),
            "{error}"
        );
        // Bytes that are no hello, on the very pipe.
        let garbage = "w=${RINGWAY_PIPE#*,}; yes > /proc/self/fd/${w%%:*}";
        let error = refused(shell(garbage), &config).await;
        assert!(error.contains("does not speak ringway"), "{error}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_never_serves_is_killed() {
    within(async {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pid");
        let config = LocalConfig {
            handshake_timeout: Duration::from_millis(300),
            ..LocalConfig::default()
        };
        let script = format!("echo $$ > {}; exec sleep 60", file.display());
        let error = refused(shell(&script), &config).await;
        assert!(error.contains("did not finish the handshake"), "{error}");
        let pid = std::fs::read_to_string(file)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        eventually("it is killed and waited for", || is_waited_for(pid)).await;
    })
    .await;
}

const VALUE: &str = "RINGWAY_PIPE";
const AS_CHILD: &str = "RINGWAY_TEST_NO_PARENT";

/// The environment belongs to the whole process, so each value gets a process of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_without_a_parent_that_calls_is_told_so() {
    if let Ok(expected) = std::env::var(AS_CHILD) {
        let server = Server::builder().add_service(BenchServer::new(Handler::default()));
        let error = server.serve_pipe().await.unwrap_err();
        assert!(matches!(error, Error::Pipe(_)), "{error:?}");
        assert!(error.to_string().contains(&expected), "{error}");
        return;
    }
    for (value, expected) in [
        (None, "RINGWAY_PIPE is not set"),
        (Some("3,4"), "RINGWAY_PIPE=3,4"),
        (Some("500:1,501:2"), "descriptor 500"),
        (Some("1:1,2:2"), "descriptor 1"),
    ] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([
            "--exact",
            "a_process_without_a_parent_that_calls_is_told_so",
        ]);
        command.env(AS_CHILD, expected).env_remove(VALUE);
        if let Some(value) = value {
            command.env(VALUE, value);
        }
        assert!(command.status().unwrap().success(), "{value:?}");
    }
}
