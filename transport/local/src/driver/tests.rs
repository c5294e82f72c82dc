//! Drivers that fail.
#![allow(clippy::unwrap_used)]

use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::time::Duration;

use ringway_wire::Metadata;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::{
    Call, Closed, Connection, Directory, HandlerFuture, Inbound, Listener, LocalConfig, Opening,
    Request, Serve, ServedMethod, Started, UidPolicy,
};

const NAME: &str = "panics:1";
const PANICS: &str = "/tested.Tested/Panics";
const LIMIT: Duration = Duration::from_secs(10);

/// Calls wait for ever, but for one that a pass does not survive.
#[derive(Debug)]
struct Fragile {
    /// Has a permit for each call that has begun.
    begun: Arc<Semaphore>,
}

impl Serve for Fragile {
    fn resolve(&self, path: &str) -> Arc<ServedMethod> {
        assert_ne!(path, PANICS, "asked to");
        Arc::default()
    }

    fn start(&self, started: &mut Option<Started>) -> HandlerFuture {
        let started = started.take();
        self.begun.add_permits(1);
        Box::pin(async move {
            pending::<()>().await;
            drop(started);
        })
    }
}

fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

async fn connect(directory: &Directory) -> Arc<Connection> {
    let policy = UidPolicy::SameUser;
    let instance = crate::instances(directory, NAME, &policy).unwrap().pop();
    let config = LocalConfig::default();
    crate::connect(directory, NAME, &instance.unwrap(), &config)
        .await
        .unwrap()
}

async fn open(connection: &Arc<Connection>, method_number: u32, path: &str) -> Call {
    let request = Request {
        method_number,
        path,
        metadata: Metadata::EMPTY,
        deadline: None,
        trace: None,
        published: None,
        end: true,
        compressed: false,
        max_answer_bytes: u32::MAX,
    };
    let mut opening = Opening::new(connection, None);
    poll_fn(|context| opening.poll(context, &request, None))
        .await
        .unwrap()
}

/// Returns why a call ended.
async fn end_of(call: &mut Call) -> Option<Closed> {
    let inbound = poll_fn(|context| call.poll_inbound(context));
    match timeout(LIMIT, inbound).await.expect("it hangs") {
        Some(Inbound::Lost { why, .. }) => Some(why),
        _ => None,
    }
}

/// A panic of the driver, which is no handler's: its connections end, and those that come after have another driver.
#[test]
fn a_driver_whose_task_panics_closes_its_connections() {
    let root = tempfile::tempdir().unwrap();
    let directory = Directory::at(root.path().join("ringway"));
    let (serves, calls) = (runtime(), runtime());
    let _inside = serves.enter();
    let listener = Listener::bind(&directory, NAME, &UidPolicy::SameUser).unwrap();
    let begun = Arc::new(Semaphore::new(0));
    let service = Arc::new(Fragile {
        begun: Arc::clone(&begun),
    });
    serves.spawn(listener.serve(service, LocalConfig::default(), pending()));
    calls.block_on(async {
        let (guilty, innocent) = (connect(&directory).await, connect(&directory).await);
        let mut waiting = [
            open(&guilty, 1, "/tested.Tested/Waits").await,
            open(&innocent, 1, "/tested.Tested/Waits").await,
        ];
        // A pass that brought them as well would take them with it.
        let _both = timeout(LIMIT, begun.acquire_many(2))
            .await
            .unwrap()
            .unwrap();
        let mut last = open(&guilty, 2, PANICS).await;
        assert_eq!(end_of(&mut last).await, Some(Closed::PeerGone));
        for call in &mut waiting {
            assert_eq!(end_of(call).await, Some(Closed::PeerGone));
        }
        assert!(!guilty.is_open() && !innocent.is_open());
        let next = connect(&directory).await;
        let mut waits = open(&next, 1, "/tested.Tested/Waits").await;
        let early = timeout(Duration::from_millis(50), end_of(&mut waits)).await;
        assert!(early.is_err(), "{early:?}");
        assert!(next.is_open());
    });
}
