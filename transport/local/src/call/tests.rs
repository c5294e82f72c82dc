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

/// A handler may leave a task behind that reads the requests, and its answer may come to its end unsent, because
/// the peer has died.
#[tokio::test]
async fn a_task_that_reads_requests_is_told_that_its_call_was_given_up() {
    let (calls, mut called) = mpsc::unbounded_channel();
    let config = LocalConfig::default();
    let server = InprocServer {
        name: "tested",
        service: Arc::new(HandsOver(calls)),
        config: &config,
        runtime: None,
    };
    let connection = connect(server, &config, |_| {});
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
    let mut opening = Opening::new(&connection, None);
    let _open = poll_fn(|context| opening.poll(context, &request, None)).await;
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
