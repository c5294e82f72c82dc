//! Messages beyond what one frame takes, where both ends allow them.

use futures_util::future::join_all;
use ringway::{Channel, Path};
use ringway_proto::bench::StreamRequest;
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench::bench_server::BenchServer;
use ringway_proto::bench_tonic;
use ringway_tests::{LargeHandler, Running, Way, payload};
use tokio_stream::StreamExt;
use tonic::{Code, Response, Status};

const MIB: usize = 1 << 20;
/// Around the lengths from which messages go in pieces, and from which blocks of an arena once ended.
const SIZES: [usize; 5] = [4 * MIB, 5 * MIB, 15 * MIB, 17 * MIB, 40 * MIB];

/// A server that takes messages of `limit` bytes.
async fn serving(way: Way, limit: usize) -> Running {
    let service = BenchServer::new(LargeHandler)
        .max_decoding_message_size(limit)
        .max_encoding_message_size(usize::MAX);
    Running::with(way, |builder| builder.add_service(service)).await
}

async fn client(running: &Running, limit: usize) -> BenchClient<Channel> {
    let client = running.client().await;
    client
        .max_decoding_message_size(limit)
        .max_encoding_message_size(usize::MAX)
}

pub(crate) async fn unary_either_way(way: Way) {
    let running = serving(way, usize::MAX).await;
    let mut client = client(&running, usize::MAX).await;
    for size in SIZES {
        let answer = client.unary(payload(9, size)).await.unwrap().into_inner();
        assert_eq!(answer, payload(size as u64, 0));
        let asked = payload(size as u64, 0);
        let answer = client.unary(asked).await.unwrap().into_inner();
        assert!(answer == payload(1, size), "{size} bytes");
    }
}

pub(crate) async fn streams_of_each_kind(way: Way) {
    let running = serving(way, usize::MAX).await;
    let mut client = client(&running, usize::MAX).await;
    for size in [5 * MIB, 17 * MIB] {
        // Small ones before and behind it are not held up, and keep their order.
        let sizes = [10, size, 20, size, 30_000, 0];
        let sent = move || tokio_stream::iter((0..).zip(sizes).map(|(n, len)| payload(n, len)));
        let summary = client.client_stream(sent()).await.unwrap().into_inner();
        let bytes = sizes.iter().sum::<usize>() as u64;
        assert_eq!((summary.messages, summary.bytes), (6, bytes));
        let mut replies = client.bidi(sent()).await.unwrap().into_inner();
        for (n, len) in (0..).zip(sizes) {
            assert!(
                replies.message().await.unwrap() == Some(payload(n, len)),
                "{len}"
            );
        }
        assert!(replies.message().await.unwrap().is_none());
        let size_bytes = u32::try_from(size).unwrap();
        let asked = StreamRequest {
            count: 3,
            size_bytes,
        };
        let mut stream = client.server_stream(asked).await.unwrap().into_inner();
        for n in 0..3 {
            assert!(stream.message().await.unwrap() == Some(payload(n, size)));
        }
        assert!(stream.message().await.unwrap().is_none());
    }
}

/// More of them than any budget of memory has room for: each has its turn.
pub(crate) async fn many_calls_at_once(way: Way) {
    let running = serving(way, usize::MAX).await;
    let client = client(&running, usize::MAX).await;
    let data = payload(3, 16 * MIB);
    // Over gRPC there is no budget but the windows, and copying takes its time.
    let count = if way.path() == Path::Grpc { 4 } else { 24 };
    let calls = (0..count).map(|_| {
        let (mut client, sent) = (client.clone(), data.clone());
        async move { client.unary(sent).await.map(Response::into_inner) }
    });
    for answer in join_all(calls).await {
        assert_eq!(answer.unwrap(), payload(16 * MIB as u64, 0));
    }
}

/// The status that gRPC has for it, whichever end refuses; and its calls alone end.
pub(crate) async fn a_lower_limit_ends_its_call_alone(way: Way) {
    let running = serving(way, 8 * MIB).await;
    let mut client = client(&running, 8 * MIB).await;
    let large = || payload(1, 17 * MIB);
    for _ in 0..3 {
        let status = client.unary(large()).await.unwrap_err();
        assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
        let sent = tokio_stream::iter([payload(0, 5), large(), large()]);
        let status = client.client_stream(sent).await.unwrap_err();
        assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
        let asked = payload(17 * MIB as u64, 0);
        let status = client.unary(asked).await.unwrap_err();
        assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
        let size_bytes = 17 * 1024 * 1024;
        let asked = StreamRequest {
            count: 2,
            size_bytes,
        };
        let mut stream = client.server_stream(asked).await.unwrap().into_inner();
        let status = stream.message().await.unwrap_err();
        assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
        drop(stream);
        let answer = client.unary(payload(2, 8 * MIB - 10)).await.unwrap();
        assert_eq!(answer.into_inner().sequence, 8 * MIB as u64 - 10);
    }
}

/// A message that is larger than this end may send ends its call, and is no hang.
pub(crate) async fn what_may_not_be_sent_ends_its_call(way: Way) {
    let running = serving(way, usize::MAX).await;
    let mut client = running.client().await.max_encoding_message_size(5 * MIB);
    let sent = || tokio_stream::iter([payload(0, 5), payload(1, 6 * MIB)]);
    let too_long = |status: Status| {
        assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
        let words = "encoded message length too large";
        assert!(status.message().contains(words), "{status:?}");
    };
    too_long(client.unary(payload(1, 6 * MIB)).await.unwrap_err());
    too_long(client.client_stream(sent()).await.unwrap_err());
    // The server's answer may begin before the client's encoder fails; over gRPC no status can follow it then.
    match client.bidi(sent()).await {
        Ok(replies) => {
            let replies: Vec<_> = replies.into_inner().collect().await;
            let last = replies.into_iter().last().unwrap().unwrap_err();
            if way.path() != Path::Grpc {
                too_long(last);
            }
        }
        Err(status) => too_long(status),
    }
    client.unary(payload(2, 100)).await.unwrap();
    let channel = running.channel().await;
    let mut plain =
        bench_tonic::bench_client::BenchClient::new(channel).max_encoding_message_size(5 * MIB);
    let sent = [(0, 5), (1, 6 * MIB)].map(|(sequence, size)| bench_tonic::Payload {
        sequence,
        data: payload(sequence, size).data,
    });
    let refused = plain.client_stream(tokio_stream::iter(sent)).await;
    too_long(refused.unwrap_err());
}

/// Through HTTP types at both ends.
pub(crate) async fn by_plain_stubs_to_a_plain_service(way: Way) {
    let service =
        bench_tonic::bench_server::BenchServer::new(ringway_tests::plain::Handler::default())
            .max_decoding_message_size(usize::MAX);
    let running = Running::with(way, |builder| builder.add_service(service)).await;
    let channel = running.channel().await;
    let mut client =
        bench_tonic::bench_client::BenchClient::new(channel).max_decoding_message_size(usize::MAX);
    let large = payload(3, 17 * MIB);
    let sent = bench_tonic::Payload {
        sequence: 3,
        data: large.data.clone(),
    };
    let answer = client.unary(sent.clone()).await.unwrap().into_inner();
    assert!(answer.data == large.data);
    let sent = tokio_stream::iter([sent.clone(), sent]);
    let summary = client.client_stream(sent).await.unwrap().into_inner();
    assert_eq!(summary.bytes, 2 * 17 * MIB as u64);
}
