//! What a handler passes on to the calls that it makes.

use std::sync::Arc;
use std::time::Duration;

use ringway::{Channel, Context, Peer, ServerBuilder};
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench::bench_server::{Bench, BenchServer};
use ringway_proto::bench::{Payload, StreamRequest, Summary};
use ringway_tests::{Running, Way, asking, eventually, ours, payload, payloads};
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio_stream::{Stream, StreamExt};
use tonic::metadata::MetadataMap;
use tonic::transport::server::{Connected, UdsConnectInfo};
use tonic::{Code, Request, Response, Status, Streaming};

/// A handler that has another server do all its work, and knows nothing of contexts.
struct Front {
    back: BenchClient<Channel>,
    spawned_is_over: Arc<Notify>,
}

fn pass_on<T>(metadata: &MetadataMap, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(wish) = metadata.get("x-do") {
        request.metadata_mut().insert("x-do", wish.clone());
    }
    request
}

type Payloads = std::pin::Pin<Box<dyn Stream<Item = Result<Payload, Status>> + Send>>;

#[tonic::async_trait]
impl Bench for Front {
    async fn unary(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        let mut back = self.back.clone();
        if request.metadata().contains_key("x-spawn") {
            let (context, is_over) = (Context::current(), Arc::clone(&self.spawned_is_over));
            tokio::spawn(async move {
                let hangs = back.unary(asking("hang", payload(1, 1)));
                assert!(context.until_over(hangs).await.is_none());
                is_over.notify_one();
            });
            return std::future::pending().await;
        }
        let (metadata, _, payload) = request.into_parts();
        back.unary(pass_on(&metadata, payload)).await
    }

    type ServerStreamStream = Payloads;

    /// Each message is the answer to a call that is made when the message is wanted.
    async fn server_stream(
        &self,
        request: Request<StreamRequest>,
    ) -> Result<Response<Payloads>, Status> {
        let (metadata, _, asked) = request.into_parts();
        let mut back = self.back.clone();
        let stream = async_stream::try_stream! {
            for sequence in 0..asked.count {
                let request = pass_on(&metadata, payload(sequence, 1));
                yield back.unary(request).await?.into_inner();
            }
        };
        Ok(Response::new(Box::pin(stream)))
    }

    async fn client_stream(
        &self,
        request: Request<Streaming<Payload>>,
    ) -> Result<Response<Summary>, Status> {
        let (metadata, _, requests) = request.into_parts();
        let requests = requests.map_while(Result::ok);
        let mut back = self.back.clone();
        back.client_stream(pass_on(&metadata, requests)).await
    }

    type BidiStream = Payloads;

    async fn bidi(
        &self,
        request: Request<Streaming<Payload>>,
    ) -> Result<Response<Payloads>, Status> {
        let (metadata, _, requests) = request.into_parts();
        let requests = requests.map_while(Result::ok);
        let response = self.back.clone().bidi(pass_on(&metadata, requests)).await?;
        Ok(Response::new(Box::pin(response.into_inner())))
    }
}

pub(crate) struct Chain {
    pub(crate) front: Running,
    pub(crate) back: Running,
    spawned_is_over: Arc<Notify>,
}

/// A server that asks another one, both on `way`.
pub(crate) async fn chain(way: Way) -> Chain {
    chain_to(way, Running::start(way).await).await
}

/// A server on `way` that asks `back`.
pub(crate) async fn chain_to(way: Way, back: Running) -> Chain {
    let spawned_is_over = Arc::default();
    let front = Front {
        back: back.client().await,
        spawned_is_over: Arc::clone(&spawned_is_over),
    };
    let front = Running::with(way, |builder| builder.add_service(BenchServer::new(front))).await;
    Chain {
        front,
        back,
        spawned_is_over,
    }
}

fn within<T>(timeout: Duration, mut request: Request<T>) -> Request<T> {
    request.set_timeout(timeout);
    request
}

fn assert_late(status: &Status) {
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
}

pub(crate) fn three() -> StreamRequest {
    StreamRequest {
        count: 3,
        size_bytes: 1,
    }
}

/// Nobody but the first caller says how long it may take; the caller itself has gone, so what ends the
/// last handler is its own deadline.
pub(crate) async fn a_deadline_reaches_the_calls_of_a_handler(way: Way) {
    let Chain { front, back, .. } = chain(way).await;
    let mut client = front.client().await;
    let short = Duration::from_millis(100);
    let status = client
        .unary(within(short, asking("left", payload(1, 1))))
        .await
        .map(|response| left(response.metadata()));
    assert!(status.unwrap().unwrap() <= short);
    let unlimited = client.unary(asking("left", payload(1, 1))).await.unwrap();
    assert_eq!(left(unlimited.metadata()), None);

    let hangs = client.unary(within(short, asking("hang", payload(1, 1))));
    assert_late(&hangs.await.unwrap_err());
    let hangs = client.client_stream(within(short, asking("hang", payloads(1, 1))));
    assert_late(&hangs.await.unwrap_err());
    let hangs = client.server_stream(within(short, asking("hang", three())));
    let mut stream = hangs.await.unwrap().into_inner();
    assert_late(&stream.message().await.unwrap_err());
    eventually("all handlers are dropped", || back.seen.inside() == 0).await;
}

/// What the usual handler says is left to it.
fn left(metadata: &MetadataMap) -> Option<Duration> {
    let micros = metadata.get("x-left-us")?.to_str().unwrap();
    Some(Duration::from_micros(micros.parse().unwrap()))
}

pub(crate) async fn a_dropped_call_cancels_the_calls_of_its_handler(way: Way) {
    let Chain { front, back, .. } = chain(way).await;
    let mut client = front.client().await;
    let seen = &back.seen;
    tokio::select! {
        answered = client.unary(asking("hang", payload(1, 1))) => panic!("{answered:?}"),
        () = eventually("the last handler runs", || seen.inside() == 1) => {}
    }
    eventually("the last handler is dropped", || seen.inside() == 0).await;
    let response = client.server_stream(asking("hang", three()));
    let mut stream = response.await.unwrap().into_inner();
    tokio::select! {
        answered = stream.message() => panic!("{answered:?}"),
        () = eventually("the last handler runs", || seen.inside() == 1) => {}
    }
    drop(stream);
    eventually("the last handler is dropped", || seen.inside() == 0).await;
}

pub(crate) async fn a_spawned_task_learns_that_the_call_is_over(way: Way) {
    let Chain {
        front,
        back,
        spawned_is_over,
    } = chain(way).await;
    let mut client = front.client().await;
    let mut request = Request::new(payload(1, 1));
    request
        .metadata_mut()
        .insert("x-spawn", "yes".parse().unwrap());
    tokio::select! {
        answered = client.unary(request) => panic!("{answered:?}"),
        () = eventually("the spawned task calls", || back.seen.inside() == 1) => {}
    }
    spawned_is_over.notified().await;
    eventually("its call is cancelled", || back.seen.inside() == 0).await;
}

/// Says in metadata who called, by our words and by tonic's.
struct WhoCalls;

fn add_connect_info<T, R>(request: &Request<T>, response: &mut Response<R>) {
    let info = request.extensions().get::<UdsConnectInfo>();
    let info = info.map_or_else(|| "nobody".to_owned(), described);
    response
        .metadata_mut()
        .insert("x-connect-info", info.parse().unwrap());
}

fn described(info: &UdsConnectInfo) -> String {
    let peer = info.peer_cred.unwrap();
    let unnamed = info.peer_addr.as_ref().unwrap().is_unnamed();
    format!("{} {} {:?} {unnamed}", peer.uid(), peer.gid(), peer.pid())
}

#[tonic::async_trait]
impl Bench for WhoCalls {
    async fn unary(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        let caller = match Context::current().peer() {
            Some(Peer::Process { uid, gid, pid }) => format!("{uid} {gid} {pid:?}"),
            Some(Peer::Network(address)) => address.ip().to_string(),
            _ => "nobody".to_owned(),
        };
        let mut response = Response::new(request.get_ref().clone());
        add_connect_info(&request, &mut response);
        let metadata = response.metadata_mut();
        metadata.insert("x-caller", caller.parse().unwrap());
        Ok(response)
    }
    type ServerStreamStream = Payloads;
    async fn server_stream(
        &self,
        request: Request<StreamRequest>,
    ) -> Result<Response<Payloads>, Status> {
        let mut response = Response::new(Box::pin(tokio_stream::empty()) as Payloads);
        add_connect_info(&request, &mut response);
        Ok(response)
    }
    async fn client_stream(
        &self,
        request: Request<Streaming<Payload>>,
    ) -> Result<Response<Summary>, Status> {
        let mut response = Response::new(Summary::default());
        add_connect_info(&request, &mut response);
        Ok(response)
    }
    type BidiStream = Payloads;
    async fn bidi(
        &self,
        request: Request<Streaming<Payload>>,
    ) -> Result<Response<Payloads>, Status> {
        let mut response = Response::new(Box::pin(tokio_stream::empty()) as Payloads);
        add_connect_info(&request, &mut response);
        Ok(response)
    }
}

pub(crate) async fn a_handler_learns_who_calls(way: Way) {
    let service = BenchServer::new(WhoCalls);
    let running = Running::with(way, |builder| builder.add_service(service)).await;
    let response = running.client().await.unary(payload(1, 1)).await.unwrap();
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let expected = match way {
        Way::Inproc | Way::Pipe => "nobody".to_owned(),
        Way::GrpcTcp => "127.0.0.1".to_owned(),
        _ => format!(
            "{} {} {:?}",
            uid.as_raw(),
            gid.as_raw(),
            Some(std::process::id())
        ),
    };
    assert_eq!(response.metadata().get("x-caller").unwrap(), &*expected);
}

/// On local paths only where the server was told to say so, or goes through HTTP types anyway.
pub(crate) async fn requests_have_tonics_connect_info(way: Way) {
    let (own, nobody) = (own_connect_info(), "nobody".to_owned());
    let service = || BenchServer::new(WhoCalls);
    let [untold, told] = match way {
        Way::GrpcUnix => [&own, &own],
        Way::Shm | Way::Socket | Way::SocketEpoll => [&nobody, &own],
        Way::Pipe | Way::Inproc | Way::GrpcTcp => [&nobody, &nobody],
    };
    let running = Running::with(way, |builder| builder.add_service(service())).await;
    assert_eq!(
        connect_infos(&running).await,
        [(); 4].map(|()| untold.clone())
    );
    let add = |builder: ServerBuilder| builder.connect_info(true).add_service(service());
    let running = Running::with(way, add).await;
    assert_eq!(
        connect_infos(&running).await,
        [(); 4].map(|()| told.clone())
    );
    let add =
        |builder: ServerBuilder| builder.add_service(BenchServer::with_interceptor(WhoCalls, Ok));
    let running = Running::with(way, add).await;
    assert_eq!(
        connect_infos(&running).await,
        [(); 4].map(|()| told.clone())
    );
}

/// What a server is told of this process.
fn own_connect_info() -> String {
    let (one, _other) = UnixStream::pair().unwrap();
    described(&one.connect_info())
}

/// What handlers of all four kinds say.
async fn connect_infos(running: &Running) -> [String; 4] {
    let mut client = running.client().await;
    let said = |metadata: &MetadataMap| {
        let said = metadata.get("x-connect-info").unwrap();
        said.to_str().unwrap().to_owned()
    };
    [
        said(client.unary(payload(1, 1)).await.unwrap().metadata()),
        said(client.server_stream(three()).await.unwrap().metadata()),
        said(
            client
                .client_stream(payloads(3, 1))
                .await
                .unwrap()
                .metadata(),
        ),
        said(client.bidi(payloads(3, 1)).await.unwrap().metadata()),
    ]
}

pub(crate) async fn both_ends_have_a_timeout_of_their_own(way: Way) {
    let short = Duration::from_millis(50);
    let patient = Running::start(way).await;
    let channel = patient.endpoint().timeout(short).connect().await.unwrap();
    let mut client = BenchClient::new(channel);
    let hangs = client.unary(asking("hang", payload(1, 1))).await;
    assert_late(&hangs.unwrap_err());
    eventually("the handler is dropped", || patient.seen.inside() == 0).await;

    let handler = ours::Handler::default();
    let seen = Arc::clone(&handler.seen);
    let add = |builder: ringway::ServerBuilder| {
        builder
            .timeout(short)
            .add_service(BenchServer::new(handler))
    };
    let hasty = Running::with(way, add).await;
    let mut client = hasty.client().await;
    let asked = within(Duration::from_secs(20), asking("hang", payload(1, 1)));
    let hangs = client.unary(asked).await;
    assert_late(&hangs.unwrap_err());
    let hangs = client.server_stream(asking("hang", three())).await;
    let mut stream = hangs.unwrap().into_inner();
    for _ in 0..3 {
        stream.message().await.unwrap().unwrap();
    }
    assert_late(&stream.message().await.unwrap_err());
    eventually("the handlers are dropped", || seen.inside() == 0).await;
}
