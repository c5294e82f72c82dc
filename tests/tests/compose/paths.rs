//! The stack over other paths: by its overlays, and where the kernel refuses what they need.

use crate::colocated::{with_any_stack, with_stack};
use crate::engine::root;
use crate::jaeger;
use crate::load::place;
use crate::stack::{Overlay, SERVICES, Stack};

/// Orders that are placed over each path, and the hops of them all.
const ORDERS: u32 = 50;
const HOPS: u64 = 7 * 50;

const NETWORK: &str = "deploy/compose.network.yaml";
const SOCKET: &str = "deploy/compose.socket.yaml";

const IO_URING: &str = "anon_inode:[io_uring]";

/// That each hop of some orders went by `path`.
fn place_over(stack: &Stack, path: &str) {
    let seen = place(stack.gateway(), ORDERS, 50);
    assert_eq!(seen.hops(path), HOPS, "{seen:?}");
}

pub(crate) fn socket() {
    with_stack(&Overlay::of(&[SOCKET]), |stack| {
        place_over(stack, "socket");
        jaeger::check_orders(stack, "socket", ORDERS as usize);
    });
}

pub(crate) fn network() {
    with_stack(&Overlay::of(&[NETWORK]), |stack| {
        place_over(stack, "grpc-tcp");
        for service in SERVICES {
            assert_eq!(stack.warnings(service), [""; 0], "{service}");
        }
        jaeger::check_orders(stack, "grpc", ORDERS as usize);
    });
}

/// One Jaeger for all of them, and what somebody finds in it who compares. Only where there is one.
pub(crate) fn side_by_side() {
    let paths = [
        ("grpc", Overlay::of(&[NETWORK])),
        ("socket", Overlay::of(&[SOCKET])),
        ("shm", Overlay::default()),
    ];
    for (path, overlay) in paths {
        with_any_stack(|stack| {
            if stack.has_jaeger() && jaeger::traces(stack, path).is_empty() {
                // The test of that path did not run before this one.
                stack.switch(&overlay);
                place(stack.gateway(), ORDERS, 50);
                jaeger::check_orders(stack, path, ORDERS as usize);
            }
        });
    }
    with_any_stack(|stack| jaeger::check_graph(stack));
}

fn with_profile(files: &[&'static str], profile: &str, test: impl FnOnce(&mut Stack)) {
    let files = [&["tests/compose/seccomp.yaml"], files].concat();
    let profile = root().join("tests/compose").join(profile);
    let overlay = Overlay::of(&files).with("SECCOMP_PROFILE", profile.display().to_string());
    with_stack(&overlay, test);
}

pub(crate) fn no_io_uring() {
    with_profile(&[SOCKET], "no-io-uring.json", |stack| {
        place_over(stack, "socket");
        assert!(!stack.descriptors("orders").contains(IO_URING));
    });
}

/// No memory to share, but the volume is there: the next best is the socket.
pub(crate) fn no_memfd() {
    with_profile(&[], "no-memfd.json", |stack| {
        place_over(stack, "socket");
    });
}
