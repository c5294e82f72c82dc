//! A small io_uring engine for many stream sockets.
//!
//! It owns the sockets and every buffer that the kernel reads or writes, and it is driven from
//! outside: its descriptor becomes readable when completions wait, so an epoll reactor can poll it.
//! One submission carries whatever was queued for all sockets; looking for completions costs no
//! system call.
//!
//! | file | holds |
//! | --- | --- |
//! | `engine` | [`Uring`]: attach, send, submit, reap, detach, drop |
//! | `socket` | what one socket has in flight and waiting |
//! | `table` | sockets by slot, and when a slot may be used again |
//! | `operation` | what a completion's 64 bits of user data mean |
//! | `buffers` | the ring of buffers that multishot receives take from |
//! | `setup` | flags by kernel |
//! | `probe` | what this kernel, and its seccomp profile, really allow |
//!
//! Docker's default profile refuses io_uring, `kernel.io_uring_disabled` may, and the tiers need
//! different kernels: so ask [`Support::probe`] first, and have another way.

mod buffers;
mod engine;
mod operation;
mod probe;
mod setup;
mod socket;
mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;

pub use engine::Uring;
pub use probe::Support;

/// How sockets are received from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tier {
    /// One standing receive a socket, which takes its buffers from a common ring (Linux 6.0).
    Multishot,
    /// One receive at a time a socket, each socket with a buffer of its own (Linux 5.7).
    Single,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Multishot => "io_uring-multishot",
            Self::Single => "io_uring-single",
        })
    }
}

/// Sizes of a [`Uring`]. The defaults suit a process with tens of busy sockets.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Submission queue entries, a power of two. The completion queue has four times as many.
    pub entries: u32,
    /// Receive buffers that all sockets share, a power of two ([`Tier::Multishot`]).
    pub buffers: u16,
    /// Bytes of each of them; of each socket's own for [`Tier::Single`].
    pub buffer_len: u32,
    /// Completions wait for the submitting thread's next system call instead of interrupting it
    /// (IORING_SETUP_COOP_TASKRUN). Saves interrupts where one thread does nothing but drive.
    /// Wrong where the driver moves between threads, as a task does: completions would wait for
    /// whatever the thread that submitted last is computing.
    pub cooperative: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            entries: 256,
            buffers: 64,
            buffer_len: 32 * 1024,
            cooperative: false,
        }
    }
}

/// Names a socket attached to one [`Uring`]; never used again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SocketId {
    slot: u32,
    generation: u32,
}

/// What [`Uring::reap`] tells about a socket.
#[derive(Debug)]
pub enum Completion<'a> {
    /// Bytes came. They are gone after the callback: copy what must stay.
    Received {
        /// Whose.
        id: SocketId,
        /// Never empty.
        data: &'a [u8],
    },
    /// The peer will send no more. Sending may still work.
    Closed {
        /// Whose.
        id: SocketId,
    },
    /// The kernel took that many more of the queued bytes.
    Sent {
        /// Whose.
        id: SocketId,
        /// How many.
        len: usize,
    },
    /// The socket broke, and what was queued is lost. Said once a socket; what the peer sent
    /// before may still be received until `Closed`.
    Failed {
        /// Whose.
        id: SocketId,
        /// Why.
        error: io::Error,
    },
}
