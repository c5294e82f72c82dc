//! A collector, by OTLP over gRPC: one connection, made when there is something to send.
//!
//! Sources: [OpenTelemetry Protocol Specification][otlp], of failures; [its variables][variables].
//!
//! [otlp]: https://opentelemetry.io/docs/specs/otlp/#otlpgrpc-response
//! [variables]: https://opentelemetry.io/docs/specs/otel/protocol/exporter/

use std::str::FromStr;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use http::uri::PathAndQuery;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use percent_encoding::percent_decode_str;
use tokio::runtime::Handle;
use tonic::client::Grpc;
use tonic::codec::CompressionEncoding;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt;

use super::otlp::{ExportRequest, Origin};
use super::queue::{Destination, Rejected};
use crate::Error;
use crate::settings::{number, variable};

/// What the specification asks of an exporter's name.
const USER_AGENT: &str = concat!("OTel-OTLP-Exporter-Rust/", env!("CARGO_PKG_VERSION"));
const EXPORT: PathAndQuery =
    PathAndQuery::from_static("/opentelemetry.proto.collector.trace.v1.TraceService/Export");

/// What the variables are called, for traces alone and for all signals.
const HEADERS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "OTEL_EXPORTER_OTLP_HEADERS",
];
const TIMEOUTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
];
const COMPRESSIONS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
    "OTEL_EXPORTER_OTLP_COMPRESSION",
];
/// The specification's, for a batch with all its attempts.
const DEFAULT_TIMEOUT_MS: u64 = 10_000;

/// Attempts after the first one, and the time before them.
const RETRIES: usize = 3;
const FIRST_BACKOFF: Duration = Duration::from_millis(100);

/// How batches are sent.
#[derive(Debug, Default)]
pub(super) struct Manner {
    headers: MetadataMap,
    timeout: Duration,
    compression: Option<CompressionEncoding>,
}

impl Manner {
    pub(super) fn of_environment() -> Result<Self, Error> {
        let timeout = TIMEOUTS.into_iter().find_map(number);
        Ok(Self {
            headers: stated(HEADERS, headers)?.unwrap_or_default(),
            timeout: Duration::from_millis(timeout.unwrap_or(DEFAULT_TIMEOUT_MS)),
            compression: stated(COMPRESSIONS, compression)?.flatten(),
        })
    }
}

#[derive(Debug)]
pub(super) struct Collector {
    grpc: Grpc<Channel>,
    manner: Manner,
    origin: Origin,
}

impl Collector {
    pub(super) fn new(
        endpoint: &str,
        manner: Manner,
        origin: Origin,
        runtime: &Handle,
    ) -> Result<Self, Error> {
        let _entered = runtime.enter();
        let channel = address(endpoint).map_err(|reason| Error::Endpoint {
            endpoint: endpoint.to_owned(),
            reason,
        })?;
        let mut grpc = Grpc::new(channel.connect_lazy());
        if let Some(compression) = manner.compression {
            grpc = grpc.send_compressed(compression);
        }
        Ok(Self {
            grpc,
            manner,
            origin,
        })
    }

    async fn attempt(&self, message: ExportRequest) -> Result<Rejected, Status> {
        let mut grpc = self.grpc.clone();
        let ready = grpc.ready().await;
        ready.map_err(|error| Status::from_error(error.into()))?;
        let mut request = Request::new(message);
        *request.metadata_mut() = self.manner.headers.clone();
        let codec = ProstCodec::<_, ExportTraceServiceResponse>::default();
        let response = grpc.unary(request, EXPORT, codec).await?.into_inner();
        let rejected = response.partial_success.map(|partial| Rejected {
            spans: usize::try_from(partial.rejected_spans).unwrap_or(0),
            why: partial.error_message,
        });
        Ok(rejected.unwrap_or_default())
    }
}

impl Destination for Collector {
    async fn send(&self, spans: Vec<Bytes>) -> Result<Rejected, Status> {
        let message = self.origin.request(spans);
        let backoff = ExponentialBuilder::default()
            .with_min_delay(FIRST_BACKOFF)
            .with_max_times(RETRIES)
            .with_jitter();
        let attempts = (|| self.attempt(message.clone()))
            .retry(backoff)
            .when(may_be_sent_again)
            .adjust(|status, pause| pause.map(|pause| asked_pause(status).unwrap_or(pause)));
        match tokio::time::timeout(self.manner.timeout, attempts).await {
            Ok(answer) => answer,
            Err(_) => Err(Status::deadline_exceeded("no answer in time")),
        }
    }
}

fn address(url: &str) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_str(url).and_then(|it| it.user_agent(USER_AGENT));
    let endpoint = endpoint.map_err(|error| error.to_string())?;
    match endpoint.uri().scheme_str() {
        Some("http") => Ok(endpoint),
        Some("https") => Err("TLS to a collector is not supported".to_owned()),
        Some(other) => Err(format!("`{other}` is no scheme of it")),
        None => Err("it names no scheme".to_owned()),
    }
}

/// Codes after which a batch may be sent again.
fn may_be_sent_again(status: &Status) -> bool {
    match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => true,
        // Only where the collector says when.
        Code::ResourceExhausted => asked_pause(status).is_some(),
        _ => false,
    }
}

/// What the collector asks for (`google.rpc.RetryInfo`).
fn asked_pause(status: &Status) -> Option<Duration> {
    status.get_details_retry_info()?.retry_delay
}

/// What the first of these variables that says something says.
fn stated<T>(
    variables: [&'static str; 2],
    meaning: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, Error> {
    for name in variables {
        if let Some(value) = variable(name) {
            return match meaning(&value) {
                Ok(meant) => Ok(Some(meant)),
                Err(reason) => Err(Error::Setting {
                    variable: name,
                    value,
                    reason,
                }),
            };
        }
    }
    Ok(None)
}

fn compression(value: &str) -> Result<Option<CompressionEncoding>, String> {
    match value {
        "gzip" => Ok(Some(CompressionEncoding::Gzip)),
        "none" => Ok(None),
        _ => Err("use gzip or none".to_owned()),
    }
}

/// `key=value` with commas between, each value percent-encoded.
fn headers(value: &str) -> Result<MetadataMap, String> {
    let mut headers = MetadataMap::new();
    for header in value.split(',').map(str::trim).filter(|it| !it.is_empty()) {
        let (key, value) = header
            .split_once('=')
            .ok_or_else(|| format!("`{header}` is no key=value"))?;
        let decoded = percent_decode_str(value.trim()).collect::<Vec<u8>>();
        let key = AsciiMetadataKey::from_str(key.trim())
            .map_err(|_| format!("`{key}` is no header's name"))?;
        let value = AsciiMetadataValue::try_from(decoded)
            .map_err(|_| format!("the value of `{key}` can't be sent"))?;
        headers.append(key, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
        TraceService, TraceServiceServer,
    };
    use opentelemetry_proto::tonic::collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest,
    };
    use parking_lot::Mutex;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::Response;

    use super::*;

    /// Is not ready yet when it is asked first, and rejects one span of the next batch.
    #[derive(Debug, Clone, Default)]
    struct Starting(Arc<Mutex<Vec<Request<ExportTraceServiceRequest>>>>);

    #[tonic::async_trait]
    impl TraceService for Starting {
        async fn export(
            &self,
            request: Request<ExportTraceServiceRequest>,
        ) -> Result<Response<ExportTraceServiceResponse>, Status> {
            let mut asked = self.0.lock();
            asked.push(request);
            if asked.len() == 1 {
                return Err(Status::unavailable("starts"));
            }
            Ok(Response::new(ExportTraceServiceResponse {
                partial_success: Some(ExportTracePartialSuccess {
                    rejected_spans: 1,
                    error_message: "too old".to_owned(),
                }),
            }))
        }
    }

    #[tokio::test]
    async fn a_batch_is_sent_as_it_was_asked_for_until_it_is_taken() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let starting = Starting::default();
        let service =
            TraceServiceServer::new(starting.clone()).accept_compressed(CompressionEncoding::Gzip);
        let server = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        let manner = Manner {
            headers: headers("api-key=secret").unwrap(),
            timeout: Duration::from_secs(20),
            compression: Some(CompressionEncoding::Gzip),
        };
        let origin = Origin::new(&opentelemetry_sdk::Resource::builder().build(), "tested");
        let collector = Collector::new(&endpoint, manner, origin, &Handle::current()).unwrap();
        let spans = vec![Bytes::new(); 3];
        let rejected = collector.send(spans).await.unwrap();
        assert_eq!((rejected.spans, &*rejected.why), (1, "too old"));
        let asked = starting.0.lock();
        assert_eq!(asked.len(), 2);
        for request in &*asked {
            assert_eq!(request.metadata().get("api-key").unwrap(), "secret");
            assert_eq!(request.metadata().get("grpc-encoding").unwrap(), "gzip");
            let of_scope = &request.get_ref().resource_spans[0].scope_spans[0];
            assert_eq!(of_scope.spans.len(), 3);
        }
    }

    #[tokio::test]
    async fn what_is_no_address_is_refused_at_once() {
        for (url, reason) in [
            ("no url", "invalid"),
            ("localhost:4317", "no scheme"),
            ("https://localhost:4317", "TLS"),
            ("grpc://localhost:4317", "`grpc`"),
        ] {
            let origin = Origin::new(&opentelemetry_sdk::Resource::builder().build(), "tested");
            let refused = Collector::new(url, Manner::default(), origin, &Handle::current());
            let error = refused.unwrap_err().to_string();
            assert!(error.contains(url) && error.contains(reason), "{error}");
        }
        assert!(address("http://localhost:4317").is_ok());
    }

    #[test]
    fn headers_are_read_as_the_specification_writes_them() {
        let read = headers("api-key = a%20b%3D,x-tenant=shop,").unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(read.get("api-key").unwrap(), "a b=");
        assert_eq!(read.get("x-tenant").unwrap(), "shop");
        for (bad, named) in [("key", "`key`"), ("a b=c", "`a b`"), ("a=%0a", "`a`")] {
            let reason = headers(bad).unwrap_err();
            assert!(reason.contains(named), "{reason}");
        }
    }

    #[test]
    fn an_unknown_compression_is_an_error() {
        assert_eq!(compression("none"), Ok(None));
        assert_eq!(compression("gzip"), Ok(Some(CompressionEncoding::Gzip)));
        assert!(compression("lzw").unwrap_err().contains("gzip"));
    }

    #[test]
    fn what_may_work_later_is_sent_again() {
        use tonic_types::ErrorDetails;
        assert!(may_be_sent_again(&Status::unavailable("starts")));
        assert!(!may_be_sent_again(&Status::invalid_argument("never")));
        assert!(!may_be_sent_again(&Status::resource_exhausted("never")));
        let pause = Duration::from_millis(70);
        let details = ErrorDetails::with_retry_info(Some(pause));
        let status = Status::with_error_details(Code::ResourceExhausted, "soon", details);
        assert!(may_be_sent_again(&status));
        assert_eq!(asked_pause(&status), Some(pause));
    }
}
