//! Handlers that wait for calls of their own by blocking their thread.

use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use futures_util::future::join_all;
use ringway_proto::bench::Payload;
use ringway_tests::{Way, payload};
use tokio::runtime::Handle;
use tonic::Status;

use crate::scripted::{PING, Scripted};
use crate::stage::{Client, PingKind, Pings, Stage, ping};
use crate::stopwatch::soon;

/// Calls at once, each of which blocks a worker.
const NESTED: u64 = 4;

/// How a handler waits for a call.
type Waits = fn(Client) -> Result<Payload, Status>;

async fn echo(mut client: Client) -> Result<Payload, Status> {
    Ok(client.unary(payload(PING, 64)).await?.into_inner())
}

fn block_in_place(client: Client) -> Result<Payload, Status> {
    tokio::task::block_in_place(|| Handle::current().block_on(echo(client)))
}

fn join_a_thread(client: Client) -> Result<Payload, Status> {
    let runtime = Handle::current();
    let thread = std::thread::spawn(move || runtime.block_on(echo(client)));
    thread.join().unwrap()
}

/// What `futures::executor::block_on` does: it polls, parks the thread, and knows no runtime.
fn block_on_a_foreign_executor(client: Client) -> Result<Payload, Status> {
    struct Unparks(Thread);
    impl Wake for Unparks {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unparks(std::thread::current())));
    let mut call = std::pin::pin!(echo(client));
    loop {
        match call.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// A service whose handlers wait for a call of the client that they are given once there is one.
fn waiting(waits: Waits) -> (Scripted, Arc<OnceLock<Client>>) {
    let called = Arc::new(OnceLock::new());
    let client: Arc<OnceLock<Client>> = Arc::clone(&called);
    let scripted = Scripted::unary(move |_| {
        let client = client.get().unwrap().clone();
        async move { waits(client) }
    });
    (scripted, called)
}

/// Has `back`, a connection of which the server's own runtime made, be called by handlers.
fn connect(front: &Stage, back: &Stage, called: &OnceLock<Client>) {
    let client = front.server_runtime().block_on(back.client());
    assert!(called.set(client).is_ok());
}

/// Makes calls that block a worker each, with pings beside them.
fn call(stage: &Stage) {
    stage.act(async {
        let (client, other) = (stage.client().await, stage.client().await);
        let pings = Pings::start(PingKind::Stream, [client.clone(), other]).await;
        for round in 0..5 {
            let calls = (1..=NESTED).map(|number| {
                let mut client = client.clone();
                tokio::spawn(async move { client.unary(payload(number, 64)).await })
            });
            let calls: Vec<_> = calls.collect();
            pings.are_answered(1).await;
            let what = format!("the answers of round {round}");
            for answer in soon(&what, join_all(calls)).await {
                assert_eq!(answer.unwrap().unwrap().into_inner(), payload(PING, 64));
            }
        }
        pings.worst().await;
    });
}

fn of_this_server(way: Way, waits: Waits) {
    let (scripted, called) = waiting(waits);
    let stage = Stage::new(way, scripted);
    connect(&stage, &stage, &called);
    call(&stage);
}

fn of_another_server(way: Way, waits: Waits) {
    let back = Stage::new(way, Scripted::echo());
    let (scripted, called) = waiting(waits);
    let front = Stage::new(way, scripted);
    connect(&front, &back, &called);
    call(&front);
}

pub(crate) fn a_call_of_this_server_by_block_in_place(way: Way) {
    of_this_server(way, block_in_place);
}

pub(crate) fn a_call_of_another_server_by_block_in_place(way: Way) {
    of_another_server(way, block_in_place);
}

pub(crate) fn a_call_of_this_server_by_a_joined_thread(way: Way) {
    of_this_server(way, join_a_thread);
}

pub(crate) fn a_call_of_another_server_by_a_joined_thread(way: Way) {
    of_another_server(way, join_a_thread);
}

/// With tonic such a call may hang, if it blocks the worker that its answer needs. The others are
/// answered, those of new connections too.
pub(crate) fn a_call_by_a_foreign_executor_stops_itself_alone(way: Way) {
    let (scripted, called) = waiting(block_on_a_foreign_executor);
    let stage = Stage::new(way, scripted);
    connect(&stage, &stage, &called);
    stage.act(async {
        let (client, other) = (stage.client().await, stage.client().await);
        let pings = Pings::start(PingKind::Stream, [client.clone(), other]).await;
        let calls: Vec<_> = (1..=NESTED)
            .map(|number| {
                let mut client = client.clone();
                tokio::spawn(async move { client.unary(payload(number, 64)).await })
            })
            .collect();
        pings.are_answered(20).await;
        let mut newcomer = stage.client().await;
        soon(
            "a ping of a new connection",
            ping(PingKind::Stream, &mut newcomer),
        )
        .await;
        soon("a ping of its method", ping(PingKind::Unary, &mut newcomer)).await;
        pings.worst().await;
        drop(calls);
    });
}
