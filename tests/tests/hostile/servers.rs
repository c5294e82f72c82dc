//! Hostile servers: a client that calls one gets a status, never a panic.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ringway::{Channel, Endpoint as Address};
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench::{Payload, StreamRequest};
use ringway_proto::bench_tonic::bench_client::BenchClient as PlainClient;
use ringway_ring::{Endpoint, EndpointConfig, Inbox, OwnRegion, PeerRegion};
use ringway_sys::{Blocking, EventFd, receive_with_descriptors};
use ringway_tests::{alone, in_a_process_of_its_own, peak_resident_bytes, resident_bytes, within};
use ringway_wire::{
    Capabilities, Config, Flags, FrameHeader, Hello, Kind, MetadataBuf, ResponseHead, Role,
    StatusHead,
};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use crate::beset::listen;
use crate::{NAME, exchange_regions, is_hung_up, read_hello, send};

/// A frame to answer with: its call is added to that of the header when it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    header: FrameHeader,
    head: Vec<u8>,
    /// So many zeros follow, of which the header tells, on a socket.
    payload_len: usize,
}

impl Said {
    pub(crate) fn new(header: FrameHeader, head: Vec<u8>) -> Self {
        Self {
            header,
            head,
            payload_len: 0,
        }
    }

    fn bytes(&self, call: u64) -> Vec<u8> {
        let header = FrameHeader {
            call: self.header.call.wrapping_add(call),
            head_len: u32::try_from(self.head.len()).unwrap(),
            ..self.header
        };
        [&header.encode()[..], &self.head].concat()
    }
}

/// What carries the frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Shm,
    Socket,
}

impl Link {
    pub(crate) fn address(self) -> String {
        match self {
            Self::Shm => format!("shm://{NAME}"),
            Self::Socket => format!("socket+epoll://{NAME}"),
        }
    }

    fn capabilities(self) -> Capabilities {
        match self {
            Self::Shm => Capabilities(1),
            Self::Socket => Capabilities(2 | 4),
        }
    }
}

/// Serves each connection on a thread of its own, and answers each call with `answer`.
pub(crate) fn serve(root: &Path, link: Link, answer: &[Said]) {
    let answer = answer.to_vec();
    listen(
        root,
        Arc::new(move |stream, _| serve_one(&stream, link, &answer)),
    );
}

/// Says hello as a server.
pub(crate) fn greet_client(mut stream: &UnixStream, link: Link) {
    read_hello(stream);
    let capabilities = link.capabilities();
    let hello = Hello::new(Role::Server, &Config::default(), 9, NAME, capabilities);
    // The client may have hung up: that is what is looked for afterwards.
    let _ = stream.write_all(&hello.encode().unwrap());
}

fn serve_one(stream: &UnixStream, link: Link, answer: &[Said]) {
    greet_client(stream, link);
    match link {
        Link::Shm => answer_in_memory(stream, answer),
        Link::Socket => answer_over(stream, answer),
    }
}

fn answer_over(mut stream: &UnixStream, answer: &[Said]) {
    use std::io::Read;
    let mut header = [0; FrameHeader::LEN];
    while stream.read_exact(&mut header).is_ok() {
        let header = FrameHeader::decode(&header).unwrap();
        let mut rest = vec![0; (header.head_len + header.payload_len) as usize];
        stream.read_exact(&mut rest).unwrap();
        if header.kind == Kind::Request {
            for said in answer {
                // The client may have hung up: the test looks at what it reports.
                let _ = stream.write_all(&said.bytes(header.call));
                let _ = std::io::copy(&mut zeros(said.payload_len), &mut stream);
            }
        }
    }
}

fn zeros(len: usize) -> impl std::io::Read {
    std::io::Read::take(std::io::repeat(0), len as u64)
}

fn answer_in_memory(stream: &UnixStream, answer: &[Said]) {
    let config = EndpointConfig::default();
    let own = OwnRegion::create(&config.region).unwrap();
    let own_bell = EventFd::new().unwrap();
    send(stream, b"R", &[own.descriptor(), own_bell.as_fd()]);
    let received =
        receive_with_descriptors(stream.as_fd(), &mut [0], 2, Blocking::AsSocket).unwrap();
    let [region, bell] = <[OwnedFd; 2]>::try_from(received.descriptors).unwrap();
    let region = PeerRegion::map(region, &config.region_limits).unwrap();
    let mut endpoint = Endpoint::join(own, region, &config).unwrap();
    let bell = EventFd::from_peer(bell).unwrap();
    let mut inbox = Inbox::default();
    while !crate::is_hung_up(stream) {
        endpoint.consumer.take(&mut inbox).unwrap();
        let requests: Vec<u64> = inbox
            .records()
            .map(|record| FrameHeader::decode(record.unwrap().bytes.first_chunk().unwrap()))
            .map(Result::unwrap)
            .filter(|header| header.kind == Kind::Request)
            .map(|header| header.call)
            .collect();
        for call in requests {
            for said in answer {
                let bytes = said.bytes(call);
                let mut reservation = endpoint.producer.reserve(bytes.len()).unwrap();
                reservation.copy_from_slice(&bytes);
                reservation.commit();
            }
            bell.ring().unwrap();
        }
        std::thread::yield_now();
    }
}

/// Names that a peer has no say in, each with a value that breaks tonic if it gets there.
fn reserved() -> MetadataBuf {
    let mut block = MetadataBuf::new();
    for (name, value) in [
        ("grpc-status-details-bin", "*"),
        ("grpc-status", "7"),
        ("grpc-message", "%ff%"),
        ("grpc-message-type", "x"),
        ("content-type", "text/html"),
        ("te", "gzip"),
        ("grpc-timeout", "1n"),
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("x-plain", "kept"),
    ] {
        block.push(name.as_bytes(), value.as_bytes()).unwrap();
    }
    block
}

fn assert_filtered(metadata: &MetadataMap) {
    assert_eq!(metadata.get("x-plain").unwrap(), "kept");
    // A plain stub has the status of its answer among the metadata, as over HTTP/2.
    let status = metadata.get("grpc-status");
    assert!(status.is_none_or(|status| status == "0"), "{status:?}");
    let message = metadata.get("grpc-message");
    assert!(message.is_none_or(|message| message == "no%20teapot"));
    for name in ["grpc-message-type", "te", "grpc-timeout"] {
        assert!(!metadata.contains_key(name), "{name}");
    }
    for name in ["connection", "transfer-encoding"] {
        assert!(!metadata.contains_key(name), "{name}");
    }
    assert!(!metadata.as_ref().contains_key("grpc-status-details-bin"));
}

fn message() -> Said {
    let header = FrameHeader {
        flags: Flags::HAS_MESSAGE,
        ..FrameHeader::new(Kind::Message)
    };
    Said::new(header, Vec::new())
}

fn headers() -> Said {
    let head = reserved().as_metadata().as_bytes().to_vec();
    Said::new(FrameHeader::new(Kind::Headers), head)
}

/// An answer of so many bytes, for each kind of call.
fn oversized(kind: Kind, len: usize) -> Said {
    let bytes = u32::try_from(len).unwrap();
    let header = FrameHeader {
        flags: Flags::HAS_MESSAGE,
        payload_len: bytes,
        message_len: bytes,
        ..FrameHeader::new(kind)
    };
    Said {
        payload_len: len,
        ..Said::new(header, Vec::new())
    }
}

fn trailers(code: u16) -> Said {
    let block = reserved();
    let head = StatusHead {
        message: "no teapot",
        metadata: block.as_metadata(),
        ..StatusHead::default()
    };
    let mut bytes = vec![0; head.encoded_len().unwrap()];
    head.encode(&mut bytes);
    let header = FrameHeader {
        code,
        ..FrameHeader::new(Kind::Trailers)
    };
    Said::new(header, bytes)
}

fn response() -> Said {
    let (initial, trailing) = (reserved(), reserved());
    let head = ResponseHead {
        initial: initial.as_metadata(),
        trailing: trailing.as_metadata(),
    };
    let mut bytes = vec![0; head.encoded_len()];
    head.encode(&mut bytes);
    let header = FrameHeader {
        flags: Flags::HAS_MESSAGE,
        ..FrameHeader::new(Kind::Response)
    };
    Said::new(header, bytes)
}

/// How a call of each kind of stub ends, with all metadata that came.
async fn ends(channel: &Channel) -> [Result<Vec<MetadataMap>, Status>; 3] {
    let typed = unary(BenchClient::new(channel.clone())).await;
    let plain = {
        let mut client = PlainClient::new(channel.clone());
        let answered = client.unary(ringway_proto::bench_tonic::Payload::default());
        answered
            .await
            .map(|response| vec![response.metadata().clone()])
    };
    [
        typed,
        plain,
        stream(BenchClient::new(channel.clone())).await,
    ]
}

async fn unary(mut client: BenchClient<Channel>) -> Result<Vec<MetadataMap>, Status> {
    let response = client.unary(Payload::default()).await?;
    let mut all = vec![response.metadata().clone()];
    let trailing = response.extensions().get::<ringway::Trailers>();
    all.extend(trailing.map(|trailers| trailers.0.clone()));
    Ok(all)
}

async fn stream(mut client: BenchClient<Channel>) -> Result<Vec<MetadataMap>, Status> {
    let response = client.server_stream(StreamRequest::default()).await?;
    let mut all = vec![response.metadata().clone()];
    let mut messages = response.into_inner();
    while messages.message().await?.is_some() {}
    all.extend(messages.trailers().await?);
    Ok(all)
}

async fn calls(link: Link, answer: &[Said], judge: impl Fn(Result<Vec<MetadataMap>, Status>)) {
    let directory = tempfile::tempdir().unwrap();
    serve(directory.path(), link, answer);
    let address = Address::new(link.address()).unwrap();
    let channel = address.directory(directory.path()).connect().await.unwrap();
    for end in ends(&channel).await {
        judge(end);
    }
}

#[test]
fn reserved_names_of_a_server_reach_no_client() {
    // Other tests count descriptors.
    alone(within(async {
        for link in [Link::Shm, Link::Socket] {
            let answered = |end: Result<Vec<MetadataMap>, Status>| {
                end.unwrap().iter().for_each(assert_filtered);
            };
            calls(link, &[response()], answered).await;
            calls(link, &[headers(), message(), trailers(0)], answered).await;
            let failed = |end: Result<Vec<MetadataMap>, Status>| {
                let status = end.unwrap_err();
                assert_eq!(status.code(), Code::NotFound);
                assert_eq!(status.message(), "no teapot");
                assert_filtered(status.metadata());
            };
            calls(link, &[trailers(5)], failed).await;
            calls(link, &[headers(), trailers(5)], failed).await;
        }
    }));
}

/// Our stubs say how much they take; what is longer is refused when it begins, and read past.
#[test]
fn an_answer_beyond_the_limit_takes_no_memory() {
    const LEN: usize = 100 << 20;
    const ALLOWED_BYTES: usize = 32 << 20;
    if !in_a_process_of_its_own("servers::an_answer_beyond_the_limit_takes_no_memory") {
        return;
    }
    let too_long = |end: Result<Vec<MetadataMap>, Status>| {
        assert_eq!(end.unwrap_err().code(), Code::OutOfRange);
    };
    alone(within(async {
        let before = resident_bytes();
        for kind in [Kind::Response, Kind::Message] {
            let directory = tempfile::tempdir().unwrap();
            serve(directory.path(), Link::Socket, &[oversized(kind, LEN)]);
            let address = Address::new(Link::Socket.address()).unwrap();
            let channel = address.directory(directory.path()).connect().await.unwrap();
            let mut streams = BenchClient::new(channel.clone());
            if kind == Kind::Response {
                too_long(unary(streams.clone()).await);
                too_long(stream(streams).await);
            } else {
                // Headers come with the first message where a server sends none.
                let answered = streams.server_stream(StreamRequest::default()).await;
                assert!(answered.is_err());
            }
        }
        let taken = peak_resident_bytes().saturating_sub(before);
        assert!(taken < ALLOWED_BYTES, "{} MiB", taken >> 20);
    }));
}

/// Why no call gets through stands in the status, whether the connection ended before a call or amid its sending.
#[test]
fn a_server_that_loses_each_connection_is_why_a_call_failed() {
    alone(within(async {
        let directory = tempfile::tempdir().unwrap();
        let serve = |stream: UnixStream, _| {
            greet_client(&stream, Link::Shm);
            if let Some(mut joined) = exchange_regions(stream) {
                joined.record(&[1; 23]);
                while !is_hung_up(&joined.stream) {
                    std::thread::yield_now();
                }
            }
        };
        listen(directory.path(), Arc::new(serve));
        let address = Address::new(Link::Shm.address()).unwrap();
        let address = address.directory(directory.path());
        for _ in 0..20 {
            let mut client = BenchClient::new(address.connect_lazy());
            let mut request = tonic::Request::new(Payload::default());
            request.set_timeout(Duration::from_millis(300));
            let status = client.unary(request).await.unwrap_err();
            assert!(status.message().contains("broke the protocol"), "{status}");
        }
    }));
}
