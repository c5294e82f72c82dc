//! Compression chosen message by message, and told message by message: what gRPC has and tonic's types
//! leave out. In force on every path, because a call that speaks of compression goes through HTTP types.

use std::any::Any;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body as HttpBody, Frame};
use parking_lot::Mutex;
use tonic::Status;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::codegen::Service;
use tonic::server::NamedService;

use super::{ACCEPT_ENCODING, ENCODING, Encoding};
use crate::bridge::{Messages, Step, framed};
use crate::framing::{Part, followed};
use crate::probe::{Answer, answers_probes, is_probe};

/// Messages whose flags are kept for somebody who may never ask.
const MAX_UNASKED: usize = 64 << 10;

/// Which messages of a call came compressed, in the extensions of a request at a handler and of a
/// response at a client; each behind [`MessageCompression`].
#[derive(Debug, Clone, Default)]
pub struct CameCompressed(Arc<Mutex<Came>>);

#[derive(Debug, Default)]
struct Came {
    flags: VecDeque<bool>,
    /// Nobody asked for so long that the flags were given up.
    forgotten: bool,
}

impl CameCompressed {
    /// Whether the next message came compressed: to be asked once for each that was read, in order.
    /// `None` where it has not come yet, or where 65,536 messages came before the first was asked for.
    #[must_use]
    pub fn next(&self) -> Option<bool> {
        self.0.lock().flags.pop_front()
    }

    fn push(&self, flag: bool) {
        let mut came = self.0.lock();
        if came.flags.len() == MAX_UNASKED {
            came.forgotten = true;
            came.flags = VecDeque::new();
        }
        if !came.forgotten {
            came.flags.push_back(flag);
        }
    }
}

/// Which messages of a call are to go out compressed: in the extensions of a request at a client and
/// of a response at a handler, each behind [`MessageCompression`]. Without it none are. A handler whose
/// request has no [`CameCompressed`] has nobody to heed it.
#[derive(Debug, Clone, Default)]
pub struct Compress(Arc<Mutex<Chosen>>);

#[derive(Debug, Default)]
struct Chosen {
    flags: VecDeque<bool>,
    /// The peer does not understand it.
    unheeded: bool,
}

impl Compress {
    /// Says whether the next message is to be compressed: to be called once for each, before it is
    /// handed over. Those that nothing was said of go out as they are.
    pub fn push(&self, compress: bool) {
        let mut chosen = self.0.lock();
        if !chosen.unheeded {
            chosen.flags.push_back(compress);
        }
    }

    fn pop(&self) -> bool {
        self.0.lock().flags.pop_front().unwrap_or(false)
    }

    fn leave(&self) {
        *self.0.lock() = Chosen {
            flags: VecDeque::new(),
            unheeded: true,
        };
    }
}

impl FromIterator<bool> for Compress {
    fn from_iter<I: IntoIterator<Item = bool>>(flags: I) -> Self {
        let chosen = Chosen {
            flags: flags.into_iter().collect(),
            unheeded: false,
        };
        Self(Arc::new(Mutex::new(chosen)))
    }
}

/// A generated service, or a channel under generated clients, that compresses the messages for which
/// [`Compress`] says so, and tells by [`CameCompressed`] which came so.
///
/// A service's calls go through HTTP types only where their client speaks of compression, a client's
/// always. A server compresses nothing that its client does not accept.
/// What comes compressed is read by the stubs: they have to `accept_compressed` it.
///
/// ```
/// # #[cfg(not(feature = "gzip"))] fn main() {}
/// # #[cfg(feature = "gzip")] mod example {
/// use ringway::{Compress, MessageCompression};
/// use tonic::codec::CompressionEncoding::Gzip;
///
/// # pub async fn call() -> Result<(), ringway::Error> {
/// let channel = ringway::Endpoint::new("catalog:50051")?.connect_lazy();
/// let caller = MessageCompression::new(channel, Gzip);
/// // let mut client = CatalogClient::new(caller).accept_compressed(Gzip);
/// let mut request = tonic::Request::new(());
/// request.extensions_mut().insert(Compress::from_iter([true]));
/// // let response = client.list(request).await?;
/// // response.extensions().get::<CameCompressed>()
/// # drop((caller, request)); Ok(()) } }
/// # #[cfg(feature = "gzip")] fn main() { drop(example::call()); }
/// ```
#[derive(Debug, Clone)]
pub struct MessageCompression<S> {
    inner: S,
    encoding: Result<Encoding, Missing>,
}

/// An encoding that tonic was built with and this crate was not.
#[derive(Debug, Clone, Copy)]
struct Missing(CompressionEncoding);

impl From<Missing> for Status {
    fn from(missing: Missing) -> Self {
        let name = missing.0;
        Self::unimplemented(format!(
            "a message was to be compressed with `{name}`, but ringway was built without its feature \
             `{name}`: enable it in Cargo.toml, `features = [\"{name}\"]` of the dependency `ringway`"
        ))
    }
}

impl<S> MessageCompression<S> {
    /// `inner`, whose messages are compressed by `encoding` where they are. If this crate was built without
    /// the feature of that name, calls that bring a [`Compress`] are `UNIMPLEMENTED`, and the status names it.
    pub fn new(inner: S, encoding: CompressionEncoding) -> Self {
        Self {
            inner,
            encoding: Encoding::of(encoding).ok_or(Missing(encoding)),
        }
    }

    fn accepted_by(&self, headers: &HeaderMap) -> bool {
        let values = headers.get_all(ACCEPT_ENCODING).iter();
        let names = values.filter_map(|value| value.to_str().ok());
        let mut names = names.flat_map(|names| names.split(','));
        let encoding = self.encoding.map_or("", Encoding::name);
        names.any(|name| name.trim() == encoding)
    }
}

impl<S: NamedService> NamedService for MessageCompression<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for MessageCompression<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + 'static,
    S::Error: Send,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Answer<Self, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if is_probe(&request) {
            return self.answer_probe(request);
        }
        let encoding = self.encoding;
        let accepted = self.accepted_by(request.headers());
        let outgoing = match usable(encoding, request.extensions()) {
            Ok(outgoing) => outgoing,
            Err(missing) => return Answer::new(Box::pin(async move { Ok(missing.into_http()) })),
        };
        let (mut head, body) = request.into_parts();
        let body = through(&mut head.headers, &mut head.extensions, body, outgoing);
        let answer = self.inner.call(Request::from_parts(head, body));
        Answer::new(Box::pin(async move {
            let response = answer.await?;
            let outgoing = match usable(encoding, response.extensions()) {
                Ok(outgoing) => outgoing.filter(|_| accepted),
                Err(missing) => return Ok(missing.into_http()),
            };
            let (mut head, body) = response.into_parts();
            let body = through(&mut head.headers, &mut head.extensions, body, outgoing);
            Ok(Response::from_parts(head, body))
        }))
    }
}

impl<S> MessageCompression<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + 'static,
    S::Error: Send,
    S::Future: Send + 'static,
{
    /// The way to a generated service without HTTP types is open to calls that say nothing of
    /// compression.
    fn answer_probe(&mut self, probe: Request<Body>) -> Answer<Self, S::Error> {
        if !answers_probes::<S, S::Error>() {
            return Answer::nothing_found();
        }
        let mut answer = Some(self.inner.call(probe));
        let found = (&mut answer as &mut dyn Any).downcast_mut::<Option<Answer<S, S::Error>>>();
        let found = found.and_then(Option::take);
        found.map_or_else(Answer::nothing_found, |found| {
            Answer::through(found, &[ENCODING, ACCEPT_ENCODING])
        })
    }
}

/// What to compress with; none is needed where nobody chose messages.
///
/// # Errors
/// Messages were chosen, and the feature is missing.
fn usable(
    encoding: Result<Encoding, Missing>,
    extensions: &http::Extensions,
) -> Result<Option<Encoding>, Status> {
    match encoding {
        Err(missing) if extensions.get::<Compress>().is_some() => Err(missing.into()),
        encoding => Ok(encoding.ok()),
    }
}

/// A body on its way: out, if somebody chose what to compress of it, and otherwise in.
fn through(
    headers: &mut HeaderMap,
    extensions: &mut http::Extensions,
    body: Body,
    encoding: Option<Encoding>,
) -> Body {
    let Some(compress) = extensions.remove::<Compress>() else {
        let came = CameCompressed::default();
        extensions.insert(came.clone());
        return flags_noted(body, came);
    };
    match encoding {
        Some(encoding) if !headers.contains_key(ENCODING) => {
            headers.insert(ENCODING, HeaderValue::from_static(encoding.name()));
            Body::new(Compressing {
                messages: Messages::new(body),
                compress,
                encoding,
                over: false,
            })
        }
        // The peer does not understand it, or the stubs have compressed already.
        _ => {
            compress.leave();
            body
        }
    }
}

/// A body whose messages are compressed where somebody chose it.
struct Compressing {
    messages: Messages<Body>,
    compress: Compress,
    encoding: Encoding,
    over: bool,
}

impl Compressing {
    fn outgoing(&self, compressed: bool, message: &Bytes) -> Result<Frame<Bytes>, Status> {
        if compressed || !self.compress.pop() {
            return Ok(Frame::data(framed(message, compressed)));
        }
        let smaller = self.encoding.compress(message);
        let smaller =
            smaller.map_err(|error| Status::internal(format!("Error compressing: {error}")))?;
        Ok(Frame::data(framed(&smaller, true)))
    }
}

impl HttpBody for Compressing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(self.messages.poll_next(context)) {
            Ok(Step::Message(message)) => Some(self.outgoing(message.compressed, &message.bytes)),
            Ok(Step::End) => {
                self.over = true;
                let trailers = self.messages.trailers.take();
                trailers.map(|trailers| Ok(Frame::trailers(trailers)))
            }
            Err(status) => {
                self.over = true;
                Some(Err(status))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.over
    }
}

/// A body whose messages' flags are noted as they pass.
fn flags_noted(body: Body, came: CameCompressed) -> Body {
    followed(body, move |part| {
        if let Part::Begin { compressed } = part {
            came.push(compressed);
        }
    })
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn flags_are_noted_as_messages_pass() {
        let flags = [true, false, true, false];
        let all = flags.map(|flag| framed(b"abc", flag)).concat();
        let came = CameCompressed::default();
        let body = Body::new(http_body_util::Full::new(Bytes::from(all)));
        flags_noted(body, came.clone()).collect().await.unwrap();
        for flag in flags {
            assert_eq!(came.next(), Some(flag));
        }
        assert_eq!(came.next(), None);
    }

    #[cfg(not(feature = "gzip"))]
    #[tokio::test]
    async fn an_encoding_that_is_missing_names_its_feature_at_either_end() {
        use tonic::Code;
        use tower::{ServiceExt, service_fn};

        let called = |at_client: bool, at_server: bool| async move {
            let inner = service_fn(move |_| async move {
                let mut response = Response::new(Body::empty());
                if at_server {
                    response.extensions_mut().insert(Compress::default());
                }
                Ok::<_, Status>(response)
            });
            let mut request = Request::new(Body::empty());
            if at_client {
                request.extensions_mut().insert(Compress::default());
            }
            let service = MessageCompression::new(inner, CompressionEncoding::Gzip);
            let response = service.oneshot(request).await.unwrap();
            Status::from_header_map(response.headers())
        };
        assert!(called(false, false).await.is_none());
        for (at_client, at_server) in [(true, false), (false, true)] {
            let status = called(at_client, at_server).await.unwrap();
            assert_eq!(status.code(), Code::Unimplemented);
            let told = status.message();
            assert!(told.contains(r#"features = ["gzip"]"#), "{told}");
        }
    }

    #[test]
    fn flags_that_nobody_asks_for_are_given_up() {
        let came = CameCompressed::default();
        for _ in 0..=MAX_UNASKED {
            came.push(true);
        }
        came.push(true);
        assert_eq!(came.next(), None);
        assert_eq!(came.0.lock().flags.capacity(), 0);
    }
}
