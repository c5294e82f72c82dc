//! The four kinds of call, and messages of every size.

use ringway::Path;
use ringway_proto::bench::{StreamRequest, Summary};
use ringway_tests::{Running, Way, payload, payloads};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

/// Around the tiers: inline, a block, several segments; then the limit itself.
const SIZES: [usize; 14] = [
    0,
    1,
    63,
    64,
    4095,
    4096,
    8 * 1024 - 16,
    8 * 1024,
    8 * 1024 + 1,
    65_536,
    100_000,
    1 << 20,
    3 << 20,
    // With a sequence of one byte, the message is 4 MiB long to the byte.
    (4 << 20) - 7,
];

pub(crate) async fn unary_of_every_size(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    for size in SIZES {
        for sequence in 1..4 {
            let sent = payload(sequence, size);
            let response = client.unary(sent.clone()).await.unwrap();
            assert_eq!(response.into_inner(), sent, "{size} bytes");
        }
    }
}

pub(crate) async fn server_streams(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    for (count, size_bytes) in [(0, 8), (1, 0), (3000, 64), (500, 4096), (50, 100_000)] {
        let request = StreamRequest { count, size_bytes };
        let mut stream = client.server_stream(request).await.unwrap().into_inner();
        for sequence in 0..count {
            let payload = stream.message().await.unwrap().unwrap();
            assert_eq!(payload.sequence, sequence);
            assert_eq!(payload.data, vec![7; size_bytes as usize]);
        }
        assert_eq!(stream.message().await.unwrap(), None);
    }
}

pub(crate) async fn client_streams(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    for (count, size) in [(0, 8), (1, 0), (3000, 64), (500, 4096), (50, 100_000)] {
        let summary = client.client_stream(payloads(count, size)).await.unwrap();
        let bytes = count * size as u64;
        let expected = Summary {
            messages: count,
            bytes,
        };
        assert_eq!(summary.into_inner(), expected);
    }
}

pub(crate) async fn bidi_in_lockstep(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let response = client.bidi(ReceiverStream::new(receiver)).await.unwrap();
    let mut replies = response.into_inner();
    for sequence in 0..300 {
        let sent = payload(sequence, 64);
        sender.send(sent.clone()).await.unwrap();
        assert_eq!(replies.message().await.unwrap(), Some(sent));
    }
    drop(sender);
    assert_eq!(replies.message().await.unwrap(), None);
}

pub(crate) async fn bidi_at_full_speed(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    let mut replies = client.bidi(payloads(3000, 512)).await.unwrap().into_inner();
    for sequence in 0..3000 {
        assert_eq!(
            replies.message().await.unwrap(),
            Some(payload(sequence, 512))
        );
    }
    assert_eq!(replies.message().await.unwrap(), None);
}

/// More bytes than any window holds, and messages as large as they may be.
pub(crate) async fn large_messages_in_streams(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    let replies = client
        .bidi(payloads(12, 3 << 20))
        .await
        .unwrap()
        .into_inner();
    let sizes: Vec<usize> = replies
        .map(|reply| reply.unwrap().data.len())
        .collect()
        .await;
    assert_eq!(sizes, [3 << 20; 12]);
}

pub(crate) async fn the_path_is_visible(way: Way) {
    let running = Running::start(way).await;
    let channel = running.channel().await;
    assert_eq!(channel.path(), way.path());
    let mut client = ringway_proto::bench::bench_client::BenchClient::new(channel);
    let path = Some(way.path());
    let request = StreamRequest::default();
    assert_eq!(Path::of(&client.unary(payload(0, 1)).await.unwrap()), path);
    assert_eq!(
        Path::of(&client.server_stream(request).await.unwrap()),
        path
    );
    assert_eq!(
        Path::of(&client.client_stream(payloads(1, 1)).await.unwrap()),
        path
    );
    assert_eq!(Path::of(&client.bidi(payloads(1, 1)).await.unwrap()), path);
}
