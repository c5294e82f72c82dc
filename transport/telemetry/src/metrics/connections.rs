//! What connections and channels count anyway, as instruments: read when somebody collects, and at no
//! other time.

use std::sync::Arc;
use std::sync::{Mutex, PoisonError};

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use ringway::stats;

use super::totals::{Group, Sums, Totals};
use super::{DIRECTION, PATH, ROLE, SERVER, role_name};

/// Why a message waited to be sent.
const LACK: &str = "ringway.lack";
/// What a look at a ring, instead of sleep, came to.
const LOOK: &str = "ringway.look";

/// One figure of a group, with what tells it from the group's others.
type Figure = (Option<(&'static str, &'static str)>, fn(&Sums) -> u64);
/// Name, unit, description, figures.
type Told = (&'static str, &'static str, &'static str, &'static [Figure]);

/// What only grows.
const COUNTERS: [Told; 7] = [
    (
        "ringway.connection.calls",
        "{call}",
        "Calls of local connections",
        &[(None, |it| it.counts.0[0])],
    ),
    (
        "ringway.connection.messages",
        "{message}",
        "Messages over local connections",
        &[
            (Some((DIRECTION, "transmit")), |it| it.counts.0[1]),
            (Some((DIRECTION, "receive")), |it| it.counts.0[2]),
        ],
    ),
    (
        "ringway.connection.io",
        "By",
        "Bytes of messages over local connections",
        &[
            (Some((DIRECTION, "transmit")), |it| it.counts.0[3]),
            (Some((DIRECTION, "receive")), |it| it.counts.0[4]),
        ],
    ),
    (
        "ringway.connection.doorbells",
        "{ring}",
        "Doorbells rung: a system call each",
        &[(None, |it| it.counts.0[5])],
    ),
    (
        "ringway.connection.sleeps",
        "{sleep}",
        "Times that a side went to sleep",
        &[(None, |it| it.counts.0[6])],
    ),
    (
        "ringway.connection.looks",
        "{look}",
        "Looks at a ring before sleep, by whether they paid",
        &[
            (Some((LOOK, "paid")), |it| it.counts.0[7]),
            (Some((LOOK, "unpaid")), |it| it.counts.0[8]),
        ],
    ),
    (
        "ringway.connection.waits",
        "{wait}",
        "Times that a message waited to be sent, by what it lacked",
        &[
            (Some((LACK, "room")), |it| it.counts.0[9]),
            (Some((LACK, "credit")), |it| it.counts.0[10]),
            (Some((LACK, "memory")), |it| it.counts.0[11]),
        ],
    ),
];

/// What is there at a moment.
const GAUGES: [Told; 6] = [
    (
        "ringway.connection.count",
        "{connection}",
        "Local connections",
        &[(None, |it| it.connections)],
    ),
    (
        "ringway.connection.active_calls",
        "{call}",
        "Calls of local connections that are not over",
        &[(None, |it| it.in_flight)],
    ),
    (
        "ringway.ring.usage",
        "By",
        "What peers have not taken yet of the rings that this process writes",
        &[(None, |it| it.ring[0])],
    ),
    (
        "ringway.ring.limit",
        "By",
        "What those rings hold",
        &[(None, |it| it.ring[1])],
    ),
    (
        "ringway.arena.usage",
        "By",
        "Blocks in use of the arenas that this process writes",
        &[(None, |it| it.arena[0])],
    ),
    (
        "ringway.arena.limit",
        "By",
        "What those arenas hold",
        &[(None, |it| it.arena[1])],
    ),
];

/// Has `meter` tell of all connections and channels of the process.
pub(super) fn observe(meter: &Meter) {
    let totals = Arc::new(Mutex::new(Totals::default()));
    for (name, unit, description, figures) in COUNTERS {
        let totals = Arc::clone(&totals);
        meter
            .u64_observable_counter(name)
            .with_unit(unit)
            .with_description(description)
            .with_callback(move |to| each(&totals, figures, &mut |sum, of| to.observe(sum, of)))
            .build();
    }
    for (name, unit, description, figures) in GAUGES {
        let totals = Arc::clone(&totals);
        meter
            .u64_observable_gauge(name)
            .with_unit(unit)
            .with_description(description)
            .with_callback(move |to| each(&totals, figures, &mut |sum, of| to.observe(sum, of)))
            .build();
    }
    observe_channels(meter);
}

fn observe_channels(meter: &Meter) {
    meter
        .u64_observable_counter("ringway.channel.moves")
        .with_unit("{move}")
        .with_description("Times that channels went from one path to another")
        .with_callback(|to| {
            for (server, moves) in stats::moves() {
                to.observe(moves, &[KeyValue::new(SERVER, server)]);
            }
        })
        .build();
}

/// Tells `observe` each figure of each group.
fn each(totals: &Mutex<Totals>, figures: &[Figure], observe: &mut dyn FnMut(u64, &[KeyValue])) {
    let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
    for (group, sums) in totals.read() {
        for (apart, figure) in figures {
            let mut attributes = attributes(group);
            attributes.extend(apart.map(|(name, value)| KeyValue::new(name, value)));
            observe(figure(sums), &attributes);
        }
    }
}

fn attributes(group: &Group) -> Vec<KeyValue> {
    vec![
        KeyValue::new(PATH, group.path.name()),
        KeyValue::new(ROLE, role_name(group.role)),
        KeyValue::new(SERVER, group.server.clone()),
    ]
}
