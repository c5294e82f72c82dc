//! A service by hand, with a method of each kind over bare strings, and a server that runs it.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use http::{Request as HttpRequest, Response as HttpResponse, uri::PathAndQuery};
use ringway_net::{BoundServer, Error, NetServer, Target};
use tokio::{
    sync::{Notify, oneshot},
    task::JoinHandle,
};
use tokio_stream::{Stream, StreamExt};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codec::CompressionEncoding,
    server::{
        ClientStreamingService, Grpc, NamedService, ServerStreamingService, StreamingService,
        UnaryService,
    },
    service::Routes,
    transport::server::{TcpConnectInfo, UdsConnectInfo},
};
use tonic_prost::ProstCodec;

/// The path of a method.
pub(crate) fn path(method: &str) -> PathAndQuery {
    format!("/test.Echo/{method}").parse().unwrap()
}

/// What the handlers share with the tests.
#[derive(Default)]
pub(crate) struct Echo {
    pub(crate) slow_entered: Notify,
    pub(crate) slow_release: Notify,
    pub(crate) upload_began: Notify,
    pub(crate) upload_over: Notify,
    pub(crate) committed: AtomicUsize,
}

/// A server that runs until it is stopped.
pub(crate) struct Running {
    pub(crate) echo: Arc<Echo>,
    pub(crate) targets: Vec<Target>,
    pub(crate) serving: JoinHandle<Result<(), Error>>,
    pub(crate) stop: oneshot::Sender<()>,
}

impl Running {
    pub(crate) async fn stop(self) -> Result<(), Error> {
        self.stop.send(()).unwrap();
        self.serving.await.unwrap()
    }
}

pub(crate) async fn start(configure: impl FnOnce(NetServer) -> NetServer) -> Running {
    let echo = Arc::new(Echo::default());
    let routes = Routes::new(EchoServer(Arc::clone(&echo)));
    let server: BoundServer = configure(NetServer::new(routes)).bind().await.unwrap();
    let targets = server
        .addresses()
        .iter()
        .map(|a| a.to_string().parse().unwrap())
        .collect();
    let (stop, stopped) = oneshot::channel();
    let serving = tokio::spawn(server.serve(async { stopped.await.unwrap() }));
    Running {
        echo,
        targets,
        serving,
        stop,
    }
}

#[derive(Clone)]
struct EchoServer(Arc<Echo>);

impl NamedService for EchoServer {
    const NAME: &'static str = "test.Echo";
}

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Strings = Pin<Box<dyn Stream<Item = Result<String, Status>> + Send>>;

impl tower::Service<HttpRequest<Body>> for EchoServer {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = Boxed<Result<HttpResponse<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        let handler = Handler(Arc::clone(&self.0), request.uri().path().to_owned());
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<String, String>::default())
                .accept_compressed(CompressionEncoding::Gzip)
                .send_compressed(CompressionEncoding::Gzip);
            Ok(match handler.1.as_str() {
                "/test.Echo/ClientStream" => grpc.client_streaming(handler, request).await,
                "/test.Echo/ServerStream" => grpc.server_streaming(handler, request).await,
                "/test.Echo/Bidi" => grpc.streaming(handler, request).await,
                _ => grpc.unary(handler, request).await,
            })
        })
    }
}

struct Handler(Arc<Echo>, String);

impl UnaryService<String> for Handler {
    type Response = String;
    type Future = Boxed<Result<Response<String>, Status>>;

    fn call(&mut self, request: Request<String>) -> Self::Future {
        let (echo, path) = (Arc::clone(&self.0), self.1.clone());
        Box::pin(async move {
            match path.as_str() {
                // As `futures::executor::block_on` does with what never comes.
                "/test.Echo/Block" => loop {
                    std::thread::park();
                },
                "/test.Echo/Peer" => return Ok(Response::new(peer(&request).to_owned())),
                "/test.Echo/Slow" => {
                    echo.slow_entered.notify_one();
                    echo.slow_release.notified().await;
                }
                _ => {}
            }
            Ok(Response::new(request.into_inner()))
        })
    }
}

fn peer(request: &Request<String>) -> &'static str {
    let extensions = request.extensions();
    match (
        extensions.get::<TcpConnectInfo>(),
        extensions.get::<UdsConnectInfo>(),
    ) {
        (Some(_), None) => "tcp",
        (None, Some(_)) => "unix",
        _ => "unknown",
    }
}

impl ClientStreamingService<String> for Handler {
    type Response = String;
    type Future = Boxed<Result<Response<String>, Status>>;

    fn call(&mut self, request: Request<Streaming<String>>) -> Self::Future {
        let echo = Arc::clone(&self.0);
        Box::pin(async move {
            let _over = NotifyOnDrop(Arc::clone(&echo));
            let mut words = request.into_inner();
            let mut joined = String::new();
            while let Some(word) = words.next().await {
                joined.push_str(&word?);
                echo.upload_began.notify_one();
            }
            echo.committed.fetch_add(1, Ordering::SeqCst);
            Ok(Response::new(joined))
        })
    }
}

struct NotifyOnDrop(Arc<Echo>);

impl Drop for NotifyOnDrop {
    fn drop(&mut self) {
        self.0.upload_over.notify_one();
    }
}

impl ServerStreamingService<String> for Handler {
    type Response = String;
    type ResponseStream = Strings;
    type Future = Boxed<Result<Response<Strings>, Status>>;

    fn call(&mut self, request: Request<String>) -> Self::Future {
        let letters: Vec<_> = request
            .into_inner()
            .chars()
            .map(|c| Ok(c.to_string()))
            .collect();
        Box::pin(async move {
            Ok(Response::new(
                Box::pin(tokio_stream::iter(letters)) as Strings
            ))
        })
    }
}

impl StreamingService<String> for Handler {
    type Response = String;
    type ResponseStream = Strings;
    type Future = Boxed<Result<Response<Strings>, Status>>;

    fn call(&mut self, request: Request<Streaming<String>>) -> Self::Future {
        Box::pin(async move { Ok(Response::new(Box::pin(request.into_inner()) as Strings)) })
    }
}
