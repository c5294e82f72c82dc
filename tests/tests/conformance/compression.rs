//! Compression where a network pays for it; what comes compressed is understood everywhere.

use std::io::Write;

use bytes::Bytes;
use ringway::ServerBuilder;
use ringway_proto::bench::bench_server::BenchServer;
use ringway_proto::bench_tonic::bench_client::BenchClient as PlainClient;
use ringway_proto::bench_tonic::{Payload, StreamRequest};
use ringway_tests::raw::{framed, send, to};
use ringway_tests::{Running, Way, ours};
use tokio_stream::StreamExt;
use tonic::Code;
use tonic::codec::CompressionEncoding;

const ENCODINGS: [CompressionEncoding; 3] = [
    CompressionEncoding::Gzip,
    CompressionEncoding::Deflate,
    CompressionEncoding::Zstd,
];
const UNARY: &str = "/ringway.bench.v1.Bench/Unary";

fn compressing(builder: ServerBuilder) -> ServerBuilder {
    let service = BenchServer::new(ours::Handler::default());
    let service = ENCODINGS.into_iter().fold(service, |service, encoding| {
        service
            .accept_compressed(encoding)
            .send_compressed(encoding)
    });
    builder.add_service(service)
}

fn payload(sequence: u64) -> Payload {
    Payload {
        sequence,
        data: vec![7; 10_000].into(),
    }
}

pub(crate) async fn by_our_stubs(way: Way) {
    let running = Running::with(way, compressing).await;
    for encoding in ENCODINGS {
        let client = running.client().await;
        let mut client = client.send_compressed(encoding).accept_compressed(encoding);
        let response = client
            .unary(ringway_tests::payload(1, 10_000))
            .await
            .unwrap();
        assert_eq!(response.into_inner(), ringway_tests::payload(1, 10_000));
        let replies = client
            .bidi(ringway_tests::payloads(20, 1000))
            .await
            .unwrap();
        assert_eq!(replies.into_inner().collect::<Vec<_>>().await.len(), 20);
    }
}

pub(crate) async fn by_stubs_of_tonics(way: Way) {
    let running = Running::with(way, compressing).await;
    for encoding in ENCODINGS {
        let client = PlainClient::new(running.channel().await);
        let mut client = client.send_compressed(encoding).accept_compressed(encoding);
        let response = client.unary(payload(1)).await.unwrap();
        assert_eq!(response.into_inner(), payload(1));
        let uploaded = client.client_stream(tokio_stream::iter((0..50).map(payload)));
        assert_eq!(uploaded.await.unwrap().into_inner().bytes, 500_000);
        let request = StreamRequest {
            count: 20,
            size_bytes: 1000,
        };
        let stream = client.server_stream(request).await.unwrap().into_inner();
        assert_eq!(stream.collect::<Vec<_>>().await.len(), 20);
        let replies = client.bidi(tokio_stream::iter((0..50).map(payload)));
        let replies: Vec<_> = replies.await.unwrap().into_inner().collect().await;
        for (sequence, reply) in (0..50).zip(replies) {
            assert_eq!(reply.unwrap(), payload(sequence));
        }
    }
}

fn gzip(message: &[u8]) -> Bytes {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(message).unwrap();
    encoder.finish().unwrap().into()
}

pub(crate) async fn a_bomb_ends_at_the_limit(way: Way) {
    let running = Running::with(way, compressing).await;
    let channel = running.channel().await;
    let request = || to(UNARY).header("grpc-encoding", "gzip");
    let good = send(&channel, request(), framed(1, &gzip(&[8, 7]))).await;
    assert_eq!((good.code(), &*good.messages[0]), (Code::Ok, &[8, 7][..]));
    let bomb = gzip(&vec![0; 64 << 20]);
    let answer = send(&channel, request(), framed(1, &bomb)).await;
    assert_eq!(answer.code(), Code::ResourceExhausted, "{answer:?}");
    let answer = send(&channel, request(), framed(1, b"no gzip")).await;
    assert_eq!(answer.code(), Code::Internal, "{answer:?}");
}
