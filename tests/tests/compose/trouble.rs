//! A volume that is there and no use: the network, and one warning that names the cause.

use crate::colocated::with_stack;
use crate::engine::docker;
use crate::load::{Load, place};
use crate::stack::{Overlay, SERVICES, Stack};

/// Hops of fifty orders.
const HOPS: u64 = 7 * 50;

pub(crate) fn wrong_owner() {
    let overlay = Overlay::of(&["tests/compose/wrong-owner.yaml"]);
    let stack = Stack::up("wrong-owner", overlay);
    let seen = place(stack.gateway(), 50, 50);
    assert_eq!(seen.hops("grpc-tcp"), HOPS, "{seen:?}");
    // The gateway is a caller alone, and can't tell the directory from one that nobody serves in.
    for service in SERVICES.into_iter().filter(|it| *it != "gateway") {
        let warnings = stack.warnings(service);
        assert_eq!(warnings.len(), 1, "{service}: {warnings:?}");
        let cause = format!("can't make the socket directory /run/ringway/{service}:50051");
        assert!(warnings[0].contains(&cause), "{warnings:?}");
        assert!(warnings[0].contains("Permission denied"), "{warnings:?}");
    }
}

/// The catalog was killed, and its successor runs where the volume is not.
pub(crate) fn left_behind() {
    let mut before = 0;
    with_stack(&Overlay::default(), |stack| {
        place(stack.gateway(), 10, 50);
        before = stack.warnings("orders").len();
        docker(&["kill", &stack.container("catalog")]);
    });
    let elsewhere = Overlay::of(&["tests/compose/catalog-elsewhere.yaml"]);
    with_stack(&elsewhere, |stack| {
        let load = Load::start(stack.gateway(), 20);
        load.until("the catalog over the network", |seen| {
            let (shm, grpc) = (seen.hops("shm"), seen.hops("grpc-tcp"));
            // One of an order's hops leads to the catalog.
            seen.failed() == 0 && shm > 0 && grpc > 0
        });
        load.until("a second of it", |_| true);
        let warnings = stack.warnings("orders").split_off(before);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        let cause = "nobody listens on /run/ringway/catalog:50051/";
        assert!(warnings[0].contains(cause), "{warnings:?}");
    });
    // The next one that has the volume is found there.
    with_stack(&Overlay::default(), |stack| {
        let load = Load::start(stack.gateway(), 20);
        load.until("shared memory again", |seen| seen.is_all("shm"));
    });
}
