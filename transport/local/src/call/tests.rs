use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use ringway_wire::{Metadata, code};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::config::LocalConfig;
use crate::connection::{Inbound, Request, ServedMethod, Started};
use crate::inproc::{InprocServer, connect};
use crate::pace::{HandlerPolicy, Pace};
use crate::server::Serve;

/// Hands the calls that come to the test.
#[derive(Debug)]
struct HandsOver(mpsc::UnboundedSender<Call>);

impl Serve for HandsOver {
    fn resolve(&self, path: &str) -> Arc<ServedMethod> {
        Arc::new(ServedMethod {
            path: path.into(),
            ..ServedMethod::default()
        })
    }

    fn start(&self, started: &mut Option<Started>) -> HandlerFuture {
        let call = started.take().map(|started| started.call);
        self.0.send(call.unwrap()).unwrap();
        Box::pin(async {})
    }
}

/// Both ends of a connection to a service.
fn connected_to(service: Arc<dyn Serve>) -> (Arc<Connection>, Arc<Connection>) {
    let config = LocalConfig::default();
    let server = InprocServer {
        name: "tested",
        service,
        config: &config,
        runtime: None,
    };
    let mut server_end = None;
    let client_end = connect(server, &config, |end| server_end = Some(Arc::clone(end)));
    (client_end, server_end.unwrap())
}

/// Both ends of a connection, and the calls that come to the server.
fn connected() -> (
    Arc<Connection>,
    Arc<Connection>,
    mpsc::UnboundedReceiver<Call>,
) {
    let (calls, called) = mpsc::unbounded_channel();
    let (client_end, server_end) = connected_to(Arc::new(HandsOver(calls)));
    (client_end, server_end, called)
}

/// Begins a call whose requests have not ended.
async fn open_call(connection: &Arc<Connection>) -> Call {
    let request = Request {
        method_number: 0,
        path: "/a.Service/Method",
        metadata: Metadata::default(),
        deadline: None,
        trace: None,
        published: None,
        end: false,
        compressed: false,
        max_answer_bytes: 1_000,
    };
    let mut opening = Opening::new(connection, None);
    poll_fn(|context| opening.poll(context, &request, None))
        .await
        .unwrap()
}

/// The end has been told to the calls that there were: the handler of a further one would wait for ever.
#[tokio::test]
async fn no_call_begins_on_a_connection_that_has_ended() {
    let (connection, server, mut called) = connected();
    let _open = open_call(&connection).await;
    assert!(called.try_recv().is_err(), "no pass took it yet");
    server.close();
    server.drive();
    let begun = timeout(Duration::from_millis(50), called.recv()).await;
    assert!(begun.is_err(), "a call has begun");
}

/// Never answers; `held` tells how many of its handlers there are.
#[derive(Debug)]
struct Hangs {
    held: Arc<()>,
    policy: HandlerPolicy,
}

impl Serve for Hangs {
    fn resolve(&self, path: &str) -> Arc<ServedMethod> {
        Arc::new(ServedMethod {
            path: path.into(),
            pace: Arc::new(Pace::new(self.policy)),
            ..ServedMethod::default()
        })
    }

    fn start(&self, started: &mut Option<Started>) -> HandlerFuture {
        let (call, held) = (started.take(), Arc::clone(&self.held));
        Box::pin(async move {
            std::future::pending::<()>().await;
            drop((call, held));
        })
    }
}

/// Those that wait in their calls' places, and those that are tasks.
#[tokio::test]
async fn a_connection_that_ends_drops_its_handlers() {
    for policy in [HandlerPolicy::Inline, HandlerPolicy::Spawn] {
        let held = Arc::new(());
        let service = Hangs {
            held: Arc::clone(&held),
            policy,
        };
        let (connection, server) = connected_to(Arc::new(service));
        let _open = open_call(&connection).await;
        let handlers = |count| {
            let held = Arc::clone(&held);
            let reached = async move {
                // This one and that of the service.
                while Arc::strong_count(&held) - 3 != count {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            timeout(Duration::from_secs(5), reached)
        };
        handlers(1).await.expect("none began");
        server.close();
        let dropped = handlers(0).await;
        dropped.unwrap_or_else(|_| panic!("{policy:?}: it is kept"));
    }
}

/// A handler may leave a task behind that reads the requests, and its answer may come to its end unsent, because
/// the peer has died.
#[tokio::test]
async fn a_task_that_reads_requests_is_told_that_its_call_was_given_up() {
    let (connection, _server, mut called) = connected();
    let _open = open_call(&connection).await;
    let mut call = called.recv().await.unwrap();
    let mut reader = call.reader();
    let reading = tokio::spawn(async move { poll_fn(|cx| reader.poll_inbound(cx)).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!reading.is_finished(), "nothing has come");
    call.cancel(code::CANCELLED);
    let told = timeout(Duration::from_secs(5), reading).await;
    let told = told.expect("it waits for ever").unwrap();
    assert!(matches!(told, Some(Inbound::Reset { .. })), "{told:?}");
}
