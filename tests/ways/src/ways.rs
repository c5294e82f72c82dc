// Included twice by lib.rs, which says what the names mean.

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http_body::Body as HttpBody;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codec::CompressionEncoding;
use tonic::service::interceptor::InterceptedService;
use tonic::service::{InterceptorLayer, Routes};
use tonic::{GrpcMethod, Request, Response, Status, Streaming};
use tower::{Layer, Service, ServiceBuilder};

use stubs::other_client::OtherClient;
use stubs::other_server::{Other, OtherServer};
use stubs::probe_client::ProbeClient;
use stubs::probe_server::{Probe, ProbeServer};
use stubs::Word;

type BoxError = Box<dyn Error + Send + Sync>;

/// A way's run.
pub type Running = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

/// A way of writing, and what it does with a server at an address.
pub type Way = (&'static str, fn(SocketAddr) -> Running);

/// A service that answers with what it was told.
#[derive(Debug, Default)]
pub struct Handler;

#[tonic::async_trait]
impl Probe for Handler {
    async fn say(&self, request: Request<Word>) -> Result<Response<Word>, Status> {
        let heard = request.metadata().get("heard").cloned();
        let mut response = Response::new(request.into_inner());
        if let Some(heard) = heard {
            response.metadata_mut().insert("heard", heard);
        }
        Ok(response)
    }

    type RepeatStream = Pin<Box<dyn Stream<Item = Result<Word, Status>> + Send>>;

    async fn repeat(&self, request: Request<Word>) -> Result<Response<Self::RepeatStream>, Status> {
        let word = request.into_inner();
        let words = tokio_stream::iter([Ok(word.clone()), Ok(word)]);
        Ok(Response::new(Box::pin(words)))
    }

    async fn join(&self, request: Request<Streaming<Word>>) -> Result<Response<Word>, Status> {
        let mut words = request.into_inner();
        let mut text = String::new();
        while let Some(word) = words.message().await? {
            text.push_str(&word.text);
        }
        Ok(Response::new(Word { text }))
    }

    type EchoStream = Pin<Box<dyn Stream<Item = Result<Word, Status>> + Send>>;

    async fn echo(
        &self,
        request: Request<Streaming<Word>>,
    ) -> Result<Response<Self::EchoStream>, Status> {
        Ok(Response::new(Box::pin(request.into_inner())))
    }
}

#[tonic::async_trait]
impl Other for Handler {
    async fn say(&self, request: Request<Word>) -> Result<Response<Word>, Status> {
        let text = format!("other {}", request.into_inner().text);
        Ok(Response::new(Word { text }))
    }
}

/// A word to say.
pub fn word() -> Word {
    Word { text: "word".into() }
}

fn uri(at: SocketAddr) -> Uri {
    let text = format!("http://{at}");
    text.parse().unwrap_or_default()
}

fn endpoint(at: SocketAddr) -> Endpoint {
    Endpoint::from(uri(at))
}

/// Serves `server` at a free port for as long as the answer is held.
macro_rules! served {
    ($server:expr) => {{
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let at = listener.local_addr()?;
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = $server;
        let serving = tokio::spawn(server.serve_with_incoming_shutdown(
            TcpListenerStream::new(listener),
            async move { drop(stopped.await) },
        ));
        (at, stop, serving)
    }};
}

async fn says(client: &mut ProbeClient<Channel>) -> Result<(), BoxError> {
    let answer = client.say(word()).await?;
    same(answer.into_inner(), word())
}

fn same<T: PartialEq + std::fmt::Debug>(found: T, expected: T) -> Result<(), BoxError> {
    if found == expected {
        Ok(())
    } else {
        Err(format!("{found:?} is not {expected:?}").into())
    }
}

fn hear(mut request: Request<()>) -> Result<Request<()>, Status> {
    if let Some(method) = request.extensions().get::<GrpcMethod<'_>>() {
        let text = format!("{}/{}", method.service(), method.method());
        let text = text.parse().map_err(|_| Status::internal("no metadata"))?;
        request.metadata_mut().insert("heard", text);
    }
    Ok(request)
}

fn refuse(_request: Request<()>) -> Result<Request<()>, Status> {
    Err(Status::permission_denied("refused by the interceptor"))
}

fn heard<T>(response: &Response<T>) -> Option<&str> {
    response.metadata().get("heard")?.to_str().ok()
}

/// A handler of calls over whatever carries them.
async fn generic<T>(service: T) -> Result<(), BoxError>
where
    T: GrpcService<Body> + 'static,
    T::Error: Into<BoxError>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<BoxError> + Send,
{
    let mut client = ProbeClient::new(service);
    same(client.say(word()).await?.into_inner(), word())
}

#[derive(Clone)]
struct Count(Arc<AtomicUsize>);

#[derive(Clone)]
struct Counted<S>(S, Arc<AtomicUsize>);

impl<S> Layer<S> for Count {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted(inner, Arc::clone(&self.0))
    }
}

impl<S: tonic::server::NamedService> tonic::server::NamedService for Counted<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<http::Request<B>> for Counted<S>
where
    S: Service<http::Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(
        &mut self,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> S::Future {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.call(request)
    }
}

/// A connector of the application's own.
fn connector(
    at: SocketAddr,
) -> impl Service<
    Uri,
    Response = hyper_util::rt::TokioIo<TcpStream>,
    Error = std::io::Error,
    Future = impl Future<Output = std::io::Result<hyper_util::rt::TokioIo<TcpStream>>> + Send,
> + Send {
    tower::service_fn(move |_: Uri| async move {
        let connection = TcpStream::connect(at).await?;
        Ok(hyper_util::rt::TokioIo::new(connection))
    })
}

/// One call as a browser makes it; the answer with its head.
async fn by_grpc_web(at: SocketAddr, message: &[u8]) -> Result<String, BoxError> {
    let mut connection = TcpStream::connect(at).await?;
    let head = format!(
        "POST /ways.Probe/Say HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\n\
         content-type: application/grpc-web+proto\r\ncontent-length: {}\r\n\r\n",
        message.len()
    );
    connection.write_all(head.as_bytes()).await?;
    connection.write_all(message).await?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// An interceptor that can't be cloned.
struct Once(String);

impl tonic::service::Interceptor for Once {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let text = self.0.parse().map_err(|_| Status::internal("no metadata"))?;
        request.metadata_mut().insert("heard", text);
        Ok(request)
    }
}

fn assert_clone_debug<T: Clone + std::fmt::Debug>(_: &T) {}

fn assert_service<T>(_: &T)
where
    T: Service<http::Request<Body>, Response = http::Response<Body>>,
{
}

fn assert_grpc_service<T: GrpcService<Body>>(_: &T) {}

fn assert_named<T: tonic::server::NamedService>(_: &T) -> &'static str {
    T::NAME
}

fn assert_tower<T>(_: &T)
where
    T: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
{
}

macro_rules! ways {
    ($at:ident; $($name:literal => $body:block)*) => {
        /// All ways.
        pub fn ways() -> Vec<Way> {
            vec![$((
                $name,
                |$at| {
                    let _ = $at;
                    Box::pin(async move {
                        let _ = $body;
                        Ok(())
                    })
                },
            )),*]
        }
    };
}

ways! { at;
    "Endpoint: new(&'static str)" => { Endpoint::new("http://[::1]:50051")? }
    "Endpoint: new(String)" => { Endpoint::new(format!("http://{at}"))? }
    "Endpoint: new(Uri)" => { Endpoint::new(uri(at))? }
    "Endpoint: from_static" => { Endpoint::from_static("http://[::1]:50051") }
    "Endpoint: from_shared(String)" => { Endpoint::from_shared(format!("http://{at}"))? }
    "Endpoint: From<Uri>" => { let _: Endpoint = uri(at).into(); }
    "Endpoint: TryFrom<String>" => { let _: Endpoint = format!("http://{at}").try_into()?; }
    "Endpoint: TryFrom<&'static str>" => { let _: Endpoint = "http://[::1]:50051".try_into()?; }
    "Endpoint: TryFrom<Bytes>" => {
        let _: Endpoint = Bytes::from_static(b"http://[::1]:50051").try_into()?;
    }
    "Endpoint: FromStr" => { "http://[::1]:50051".parse::<Endpoint>()? }
    "Endpoint: user_agent" => { endpoint(at).user_agent("ways/1.0")? }
    "Endpoint: origin" => { endpoint(at).origin(Uri::from_static("https://example.com")) }
    "Endpoint: timeout" => { endpoint(at).timeout(Duration::from_secs(5)) }
    "Endpoint: connect_timeout" => { endpoint(at).connect_timeout(Duration::from_secs(5)) }
    "Endpoint: tcp_keepalive" => {
        let channel = endpoint(at).tcp_keepalive(Some(Duration::from_secs(60))).connect().await?;
        says(&mut ProbeClient::new(channel)).await?
    }
    "Endpoint: tcp_keepalive_interval" => {
        endpoint(at).tcp_keepalive_interval(Some(Duration::from_secs(5)))
    }
    "Endpoint: tcp_keepalive_retries" => { endpoint(at).tcp_keepalive_retries(Some(3)) }
    "Endpoint: concurrency_limit" => {
        let channel = endpoint(at).concurrency_limit(1).connect_lazy();
        let calls = (0..4).map(|_| {
            let mut client = ProbeClient::new(channel.clone());
            async move { says(&mut client).await }
        });
        futures_util::future::try_join_all(calls).await?
    }
    "Endpoint: rate_limit" => {
        let channel = endpoint(at).rate_limit(2, Duration::from_millis(20)).connect_lazy();
        let mut client = ProbeClient::new(channel);
        let began = std::time::Instant::now();
        for _ in 0..5 {
            says(&mut client).await?;
        }
        same(began.elapsed() >= Duration::from_millis(40), true)?
    }
    "Endpoint: initial_stream_window_size" => { endpoint(at).initial_stream_window_size(1 << 20) }
    "Endpoint: initial_connection_window_size" => {
        endpoint(at).initial_connection_window_size(Some(1 << 20))
    }
    "Endpoint: buffer_size" => { endpoint(at).buffer_size(64) }
    "Endpoint: tls_config (with `?`)" => {
        Endpoint::from_static("https://[::1]:50051").tls_config(ClientTlsConfig::new())?
    }
    "Endpoint: tcp_nodelay" => { endpoint(at).tcp_nodelay(true) }
    "Endpoint: http2_keep_alive_interval" => {
        endpoint(at).http2_keep_alive_interval(Duration::from_secs(30))
    }
    "Endpoint: keep_alive_timeout" => { endpoint(at).keep_alive_timeout(Duration::from_secs(5)) }
    "Endpoint: keep_alive_while_idle" => { endpoint(at).keep_alive_while_idle(true) }
    "Endpoint: http2_adaptive_window" => { endpoint(at).http2_adaptive_window(true) }
    "Endpoint: http2_header_table_size" => { endpoint(at).http2_header_table_size(8192) }
    "Endpoint: http2_max_header_list_size" => { endpoint(at).http2_max_header_list_size(1 << 16) }
    "Endpoint: http2_max_concurrent_reset_streams" => {
        endpoint(at).http2_max_concurrent_reset_streams(8)
    }
    "Endpoint: http2_reset_stream_duration" => {
        endpoint(at).http2_reset_stream_duration(Duration::from_secs(1))
    }
    "Endpoint: http2_max_local_error_reset_streams" => {
        endpoint(at).http2_max_local_error_reset_streams(Some(64))
    }
    "Endpoint: max_frame_size" => { endpoint(at).max_frame_size(1 << 16) }
    "Endpoint: local_address" => {
        let channel = endpoint(at).local_address(Some("127.0.0.1".parse()?)).connect().await?;
        says(&mut ProbeClient::new(channel)).await?
    }
    "Endpoint: connect" => { says(&mut ProbeClient::new(endpoint(at).connect().await?)).await? }
    "Endpoint: connect_lazy (no `?`)" => {
        says(&mut ProbeClient::new(endpoint(at).connect_lazy())).await?
    }
    "Endpoint: connect_with_connector" => {
        let channel = endpoint(at).connect_with_connector(connector(at)).await?;
        says(&mut ProbeClient::new(channel)).await?
    }
    "Endpoint: connect_with_connector_lazy" => {
        let channel = endpoint(at).connect_with_connector_lazy(connector(at));
        says(&mut ProbeClient::new(channel)).await?
    }
    "Endpoint: uri" => { same(endpoint(at).uri(), &uri(at))? }
    "Endpoint: get_tcp_nodelay" => {
        same(endpoint(at).tcp_nodelay(false).get_tcp_nodelay(), false)?
    }
    "Endpoint: get_connect_timeout" => {
        let endpoint = endpoint(at).connect_timeout(Duration::from_secs(5));
        same(endpoint.get_connect_timeout(), Some(Duration::from_secs(5)))?
    }
    "Endpoint: get_tcp_keepalive" => {
        let endpoint = endpoint(at).tcp_keepalive(Some(Duration::from_secs(5)));
        same(endpoint.get_tcp_keepalive(), Some(Duration::from_secs(5)))?
    }

    "Channel: builder(Uri)" => {
        says(&mut ProbeClient::new(Channel::builder(uri(at)).connect().await?)).await?
    }
    "Channel: from_static" => { Channel::from_static("http://[::1]:50051") }
    "Channel: from_shared" => {
        let endpoint = Channel::from_shared(format!("http://{at}"))?;
        says(&mut ProbeClient::new(endpoint.connect().await?)).await?
    }
    "Channel: balance_list" => {
        let endpoints = [endpoint(at), endpoint(at)];
        let channel = Channel::balance_list(endpoints.into_iter());
        let mut client = ProbeClient::new(channel);
        for _ in 0..4 {
            says(&mut client).await?;
        }
    }
    "Channel: balance_channel" => {
        let (channel, changes) = Channel::balance_channel(8);
        changes.send(Change::Insert("one", endpoint(at))).await?;
        let mut client = ProbeClient::new(channel);
        while client.say(word()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        changes.send(Change::Remove("one")).await?
    }
    "Channel: connect(connector, endpoint)" => {
        let connector = tower::service_fn(move |_: Uri| {
            Box::pin(async move {
                let connection = TcpStream::connect(at).await?;
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(connection))
            })
        });
        let channel = Channel::connect(connector, endpoint(at)).await?;
        says(&mut ProbeClient::new(channel)).await?
    }
    "Channel: Clone + Debug" => { assert_clone_debug(&endpoint(at).connect_lazy()) }
    "Channel: tower::Service<http::Request<Body>>" => {
        assert_service(&endpoint(at).connect_lazy())
    }
    "Channel: GrpcService<Body>" => { assert_grpc_service(&endpoint(at).connect_lazy()) }

    "Generated client: connect(&'static str)" => {
        drop(ProbeClient::connect("http://127.0.0.1:9").await)
    }
    "Generated client: connect(String)" => {
        says(&mut ProbeClient::connect(format!("http://{at}")).await?).await?
    }
    "Generated client: connect(Uri)" => { says(&mut ProbeClient::connect(uri(at)).await?).await? }
    "Generated client: connect(Endpoint)" => {
        says(&mut ProbeClient::connect(endpoint(at)).await?).await?
    }
    "Generated client: type ProbeClient<Channel>" => {
        struct Holds { client: ProbeClient<Channel> }
        let mut holds = Holds { client: ProbeClient::new(endpoint(at).connect_lazy()) };
        says(&mut holds.client).await?
    }
    "Generated client: new(tonic::transport::Channel)" => {
        let channel = tonic::transport::Endpoint::from(uri(at)).connect().await?;
        let mut client = ProbeClient::new(channel);
        same(client.say(word()).await?.into_inner(), word())?
    }
    "Generated client: new(ProbeServer) in process" => {
        let mut client = ProbeClient::new(ProbeServer::new(Handler));
        same(client.say(word()).await?.into_inner(), word())?;
        let words = client.repeat(word()).await?.into_inner();
        let words: Vec<Word> = words.collect::<Result<_, _>>().await?;
        same(words, vec![word(), word()])?
    }
    "Generated client: new(tower stack over Channel)" => {
        let calls = Arc::new(AtomicUsize::new(0));
        let stack = ServiceBuilder::new()
            .layer(Count(Arc::clone(&calls)))
            .layer(InterceptorLayer::new(hear))
            .concurrency_limit(4)
            .service(endpoint(at).connect_lazy());
        let mut client = ProbeClient::new(stack);
        let answer = client.say(word()).await?;
        same(heard(&answer), Some("ways.Probe/Say"))?;
        same(calls.load(Ordering::SeqCst), 1)?
    }
    "Generated client: with_origin" => {
        let channel = endpoint(at).connect_lazy();
        let origin = Uri::from_static("https://example.com");
        says(&mut ProbeClient::with_origin(channel, origin)).await?
    }
    "Generated client: with_interceptor(closure)" => {
        let channel = endpoint(at).connect_lazy();
        let added = String::from("added");
        let mut client = ProbeClient::with_interceptor(channel, move |mut request: Request<()>| {
            let text = added.parse().map_err(|_| Status::internal("no metadata"))?;
            request.metadata_mut().insert("heard", text);
            Ok(request)
        });
        same(heard(&client.say(word()).await?), Some("added"))?
    }
    "Generated client: with_interceptor sees the method, in all kinds, and may refuse" => {
        let channel = endpoint(at).connect_lazy();
        let mut client = ProbeClient::with_interceptor(channel.clone(), hear);
        same(heard(&client.say(word()).await?), Some("ways.Probe/Say"))?;
        client.repeat(word()).await?;
        client.join(tokio_stream::iter([word()])).await?;
        client.echo(tokio_stream::iter([word()])).await?;
        let mut client = ProbeClient::with_interceptor(channel, refuse);
        let refused = client.say(word()).await.err().ok_or("not refused")?;
        same(refused.code(), tonic::Code::PermissionDenied)?;
        same(refused.message(), "refused by the interceptor")?
    }
    "Generated client: with_interceptor, not Clone" => {
        let channel = endpoint(at).connect_lazy();
        let mut client = ProbeClient::with_interceptor(channel, Once("once".into()));
        same(heard(&client.say(word()).await?), Some("once"))?
    }
    "Generated client: field ProbeClient<InterceptedService<Channel, F>>" => {
        type Hear = fn(Request<()>) -> Result<Request<()>, Status>;
        #[derive(Clone)]
        struct Holds { client: ProbeClient<InterceptedService<Channel, Hear>> }
        let channel = endpoint(at).connect_lazy();
        let holds = Holds { client: ProbeClient::with_interceptor(channel, hear as Hear) };
        let answer = holds.clone().client.say(word()).await?;
        same(heard(&answer), Some("ways.Probe/Say"))?
    }
    "Generated client: new(InterceptedService::new(channel, F))" => {
        let channel = endpoint(at).connect_lazy();
        let mut client = ProbeClient::new(InterceptedService::new(channel, hear));
        same(heard(&client.say(word()).await?), Some("ways.Probe/Say"))?
    }
    "Generated client: send_compressed/accept_compressed" => {
        let mut client = ProbeClient::new(endpoint(at).connect_lazy())
            .send_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Gzip);
        says(&mut client).await?
    }
    "Generated client: max_*_message_size" => {
        let mut client = ProbeClient::new(endpoint(at).connect_lazy())
            .max_decoding_message_size(2)
            .max_encoding_message_size(1024);
        let refused = client.say(word()).await.err().ok_or("not refused")?;
        same(refused.code(), tonic::Code::OutOfRange)?
    }
    "Generated client: generic over GrpcService" => {
        generic(endpoint(at).connect_lazy()).await?;
        generic(ProbeServer::new(Handler)).await?;
        generic(InterceptedService::new(endpoint(at).connect_lazy(), hear)).await?
    }
    "Generated client: stream request IntoStreamingRequest" => {
        let mut client = ProbeClient::new(endpoint(at).connect_lazy());
        let joined = client.join(tokio_stream::iter([word(), word()])).await?;
        same(joined.into_inner().text, "wordword".to_owned())?;
        let echoed = client.echo(Request::new(tokio_stream::iter([word()]))).await?;
        let echoed: Vec<Word> = echoed.into_inner().collect::<Result<_, _>>().await?;
        same(echoed, vec![word()])?
    }

    "Server: tls_config (with `?`)" => {
        let tls = ServerTlsConfig::new().identity(Identity::from_pem("no", "certificate"));
        let refused = async { Ok::<_, BoxError>(Server::builder().tls_config(tls)?) };
        same(refused.await.is_err(), true)?
    }
    "Server: concurrency_limit_per_connection" => {
        let server = Server::builder().concurrency_limit_per_connection(1);
        let (at, _stop, _) = served!(server.clone().add_service(ProbeServer::new(Handler)));
        let channel = endpoint(at).connect().await?;
        let calls = (0..4).map(|_| {
            let mut client = ProbeClient::new(channel.clone());
            async move { says(&mut client).await }
        });
        futures_util::future::try_join_all(calls).await?
    }
    "Server: load_shed" => { Server::builder().load_shed(true) }
    "Server: timeout" => { Server::builder().timeout(Duration::from_secs(5)) }
    "Server: initial_stream_window_size" => {
        Server::builder().initial_stream_window_size(Some(1 << 20))
    }
    "Server: initial_connection_window_size" => {
        Server::builder().initial_connection_window_size(1 << 20)
    }
    "Server: max_concurrent_streams(5)" => { Server::builder().max_concurrent_streams(5) }
    "Server: max_concurrent_streams(Some(5))" => {
        Server::builder().max_concurrent_streams(Some(5))
    }
    "Server: max_connection_age" => {
        Server::builder().max_connection_age(Duration::from_secs(60))
    }
    "Server: max_connection_age_grace" => {
        Server::builder().max_connection_age_grace(Duration::from_secs(60))
    }
    "Server: http2_keepalive_interval(Some)" => {
        Server::builder().http2_keepalive_interval(Some(Duration::from_secs(30)))
    }
    "Server: http2_keepalive_timeout(Some)" => {
        Server::builder().http2_keepalive_timeout(Some(Duration::from_secs(5)))
    }
    "Server: http2_adaptive_window" => { Server::builder().http2_adaptive_window(Some(true)) }
    "Server: http2_max_pending_accept_reset_streams" => {
        Server::builder().http2_max_pending_accept_reset_streams(Some(20))
    }
    "Server: http2_max_local_error_reset_streams" => {
        Server::builder().http2_max_local_error_reset_streams(Some(1024))
    }
    "Server: tcp_keepalive" => { Server::builder().tcp_keepalive(Some(Duration::from_secs(60))) }
    "Server: tcp_keepalive_interval" => {
        Server::builder().tcp_keepalive_interval(Some(Duration::from_secs(5)))
    }
    "Server: tcp_keepalive_retries" => { Server::builder().tcp_keepalive_retries(Some(3)) }
    "Server: tcp_nodelay" => { Server::builder().tcp_nodelay(true) }
    "Server: http2_max_header_list_size" => {
        Server::builder().http2_max_header_list_size(Some(1 << 16))
    }
    "Server: max_frame_size" => { Server::builder().max_frame_size(Some(1 << 16)) }
    "Server: accept_http1" => { Server::builder().accept_http1(true) }
    "Server: accept_http1 with tonic-web" => {
        let mut server = Server::builder()
            .accept_http1(true)
            .layer(tonic_web::GrpcWebLayer::new());
        let (at, _stop, _) = served!(server.add_service(ProbeServer::new(Handler)));
        says(&mut ProbeClient::new(endpoint(at).connect().await?)).await?;
        let answer = by_grpc_web(at, b"\0\0\0\0\x06\x0a\x04word").await?;
        same(answer.starts_with("HTTP/1.1 200 OK"), true)?;
        same(answer.contains("\x0a\x04word"), true)?;
        same(answer.contains("grpc-status:0"), true)?
    }
    "Server: trace_fn" => {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let server = Server::builder().trace_fn(move |request| {
            counted.fetch_add(1, Ordering::SeqCst);
            tracing::info_span!("call", path = request.uri().path())
        });
        let (at, _stop, _) = served!(server.clone().add_service(ProbeServer::new(Handler)));
        says(&mut ProbeClient::new(endpoint(at).connect().await?)).await?;
        same(calls.load(Ordering::SeqCst), 1)?
    }
    "Server: add_service(ProbeServer)" => {
        let (at, _stop, _) = served!(Server::builder().add_service(ProbeServer::new(Handler)));
        says(&mut ProbeClient::new(endpoint(at).connect().await?)).await?
    }
    "Server: add_service(tonic's own stub)" => {
        use crate::over_tonic as plain;
        let service = plain::stubs::probe_server::ProbeServer::new(plain::Handler);
        let (at, _stop, _) = served!(Server::builder().add_service(service));
        says(&mut ProbeClient::new(endpoint(at).connect().await?)).await?
    }
    "Server: add_service(with_interceptor)" => {
        let service = ProbeServer::with_interceptor(Handler, refuse);
        let (at, _stop, _) = served!(Server::builder().add_service(service));
        let mut client = ProbeClient::new(endpoint(at).connect().await?);
        let refused = client.say(word()).await.err().ok_or("not refused")?;
        same(refused.code(), tonic::Code::PermissionDenied)?
    }
    "Server: add_service(tonic_health)" => {
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter.set_serving::<ProbeServer<Handler>>().await;
        let (at, _stop, _) = served!(Server::builder().add_service(health));
        let channel = endpoint(at).connect().await?;
        let mut client = tonic_health::pb::health_client::HealthClient::new(channel);
        let request = tonic_health::pb::HealthCheckRequest { service: "ways.Probe".into() };
        same(client.check(request).await?.into_inner().status, 1)?
    }
    "Server: add_service(layered)" => {
        let calls = Arc::new(AtomicUsize::new(0));
        let layered = Count(Arc::clone(&calls)).layer(ProbeServer::new(Handler));
        let (at, _stop, _) = served!(Server::builder().add_service(layered));
        says(&mut ProbeClient::new(endpoint(at).connect().await?)).await?;
        same(calls.load(Ordering::SeqCst), 1)?
    }
    "Server: add_optional_service" => {
        let none: Option<ProbeServer<Handler>> = None;
        let (at, _stop, _) = served!(Server::builder().add_optional_service(none));
        let mut client = ProbeClient::new(endpoint(at).connect().await?);
        let refused = client.say(word()).await.err().ok_or("not refused")?;
        same(refused.code(), tonic::Code::Unimplemented)?
    }
    "Server: add_routes" => {
        let routes = Routes::new(ProbeServer::new(Handler)).add_service(OtherServer::new(Handler));
        let (at, _stop, _) = served!(Server::builder().add_routes(routes));
        let channel = endpoint(at).connect().await?;
        says(&mut ProbeClient::new(channel.clone())).await?;
        let said = OtherClient::new(channel).say(word()).await?;
        same(said.into_inner().text, "other word".to_owned())?
    }
    "Server: layer" => {
        let calls = Arc::new(AtomicUsize::new(0));
        let server = Server::builder().layer(Count(Arc::clone(&calls)));
        let (at, _stop, _) = served!(server.clone().add_service(ProbeServer::new(Handler)));
        says(&mut ProbeClient::new(endpoint(at).connect().await?)).await?;
        same(calls.load(Ordering::SeqCst), 1)?
    }
    "Server: layer(InterceptorLayer)" => {
        let mut server = Server::builder().layer(InterceptorLayer::new(refuse));
        let (at, _stop, _) = served!(server.add_service(ProbeServer::new(Handler)));
        let mut client = ProbeClient::new(endpoint(at).connect().await?);
        let refused = client.say(word()).await.err().ok_or("not refused")?;
        same(refused.code(), tonic::Code::PermissionDenied)?
    }
    "Server: let mut b; b.add_service (by &mut)" => {
        let mut server = Server::builder();
        let by_reference = &mut server;
        let (at, _stop, _) = served!(by_reference.add_service(ProbeServer::new(Handler)));
        says(&mut ProbeClient::new(endpoint(at).connect().await?)).await?
    }
    "Server: Clone" => { Server::builder().clone().add_service(ProbeServer::new(Handler)) }
    "Server: Default" => { Server::default().add_service(ProbeServer::new(Handler)) }

    "Router: add_service twice" => {
        let server = Server::builder()
            .add_service(ProbeServer::new(Handler))
            .add_service(OtherServer::new(Handler));
        let (at, _stop, _) = served!(server);
        let said = OtherClient::new(endpoint(at).connect().await?).say(word()).await?;
        same(said.into_inner().text, "other word".to_owned())?
    }
    "Router: add_optional_service" => {
        let server = Server::builder()
            .add_service(ProbeServer::new(Handler))
            .add_optional_service(Some(OtherServer::new(Handler)));
        let (at, _stop, _) = served!(server);
        let said = OtherClient::new(endpoint(at).connect().await?).say(word()).await?;
        same(said.into_inner().text, "other word".to_owned())?
    }
    "Router: serve(addr)" => {
        let at = "127.0.0.1:0".parse()?;
        let serving = Server::builder().add_service(ProbeServer::new(Handler)).serve(at);
        drop(tokio::time::timeout(Duration::from_millis(10), serving).await)
    }
    "Router: serve_with_shutdown(addr, signal)" => {
        let at = "127.0.0.1:0".parse()?;
        Server::builder()
            .add_service(ProbeServer::new(Handler))
            .serve_with_shutdown(at, async {})
            .await?
    }
    "Router: serve_with_incoming" => {
        let incoming = tokio_stream::empty::<Result<TcpStream, std::io::Error>>();
        Server::builder()
            .add_service(ProbeServer::new(Handler))
            .serve_with_incoming(incoming)
            .await?
    }
    "Router: serve_with_incoming_shutdown" => {
        let (at, stop, serving) =
            served!(Server::builder().add_service(ProbeServer::new(Handler)));
        says(&mut ProbeClient::new(endpoint(at).connect().await?)).await?;
        drop(stop);
        serving.await??
    }

    "Generated server: new" => { ProbeServer::new(Handler) }
    "Generated server: from_arc" => { ProbeServer::from_arc(Arc::new(Handler)) }
    "Generated server: with_interceptor" => {
        let _: InterceptedService<ProbeServer<Handler>, _> =
            ProbeServer::with_interceptor(Handler, hear);
    }
    "Generated server: compression, limits" => {
        ProbeServer::new(Handler)
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(1024)
            .max_encoding_message_size(1024)
    }
    "Generated server: tower Service" => { assert_tower(&ProbeServer::new(Handler)) }
    "Generated server: in tonic's Server" => {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let at = listener.local_addr()?;
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(ProbeServer::new(Handler))
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        says(&mut ProbeClient::new(endpoint(at).connect().await?)).await?
    }
    "Generated server: in tonic::service::Routes (axum)" => {
        Routes::new(ProbeServer::new(Handler)).into_axum_router()
    }
    "Generated server: NamedService::NAME" => {
        same(assert_named(&ProbeServer::new(Handler)), "ways.Probe")?
    }
    "Generated server: SERVICE_NAME" => { same(stubs::probe_server::SERVICE_NAME, "ways.Probe")? }
}
