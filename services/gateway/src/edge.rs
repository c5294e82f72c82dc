//! The HTTP server: how many connections there are, and how long each may keep its place.
//!
//! Anybody can connect. So a connection that says nothing, or says it byte by byte, or does not read what it
//! asked for, loses its place in the end, and no more are held than the process has room for.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

/// Connections at once: each may have a body of 1 MiB under way, most of 16 KiB.
const CONNECTIONS_MAX: usize = 512;
/// The longest that a request's headers may take to come, and that a connection may rest between two requests.
const HEADERS_PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a request's headers, and of what is read ahead.
const BUFFER_MAX_BYTES: usize = 16 << 10;
/// The longest life of a connection: longer than an order is followed.
const CONNECTION_MAX: Duration = Duration::from_secs(900);
/// Pause after an accept that failed for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `router` until `stop` is ready and the requests in flight are answered.
pub(crate) async fn serve(listener: TcpListener, router: Router, stop: impl Future<Output = ()>) {
    let edge = Edge {
        places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        headers_patience: HEADERS_PATIENCE,
    };
    edge.serve(listener, router, stop).await;
}

struct Edge {
    places: Arc<Semaphore>,
    headers_patience: Duration,
}

impl Edge {
    async fn serve(&self, listener: TcpListener, router: Router, stop: impl Future<Output = ()>) {
        let ending = GracefulShutdown::new();
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                (place, connection) = self.accept(&listener) => {
                    self.spawn(connection, router.clone(), &ending, place);
                }
            }
        }
        drop(listener);
        ending.shutdown().await;
    }

    /// The next connection once there is a place for it; until then it waits in the kernel's queue.
    async fn accept(&self, listener: &TcpListener) -> (Option<OwnedSemaphorePermit>, TcpStream) {
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        loop {
            match listener.accept().await {
                Ok((connection, _)) => return (place, connection),
                Err(error) => {
                    tracing::warn!(%error, "can't accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn spawn(
        &self,
        connection: TcpStream,
        router: Router,
        ending: &GracefulShutdown,
        place: Option<OwnedSemaphorePermit>,
    ) {
        // Without it, small answers wait for acknowledgements.
        let _ = connection.set_nodelay(true);
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.headers_patience)
            .max_buf_size(BUFFER_MAX_BYTES)
            .serve_connection(TokioIo::new(connection), TowerToHyperService::new(router));
        let served = ending.watch(served);
        tokio::spawn(async move {
            let _place = place;
            match timeout(CONNECTION_MAX, served).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a connection broke off"),
                Err(_late) => tracing::debug!("a connection has had its time"),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::SocketAddr;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    use super::*;

    /// An edge with so many places and little patience.
    async fn edge(places: usize, headers_patience: Duration) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let edge = Edge {
            places: Arc::new(Semaphore::new(places)),
            headers_patience,
        };
        let router = Router::new().route("/", get(async || "ok"));
        tokio::spawn(async move { edge.serve(listener, router, std::future::pending()).await });
        Ok(address)
    }

    async fn ask(connection: &mut TcpStream) -> io::Result<String> {
        let request = b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n";
        connection.write_all(request).await?;
        let mut answer = vec![0; 4096];
        let len = connection.read(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer[..len]).into_owned())
    }

    #[tokio::test]
    async fn one_that_says_its_headers_slowly_is_cut_off() -> io::Result<()> {
        let address = edge(4, Duration::from_millis(200)).await?;
        let mut slow = TcpStream::connect(address).await?;
        slow.write_all(b"GET / HTTP/1.1\r\n").await?;
        let began = Instant::now();
        let mut rest = Vec::new();
        // A reset ends it just as well.
        let _ = timeout(Duration::from_secs(10), slow.read_to_end(&mut rest)).await?;
        assert!(began.elapsed() < Duration::from_secs(5));
        let mut quick = TcpStream::connect(address).await?;
        assert!(ask(&mut quick).await?.starts_with("HTTP/1.1 200"));
        Ok(())
    }

    #[tokio::test]
    async fn those_that_rest_lose_their_places_to_others() -> io::Result<()> {
        let address = edge(2, Duration::from_millis(200)).await?;
        let mut resting = Vec::new();
        for _ in 0..2 {
            resting.push(TcpStream::connect(address).await?);
        }
        let mut third = TcpStream::connect(address).await?;
        let began = Instant::now();
        let answer = timeout(Duration::from_secs(10), ask(&mut third)).await?;
        assert!(answer?.starts_with("HTTP/1.1 200"));
        assert!(
            began.elapsed() >= Duration::from_millis(100),
            "there was no cap"
        );
        Ok(())
    }
}
