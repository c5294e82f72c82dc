//! A handler behind an address.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;
use std::{fs, io};

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::oneshot;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;
use tonic::transport::Server;
use tonic::transport::server::{Router, TcpIncoming};

use crate::{Address, Error};

/// How long calls in flight may take once a service was told to end.
pub const DRAIN: Duration = Duration::from_secs(2);

/// Large enough that a picture never waits for credit.
const WINDOW_BYTES: u32 = 4 << 20;

/// Serves `service` at `address` until `until` is ready, then lets the calls in
/// flight end for up to [`DRAIN`].
///
/// # Errors
/// [`Error::Listen`] if the address can't be taken, [`Error::Serve`] if the
/// server fails later.
pub async fn serve<S, F>(address: &Address, service: S, until: F) -> Result<(), Error>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
    F: Future<Output = ()> + Send,
{
    let router = Server::builder()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .add_service(service);
    bounded(until, |stop| listen(router, address, stop.ready()))
        .await
        .unwrap_or(Ok(()))
}

/// Tells a server to take no new calls.
#[derive(Debug)]
pub struct Stop(oneshot::Receiver<()>);

impl Stop {
    /// Ready once the server should end.
    pub async fn ready(self) {
        // A sender that is gone asks for the same.
        let _ = self.0.await;
    }
}

/// Runs a server until it has drained after `until`, but no longer than [`DRAIN`]
/// past it; `None` if it was cut off.
pub async fn bounded<T, S: Future<Output = T>>(
    until: impl Future<Output = ()>,
    server: impl FnOnce(Stop) -> S,
) -> Option<T> {
    let (stop, stopped) = oneshot::channel();
    let overdue = async {
        until.await;
        let _ = stop.send(());
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        ended = server(Stop(stopped)) => Some(ended),
        () = overdue => None,
    }
}

async fn listen(
    router: Router,
    address: &Address,
    stopped: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    let refused = |source| Error::Listen {
        address: address.to_string(),
        source,
    };
    let served = match address {
        Address::Tcp(authority) => {
            let listener = TcpListener::bind(authority).await.map_err(refused)?;
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            router.serve_with_incoming_shutdown(incoming, stopped).await
        }
        Address::Unix(path) => {
            let listener = bind_unix(path.clone()).map_err(refused)?;
            let incoming = UnixListenerStream::new(listener.listener);
            let _file = listener.file;
            router.serve_with_incoming_shutdown(incoming, stopped).await
        }
    };
    served.map_err(|source| Error::Serve {
        address: address.to_string(),
        source,
    })
}

struct BoundUnix {
    listener: UnixListener,
    file: SocketFile,
}

/// Removes the socket's file when the service ends.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Takes the path over from a service that died, never from one that lives.
fn bind_unix(path: PathBuf) -> io::Result<BoundUnix> {
    let refused = std::os::unix::net::UnixStream::connect(&path)
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    if refused {
        fs::remove_file(&path)?;
    }
    let listener = UnixListener::bind(&path)?;
    Ok(BoundUnix {
        listener,
        file: SocketFile(path),
    })
}
