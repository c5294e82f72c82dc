//! The server's side: the named features of the descriptions' second half.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use ringway::{CameCompressed, Compress, MessageCompression, ServerBuilder, Trailers};
use ringway_proto::grpc_testing::test_service_server::{
    TestService as Contract, TestServiceServer,
};
use ringway_proto::grpc_testing::{
    BoolValue, EchoStatus, Empty, Payload, PayloadType, ResponseParameters, SimpleRequest,
    SimpleResponse, StreamingInputCallRequest, StreamingInputCallResponse,
    StreamingOutputCallRequest, StreamingOutputCallResponse,
};
use tokio_stream::Stream;
use tonic::codec::CompressionEncoding::Gzip;
use tonic::metadata::MetadataMap;
use tonic::{Code, Extensions, Request, Response, Status, Streaming};

/// Comes back in the initial metadata.
pub(crate) const ECHO_INITIAL: &str = "x-grpc-test-echo-initial";
/// Comes back in the trailing metadata.
pub(crate) const ECHO_TRAILING: &str = "x-grpc-test-echo-trailing-bin";

/// The largest payload that is made on request.
const MAX_PAYLOAD_BYTES: i32 = 64 << 20;
/// Payloads up to this size share one piece of memory.
const SHARED_BYTES: usize = 1 << 20;

/// `grpc.testing.TestService`.
#[derive(Debug, Clone)]
pub struct TestService {
    /// Of which payloads are made.
    zeros: Bytes,
    id: String,
}

impl Default for TestService {
    fn default() -> Self {
        Self {
            zeros: Bytes::from(vec![0; SHARED_BYTES]),
            id: format!("ringway-interop-{}", std::process::id()),
        }
    }
}

/// Has a server answer the tests. `UnimplementedService` stays away, as it should.
pub fn add_to(builder: ServerBuilder) -> ServerBuilder {
    let service = TestServiceServer::new(TestService::default()).accept_compressed(Gzip);
    builder.add_service(MessageCompression::new(service, Gzip))
}

type Responses = Pin<Box<dyn Stream<Item = Result<StreamingOutputCallResponse, Status>> + Send>>;

impl TestService {
    fn payload(&self, kind: i32, size_bytes: i32) -> Result<Payload, Status> {
        if kind != i32::from(PayloadType::Compressable) {
            return Err(Status::invalid_argument(format!(
                "there is no payload of type {kind}"
            )));
        }
        let len = match usize::try_from(size_bytes) {
            Ok(len) if size_bytes <= MAX_PAYLOAD_BYTES => len,
            _ => {
                return Err(Status::invalid_argument(format!(
                    "a payload has 0 to {MAX_PAYLOAD_BYTES} bytes, not {size_bytes}"
                )));
            }
        };
        let body = match len <= SHARED_BYTES {
            true => self.zeros.slice(..len),
            false => Bytes::from(vec![0; len]),
        };
        Ok(Payload { r#type: kind, body })
    }

    /// One response of a stream, when it is due.
    async fn part(
        &self,
        kind: i32,
        asked: &ResponseParameters,
    ) -> Result<StreamingOutputCallResponse, Status> {
        if let Ok(micros @ 1..) = u64::try_from(asked.interval_us) {
            tokio::time::sleep(Duration::from_micros(micros)).await;
        }
        let payload = self.payload(kind, asked.size)?;
        Ok(StreamingOutputCallResponse {
            payload: Some(payload),
        })
    }

    /// The responses that each of `requests` asks for.
    fn parts(
        self,
        extensions: &Extensions,
        requests: impl Stream<Item = Result<StreamingOutputCallRequest, Status>> + Send + 'static,
    ) -> Response<Responses> {
        // Where nobody tells of compression, nobody compresses.
        let compress = extensions
            .get::<CameCompressed>()
            .map(|_| Compress::default());
        let chosen = compress.clone();
        let parts: Responses = Box::pin(async_stream::try_stream! {
            for await request in requests {
                let request = request?;
                wished(request.response_status.as_ref())?;
                for asked in &request.response_parameters {
                    let part = self.part(request.response_type, asked).await?;
                    if let Some(chosen) = &chosen {
                        chosen.push(is_true(asked.compressed.as_ref()));
                    }
                    yield part;
                }
            }
        });
        let mut response = Response::new(parts);
        if let Some(compress) = compress {
            response.extensions_mut().insert(compress);
        }
        response
    }
}

/// Ends the call where the client asks for a status.
fn wished(status: Option<&EchoStatus>) -> Result<(), Status> {
    match status {
        Some(EchoStatus { code, message }) if *code != 0 => {
            Err(Status::new(Code::from_i32(*code), message))
        }
        _ => Ok(()),
    }
}

/// Fails unless the message that was read last came as its sender says. Where nobody tells, none came
/// compressed.
fn came_as(expected: Option<&BoolValue>, extensions: &Extensions) -> Result<(), Status> {
    let came = extensions.get().and_then(CameCompressed::next);
    let came = came.unwrap_or(false);
    match expected {
        Some(expected) if expected.value != came => Err(Status::invalid_argument(format!(
            "the message came {}compressed",
            if came { "" } else { "un" }
        ))),
        _ => Ok(()),
    }
}

fn is_true(asked: Option<&BoolValue>) -> bool {
    asked.is_some_and(|asked| asked.value)
}

/// What the client says in the two echo headers comes back.
fn echo<T>(asked: &MetadataMap, response: &mut Response<T>) {
    if let Some(value) = asked.get(ECHO_INITIAL) {
        let metadata = response.metadata_mut();
        metadata.insert(ECHO_INITIAL, value.clone());
    }
    if let Some(value) = asked.get_bin(ECHO_TRAILING) {
        let mut trailing = MetadataMap::new();
        trailing.insert_bin(ECHO_TRAILING, value.clone());
        response.extensions_mut().insert(Trailers(trailing));
    }
}

#[tonic::async_trait]
impl Contract for TestService {
    type StreamingOutputCallStream = Responses;
    type FullDuplexCallStream = Responses;
    type HalfDuplexCallStream = Responses;

    async fn empty_call(&self, _request: Request<Empty>) -> Result<Response<Empty>, Status> {
        Ok(Response::new(Empty {}))
    }

    async fn unary_call(
        &self,
        request: Request<SimpleRequest>,
    ) -> Result<Response<SimpleResponse>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        wished(request.response_status.as_ref())?;
        came_as(request.expect_compressed.as_ref(), &extensions)?;
        let payload = self.payload(request.response_type, request.response_size)?;
        let mut response = Response::new(SimpleResponse {
            payload: Some(payload),
            ..SimpleResponse::default()
        });
        if is_true(request.response_compressed.as_ref()) {
            let compress = Compress::from_iter([true]);
            response.extensions_mut().insert(compress);
        }
        if request.fill_server_id {
            response.get_mut().server_id.clone_from(&self.id);
        }
        echo(&metadata, &mut response);
        Ok(response)
    }

    /// The time in place of the payload, and leave to keep the answer for a minute.
    async fn cacheable_unary_call(
        &self,
        _request: Request<SimpleRequest>,
    ) -> Result<Response<SimpleResponse>, Status> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let nanos = now.unwrap_or_default().as_nanos();
        let payload = Payload {
            body: Bytes::from(nanos.to_string()),
            ..Payload::default()
        };
        let mut response = Response::new(SimpleResponse {
            payload: Some(payload),
            ..SimpleResponse::default()
        });
        let keep = tonic::metadata::MetadataValue::from_static("max-age=60, public");
        response.metadata_mut().insert("cache-control", keep);
        Ok(response)
    }

    async fn streaming_output_call(
        &self,
        request: Request<StreamingOutputCallRequest>,
    ) -> Result<Response<Responses>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        let request = tokio_stream::once(Ok(request));
        let mut response = self.clone().parts(&extensions, request);
        echo(&metadata, &mut response);
        Ok(response)
    }

    async fn streaming_input_call(
        &self,
        request: Request<Streaming<StreamingInputCallRequest>>,
    ) -> Result<Response<StreamingInputCallResponse>, Status> {
        let (metadata, extensions, mut requests) = request.into_parts();
        let mut sum_bytes = 0_usize;
        while let Some(request) = requests.message().await? {
            came_as(request.expect_compressed.as_ref(), &extensions)?;
            sum_bytes += request.payload.map_or(0, |payload| payload.body.len());
        }
        let mut response = Response::new(StreamingInputCallResponse {
            aggregated_payload_size: i32::try_from(sum_bytes).unwrap_or(i32::MAX),
        });
        echo(&metadata, &mut response);
        Ok(response)
    }

    async fn full_duplex_call(
        &self,
        request: Request<Streaming<StreamingOutputCallRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let (metadata, extensions, requests) = request.into_parts();
        let mut response = self.clone().parts(&extensions, requests);
        echo(&metadata, &mut response);
        Ok(response)
    }

    async fn half_duplex_call(
        &self,
        request: Request<Streaming<StreamingOutputCallRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let (metadata, extensions, mut requests) = request.into_parts();
        let kept = async_stream::try_stream! {
            let mut kept = Vec::new();
            while let Some(request) = requests.message().await? {
                kept.push(request);
            }
            for request in kept {
                yield request;
            }
        };
        let mut response = self.clone().parts(&extensions, kept);
        echo(&metadata, &mut response);
        Ok(response)
    }

    async fn unimplemented_call(
        &self,
        _request: Request<Empty>,
    ) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented(""))
    }
}
