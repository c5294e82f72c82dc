//! Local instances of a server: which there are, and connections to them.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use ringway_local::{ConnectError, Connection, LocalConfig, SocketEngine, runtime};
use ringway_net::Backoff;

use crate::channel::{LOOK_AGAIN_AFTER, Local, Shared};
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::inproc::{self, Inproc};
use crate::instances::Stay;
use crate::path::Path;
use crate::pipe::WayByPipe;
use crate::pooling::PoolWatch;

/// How often a channel that has a local server looks for further instances.
const LOOK_FOR_MORE_AFTER: Duration = Duration::from_secs(1);
/// The same for one that nobody calls: to wake up and read a directory takes a hundred microseconds,
/// and a process may hold hundreds of channels.
const LOOK_FOR_MORE_WHEN_IDLE: Duration = Duration::from_secs(10);

/// How long an instance may be silent before further ones are tried beside it.
const STAGGER: Duration = Duration::from_millis(30);
/// Names of servers that are told to a caller whose server is not there.
const NAMES_TOLD: usize = 5;
/// What to do about another name than the one that is dialled.
const BY_NAME: &str = "a server is found by a name() that is what its clients dial";

impl Shared {
    /// Connects to the first local instance that can be had; further ones are connected beside it.
    pub(crate) async fn find_local(self: &Arc<Self>) -> Result<Stay, Error> {
        let _turn = self.connecting.lock().await;
        if let Some(stay) = self.instances.choose() {
            return Ok(stay);
        }
        self.instances.clear_out();
        if let Err(error) = self.connect_first().await {
            let mut local = self.local.lock();
            local.absent_until = Some(Instant::now() + LOOK_AGAIN_AFTER);
            local.why = Some(self.why_not_here(&error).into());
            return Err(error);
        }
        *self.local.lock() = Local::default();
        self.look_for_more();
        self.instances.choose().ok_or_else(|| Error::Forced {
            path: self.local_path(),
            reason: self.why_no_calls(),
        })
    }

    /// Says that no instance takes calls, though one was connected just now.
    fn why_no_calls(&self) -> String {
        let name = &self.endpoint.name;
        match self.instances.why_lost() {
            Some(why) => {
                format!("`{name}` takes no calls just now: a connection to it ended at once: {why}")
            }
            None => format!("`{name}` takes no calls just now"),
        }
    }

    /// Has a task look for further instances, unless one does. One that ended with its runtime is replaced when
    /// calls take a way anew.
    pub(crate) fn look_for_more(self: &Arc<Self>) {
        if self.endpoint.pipe.is_none() && !self.looking.swap(true, Ordering::SeqCst) {
            let looking = Looking(Arc::downgrade(self));
            runtime::spawn(async move { look_for_more(&looking.0).await });
        }
    }

    /// Connects to the instance that is the first to answer. One that is silent, such as a process that is
    /// stopped, is given a moment; then further ones are tried beside it.
    async fn connect_first(self: &Arc<Self>) -> Result<(), Error> {
        let mut found = self.find_instances()?.into_iter();
        let (mut trying, mut at_once) = (FuturesUnordered::new(), 1);
        let mut refused = None;
        loop {
            let further = found.by_ref().take(at_once);
            trying.extend(further.map(|found| Arc::clone(self).attempt(found)));
            let tried = match found.len() {
                0 => trying.next().await,
                _ => match tokio::time::timeout(STAGGER, trying.next()).await {
                    Ok(tried) => tried,
                    Err(_) => {
                        at_once = (2 * at_once).max(1);
                        continue;
                    }
                },
            };
            match tried {
                Some(Ok(())) => break,
                Some(Err(error)) => refused = Some(more_telling(refused, error)),
                None => return refused.map_or(Ok(()), Err),
            }
            at_once = usize::from(trying.is_empty());
        }
        // Those that are still silent may answer later.
        runtime::spawn(async move { while trying.next().await.is_some() {} });
        Ok(())
    }

    /// Connects to `found`, and keeps the channel alive meanwhile.
    async fn attempt(self: Arc<Self>, found: Found) -> Result<(), Error> {
        self.connect_to(found).await
    }

    /// The instances that are there as far as can be seen without connecting; never none.
    fn find_instances(&self) -> Result<Vec<Found>, Error> {
        let Endpoint {
            name,
            directory,
            local,
            ..
        } = &self.endpoint;
        match self.local_path() {
            Path::Inproc => {}
            Path::Pipe => return self.find_pipe(),
            Path::Shm | Path::Socket | Path::Grpc => {
                let sockets = ringway_local::instances(directory, name, &local.peers)?;
                return Ok(sockets.into_iter().map(Found::Socket).collect());
            }
        }
        let found: Vec<_> = inproc::instances(name)
            .into_iter()
            .map(Found::Inproc)
            .collect();
        match found.is_empty() {
            true => Err(Error::Forced {
                path: Path::Inproc,
                reason: format!("no server of this process is called `{name}`"),
            }),
            false => Ok(found),
        }
    }

    /// Why no local path leads to the server, for a caller whom the network failed as well; with the names
    /// of the servers that are there, since a server is found by the name that its clients dial.
    fn why_not_here(&self, error: &Error) -> String {
        let Error::Local(ConnectError::Absent { name, directory }) = error else {
            return error.to_string();
        };
        let absent = format!(
            "no server called `{name}` listens in {}",
            directory.display()
        );
        let names = self.endpoint.directory.names().unwrap_or_default();
        let there: Vec<_> = names
            .iter()
            .filter(|there| self.may_be_there(there))
            .collect();
        let (told, rest) = there.split_at(there.len().min(NAMES_TOLD));
        match (told, rest.len()) {
            ([], _) => absent,
            (told, 0) => format!("{absent} (there are: {}; {BY_NAME})", quoted(told)),
            (told, more) => format!(
                "{absent} (there are: {}, and {more} more; {BY_NAME})",
                quoted(told)
            ),
        }
    }

    /// Returns true if a server of that name has a socket: directories of servers that have ended stay behind.
    fn may_be_there(&self, name: &str) -> bool {
        let Endpoint {
            directory, local, ..
        } = &self.endpoint;
        ringway_local::instances(directory, name, &local.peers).is_ok()
    }

    /// A pipe leads to one server.
    fn find_pipe(&self) -> Result<Vec<Found>, Error> {
        match &self.endpoint.pipe {
            Some(pipe) => Ok(vec![Found::Pipe(Arc::clone(pipe))]),
            None => Err(Error::Forced {
                path: Path::Pipe,
                reason: format!("`{}` is no pipe", self.endpoint.name),
            }),
        }
    }

    async fn connect_to(&self, found: Found) -> Result<(), Error> {
        let name = &self.endpoint.name;
        let local = &self.endpoint.local_settings();
        let instance = found.name();
        let _pending = self.instances.begin(&instance);
        let connection = match found {
            Found::Inproc(server) => server.connect(name, local),
            Found::Pipe(pipe) => pipe.connection(local).await?,
            Found::Socket(socket) => self.connect_by(&socket).await?,
        };
        self.instances.add(instance, connection);
        Ok(())
    }

    /// Connects to the instance that listens at `socket`.
    pub(crate) async fn connect_by(&self, socket: &str) -> Result<Arc<Connection>, ConnectError> {
        let Endpoint {
            name, directory, ..
        } = &self.endpoint;
        let local = self.endpoint.local_settings();
        let local = LocalConfig {
            links: self.links(),
            socket_engine: if self.endpoint.epoll {
                SocketEngine::Epoll
            } else {
                local.socket_engine
            },
            ..local
        };
        ringway_local::connect(directory, name, socket, &local).await
    }
}

/// A local instance that can be connected to.
enum Found {
    Socket(String),
    Inproc(Arc<Inproc>),
    Pipe(Arc<WayByPipe>),
}

impl Found {
    fn name(&self) -> String {
        match self {
            Self::Socket(socket) => socket.clone(),
            Self::Inproc(server) => server.id(),
            Self::Pipe(_) => Path::Pipe.name().to_owned(),
        }
    }
}

/// The task that looks for further instances, until it ends.
struct Looking(Weak<Shared>);

impl Drop for Looking {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.looking.store(false, Ordering::SeqCst);
        }
    }
}

/// Connects to instances that come, lets go of those that went, and tries again, with backoff, what
/// could not be connected; for as long as the channel is there.
async fn look_for_more(shared: &Weak<Shared>) {
    let mut refused: HashMap<String, (Backoff, Instant)> = HashMap::new();
    let (mut calls_before, mut pool) = (None, PoolWatch::default());
    loop {
        let Some(channel) = shared.upgrade() else {
            return;
        };
        channel.instances.clear_out();
        let found = channel.find_instances().unwrap_or_default();
        refused.retain(|known, _| found.iter().any(|found| found.name() == *known));
        let due = found.into_iter().filter(|found| {
            let (name, now) = (found.name(), Instant::now());
            let too_early = refused.get(&name).is_some_and(|(_, until)| now < *until);
            !too_early && !channel.instances.needs_no(&name)
        });
        // At once, as one that is silent is no reason to let the others wait.
        let tried = due.map(async |found| (found.name(), channel.connect_to(found).await));
        let tried = join_all(tried.collect::<Vec<_>>()).await;
        for (name, connected) in tried {
            let now = Instant::now();
            let Err(error) = connected else {
                refused.remove(&name);
                continue;
            };
            tracing::debug!(server = %channel.endpoint.name, instance = %name, %error, "put aside");
            let fresh = || (Backoff::new(channel.endpoint.net.backoff), now);
            let (backoff, until) = refused.entry(name).or_insert_with(fresh);
            *until = now + backoff.next_delay();
        }
        pool.look(&channel).await;
        let calls = Some(channel.instances.calls());
        drop(channel);
        let is_idle = std::mem::replace(&mut calls_before, calls) == calls;
        tokio::time::sleep(match is_idle {
            true => LOOK_FOR_MORE_WHEN_IDLE,
            false => LOOK_FOR_MORE_AFTER,
        })
        .await;
    }
}

/// Whether nothing on this host says that the server should be here: it may well be on another.
pub(crate) fn is_elsewhere(error: &Error) -> bool {
    matches!(error, Error::Local(ConnectError::Absent { .. }))
}

fn quoted(names: &[&String]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

/// Of two reasons, the one to tell: what is wrong with an instance that is there says more than that
/// another has gone.
fn more_telling(known: Option<Error>, error: Error) -> Error {
    match known {
        Some(known) if has_gone(&error) || !has_gone(&known) => known,
        _ => error,
    }
}

/// Absent, or killed so that its socket was left behind.
fn has_gone(error: &Error) -> bool {
    matches!(error, Error::Local(error) if error.is_absence())
}

#[cfg(test)]
mod tests {
    use tonic::{Code, Request};

    use super::*;
    use crate::channel::Channel;
    use crate::client::Caller;
    use crate::inproc::Registration;
    use crate::method::{CallOptions, Method};
    use crate::services::Services;

    static NOT_THERE: Method = Method::new("a.Service", "Method", "/a.Service/Method");

    /// A server's instance without services.
    fn instance(name: &str) -> Registration {
        let services = Arc::new(Services::default());
        Registration::new(&[name.to_owned()], &services, &LocalConfig::default())
    }

    fn knows_all(channel: &Channel) -> bool {
        let shared = &channel.shared;
        let found = shared.find_instances().unwrap();
        let mut found = found.iter();
        found.all(|found| shared.instances.needs_no(&found.name()))
    }

    async fn call(channel: &mut Channel) {
        let options = CallOptions::default();
        let answer = channel
            .unary::<(), ()>(&NOT_THERE, &options, Request::new(()))
            .await;
        assert_eq!(answer.unwrap_err().code(), Code::Unimplemented);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_channel_looks_less_often_for_further_instances() {
        let seconds = |count| tokio::time::sleep(Duration::from_secs(count));
        let name = "looked-for:1";
        let _first = instance(name);
        let endpoint = Endpoint::new(format!("inproc://{name}")).unwrap();
        let mut channel = endpoint.connect().await.unwrap();
        // It has looked at 0, 1 and 11 s.
        seconds(13).await;
        let second = instance(name);
        seconds(5).await;
        assert!(!knows_all(&channel), "it looked although nobody calls it");
        seconds(6).await;
        assert!(knows_all(&channel), "it does not look any more");

        drop(second);
        let _third = instance(name);
        for _ in 0..20 {
            call(&mut channel).await;
            seconds(1).await;
        }
        assert!(knows_all(&channel));
        let _fourth = instance(name);
        call(&mut channel).await;
        seconds(2).await;
        assert!(
            knows_all(&channel),
            "it does not look although it is called"
        );
    }
}
