//! Handlers that do not return, connections and runtimes that end beneath them.

use std::time::Duration;

use futures_util::future::join_all;
use ringway_tests::{Way, payload};
use tonic::{Code, Request};

use crate::scripted::{Gate, OpensAtEnd, Scripted};
use crate::stage::{PingKind, Pings, Stage, ping};
use crate::stopwatch::{soon, until};

/// Handlers that hold a worker each; the server has twice as many.
const BLOCKED: u64 = 4;

/// Handlers of odd calls block their threads; those of even ones wait.
fn blocking_and_waiting(gate: &Gate) -> Scripted {
    let gate = gate.clone();
    Scripted::unary(move |request| {
        let gate = gate.clone();
        async move {
            if request.get_ref().sequence.is_multiple_of(2) {
                std::future::pending::<()>().await;
            }
            gate.block();
            Ok(request.into_inner())
        }
    })
}

fn blocked_handlers(way: Way, kind: PingKind) {
    let gate = Gate::default();
    let _opens = OpensAtEnd(gate.clone());
    let stage = Stage::new(way, blocking_and_waiting(&gate));
    stage.act(async {
        let (client, other) = (stage.client().await, stage.client().await);
        let pings = Pings::start(kind, [client.clone(), other]).await;
        let calls: Vec<_> = (0..BLOCKED)
            .map(|number| {
                let mut client = client.clone();
                tokio::spawn(async move { client.unary(payload(2 * number + 1, 64)).await })
            })
            .collect();
        until("all handlers block", || stage.seen.inside() == BLOCKED).await;
        pings.are_answered(20).await;
        gate.open();
        for answer in soon("all answers", join_all(calls)).await {
            answer.unwrap().unwrap();
        }
        pings.worst().await;
    });
}

/// Nothing is known of their method yet.
pub(crate) fn blocked_handlers_stand_side_by_side(way: Way) {
    blocked_handlers(way, PingKind::Stream);
}

/// Their method has been quick so far.
pub(crate) fn blocked_handlers_of_a_quick_method_stand_side_by_side(way: Way) {
    blocked_handlers(way, PingKind::Unary);
}

/// Nothing else happens, so nothing has another worker look after the runtime's doorbells and timers but
/// the call itself.
fn blocked_on_a_quiet_server(way: Way, kind: PingKind) {
    let gate = Gate::default();
    let _opens = OpensAtEnd(gate.clone());
    let stage = Stage::new(way, blocking_and_waiting(&gate));
    stage.act(async {
        let (mut client, mut other) = (stage.client().await, stage.client().await);
        for _ in 0..200 {
            soon("a ping that warms up", ping(kind, &mut client)).await;
            soon("another one", ping(kind, &mut other)).await;
        }
        let mut calls = Vec::new();
        for number in 0..BLOCKED {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let mut caller = client.clone();
            calls.push(tokio::spawn(async move {
                caller.unary(payload(2 * number + 1, 64)).await
            }));
            let what = format!("{} handlers block", number + 1);
            until(&what, || stage.seen.inside() == number + 1).await;
            let what = format!("a ping of another connection while {what}");
            soon(&what, ping(kind, &mut other)).await;
            let what = format!("a ping of the connection itself, {what}");
            soon(&what, ping(kind, &mut client)).await;
        }
        gate.open();
        for answer in soon("all answers", join_all(calls)).await {
            answer.unwrap().unwrap();
        }
    });
}

/// Nothing is known of its method yet.
pub(crate) fn a_blocked_handler_leaves_a_quiet_server_awake(way: Way) {
    blocked_on_a_quiet_server(way, PingKind::Stream);
}

/// Its method has been quick so far.
pub(crate) fn a_blocked_handler_of_a_quick_method_leaves_a_quiet_server_awake(way: Way) {
    blocked_on_a_quiet_server(way, PingKind::Unary);
}

/// Its deadline, too, ends its call.
pub(crate) fn a_handler_that_never_returns_stops_itself_alone(way: Way) {
    let gate = Gate::default();
    let _opens = OpensAtEnd(gate.clone());
    let stage = Stage::new(way, blocking_and_waiting(&gate));
    stage.act(async {
        let (client, other) = (stage.client().await, stage.client().await);
        let pings = Pings::start(PingKind::Unary, [client.clone(), other]).await;
        for number in 0..BLOCKED {
            let mut client = client.clone();
            let mut request = Request::new(payload(2 * number + 1, 64));
            request.set_timeout(Duration::from_millis(500));
            let status = soon("the deadline", client.unary(request))
                .await
                .unwrap_err();
            assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
            pings.are_answered(2).await;
        }
        let (entered, inside) = (stage.seen.entered(), stage.seen.inside());
        assert_eq!(
            (entered, inside),
            (BLOCKED, BLOCKED),
            "their handlers started"
        );
        pings.are_answered(50).await;
        let mut newcomer = stage.client().await;
        soon(
            "a ping of a new connection",
            ping(PingKind::Unary, &mut newcomer),
        )
        .await;
        pings.worst().await;
        gate.open();
        until("the handlers have returned", || stage.seen.inside() == 0).await;
        soon("a ping afterwards", ping(PingKind::Unary, &mut newcomer)).await;
    });
}

/// Its neighbours that wait are dropped at once; itself when it has returned.
pub(crate) fn a_handler_blocks_while_its_connection_closes(way: Way) {
    let gate = Gate::default();
    let _opens = OpensAtEnd(gate.clone());
    let stage = Stage::new(way, blocking_and_waiting(&gate));
    stage.act(async {
        let (leaving, other) = (stage.client().await, stage.client().await);
        let pings = Pings::start(PingKind::Unary, [other]).await;
        let calls: Vec<_> = (1..=2 * BLOCKED)
            .map(|number| {
                let mut client = leaving.clone();
                tokio::spawn(async move { client.unary(payload(number, 64)).await })
            })
            .collect();
        until("all handlers run", || stage.seen.inside() == 2 * BLOCKED).await;
        for call in &calls {
            call.abort();
        }
        drop((leaving, calls));
        until("those that wait are dropped", || {
            stage.seen.inside() == BLOCKED
        })
        .await;
        pings.are_answered(20).await;
        gate.open();
        until("all are dropped", || stage.seen.inside() == 0).await;
        pings.are_answered(3).await;
        pings.worst().await;
    });
}

/// Each caller learns that its call is over.
pub(crate) fn a_server_runtime_ends_amid_calls(way: Way) {
    let gate = Gate::default();
    let _opens = OpensAtEnd(gate.clone());
    let mut stage = Stage::new(way, blocking_and_waiting(&gate));
    let calls = stage.act(async {
        let client = stage.client().await;
        let calls: Vec<_> = (1..=2 * BLOCKED)
            .map(|number| {
                let mut client = client.clone();
                tokio::spawn(async move { client.unary(payload(number, 64)).await })
            })
            .collect();
        until("all handlers run", || stage.seen.inside() == 2 * BLOCKED).await;
        calls
    });
    stage.end_server_runtime();
    // A thread that never returns to its runtime holds what it owns: it returns a little later.
    std::thread::sleep(Duration::from_millis(50));
    gate.open();
    stage.act(async {
        for call in soon("every call ends", join_all(calls)).await {
            let ended = call.unwrap();
            // A handler that blocked may have answered before its thread ended.
            if let Err(status) = ended {
                let told = [Code::Unavailable, Code::Cancelled, Code::Unknown];
                assert!(told.contains(&status.code()), "{status:?}");
            }
        }
        until("all handlers are dropped", || stage.seen.inside() == 0).await;
    });
}

/// The handlers of its calls are cancelled, and the server goes on for others.
pub(crate) fn a_client_runtime_ends_amid_calls(way: Way) {
    let gate = Gate::default();
    let _opens = OpensAtEnd(gate.clone());
    let mut stage = Stage::new(way, blocking_and_waiting(&gate));
    stage.act(async {
        let client = stage.client().await;
        for number in 1..=2 * BLOCKED {
            let mut client = client.clone();
            tokio::spawn(async move { client.unary(payload(number, 64)).await });
        }
        until("all handlers run", || stage.seen.inside() == 2 * BLOCKED).await;
    });
    stage.end_client_runtime();
    stage.start_client_runtime();
    stage.act(async {
        until("those that wait are dropped", || {
            stage.seen.inside() == BLOCKED
        })
        .await;
        let mut newcomer = stage.client().await;
        soon(
            "a ping of a new connection",
            ping(PingKind::Unary, &mut newcomer),
        )
        .await;
        gate.open();
        until("all are dropped", || stage.seen.inside() == 0).await;
        soon("a ping afterwards", ping(PingKind::Unary, &mut newcomer)).await;
    });
}
