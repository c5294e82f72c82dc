//! An OTLP collector that counts spans and keeps none: what measures the price of tracing.
//!
//! It shares the machine with the calls that are timed, so it reads no more of a span than where it
//! ends, and takes a whole batch without asking its sender to wait.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use tokio::task::JoinHandle;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Context, Poll, Service, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::server::{Server, TcpIncoming};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// What a sender may have under way: some batches of 512 spans.
const WINDOW_BYTES: u32 = 4 << 20;

/// A collector that runs until it is dropped.
#[derive(Debug)]
pub struct Counter {
    address: SocketAddr,
    spans: Arc<AtomicU64>,
    server: JoinHandle<()>,
}

impl Counter {
    /// Starts one on a free port, in this task's runtime.
    ///
    /// # Errors
    /// No port can be listened on.
    pub async fn start() -> io::Result<Self> {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let spans = Arc::default();
        let serve = Server::builder()
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .add_service(Counting(Arc::clone(&spans)))
            .serve_with_incoming(TcpIncoming::from(listener));
        let server = tokio::spawn(async {
            // Without it, spans are lost, which their senders count.
            let _ = serve.await;
        });
        Ok(Self {
            address,
            spans,
            server,
        })
    }

    /// Where to send spans to: the value of `OTEL_EXPORTER_OTLP_ENDPOINT`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The spans that came since the start.
    #[must_use]
    pub fn spans(&self) -> u64 {
        self.spans.load(Ordering::Relaxed)
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// OTLP's `ExportTraceServiceRequest`, as far as spans can be told apart.
#[derive(Clone, PartialEq, prost::Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<OfResource>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OfResource {
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<OfScope>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OfScope {
    #[prost(bytes = "bytes", repeated, tag = "2")]
    spans: Vec<Bytes>,
}

impl Export {
    fn spans(&self) -> u64 {
        let scopes = self.resources.iter().flat_map(|resource| &resource.scopes);
        scopes.map(|scope| scope.spans.len() as u64).sum()
    }
}

/// OTLP's `TraceService`, whose one method is `Export`.
#[derive(Debug, Clone)]
struct Counting(Arc<AtomicU64>);

impl NamedService for Counting {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

impl Service<http::Request<Body>> for Counting {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let counting = self.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::default());
            Ok(grpc.unary(counting, request).await)
        })
    }
}

impl UnaryService<Export> for Counting {
    type Response = ExportTraceServiceResponse;
    type Future = Ready<Result<Response<Self::Response>, Status>>;

    fn call(&mut self, request: Request<Export>) -> Self::Future {
        self.0
            .fetch_add(request.get_ref().spans(), Ordering::Relaxed);
        ready(Ok(Response::new(ExportTraceServiceResponse::default())))
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};

    use super::*;

    fn of_scope(spans: usize) -> ScopeSpans {
        let span = Span {
            name: "shop.v1.Orders/Place".to_owned(),
            trace_id: vec![7; 16],
            ..Span::default()
        };
        ScopeSpans {
            spans: vec![span; spans],
            ..ScopeSpans::default()
        }
    }

    #[tokio::test]
    async fn spans_of_every_resource_and_scope_are_counted() {
        let counter = Counter::start().await.unwrap();
        let mut client = TraceServiceClient::connect(counter.endpoint())
            .await
            .unwrap();
        for total in [512, 1024] {
            let resource_spans = [vec![of_scope(300), of_scope(2)], vec![of_scope(210)]]
                .map(|scope_spans| ResourceSpans {
                    scope_spans,
                    ..ResourceSpans::default()
                })
                .into();
            let request = ExportTraceServiceRequest { resource_spans };
            client.export(request).await.unwrap();
            assert_eq!(counter.spans(), total);
        }
    }
}
