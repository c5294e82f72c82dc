//! What is known of the end of a child process, for the link to it.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use crate::connection::Connection;
use crate::error::Closed;

/// A child closes its pipes a moment before its parent can know how it ended; so long is waited
/// for that, with calls in flight.
pub(crate) const EXIT_GRACE: Duration = Duration::from_millis(20);

/// The end of a child, as far as it is known. Where no child is at the other end, none of these is made.
#[derive(Debug, Default)]
#[cfg_attr(not(feature = "plugins"), allow(dead_code))]
pub(crate) struct FarEnd {
    story: OnceLock<String>,
    asked: Notify,
    connection: OnceLock<Weak<Connection>>,
}

#[cfg_attr(not(feature = "plugins"), allow(dead_code))]
impl FarEnd {
    /// Tells that the child has ended, or is given up.
    pub(crate) fn is_known(&self) -> bool {
        self.story.get().is_some()
    }

    /// Returns how the child went; `None` while that is being found out, and then a pass follows.
    pub(crate) fn explain(&self) -> Option<Closed> {
        let story = self.story.get().cloned().map(Closed::ChildGone);
        if story.is_none() {
            self.asked.notify_one();
        }
        story
    }

    /// Resolves once the child has hung up and not ended soon.
    pub(crate) async fn hung_up(&self) {
        self.asked.notified().await;
        tokio::time::sleep(EXIT_GRACE).await;
    }

    /// Notes which connection waits to be told.
    pub(crate) fn belongs_to(&self, connection: &Arc<Connection>) {
        self.connection.get_or_init(|| Arc::downgrade(connection));
        connection.mark_ready();
    }

    /// Tells the connection how the child went. The first story stays.
    pub(crate) fn tell(&self, story: String) {
        self.story.get_or_init(|| story);
        if let Some(connection) = self.connection.get().and_then(Weak::upgrade) {
            connection.mark_ready();
        }
    }
}
