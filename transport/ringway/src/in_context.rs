//! The [`Context`](crate::Context) of calls that came over the network: around each poll of the
//! service and of its response's body.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use bytes::Bytes;
use http::{Extensions, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use ringway_net::guard::CallDeadline;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, StdError};
use tonic::server::NamedService;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo, UdsConnectInfo};

use crate::context::{Context, Entered, Handling, Peer};

/// A service whose handlers have a context.
#[derive(Debug, Clone)]
pub(crate) struct InContext<S>(pub(crate) S);

impl<S: NamedService> NamedService for InContext<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<Request<Body>> for InContext<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = InContextFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // On a local path whoever brought the call here has said all that there is to say.
        let mut handling = (!Context::is_set()).then(|| Handling(context_of(request.extensions())));
        let entered = enter(&mut handling);
        let inner = self.0.call(request);
        drop(entered);
        InContextFuture { handling, inner }
    }
}

fn enter(handling: &mut Option<Handling>) -> Option<Entered<'_>> {
    handling
        .as_mut()
        .map(|handling| Entered::new(&mut handling.0))
}

fn context_of(extensions: &Extensions) -> Context {
    let deadline = extensions.get().map(|CallDeadline(at)| *at);
    Context::of_call(
        deadline,
        process(extensions).or_else(|| network(extensions)),
    )
}

fn process(extensions: &Extensions) -> Option<Peer> {
    let credentials = extensions.get::<UdsConnectInfo>()?.peer_cred?;
    Some(Peer::Process {
        uid: credentials.uid(),
        gid: credentials.gid(),
        pid: credentials.pid().and_then(|pid| u32::try_from(pid).ok()),
    })
}

fn network(extensions: &Extensions) -> Option<Peer> {
    let plain = extensions.get::<TcpConnectInfo>();
    let info = plain.or_else(|| {
        let secured = extensions.get::<TlsConnectInfo<TcpConnectInfo>>();
        secured.map(TlsConnectInfo::get_ref)
    });
    info?.remote_addr().map(Peer::Network)
}

pin_project_lite::pin_project! {
    /// A call until its response has begun.
    pub(crate) struct InContextFuture<F> {
        handling: Option<Handling>,
        #[pin]
        inner: F,
    }
}

impl<F, B> Future for InContextFuture<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError>,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let entered = enter(this.handling);
        let polled = this.inner.poll(context);
        drop(entered);
        let Ok(response) = ready!(polled);
        let handling = this.handling.take();
        Poll::Ready(Ok(response.map(|inner| {
            let inner = Body::new(inner);
            Body::new(InContextBody { handling, inner })
        })))
    }
}

/// A response's body: a stream's source is polled as its handler was.
struct InContextBody {
    handling: Option<Handling>,
    inner: Body,
}

impl HttpBody for InContextBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let _entered = enter(&mut this.handling);
        Pin::new(&mut this.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
