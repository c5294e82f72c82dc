//! The stack over other paths: by its overlays, and where the kernel refuses what they need.

use crate::engine::{inspect, root};
use crate::load::place;
use crate::stack::{SERVICES, Stack};

/// Orders that are placed over each path, and the hops of them all.
const ORDERS: u32 = 50;
const HOPS: u64 = 7 * 50;

const IO_URING: &str = "anon_inode:[io_uring]";

pub(crate) fn network() {
    let stack = Stack::up("network", &["deploy/compose.network.yaml"]);
    let seen = place(stack.gateway(), ORDERS, 50);
    assert_eq!(seen.hops("grpc-tcp"), HOPS, "{seen:?}");
    for service in SERVICES {
        assert_eq!(stack.warnings(service), [""; 0], "{service}");
    }
    // All of them at once, callers and called: each ends by itself.
    stack.compose(&["stop", "--timeout", "10"]);
    for service in SERVICES {
        let code = inspect(&stack.container(service), "{{.State.ExitCode}}");
        assert_eq!(code, "0", "{service}");
    }
}

pub(crate) fn socket() {
    let stack = Stack::up("socket", &["deploy/compose.socket.yaml"]);
    let seen = place(stack.gateway(), ORDERS, 50);
    assert_eq!(seen.hops("socket"), HOPS, "{seen:?}");
}

fn with_profile(project: &str, further: &[&str], profile: &str) -> Stack {
    let profile = root().join("tests/compose").join(profile);
    let variable = ("SECCOMP_PROFILE", profile.display().to_string());
    let files = [&["tests/compose/seccomp.yaml"], further].concat();
    Stack::up_with(project, &files, &[variable])
}

pub(crate) fn no_io_uring() {
    let socket = ["deploy/compose.socket.yaml"];
    let stack = with_profile("no-io-uring", &socket, "no-io-uring.json");
    let seen = place(stack.gateway(), ORDERS, 50);
    assert_eq!(seen.hops("socket"), HOPS, "{seen:?}");
    assert!(!stack.descriptors("orders").contains(IO_URING));
}

/// No memory to share, but the volume is there: the next best is the socket.
pub(crate) fn no_memfd() {
    let stack = with_profile("no-memfd", &[], "no-memfd.json");
    let seen = place(stack.gateway(), ORDERS, 50);
    assert_eq!(seen.hops("socket"), HOPS, "{seen:?}");
}
