//! An OTLP collector within this process: what makes the waterfalls of a page.
//!
//! It takes spans by gRPC on a port of the loopback, keeps them until they are asked for, and hands
//! them on to another collector as they came.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{io, mem};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::transport::server::{Server, TcpIncoming};
use tonic::{Request, Response, Status};

use crate::otlp;
use crate::trace::Span;

/// Spans that are kept at most: some thousand orders. More are refused.
const SPANS_MAX: usize = 200_000;
/// How long another collector may take to be reached, and to take a batch.
const PATIENCE: Duration = Duration::from_secs(5);
/// Resources whose spans are handed on in one call: far below the 4 MiB that a call may carry.
const BATCH: usize = 16;

/// A collector that runs until it is dropped.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
    server: JoinHandle<()>,
}

/// Spans as they came, each with the resource that they are of.
#[derive(Debug, Clone, Default)]
pub struct Collected {
    spans: Vec<ResourceSpans>,
}

/// What became of spans that were handed on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sent {
    /// Taken by the other collector.
    pub taken: u64,
    /// Not taken.
    pub lost: u64,
    /// Why not, the first time.
    pub why: Option<String>,
}

#[derive(Debug, Default)]
struct Kept {
    spans: Vec<ResourceSpans>,
    count: usize,
}

impl Collector {
    /// Starts one on a free port, in this task's runtime.
    ///
    /// # Errors
    /// No port can be listened on.
    pub async fn start() -> io::Result<Self> {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let kept = Arc::default();
        let service = TraceServiceServer::new(Keeper(Arc::clone(&kept)));
        let serve = Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpIncoming::from(listener));
        let server = tokio::spawn(async {
            // Without it, spans are lost, which is seen where they are missed.
            let _ = serve.await;
        });
        Ok(Self {
            address,
            kept,
            server,
        })
    }

    /// Where to send spans to: the value of `OTEL_EXPORTER_OTLP_ENDPOINT`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All that came since the last time.
    #[must_use]
    pub fn take(&self) -> Collected {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Kept { spans, .. } = mem::take(&mut *kept);
        Collected { spans }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Collected {
    /// Adds what came later.
    pub fn add(&mut self, later: Collected) {
        self.spans.extend(later.spans);
    }

    /// The spans of each trace; those with an id that is none are left out.
    #[must_use]
    pub fn traces(&self) -> BTreeMap<[u8; 16], Vec<Span>> {
        let mut traces: BTreeMap<_, Vec<Span>> = BTreeMap::new();
        for span in self.spans.iter().flat_map(otlp::spans) {
            traces.entry(span.trace_id).or_default().push(span);
        }
        traces
    }

    /// Forgets the spans of all other traces.
    pub fn retain(&mut self, traces: &BTreeSet<[u8; 16]>) {
        let wanted = |id: &[u8]| <[u8; 16]>::try_from(id).is_ok_and(|id| traces.contains(&id));
        for scope in self.spans.iter_mut().flat_map(|of| &mut of.scope_spans) {
            scope.spans.retain(|span| wanted(&span.trace_id));
        }
        self.spans.retain(|of| count(std::slice::from_ref(of)) > 0);
    }

    /// Hands the spans on to the collector at `url`, as they came.
    pub async fn send(self, url: &str) -> Sent {
        let mut sent = Sent::default();
        let mut client = match connect(url).await {
            Ok(channel) => TraceServiceClient::new(channel),
            Err(error) => {
                sent.lose(count(&self.spans), error);
                return sent;
            }
        };
        for batch in self.spans.chunks(BATCH) {
            let request = ExportTraceServiceRequest {
                resource_spans: batch.to_vec(),
            };
            match client.export(request).await {
                Ok(answer) => sent.note(count(batch), answer.into_inner().partial_success),
                Err(status) => sent.lose(count(batch), status.to_string()),
            }
        }
        sent
    }
}

impl Sent {
    /// Adds what became of others.
    pub fn add(&mut self, other: Sent) {
        self.taken += other.taken;
        self.lost += other.lost;
        self.why = self.why.take().or(other.why);
    }

    fn note(&mut self, spans: usize, partial: Option<ExportTracePartialSuccess>) {
        let partial = partial.unwrap_or_default();
        let refused = usize::try_from(partial.rejected_spans)
            .unwrap_or(0)
            .min(spans);
        self.taken += (spans - refused) as u64;
        if refused > 0 {
            self.lose(refused, partial.error_message);
        }
    }

    fn lose(&mut self, spans: usize, why: String) {
        self.lost += spans as u64;
        self.why.get_or_insert(why);
    }
}

/// Whether a collector answers at `url`.
///
/// # Errors
/// Why not, in words.
pub async fn answers(url: &str) -> Result<(), String> {
    connect(url).await.map(drop)
}

async fn connect(url: &str) -> Result<Channel, String> {
    let endpoint = tonic::transport::Endpoint::from_shared(url.to_owned());
    let endpoint = endpoint.map_err(|error| with_causes(&error))?;
    let endpoint = endpoint.connect_timeout(PATIENCE).timeout(PATIENCE);
    endpoint
        .connect()
        .await
        .map_err(|error| with_causes(&error))
}

/// tonic says "transport error"; what it was stands below.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut said: Vec<String> = causes.map(ToString::to_string).collect();
    said.dedup();
    said.join(": ")
}

fn count(spans: &[ResourceSpans]) -> usize {
    let scopes = spans.iter().flat_map(|of| &of.scope_spans);
    scopes.map(|scope| scope.spans.len()).sum()
}

/// Keeps what comes.
#[derive(Debug)]
struct Keeper(Arc<Mutex<Kept>>);

#[tonic::async_trait]
impl TraceService for Keeper {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let spans = request.into_inner().resource_spans;
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let more = count(&spans);
        if kept.count + more > SPANS_MAX {
            return Err(Status::resource_exhausted("too many spans at once"));
        }
        kept.count += more;
        kept.spans.extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
    use opentelemetry_proto::tonic::resource::v1::Resource;
    use opentelemetry_proto::tonic::trace::v1::{ScopeSpans, Span as Otlp, span};

    use super::*;
    use crate::{Event, SpanKind};

    fn attribute(key: &str, value: &str) -> KeyValue {
        KeyValue {
            key: key.to_owned(),
            value: Some(AnyValue {
                value: Some(Value::StringValue(value.to_owned())),
            }),
            ..KeyValue::default()
        }
    }

    fn of(service: &str, spans: Vec<Otlp>) -> Collected {
        let spans = ResourceSpans {
            resource: Some(Resource {
                attributes: vec![attribute("service.name", service)],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        };
        Collected { spans: vec![spans] }
    }

    fn span(trace: u8, id: u8) -> Otlp {
        Otlp {
            trace_id: vec![trace; 16],
            span_id: vec![id; 8],
            name: "shop.v1.Orders/Place".to_owned(),
            kind: span::SpanKind::Server.into(),
            start_time_unix_nano: 5,
            end_time_unix_nano: 9,
            events: vec![span::Event {
                time_unix_nano: 7,
                name: "handler started".to_owned(),
                ..span::Event::default()
            }],
            attributes: vec![attribute("ringway.path", "shm")],
            ..Otlp::default()
        }
    }

    #[tokio::test]
    async fn what_is_sent_arrives_whole_and_can_be_handed_on() {
        let (first, second) = (
            Collector::start().await.unwrap(),
            Collector::start().await.unwrap(),
        );
        let child = Otlp {
            parent_span_id: vec![1; 8],
            ..span(7, 2)
        };
        let sent = of("orders (shm)", vec![span(7, 1), child, span(8, 3)]);
        assert_eq!(sent.send(&first.endpoint()).await.taken, 3);

        let mut collected = first.take();
        assert!(first.take().traces().is_empty(), "it was taken");
        collected.retain(&[[7; 16]].into());
        let sent = collected.send(&second.endpoint()).await;
        assert_eq!((sent.taken, sent.lost), (2, 0));

        let traces = second.take().traces();
        let expected = Span {
            trace_id: [7; 16],
            span_id: [1; 8],
            parent: None,
            service: "orders (shm)".to_owned(),
            name: "shop.v1.Orders/Place".to_owned(),
            kind: SpanKind::Server,
            start_ns: 5,
            end_ns: 9,
            events: vec![Event {
                name: "handler started".to_owned(),
                at_ns: 7,
            }],
            attributes: vec![("ringway.path".to_owned(), "shm".to_owned())],
        };
        let child = Span {
            span_id: [2; 8],
            parent: Some([1; 8]),
            ..expected.clone()
        };
        assert_eq!(traces, BTreeMap::from([([7; 16], vec![expected, child])]));
    }

    #[tokio::test]
    async fn what_nobody_takes_is_counted_and_the_reason_said() {
        let collector = Collector::start().await.unwrap();
        let url = collector.endpoint();
        assert_eq!(answers(&url).await, Ok(()));
        // Its port is not handed out again at once.
        let Collector { address, .. } = &collector;
        let gone = SocketAddr::from(([127, 0, 0, 1], address.port()));
        collector.server.abort();
        while tokio::net::TcpStream::connect(gone).await.is_ok() {
            tokio::task::yield_now().await;
        }
        let sent = of("orders", vec![span(1, 1), span(1, 2)]).send(&url).await;
        assert_eq!((sent.taken, sent.lost), (0, 2));
        assert!(sent.why.unwrap().contains("refused"));
        assert!(answers(&url).await.is_err());
        assert!(answers("no url at all").await.is_err());
    }

    #[tokio::test]
    async fn more_than_it_can_keep_is_refused_and_not_forgotten() {
        let collector = Collector::start().await.unwrap();
        let keeper = Keeper(Arc::clone(&collector.kept));
        let export = |spans| {
            let resource_spans = of("orders", spans).spans;
            keeper.export(Request::new(ExportTraceServiceRequest { resource_spans }))
        };
        export(vec![span(1, 1); SPANS_MAX]).await.unwrap();
        let refused = export(vec![span(1, 1)]).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        drop(collector.take());
        export(vec![span(1, 1)]).await.unwrap();
    }
}
