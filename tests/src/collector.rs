//! An OpenTelemetry collector that keeps what it is sent, for tests to look at.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint, number_data_point};
use opentelemetry_proto::tonic::trace::v1::Span as OtlpSpan;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use ringway::trace::TraceContext;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// What a collector does with what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CollectorManner {
    /// Keeps it.
    Keeps,
    /// Refuses it.
    Refuses,
    /// Never answers.
    Hangs,
}

/// A span as it was sent, with the name of the service that sent it.
#[derive(Debug, Clone)]
pub struct Span {
    /// `service.name` of its resource.
    pub service: String,
    span: OtlpSpan,
}

impl Span {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.span.name
    }

    /// Whether a client made it.
    pub fn is_client(&self) -> bool {
        self.span.kind == SpanKind::Client as i32
    }

    /// Whether a server made it.
    pub fn is_server(&self) -> bool {
        self.span.kind == SpanKind::Server as i32
    }

    /// Its own id.
    pub fn id(&self) -> &[u8] {
        &self.span.span_id
    }

    /// Whether it has none above it.
    pub fn is_root(&self) -> bool {
        self.span.parent_span_id.is_empty()
    }

    /// Whether it is a child of `parent`.
    pub fn is_child_of(&self, parent: &Self) -> bool {
        self.span.parent_span_id == parent.span.span_id
    }

    /// Whether it is a child of what a process said of itself.
    pub fn is_child_of_context(&self, parent: &TraceContext) -> bool {
        self.span.parent_span_id == parent.span_id()
    }

    /// The trace that it belongs to.
    pub fn trace_id(&self) -> &[u8] {
        &self.span.trace_id
    }

    /// Whether it ended in an error.
    pub fn is_error(&self) -> bool {
        let status = self.span.status.as_ref();
        status.is_some_and(|status| status.code() == StatusCode::Error)
    }

    /// An attribute, as text.
    pub fn attribute(&self, name: &str) -> Option<String> {
        attribute(&self.span.attributes, name)
    }

    /// Its events, with their times in nanoseconds.
    pub fn events(&self) -> Vec<(&str, u64)> {
        let events = self.span.events.iter();
        events
            .map(|event| (event.name.as_str(), event.time_unix_nano))
            .collect()
    }

    /// When the event was; the test fails if there is none.
    pub fn at(&self, event: &str) -> u64 {
        let found = self.events().into_iter().find(|(name, _)| *name == event);
        found
            .unwrap_or_else(|| panic!("{} lacks `{event}`: {:?}", self.name(), self.events()))
            .1
    }

    /// When it began and ended, in nanoseconds.
    pub fn times(&self) -> (u64, u64) {
        (self.span.start_time_unix_nano, self.span.end_time_unix_nano)
    }
}

fn attribute(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        _ => None,
    }
}

#[derive(Debug)]
struct Shared {
    manner: Mutex<CollectorManner>,
    spans: Mutex<Vec<Span>>,
    points: Mutex<Vec<Point>>,
}

/// The last value of one time series; of a histogram, the count.
#[derive(Debug, Clone)]
struct Point {
    name: String,
    attributes: Vec<KeyValue>,
    value: u64,
}

/// A collector that runs within the test, on a thread of its own.
#[derive(Debug, Clone)]
pub struct Collector {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Collector {
    /// One that listens for OTLP over gRPC. It goes on until the process ends.
    pub fn start(manner: CollectorManner) -> Self {
        let shared = Arc::new(Shared {
            manner: Mutex::new(manner),
            spans: Mutex::default(),
            points: Mutex::default(),
        });
        let (said, address) = std::sync::mpsc::channel();
        let service = Keeping(Arc::clone(&shared));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                said.send(listener.local_addr().unwrap()).unwrap();
                tonic::transport::Server::builder()
                    .add_service(MetricsServiceServer::new(service.clone()))
                    .add_service(TraceServiceServer::new(service))
                    .serve_with_incoming(TcpListenerStream::new(listener))
                    .await
                    .unwrap();
            });
        });
        Self {
            address: address.recv().unwrap(),
            shared,
        }
    }

    /// What `OTEL_EXPORTER_OTLP_ENDPOINT` says to reach it.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Has it do otherwise from now on.
    pub fn change(&self, manner: CollectorManner) {
        *locked(&self.shared.manner) = manner;
    }

    /// All that came so far.
    pub fn spans(&self) -> Vec<Span> {
        locked(&self.shared.spans).clone()
    }

    /// The sum of the last values of all time series of the metric `name` that have these attributes
    /// among theirs and their resource's; of a histogram, the number of what was measured. `None` where there are none.
    pub fn metric(&self, name: &str, attributes: &[(&str, &str)]) -> Option<u64> {
        let points = locked(&self.shared.points);
        let fits = |point: &&Point| {
            let has = |&(key, value): &(&str, &str)| {
                attribute(&point.attributes, key).as_deref() == Some(value)
            };
            point.name == name && attributes.iter().all(has)
        };
        let found: Vec<u64> = points
            .iter()
            .filter(fits)
            .map(|point| point.value)
            .collect();
        (!found.is_empty()).then(|| found.iter().sum())
    }

    /// What came of one trace.
    pub fn spans_of(&self, trace_id: &[u8]) -> Vec<Span> {
        let mut spans = self.spans();
        spans.retain(|span| span.trace_id() == trace_id);
        spans
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Clone)]
struct Keeping(Arc<Shared>);

impl Keeping {
    async fn mind_manners(&self) -> Result<(), Status> {
        let manner = *locked(&self.0.manner);
        match manner {
            CollectorManner::Keeps => Ok(()),
            CollectorManner::Refuses => Err(Status::permission_denied("not you")),
            CollectorManner::Hangs => std::future::pending().await,
        }
    }
}

#[tonic::async_trait]
impl MetricsService for Keeping {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.mind_manners().await?;
        for of_resource in request.into_inner().resource_metrics {
            let resource = of_resource.resource.unwrap_or_default().attributes;
            let scopes = of_resource.scope_metrics.into_iter();
            let came = scopes.flat_map(|scope| scope.metrics).flat_map(points_of);
            let mut points = locked(&self.0.points);
            for mut point in came {
                point.attributes.extend(resource.iter().cloned());
                // They come in any order.
                point
                    .attributes
                    .sort_by(|one, other| one.key.cmp(&other.key));
                points.retain(|old| old.name != point.name || old.attributes != point.attributes);
                points.push(point);
            }
        }
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

fn points_of(metric: Metric) -> Vec<Point> {
    let name = metric.name;
    let point = |attributes, value| Point {
        name: name.clone(),
        attributes,
        value,
    };
    let number = |one: NumberDataPoint| match one.value {
        Some(number_data_point::Value::AsInt(value)) => {
            point(one.attributes, value.try_into().unwrap())
        }
        other => panic!("{name} is no whole number: {other:?}"),
    };
    match metric.data {
        Some(Data::Sum(sum)) => sum.data_points.into_iter().map(number).collect(),
        Some(Data::Gauge(gauge)) => gauge.data_points.into_iter().map(number).collect(),
        Some(Data::Histogram(histogram)) => {
            let points = histogram.data_points.into_iter();
            points.map(|one| point(one.attributes, one.count)).collect()
        }
        other => panic!("{name} is of another kind: {other:?}"),
    }
}

#[tonic::async_trait]
impl TraceService for Keeping {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.mind_manners().await?;
        for of_resource in request.into_inner().resource_spans {
            let resource = of_resource.resource.unwrap_or_default();
            let service = attribute(&resource.attributes, "service.name").unwrap_or_default();
            let spans = of_resource
                .scope_spans
                .into_iter()
                .flat_map(|scope| scope.spans);
            locked(&self.0.spans).extend(spans.map(|span| Span {
                service: service.clone(),
                span,
            }));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}
