//! Peers that keep memory which is not theirs any more, or have the server hold what nobody reads, over many
//! connections: their user has a budget.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use prost::Message;
use ringway::{Endpoint as Address, Server};
use ringway_proto::bench::Payload;
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench::bench_server::BenchServer;
use ringway_ring::{Endpoint, Inbox};
use ringway_sys::{Blocking, receive_with_descriptors};
use ringway_tests::{alone, asking, client_of, ours, payload, payloads};
use ringway_wire::{FrameHeader, Kind};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tonic::{Code, Status};

use crate::{Joined, NAME, exchange_regions, greet, join};

const MIB: usize = 1 << 20;
const BUDGET_BYTES: usize = 8 * MIB;
/// Takes a block, and so a segment.
const LARGE_BYTES: usize = 100_000;
/// Far more than the budget allows for, at 2 MiB each.
const ATTEMPTS: usize = 40;
/// The size of a region's ring: no region is smaller.
const LEAST_REGION_BYTES: usize = 32 * 1024;
/// Seen to be given back within this time.
const SETTLED: Duration = Duration::from_secs(5);

/// Keeps the memory that the server has sent to an attacker.
#[derive(Default)]
struct Loot {
    segments: Vec<OwnedFd>,
    /// Each with a mapping of a region.
    endpoints: Vec<Endpoint>,
}

impl Loot {
    /// Has the server answer with a block, and keeps the segment; false if it refuses to make one.
    fn take_segment(&mut self, attacker: &mut Joined) -> bool {
        let message = payload(1, LARGE_BYTES).encode_to_vec();
        let mut block = attacker.block(u32::try_from(message.len()).unwrap());
        block.as_mut_slice().copy_from_slice(&message);
        attacker.lend(block);
        if ending(attacker) != Kind::Response {
            return false;
        }
        let received =
            receive_with_descriptors(attacker.stream.as_fd(), &mut [0; 16], 1, Blocking::AsSocket);
        self.segments.extend(received.unwrap().descriptors);
        true
    }

    fn bytes(&self) -> usize {
        let size = |file: &OwnedFd| rustix::fs::fstat(file).unwrap().st_size;
        let sizes = self.segments.iter().map(size);
        sizes.map(|size| usize::try_from(size).unwrap()).sum()
    }
}

/// Waits for the end of the call without a look at the socket, which would take what comes over it.
fn ending(attacker: &mut Joined) -> Kind {
    let (began, mut inbox) = (Instant::now(), Inbox::default());
    loop {
        attacker.endpoint.consumer.take(&mut inbox).unwrap();
        for record in inbox.records() {
            let header = record.unwrap().bytes.first_chunk().unwrap();
            let kind = FrameHeader::decode(header).unwrap().kind;
            if matches!(kind, Kind::Response | Kind::Trailers | Kind::Reset) {
                return kind;
            }
        }
        assert!(began.elapsed() < SETTLED, "no answer");
        std::thread::yield_now();
    }
}

async fn serve(root: &Path) -> JoinHandle<()> {
    let server = Server::builder()
        .directory(root)
        .name(NAME)
        .max_memory_per_uid(BUDGET_BYTES)
        .add_service(BenchServer::new(ours::Handler::default()))
        .bind()
        .await
        .unwrap();
    tokio::spawn(async move { server.serve().await.unwrap() })
}

async fn honest_client(root: &Path) -> BenchClient<ringway::Channel> {
    let address = Address::new(format!("shm://{NAME}")).unwrap();
    client_of(&address.directory(root)).await
}

async fn answered(client: &mut BenchClient<ringway::Channel>, bytes: usize) -> Result<(), Code> {
    let sent: Payload = payload(1, bytes);
    let answer = client.unary(sent).await;
    answer.map(drop).map_err(|status| status.code())
}

/// Takes what `attack` takes, beside an honest client of small calls; then gives it back.
fn keeping(attack: impl Fn(&Path, &mut Loot) + Send + 'static) {
    alone(async move {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_owned();
        let serving = serve(&root).await;
        let mut honest = honest_client(&root).await;
        let looting = tokio::task::spawn_blocking(move || {
            let mut loot = Loot::default();
            attack(&root, &mut loot);
            loot
        });
        while !looting.is_finished() {
            answered(&mut honest, 10).await.expect("a small call");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let loot = looting.await.unwrap();
        assert!(
            loot.bytes() <= BUDGET_BYTES,
            "{} bytes are kept",
            loot.bytes()
        );
        let refused = honest.unary(payload(1, LARGE_BYTES)).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        let text = refused.message();
        assert!(text.contains("max_memory_per_uid"), "{text}");
        drop(loot);
        let dropped = Instant::now();
        while let Err(code) = answered(&mut honest, LARGE_BYTES).await {
            assert!(
                dropped.elapsed() < SETTLED,
                "{code:?} after all was given back"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        serving.abort();
    });
}

#[test]
fn segments_of_ended_connections() {
    keeping(|root, loot| {
        let mut refusals = 0;
        for _ in 0..ATTEMPTS {
            refusals += usize::from(!loot.take_segment(&mut join(root)));
        }
        assert!(refusals > ATTEMPTS / 2, "{refusals} were refused");
    });
}

/// The server takes its regions from the same budget. At its end it offers a socket alone, which this peer refuses.
#[test]
fn regions_of_ended_connections() {
    keeping(|root, loot| {
        while let Some(joined) = exchange_regions(greet(root)) {
            loot.endpoints.push(joined.endpoint);
            let kept = loot.endpoints.len();
            assert!(kept * LEAST_REGION_BYTES < BUDGET_BYTES, "{kept} are kept");
        }
        assert!(loot.endpoints.len() > 50);
    });
}

const CLIENTS: usize = 6;
const UPLOADS_OF_ONE: usize = 4;
const PART_BYTES: usize = 4096;
/// Bounds the unread bytes of one connection that no budget covers: those that it may have without one, and one pass.
const BEYOND_BYTES: usize = 3 * MIB / 2;

/// An upload that its handler never reads.
struct Upload {
    sent: Arc<AtomicUsize>,
    call: JoinHandle<Result<(), Status>>,
}

impl Upload {
    fn start(client: &BenchClient<ringway::Channel>) -> Self {
        let (sent, mut client) = (Arc::new(AtomicUsize::new(0)), client.clone());
        let counted = Arc::clone(&sent);
        let parts = payloads(u64::MAX, PART_BYTES).map(move |part| {
            counted.fetch_add(PART_BYTES, Ordering::Relaxed);
            part
        });
        let call = tokio::spawn(async move {
            let answer = client.client_stream(asking("hang", parts)).await;
            answer.map(drop)
        });
        Self { sent, call }
    }
}

/// Each connection stays within its windows, and all together take more than the user's budget.
fn uploads_that_nobody_reads(scheme: &'static str) {
    alone(async move {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let serving = serve(root).await;
        let mut clients = Vec::new();
        let mut uploads = Vec::new();
        for _ in 0..CLIENTS {
            let address = Address::new(format!("{scheme}://{NAME}")).unwrap();
            let client = client_of(&address.directory(root)).await;
            uploads.extend((0..UPLOADS_OF_ONE).map(|_| Upload::start(&client)));
            clients.push(client);
        }
        let is_over = |upload: &Upload| upload.call.is_finished();
        let began = Instant::now();
        while !uploads.iter().any(is_over) {
            assert!(began.elapsed() < SETTLED, "nothing is refused");
            answered(&mut clients[0], 10).await.ok();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let open = uploads.iter().filter(|upload| !is_over(upload));
        let held: usize = open.map(|upload| upload.sent.load(Ordering::Relaxed)).sum();
        println!("{scheme}: {} KiB are held", held / 1024);
        assert!(held < BUDGET_BYTES + CLIENTS * BEYOND_BYTES, "{held} bytes");
        // One that has sent nothing yet is served.
        let address = Address::new(format!("{scheme}://{NAME}")).unwrap();
        let mut newcomer = client_of(&address.directory(root)).await;
        answered(&mut newcomer, 10).await.expect("a small call");
        for upload in uploads {
            upload.call.abort();
            if let Ok(ended) = upload.call.await {
                let status = ended.unwrap_err();
                assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                let text = status.message();
                assert!(text.contains("max_memory_per_uid"), "{text}");
            }
        }
        let dropped = Instant::now();
        while let Err(code) = answered(&mut newcomer, MIB).await {
            assert!(
                dropped.elapsed() < SETTLED,
                "{code:?} after all was given up"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        serving.abort();
    });
}

#[test]
fn uploads_that_nobody_reads_over_shm() {
    uploads_that_nobody_reads("shm");
}

#[test]
fn uploads_that_nobody_reads_over_a_socket() {
    uploads_that_nobody_reads("socket");
}
