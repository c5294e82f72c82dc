//! Memory stays bounded however many streams nobody reads.
#![allow(clippy::unwrap_used)]

use ringway_proto::bench::StreamRequest;
use ringway_tests::{Running, Way, alone, eventually, in_a_process_of_its_own, resident_bytes};

const STREAMS: usize = 1000;
const MIB: usize = 1 << 20;
/// The streams have no end, and the window of each alone would let it take 4 MiB.
const MESSAGE_BYTES: u32 = 4096;

/// What all calls of a connection may have under way: the window of a local path, and more than that
/// of the network path. It may lie there twice, where it was written and where it was read to.
const CONNECTION_BYTES: usize = 2 * 16 * MIB;
/// A call that waits for credit: its state, and its handler's, at both ends.
const CALL_BYTES: usize = 16 << 10;
/// On the network path tonic has encoded so much ahead when it waits (its `yield_threshold`).
const ENCODED_AHEAD_BYTES: usize = 32 << 10;

fn bound(way: Way) -> usize {
    let call = match way {
        Way::GrpcTcp | Way::GrpcUnix => CALL_BYTES + 2 * ENCODED_AHEAD_BYTES,
        _ => CALL_BYTES,
    };
    CONNECTION_BYTES + STREAMS * call
}

/// Opens streams that nobody reads, until none of them moves any more.
async fn streams_that_nobody_reads(way: Way) {
    let running = Running::start(way).await;
    let mut client = running.client().await;
    let before = resident_bytes();
    let request = StreamRequest {
        count: u64::MAX,
        size_bytes: MESSAGE_BYTES,
    };
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        streams.push(client.server_stream(request).await.unwrap().into_inner());
    }
    let (mut last, mut looks) = (0, 0);
    let stalls = || {
        let now = running.seen.produced();
        looks = if now == last { looks + 1 } else { 0 };
        last = now;
        looks > 50
    };
    eventually("nothing moves any more", stalls).await;
    let grown = resident_bytes().saturating_sub(before);
    println!(
        "{way:?}: {} MiB more for {} messages, at most {} MiB",
        grown / MIB,
        last,
        bound(way) / MIB
    );
    assert!(grown < bound(way), "{grown} bytes more");
    assert_eq!(running.seen.inside(), STREAMS as u64);

    // They share the connection's credit, so that one of them goes on once the others let go of it.
    streams.truncate(1);
    for _ in 0..10_000 {
        streams[0].message().await.unwrap().unwrap();
    }
    drop(streams);
    eventually("the sources are dropped", || running.seen.inside() == 0).await;
}

macro_rules! bounded {
    ($($path:ident = $way:expr;)*) => {$(
        #[test]
        fn $path() {
            if in_a_process_of_its_own(stringify!($path)) {
                alone(streams_that_nobody_reads($way));
            }
        }
    )*};
}

bounded! {
    shm = Way::Shm;
    socket = Way::Socket;
    socket_epoll = Way::SocketEpoll;
    pipe = Way::Pipe;
    inproc = Way::Inproc;
    grpc_tcp = Way::GrpcTcp;
    grpc_unix = Way::GrpcUnix;
}
