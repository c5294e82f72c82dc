//! The paths by name: what people call them, what they are for, in which colour they are drawn.

/// A path as the page shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    /// `Shared memory`.
    pub(crate) label: String,
    /// Within a sentence: `shared memory`.
    pub(crate) spoken: String,
    /// The class of the style sheet that colours it.
    pub(crate) class: &'static str,
    /// When to use it.
    pub(crate) when: &'static str,
    /// Why it takes as long as it does.
    pub(crate) why: &'static str,
}

/// The end of a path's name whose calls carried metadata and a deadline.
const DRESSED: &str = "+metadata";
/// The same of one whose calls were traced.
const TRACED: &str = "+trace";

/// What is known of the path that the command line calls `name`.
pub(crate) fn known(name: &str) -> Known {
    let burdens = [(DRESSED, ", with metadata"), (TRACED, ", traced")];
    let burdened = burdens
        .into_iter()
        .find_map(|(end, burden)| Some((name.strip_suffix(end)?, burden)));
    let (bare, burden) = burdened.unwrap_or((name, ""));
    let (label, class, when, why) = describe(bare);
    Known {
        label: format!("{}{burden}", if label.is_empty() { bare } else { label }),
        spoken: format!("{}{burden}", spoken(bare)),
        class,
        when,
        why,
    }
}

fn spoken(name: &str) -> &str {
    match name {
        "shm" => "shared memory",
        "socket" => "a Unix socket by io_uring",
        "socket-epoll" => "a Unix socket by epoll",
        "pipe" => "pipes",
        "inproc" => "queues in one process",
        "shm-tonic" => "shared memory with tonic's stubs",
        "shm-blocking" => "shared memory with blocking stubs",
        "grpc-unix" => "gRPC on a Unix socket",
        "grpc-tcp" => "gRPC on TCP",
        other => other,
    }
}

/// Whether its calls carried metadata and a deadline, or were traced: no match for those that were not.
pub(crate) fn is_burdened(name: &str) -> bool {
    name.ends_with(DRESSED) || name.ends_with(TRACED)
}

/// Whether it is gRPC as everybody has it.
pub(crate) fn is_grpc(name: &str) -> bool {
    name.starts_with("grpc")
}

/// Whether both ends are one process: no choice for two.
pub(crate) fn is_one_process(name: &str) -> bool {
    name == "inproc"
}

fn describe(name: &str) -> (&'static str, &'static str, &'static str, &'static str) {
    match name {
        "shm" => (
            "Shared memory",
            "p-shm",
            "Between processes or containers of one host. The default: nothing to set up.",
            "A message is written once, into memory that the other process reads: no HTTP/2, and \
             while both ends are busy no system call.",
        ),
        "socket" => (
            "Unix socket, io_uring",
            "p-socket",
            "On one host, where shared memory is refused.",
            "The same frames as over shared memory, but the kernel carries them.",
        ),
        "socket-epoll" => (
            "Unix socket, epoll",
            "p-epoll",
            "On one host, where shared memory and io_uring are refused.",
            "The same frames as over shared memory, but each batch takes a system call on each side.",
        ),
        "pipe" => (
            "Pipes",
            "p-pipe",
            "Between a host and its plugin, a child process.",
            "The same frames as over shared memory, through two pipes of the kernel.",
        ),
        "inproc" => (
            "In one process",
            "p-inproc",
            "In tests, and for services folded into one process.",
            "A pair of queues: nothing leaves the process.",
        ),
        "shm-tonic" => (
            "Shared memory, tonic stubs",
            "p-tonic",
            "On one host, with stubs that tonic generated: existing code, unchanged.",
            "Shared memory under tonic's own stubs, which build HTTP types for each call.",
        ),
        "shm-blocking" => (
            "Shared memory, blocking",
            "p-blocking",
            "On one host, for threads without a runtime.",
            "Shared memory; the calling thread looks at the ring and sleeps by itself.",
        ),
        "grpc-unix" => (
            "gRPC, Unix socket",
            "p-grpc-unix",
            "On one host, for clients that speak nothing but gRPC.",
            "Each call is an HTTP/2 stream, and wakes a thread on each side.",
        ),
        "grpc-tcp" | "grpc" => (
            "gRPC, TCP",
            "p-grpc-tcp",
            "Between hosts, and for any gRPC client in any language.",
            "Each call is an HTTP/2 stream over TCP, and wakes a thread on each side.",
        ),
        _ => ("", "p-other", "", ""),
    }
}

/// What a bare mechanism is.
pub(crate) fn floor(name: &str) -> &'static str {
    match name {
        "spin" => "two processes look at one word without a pause",
        "futex" => "a semaphore in shared memory; the waiter sleeps",
        "eventfd" => "a counter in the kernel; the waiter sleeps",
        "pipe" => "two pipes; the reader sleeps",
        "unix" => "a Unix stream socket; the reader sleeps",
        "tcp" => "loopback TCP; the reader sleeps",
        "mqueue" => "POSIX message queues; the reader sleeps",
        "signal" => "a signal; the waiter sleeps",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_a_label_of_its_own() {
        let names = [
            "shm",
            "socket",
            "socket-epoll",
            "pipe",
            "inproc",
            "shm-tonic",
            "shm-blocking",
            "grpc-unix",
            "grpc-tcp",
        ];
        let labels: std::collections::BTreeSet<_> =
            names.iter().map(|name| known(name).label).collect();
        assert_eq!(labels.len(), names.len());
        assert!(names.iter().all(|name| !known(name).when.is_empty()));
    }

    #[test]
    fn burdens_and_strangers_keep_their_names() {
        assert_eq!(known("shm+metadata").label, "Shared memory, with metadata");
        assert_eq!(known("shm+trace").label, "Shared memory, traced");
        assert!(is_burdened("shm+metadata") && is_burdened("shm+trace") && !is_burdened("shm"));
        assert_eq!(known("carrier-pigeon").label, "carrier-pigeon");
    }
}
