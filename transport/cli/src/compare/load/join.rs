//! Eight unary calls of one task at once, as a handler makes them that needs several answers.

use std::array;
use std::time::Instant;

use tonic::Request;

use super::{Caller, Failure, LaneId, Latencies, Load, Recorder};
use crate::compare::payload::{Maker, check};

/// Calls that are made at once.
const CALLS: usize = 8;

pub(super) async fn lane<C: Caller>(
    load: Load,
    client: C,
    id: LaneId,
) -> Result<Latencies, Failure> {
    let mut clients: [C; CALLS] = array::from_fn(|_| client.clone());
    let mut latencies = Recorder::new();
    let mut maker = Maker::new(load.size_bytes);
    let mut schedule = load.schedule(id)?;
    let mut sequence = id.first_sequence();
    loop {
        let first = sequence;
        let mut make = || {
            let request = Request::new(maker.make(sequence));
            sequence += 1;
            request
        };
        let [a, b, c, d, e, f, g, h]: [Request<_>; CALLS] = array::from_fn(|_| make());
        let Some(begun) = schedule.next().await? else {
            return Ok(latencies.finish());
        };
        let [to_a, to_b, to_c, to_d, to_e, to_f, to_g, to_h] = &mut clients;
        let (a, b, c, d, e, f, g, h) = tokio::try_join!(
            to_a.unary(a),
            to_b.unary(b),
            to_c.unary(c),
            to_d.unary(d),
            to_e.unary(e),
            to_f.unary(f),
            to_g.unary(g),
            to_h.unary(h),
        )?;
        let ended = Instant::now();
        for (reply, sequence) in [a, b, c, d, e, f, g, h].into_iter().zip(first..) {
            check(reply.get_ref(), sequence, load.size_bytes)?;
        }
        latencies.record(ended - begun);
    }
}
