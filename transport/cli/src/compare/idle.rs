//! What connections cost that do nothing.

use std::time::{Duration, Instant};

use super::connect::{Client, with_caller};
use super::error::{Error, Failure};
use super::measure::{IdleRow, ratio, to_f64};
use super::options::Path;
use super::part::Usage;
use super::payload::{Maker, check};
use super::peer::Peer;
use super::stubs::Caller;

/// What each connection carries before it falls silent.
const SIZES_BYTES: [usize; 2] = [64, 1 << 20];

/// From the last call to the start of the watch.
const SETTLE: Duration = Duration::from_secs(10);

/// Opens `connections` over the peer's path, uses each once, and watches them do nothing for
/// `watch`.
///
/// One more connection is open and used from before the first look at memory to the end: what a
/// process needs once, however many connections it has, is on both sides of the difference.
pub(crate) async fn watch(
    peer: &mut Peer,
    connections: u32,
    watch: Duration,
) -> Result<IdleRow, Error> {
    let first = open(peer, 0).await?;
    let before = peer.usage()?;
    let mut open_connections = Vec::new();
    for number in 1..=connections {
        open_connections.push(open(peer, number).await?);
    }
    tokio::time::sleep(SETTLE).await;

    let begun = Instant::now();
    let cpu_ns = peer.cpu_ns()?;
    tokio::time::sleep(watch).await;
    let cpu_ns = peer.cpu_ns()?.saturating_sub(cpu_ns);
    let elapsed = begun.elapsed();
    let after = peer.usage()?;
    drop((first, open_connections));

    Ok(row(peer.path, connections, cpu_ns, elapsed, before, after))
}

fn row(
    path: Path,
    connections: u32,
    cpu_ns: u64,
    elapsed: Duration,
    before: Usage,
    after: Usage,
) -> IdleRow {
    let grown_bytes = to_f64(after.pss_bytes) - to_f64(before.pss_bytes);
    IdleRow {
        path: path.to_string(),
        kind: "idle",
        connections,
        cpu_ns_per_s: ratio(to_f64(cpu_ns), elapsed.as_secs_f64()),
        bytes_per_connection: grown_bytes.max(0.0) / f64::from(connections),
    }
}

async fn open(peer: &Peer, number: u32) -> Result<Client, Error> {
    let path = peer.path;
    let client = peer.connect().await?;
    let used = with_caller!(&client, caller => use_once(caller, number).await);
    used.map_err(|source| Error::Call {
        row: format!("{path} idle, connection {number}"),
        source,
    })?;
    Ok(client)
}

async fn use_once<C: Caller>(caller: &C, number: u32) -> Result<(), Failure> {
    for size_bytes in SIZES_BYTES {
        let sequence = u64::from(number);
        let payload = Maker::new(size_bytes).make(sequence);
        let reply = caller.clone().unary(tonic::Request::new(payload)).await?;
        check(reply.get_ref(), sequence, size_bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_by_connection_and_second() {
        let before = Usage {
            cpu_ns: 0,
            pss_bytes: 10 << 20,
        };
        let after = Usage {
            cpu_ns: 0,
            pss_bytes: 20 << 20,
        };
        let row = row(
            Path::Shm,
            100,
            6_000_000,
            Duration::from_secs(2),
            before,
            after,
        );
        assert!((row.cpu_ns_per_s - 3_000_000.0).abs() < 1e-6);
        assert!((row.bytes_per_connection - 104_857.6).abs() < 1e-6);
        assert_eq!((row.kind, row.connections), ("idle", 100));
    }
}
