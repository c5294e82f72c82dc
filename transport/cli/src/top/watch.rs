//! Asks servers for snapshots: a task each, which tries again when it lost its server.

use std::time::Duration;

use ringway::Endpoint;
use ringway::introspection::v1::WatchRequest;
use ringway::introspection::v1::introspection_client::IntrospectionClient;
use tokio::sync::mpsc;
use tonic::{Code, Status};

use super::rows::{Interval, Rates};
use crate::compare::with_causes;
use crate::plain::plain;

/// News that nobody has read yet.
const WAITING: usize = 16;

/// What one server has told, or why it does not.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) server: String,
    pub(crate) outcome: Result<Interval, String>,
}

/// Watches `servers` for as long as somebody reads the news.
pub(super) fn all(servers: &[String], every: Duration) -> mpsc::Receiver<News> {
    let (out, news) = mpsc::channel(WAITING);
    for server in servers {
        tokio::spawn(watch_on(server.clone(), every, out.clone()));
    }
    news
}

async fn watch_on(server: String, every: Duration, out: mpsc::Sender<News>) {
    while !out.is_closed() {
        let lost = watch(&server, every, &out).await;
        if let Err(reason) = lost {
            let outcome = Err(reason);
            let server = server.clone();
            if out.send(News { server, outcome }).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(every).await;
    }
}

/// Watches until the server is lost, or nobody reads.
async fn watch(server: &str, every: Duration, out: &mpsc::Sender<News>) -> Result<(), String> {
    let endpoint = Endpoint::new(server).map_err(|error| with_causes(&error))?;
    let channel = endpoint.connect().await;
    let channel = channel.map_err(|error| with_causes(&error))?;
    let request = WatchRequest {
        interval_ms: u32::try_from(every.as_millis()).unwrap_or(u32::MAX),
    };
    let watched = IntrospectionClient::new(channel).watch(request).await;
    let mut snapshots = watched.map_err(|status| explained(&status))?.into_inner();
    let mut rates = Rates::new(server);
    loop {
        let snapshot = snapshots.message().await;
        let snapshot = snapshot.map_err(|status| explained(&status))?;
        let snapshot = snapshot.ok_or("the server has ended")?;
        // The first one is what the second is compared with.
        let Some(interval) = rates.since_last(snapshot) else {
            continue;
        };
        let (server, outcome) = (server.to_owned(), Ok(interval));
        if out.send(News { server, outcome }).await.is_err() {
            return Ok(());
        }
    }
}

fn explained(status: &Status) -> String {
    match status.code() {
        Code::Unimplemented => "it does not offer the introspection service: call \
             introspection() on its ServerBuilder"
            .to_owned(),
        code => format!("{code:?}: {}", plain(status.message())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_no_command_of_the_terminal() {
        let said = explained(&Status::internal("\u{1b}[2J\nforged"));
        assert_eq!(said, r"Internal: \u{1b}[2J\nforged");
    }
}
