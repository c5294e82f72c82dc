//! One call after the other, as fast as they return or on a schedule.

use std::time::{Duration, Instant};

use tonic::Request;
use tonic::metadata::MetadataValue;

use super::{Caller, Failure, LaneId, Latencies, Load, Recorder};
use crate::compare::payload::{Maker, check};

pub(super) async fn lane<C: Caller>(
    load: Load,
    mut client: C,
    id: LaneId,
) -> Result<Latencies, Failure> {
    let mut latencies = Recorder::new();
    let mut maker = Maker::new(load.size_bytes);
    let mut schedule = load.schedule(id)?;
    let mut sequence = id.first_sequence();
    loop {
        let payload = maker.make(sequence);
        let Some(begun) = schedule.next().await? else {
            return Ok(latencies.finish());
        };
        let request = match load.dressed {
            true => dressed(payload),
            false => Request::new(payload),
        };
        let reply = client.unary(request).await?;
        let ended = Instant::now();
        check(reply.get_ref(), sequence, load.size_bytes)?;
        latencies.record(ended - begun);
        sequence += 1;
    }
}

/// A request as one looks behind a gateway: four entries of metadata, and a deadline that is far.
fn dressed<P>(payload: P) -> Request<P> {
    let mut request = Request::new(payload);
    let metadata = request.metadata_mut();
    for (name, value) in [
        ("x-request-id", "0f8fad5b-d9cb-469f-a165-70867728950e"),
        ("x-tenant", "blue"),
        ("x-user", "ada"),
    ] {
        metadata.insert(name, MetadataValue::from_static(value));
    }
    metadata.insert_bin(
        "x-session-bin",
        MetadataValue::from_bytes(b"0123456789abcdef"),
    );
    request.set_timeout(Duration::from_secs(10));
    request
}
