//! Each path, by a call over it to a server of this process: the same sockets, regions and bells as
//! between two processes of this user.

use std::fs;
use std::time::Duration;

use ringway::{Endpoint, Path, Server};
use ringway_interop::{Case, Client};
use ringway_local::Directory;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::compare::with_causes;

/// Longer than any call here takes that works.
const PATIENCE: Duration = Duration::from_secs(5);

/// What became of one path.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Tried {
    /// As in an address: `socket+epoll` is the socket without io_uring.
    pub(crate) path: &'static str,
    pub(crate) works: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

/// Calls over every path, the best first.
pub(super) async fn try_all(directory: &Directory) -> Vec<Tried> {
    let mut tried = try_local(directory).await;
    tried.push(Tried::of("grpc", try_network().await));
    tried
}

impl Tried {
    fn of(path: &'static str, came_to: Result<(), String>) -> Self {
        Self {
            path,
            works: came_to.is_ok(),
            reason: came_to.err(),
        }
    }
}

async fn try_local(directory: &Directory) -> Vec<Tried> {
    let ways = [
        ("shm", Path::Shm),
        ("socket", Path::Socket),
        ("socket+epoll", Path::Socket),
    ];
    let name = format!("doctor-{}:1", std::process::id());
    let root_was_there = directory.root().exists();
    let builder = Server::builder().directory(directory.root()).name(&name);
    let serving = serve(builder).await;
    let mut tried = Vec::new();
    for (scheme, path) in ways {
        let came_to = match &serving {
            Ok(_) => call(&format!("{scheme}://{name}"), path).await,
            Err(reason) => Err(reason.clone()),
        };
        tried.push(Tried::of(scheme, came_to));
    }
    if let Ok((_, serving)) = serving {
        serving.stop().await;
    }
    clean_up(directory, &name, root_was_there);
    tried
}

async fn try_network() -> Result<(), String> {
    let builder = Server::builder().listen("127.0.0.1:0");
    let builder = builder.map_err(|error| with_causes(&error))?;
    let (address, serving) = serve(builder).await?;
    let address = address.ok_or("no address was bound")?;
    let came_to = call(&format!("grpc://{address}"), Path::Grpc).await;
    serving.stop().await;
    came_to
}

/// A server that runs.
struct Serving {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Serving {
    /// Has it drain: once it has, its socket is gone. An abort would leave that for later.
    async fn stop(self) {
        drop(self.stop);
        let _ = self.task.await;
    }
}

/// A server of the interoperability service; its network address, if it has one.
async fn serve(builder: ringway::ServerBuilder) -> Result<(Option<String>, Serving), String> {
    let builder = builder.drain_timeout(PATIENCE);
    let bound = ringway_interop::add_to(builder).bind().await;
    let server = bound.map_err(|error| with_causes(&error))?;
    let address = server.addresses().first().map(ToString::to_string);
    let (stop, stopped) = oneshot::channel();
    let serving = server.serve_with_shutdown(async {
        // Nothing is ever sent: it is the sender's end that counts.
        let _ = stopped.await;
    });
    let task = tokio::spawn(async {
        // What goes wrong shows in the calls.
        let _ = serving.await;
    });
    Ok((address, Serving { stop, task }))
}

async fn call(address: &str, path: Path) -> Result<(), String> {
    let calling = async {
        let endpoint = Endpoint::new(address).map_err(|error| with_causes(&error))?;
        let client = Client::connect(endpoint).await;
        let client = client
            .map_err(|error| with_causes(&error))?
            .expect_path(path);
        let called = client.run(Case::EmptyUnary).await;
        called.map_err(|error| with_causes(&error))
    };
    let ended = tokio::time::timeout(PATIENCE, calling).await;
    ended.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())))
}

/// Leaves the directory as it was; what others put there meanwhile keeps it.
fn clean_up(directory: &Directory, name: &str, root_was_there: bool) {
    if let Ok(of_name) = directory.of_name(name) {
        let _ = fs::remove_dir(of_name);
    }
    if !root_was_there {
        let _ = fs::remove_dir(directory.root());
    }
}
