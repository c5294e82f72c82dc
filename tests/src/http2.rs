//! A gRPC server made of bare HTTP/2, which misbehaves as it is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// It is answered with what it sent.
    Echo,
    /// It is answered, and the connection takes no further call (GOAWAY).
    EchoAndGoAway,
    /// It is turned away before anybody sees it (`REFUSED_STREAM`).
    Refuse,
    /// It is reset after the response's head.
    ResetAfterHeader,
    /// It is reset in the middle of the response's message.
    ResetDuringData,
    /// It is reset after the response's message, before the trailers.
    ResetAfterData,
    /// It is answered a little later.
    Nap,
}

/// The server, until this is dropped.
#[derive(Debug)]
pub struct Http2Server {
    /// Where it listens.
    pub address: SocketAddr,
    counts: Arc<Counts>,
    accepting: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicUsize,
    calls: AtomicUsize,
    inside: AtomicUsize,
    most_inside: AtomicUsize,
}

impl Http2Server {
    /// Does with the n-th call, over all connections, what `script` says.
    pub async fn start(script: impl Fn(usize) -> Script + Send + Sync + 'static) -> Self {
        Self::with_max_streams(100, script).await
    }

    /// The same, with so many calls at once on a connection.
    pub async fn with_max_streams(
        max_streams: u32,
        script: impl Fn(usize) -> Script + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (counts, script) = (Arc::new(Counts::default()), Arc::new(script));
        let counted = Arc::clone(&counts);
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.connections.fetch_add(1, Ordering::SeqCst);
                let (counts, script) = (Arc::clone(&counted), Arc::clone(&script));
                tokio::spawn(async move {
                    // A client that goes away is nothing to fail for.
                    let _ = serve(stream, max_streams, &counts, &*script).await;
                });
            }
        });
        Self {
            address,
            counts,
            accepting,
        }
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::SeqCst)
    }

    /// Calls so far, those that were refused included.
    pub fn calls(&self) -> usize {
        self.counts.calls.load(Ordering::SeqCst)
    }

    /// The most calls that were served at once.
    pub fn most_at_once(&self) -> usize {
        self.counts.most_inside.load(Ordering::SeqCst)
    }
}

/// A server that is about to end: it takes connections, and each one's first call comes too late. Where
/// it listens; it ends with the test's runtime.
pub async fn leaving() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that goes away is nothing to fail for.
            tokio::spawn(leave(stream));
        }
    });
    address
}

/// Bare frames (RFC 9113): h2 names each call that it has read in its GOAWAY.
async fn leave(mut stream: TcpStream) -> std::io::Result<()> {
    const PREFACE_BYTES: usize = 24;
    const HEADERS: u8 = 1;
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    // Type 7, eight bytes: no stream was processed, NO_ERROR.
    const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    stream.write_all(&SETTINGS).await?;
    stream.read_exact(&mut [0; PREFACE_BYTES]).await?;
    loop {
        let mut header = [0; 9];
        stream.read_exact(&mut header).await?;
        let len = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let mut payload = vec![0; len as usize];
        stream.read_exact(&mut payload).await?;
        if header[3] == HEADERS {
            stream.write_all(&GOAWAY).await?;
        }
    }
}

impl Drop for Http2Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(
    stream: TcpStream,
    max_streams: u32,
    counts: &Arc<Counts>,
    script: &(impl Fn(usize) -> Script + ?Sized),
) -> Result<(), h2::Error> {
    let mut builder = Builder::new();
    builder.max_concurrent_streams(max_streams);
    let mut connection = builder.handshake::<_, Bytes>(stream).await?;
    while let Some(accepted) = connection.accept().await {
        let (request, mut respond) = accepted?;
        let script = script(counts.calls.fetch_add(1, Ordering::SeqCst));
        match script {
            Script::Refuse => respond.send_reset(Reason::REFUSED_STREAM),
            script => drop(tokio::spawn(answer(
                request,
                respond,
                script,
                Arc::clone(counts),
            ))),
        }
        if script == Script::EchoAndGoAway {
            connection.graceful_shutdown();
        }
    }
    Ok(())
}

async fn answer(
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    script: Script,
    counts: Arc<Counts>,
) {
    let inside = counts.inside.fetch_add(1, Ordering::SeqCst) + 1;
    counts.most_inside.fetch_max(inside, Ordering::SeqCst);
    // A client that goes away is nothing to fail for.
    let _ = try_answer(request, respond, script).await;
    counts.inside.fetch_sub(1, Ordering::SeqCst);
}

async fn try_answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    script: Script,
) -> Result<(), h2::Error> {
    let mut body = request.into_body();
    let mut message = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        message.put(data);
    }
    if script == Script::Nap {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut head = Response::new(());
    head.headers_mut().insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    let mut sending = respond.send_response(head, false)?;
    match script {
        Script::ResetAfterHeader => sending.send_reset(Reason::INTERNAL_ERROR),
        Script::ResetDuringData => {
            let half = message.split_to(message.len() / 2).freeze();
            sending.send_data(half, false)?;
            pushed_out().await;
            sending.send_reset(Reason::INTERNAL_ERROR);
        }
        Script::ResetAfterData => {
            sending.send_data(message.freeze(), false)?;
            pushed_out().await;
            sending.send_reset(Reason::INTERNAL_ERROR);
        }
        _ => {
            sending.send_data(message.freeze(), false)?;
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            sending.send_trailers(trailers)?;
        }
    }
    Ok(())
}

/// A reset throws away what is still queued, so that has to go out first: h2 does not tell when.
async fn pushed_out() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}
