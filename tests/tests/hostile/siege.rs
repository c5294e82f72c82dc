//! The driver of all attacks on a server: runs one beside an honest client in another process, and judges how that
//! client was served, how soon the server hung up, and what it still holds afterwards.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use ringway::{Endpoint as Address, Server};
use ringway_local::LocalConfig;
use ringway_proto::bench::Payload;
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench::bench_server::BenchServer;
use ringway_tests::{
    Control, Neighbour, Seen, Served, alone_for, client_of, descriptors, eventually,
    mapped_regions, ours, resident_bytes,
};
use ringway_wire::Config;
use tokio::task::spawn_blocking;

use crate::NAME;

/// Short, so that a stall ends within the test; long enough for an honest client on a busy machine.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_millis(400);
pub(crate) const MAX_CONNECTIONS: usize = 64;
/// In a second: so few that also a host that is busy with something else takes more.
const MAX_EARLY_RESETS: u32 = 256;

/// What an attack may add to a call of a client beside it.
const LONGEST_CALL: Duration = Duration::from_millis(50);
/// What the server may take from the first wrong word, or from the end of file, until it hangs up.
const LONGEST_HANG_UP: Duration = Duration::from_millis(100);
/// What an attack by sheer amount may cost, which has hundreds of MiB copied that the server has asked for: there
/// memory is judged.
const HEAVY: Duration = Duration::from_secs(2);
/// Rounds, of which one has to be within these times: the machine may have been busy at the others.
const ROUNDS: usize = 4;
/// All rounds of an attack, on a machine that is busy.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);
/// Threads that spin for a comparison: the attacker's, and one of the server's that does what it is asked for.
const SPINNERS: usize = 2;
/// What a client is compared with, if its calls were long, lasts as long as the attack within these bounds.
const COMPARED: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];
/// What the process may keep of an attack for good: the allocator keeps some of what was freed.
const KEPT_BYTES: usize = 64 << 20;

pub(crate) static CONTROL: LazyLock<Control> = LazyLock::new(Control::start);
/// The longest hang-up of the attack that runs.
static HANG_UP: Mutex<Duration> = Mutex::new(Duration::ZERO);

/// Takes note that the server has hung up now on one that said its last word then.
pub(crate) fn note_hang_up(said: Instant) {
    let now = Instant::now();
    let took = (now - said).saturating_sub(CONTROL.lateness(said, now));
    let mut longest = HANG_UP.lock().unwrap();
    *longest = took.max(*longest);
}

/// A server under attack, as the attacker sees it: its directory.
#[derive(Debug, Clone)]
pub(crate) struct Siege {
    root: PathBuf,
    /// What the server's handler has seen.
    pub(crate) seen: Arc<Seen>,
    /// What a call beside it may take, and a hang-up.
    bars: [Duration; 2],
}

impl Deref for Siege {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.root
    }
}

/// Runs `attack` against a server that another client calls all the while; then looks whether that
/// client was served and whether the server let go of everything.
pub(crate) fn besiege(attack: impl Fn(&Siege) + Send + Sync + 'static) {
    let bars = [LONGEST_CALL, LONGEST_HANG_UP];
    alone_for(LIMIT, under_siege(bars, attack));
}

/// Does the same where it is memory that is judged.
pub(crate) fn besiege_heavily(attack: impl Fn(&Siege) + Send + Sync + 'static) {
    alone_for(LIMIT, under_siege([HEAVY; 2], attack));
}

async fn under_siege(bars: [Duration; 2], attack: impl Fn(&Siege) + Send + Sync + 'static) {
    LazyLock::force(&CONTROL);
    let directory = tempfile::tempdir().unwrap();
    let handler = ours::Handler::default();
    let siege = Siege {
        root: directory.path().to_owned(),
        seen: Arc::clone(&handler.seen),
        bars,
    };
    let config = LocalConfig {
        handshake_timeout: HANDSHAKE_TIMEOUT,
        max_connections: MAX_CONNECTIONS,
        wire: Config {
            max_early_resets: MAX_EARLY_RESETS,
            ..Config::default()
        },
        ..LocalConfig::default()
    };
    let server = Server::builder()
        .directory(directory.path())
        .name(NAME)
        .local_config(config)
        .add_service(BenchServer::new(handler))
        .add_service(tonic_health::server::health_reporter().1)
        .bind()
        .await
        .unwrap();
    let serving = tokio::spawn(server.serve());
    judged(&siege, Arc::new(attack)).await;
    serving.abort();
    // What is left of the server is dropped before the next one counts.
    let _ = serving.await;
}

async fn judged(siege: &Siege, attack: Arc<dyn Fn(&Siege) + Send + Sync>) {
    let address = format!("shm://{NAME}");
    let endpoint = Address::new(&address).unwrap().directory(&siege.root);
    let mut client = client_of(&endpoint).await;
    call(&mut client, 100_000).await;
    let root = siege.root.clone();
    let neighbour = spawn_blocking(move || Neighbour::start(&root, &address));
    let mut neighbour = neighbour.await.unwrap();
    let held = Held::now();
    let mut late = Vec::new();
    for _ in 0..ROUNDS {
        match round(siege, &attack, neighbour).await {
            (same, Ok(())) => {
                neighbour = same;
                late.clear();
                break;
            }
            (same, Err(why)) => {
                neighbour = same;
                late.push(why);
            }
        }
    }
    assert!(late.is_empty(), "in each round: {late:?}");
    call(&mut client, 100_000).await;
    eventually("all is let go", || Held::now().is_within(held)).await;
    spawn_blocking(|| drop(neighbour)).await.unwrap();
}

/// Runs the attack once, and judges the times that it cost others.
async fn round(
    siege: &Siege,
    attack: &Arc<dyn Fn(&Siege) + Send + Sync>,
    mut neighbour: Neighbour,
) -> (Neighbour, Result<(), String>) {
    let (siege, attack) = (siege.clone(), Arc::clone(attack));
    let attacked = spawn_blocking(move || {
        *HANG_UP.lock().unwrap() = Duration::ZERO;
        neighbour.served();
        let began = Instant::now();
        attack(&siege);
        let lasted = began.elapsed();
        let served = neighbour.served();
        assert_eq!(served.failed, 0, "the client beside it lost calls");
        let [longest_call, longest_hang_up] = siege.bars;
        let judged = judge_calls(&mut neighbour, served, lasted, longest_call);
        let hang_up = *HANG_UP.lock().unwrap();
        println!("{served:?} in {lasted:?}, the longest hang-up after {hang_up:?}");
        let in_time = hang_up <= longest_hang_up;
        let judged = judged.and_then(|()| {
            let late = || format!("it hung up after {hang_up:?}");
            in_time.then_some(()).ok_or_else(late)
        });
        (neighbour, judged)
    });
    attacked.await.unwrap()
}

/// Calls may last as long as beside threads that spin, and a little longer.
fn judge_calls(
    neighbour: &mut Neighbour,
    attacked: Served,
    lasted: Duration,
    longest: Duration,
) -> Result<(), String> {
    if attacked.worst <= longest {
        return Ok(());
    }
    let spinning = Arc::new(AtomicBool::new(true));
    let spinners = [(); SPINNERS].map(|()| {
        let spin = Arc::clone(&spinning);
        std::thread::spawn(move || {
            while spin.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        })
    });
    neighbour.served();
    std::thread::sleep(lasted.clamp(COMPARED[0], COMPARED[1]));
    let compared = neighbour.served();
    spinning.store(false, Ordering::Relaxed);
    for spinner in spinners {
        spinner.join().unwrap();
    }
    if attacked.worst <= compared.worst + longest {
        return Ok(());
    }
    Err(format!(
        "{attacked:?} beside it, {compared:?} beside threads that spin"
    ))
}

async fn call(client: &mut BenchClient<ringway::Channel>, size: usize) {
    let data = vec![3; size].into();
    client.unary(Payload { sequence: 1, data }).await.unwrap();
}

/// What the process holds that is attacked.
#[derive(Debug, Clone, Copy)]
struct Held {
    descriptors: usize,
    mappings: usize,
    tasks: usize,
    resident_bytes: usize,
}

impl Held {
    fn now() -> Self {
        Self {
            descriptors: descriptors(),
            mappings: mapped_regions(),
            tasks: tokio::runtime::Handle::current()
                .metrics()
                .num_alive_tasks(),
            resident_bytes: resident_bytes(),
        }
    }

    fn is_within(self, before: Self) -> bool {
        self.descriptors <= before.descriptors
            && self.mappings <= before.mappings
            && self.tasks <= before.tasks
            && self.resident_bytes <= before.resident_bytes + KEPT_BYTES
    }
}
