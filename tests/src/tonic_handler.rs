// A handler as one writes it for tonic, with all four kinds of call. It knows nothing of paths:
// `stubs` is whatever generated the trait, and this file is included over either.
//
// The caller's `x-do` metadata says how it should behave; without one, it echoes.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::metadata::{KeyAndValueRef, MetadataMap, MetadataValue};
use tonic::{Request, Response, Status, Streaming};

use self::stubs::bench_server::Bench;
use self::stubs::{Payload, StreamRequest, Summary};
use crate::seen::{richer_status, with_reserved};
use crate::{Seen, rich_status};

#[derive(Debug, Clone, Default)]
pub struct Handler {
    pub seen: Arc<Seen>,
}

impl Handler {
    /// Does what was asked before the answer.
    async fn obey(&self, wish: &str) -> Result<(), Status> {
        match wish {
            "fail" => return Err(rich_status()),
            "fail richly" => return Err(richer_status()),
            "hang" => std::future::pending().await,
            "panic" => panic!("asked to panic"),
            "meet" => {
                self.seen.meeting.wait().await;
            }
            "block" => self.seen.block(),
            "nap" => tokio::time::sleep(Duration::from_millis(5)).await,
            _ => {}
        }
        Ok(())
    }
}

fn wish(metadata: &MetadataMap) -> String {
    let text = metadata.get("x-do").map(|value| value.to_str());
    text.and_then(Result::ok).unwrap_or_default().to_owned()
}

/// How long the call may still take goes into its answer, in microseconds.
fn say_what_is_left<T>(response: &mut Response<T>) {
    if let Some(left) = ringway::Context::current().time_left() {
        let micros = MetadataValue::from(u64::try_from(left.as_micros()).unwrap());
        response.metadata_mut().insert("x-left-us", micros);
    }
}

/// What the caller says in `x-echo…` comes back, in order; what its library says, if it is asked for.
fn echo_metadata<T>(asked: &MetadataMap, response: &mut Response<T>) {
    if wish(asked) == "say what came" {
        for (name, said_as) in [
            ("user-agent", "x-came-user-agent"),
            ("traceparent", "x-came-traceparent"),
        ] {
            if let Some(value) = asked.get(name) {
                response.metadata_mut().insert(said_as, value.clone());
            }
        }
    }
    for entry in asked.iter() {
        match entry {
            KeyAndValueRef::Ascii(key, value) if key.as_str().starts_with("x-echo") => {
                response.metadata_mut().append(key.clone(), value.clone());
            }
            KeyAndValueRef::Binary(key, value) if key.as_str().starts_with("x-echo") => {
                response.metadata_mut().append_bin(key.clone(), value.clone());
            }
            _ => {}
        }
    }
}

#[tonic::async_trait]
impl Bench for Handler {
    async fn unary(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        let _entered = self.seen.enter(request.get_ref().sequence);
        if self.seen.is_failing() {
            return Err(Status::unavailable("told to fail"));
        }
        self.obey(&wish(request.metadata())).await?;
        let (metadata, _, payload) = request.into_parts();
        let mut response = Response::new(payload);
        match wish(&metadata).as_str() {
            "return reserved" => *response.metadata_mut() = with_reserved(&metadata),
            "fail with reserved" => {
                let said = with_reserved(&metadata);
                return Err(Status::with_metadata(tonic::Code::Aborted, "", said));
            }
            "fail with what came" => {
                let details = metadata.as_ref().get("grpc-status-details-bin").cloned();
                let mut said = http::HeaderMap::new();
                said.insert("x-had-details", details.is_some().to_string().parse().unwrap());
                said.extend(details.map(|details| {
                    let name = http::HeaderName::from_static("grpc-status-details-bin");
                    (name, details)
                }));
                let said = tonic::metadata::MetadataMap::from_headers(said);
                return Err(Status::with_metadata(tonic::Code::NotFound, "", said));
            }
            _ => {}
        }
        echo_metadata(&metadata, &mut response);
        if wish(&metadata) == "left" {
            say_what_is_left(&mut response);
        }
        Ok(response)
    }

    type ServerStreamStream = Pin<Box<dyn Stream<Item = Result<Payload, Status>> + Send>>;

    async fn server_stream(
        &self,
        request: Request<StreamRequest>,
    ) -> Result<Response<Self::ServerStreamStream>, Status> {
        let entered = self.seen.enter(0);
        let wish = wish(request.metadata());
        let (metadata, _, StreamRequest { count, size_bytes }) = request.into_parts();
        let data = Bytes::from(vec![7; usize::try_from(size_bytes).unwrap_or(0)]);
        let handler = self.clone();
        let stream = async_stream::try_stream! {
            let _entered = entered;
            for sequence in 0..count {
                handler.seen.note_produced();
                yield Payload { sequence, data: data.clone() };
            }
            handler.obey(&wish).await?;
        };
        let mut response = Response::new(Box::pin(stream) as Self::ServerStreamStream);
        echo_metadata(&metadata, &mut response);
        Ok(response)
    }

    async fn client_stream(
        &self,
        request: Request<Streaming<Payload>>,
    ) -> Result<Response<Summary>, Status> {
        let _entered = self.seen.enter(0);
        self.obey(&wish(request.metadata())).await?;
        let (metadata, _, mut stream) = request.into_parts();
        let mut summary = Summary::default();
        while let Some(payload) = stream.message().await? {
            self.seen.note_received();
            summary.messages += 1;
            summary.bytes += payload.data.len() as u64;
        }
        self.seen.note_committed();
        let mut response = Response::new(summary);
        echo_metadata(&metadata, &mut response);
        Ok(response)
    }

    type BidiStream = ReceiverStream<Result<Payload, Status>>;

    async fn bidi(
        &self,
        request: Request<Streaming<Payload>>,
    ) -> Result<Response<Self::BidiStream>, Status> {
        let entered = self.seen.enter(0);
        let wish = wish(request.metadata());
        let (metadata, _, mut stream) = request.into_parts();
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        let handler = self.clone();
        tokio::spawn(async move {
            let _entered = entered;
            if wish == "answer early" {
                // The answer ends with its sender; the requests are read on.
                if let Some(item) = stream.next().await {
                    let _ = sender.send(item).await;
                }
                drop(sender);
                while let Some(Ok(_)) = stream.next().await {}
                return;
            }
            while let Some(item) = stream.next().await {
                let broken_off = item.is_err();
                if sender.send(item).await.is_err() || broken_off {
                    return;
                }
            }
            if let Err(status) = handler.obey(&wish).await {
                // Nobody may be left to be told.
                let _ = sender.send(Err(status)).await;
            }
        });
        let mut response = Response::new(ReceiverStream::new(receiver));
        echo_metadata(&metadata, &mut response);
        Ok(response)
    }
}
