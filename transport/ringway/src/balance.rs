//! A channel over several endpoints, each with settings of its own: its calls go to them in turn.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::select_ok;
use parking_lot::RwLock;
use ringway_local::runtime;
use tokio::sync::mpsc;
use tonic::codegen::BoxFuture;
use tonic::transport::channel::Change;
use tonic::{Extensions, Status};

use crate::channel::{Channel, Routed, Shared, Way};
use crate::endpoint::Endpoint;

/// The endpoints' channels.
#[derive(Debug, Default)]
pub(crate) struct Members {
    list: RwLock<Arc<[Channel]>>,
    turn: AtomicUsize,
}

impl Members {
    pub(crate) fn of(endpoints: impl Iterator<Item = Endpoint>) -> Self {
        let list = endpoints.map(|endpoint| endpoint.connect_lazy());
        Self {
            list: RwLock::new(list.collect()),
            turn: AtomicUsize::new(0),
        }
    }

    /// Where the next call goes: to the one whose turn it is, unless another can take it sooner. The limits of
    /// each member hold for the calls that it takes.
    pub(crate) async fn route(&self) -> Result<Routed<Way>, Status> {
        let list = Arc::clone(&*self.list.read());
        if list.is_empty() {
            return Err(Status::unavailable("the channel has no endpoint to call"));
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % list.len();
        let (after, before) = (&list[turn..], &list[..turn]);
        let ways = after
            .iter()
            .chain(before)
            .map(|member| routed(Arc::clone(&member.shared)));
        let (routed, _) = select_ok(ways).await?;
        Ok(routed)
    }

    /// The longest that a call may take, if each endpoint has a limit.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        let list = self.list.read();
        let timeouts = list.iter().map(|member| member.shared.endpoint.timeout);
        timeouts.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// Returns true if each endpoint says that calls wait while its server can't be reached.
    pub(crate) fn wait_for_ready(&self) -> bool {
        let list = self.list.read();
        let mut members = list.iter().map(|member| &member.shared);
        !list.is_empty() && members.all(|member| member.waits_for_ready(&Extensions::new()))
    }
}

/// A member may have members in turn, so its future has no type to be named by. Permission comes last: of members
/// that are asked at once, only the one that takes the call counts it.
fn routed(shared: Arc<Shared>) -> BoxFuture<Routed<Way>, Status> {
    Box::pin(async move {
        let routed = shared.route(false).await?;
        let admitted = match &shared.admission {
            Some(admission) => Some(admission.admit(None).await?),
            None => routed.admitted,
        };
        Ok(Routed {
            to: routed.to,
            admitted,
            member: routed.member.or(Some(shared)),
        })
    })
}

impl Channel {
    /// A channel whose calls go to all of `endpoints` in turn; those that can't be reached are passed
    /// over.
    pub fn balance_list(endpoints: impl Iterator<Item = Endpoint>) -> Self {
        Self::balanced(Arc::new(Members::of(endpoints)))
    }

    /// The same of endpoints that come and go, as the sender says; up to `capacity` changes wait. Once
    /// the sender is dropped, the endpoints stay as they are.
    pub fn balance_channel<K>(capacity: usize) -> (Self, mpsc::Sender<Change<K, Endpoint>>)
    where
        K: Hash + Eq + Send + Clone + 'static,
    {
        let members = Arc::new(Members::default());
        let (changes, changed) = mpsc::channel(capacity);
        runtime::spawn(follow(Arc::downgrade(&members), changed));
        (Self::balanced(members), changes)
    }
}

/// Keeps members as the sender of the changes wants them, for as long as there is a channel.
async fn follow<K: Hash + Eq>(
    members: std::sync::Weak<Members>,
    mut changed: mpsc::Receiver<Change<K, Endpoint>>,
) {
    let mut known = HashMap::new();
    while let Some(change) = changed.recv().await {
        match change {
            Change::Insert(key, endpoint) => drop(known.insert(key, endpoint.connect_lazy())),
            Change::Remove(key) => drop(known.remove(&key)),
        }
        let Some(members) = members.upgrade() else {
            return;
        };
        *members.list.write() = known.values().cloned().collect();
    }
}
