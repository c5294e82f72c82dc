//! Calls for threads without a runtime: the calling thread does by itself what a call needs.
//!
//! A service that was generated with `ringway_build`'s `build_blocking_client(true)` has a
//! `FooBlockingClient` beside its `FooClient`: the same methods, without `async`, and with iterators
//! where those have streams. Paths, fallback, deadlines, metadata, interceptors and limits are the
//! same, because the calls are: a channel for either kind of client comes from
//! [`Endpoint::connect_blocking`], and [`block_on`] waits for anything else of this crate.
//!
//! A blocking call looks at the ring by itself, as an asynchronous one does. When that does not pay
//! any more, the thread goes to sleep on the descriptors of all connections, and deals with what
//! wakes it: so a sleep costs one wake, and no other thread takes part. Of several waiting threads
//! one has the descriptors and wakes the others; when it is done, the next one has them.
//!
//! What must happen while nobody waits (keepalive, a server that goes, a stream's credit) is the
//! business of one thread, `ringway-attend`, which the first call starts. It takes the descriptors
//! over when no call has slept for 5 ms.
//!
//! **Not from asynchronous code.** A call panics there, as `tokio::runtime::Runtime::block_on` does
//! and with its message, because it would hold up every task of its thread. In
//! `tokio::task::spawn_blocking` it works.

mod attend;
mod streams;

pub use self::attend::block_on;
pub use self::streams::{Bare, IntoRequests, Responses, WithHead};
#[doc(hidden)]
pub use self::streams::{Requests, exchange, responses, upload};

use crate::channel::Channel;
use crate::endpoint::Endpoint;
use crate::error::Error;

impl Endpoint {
    /// A channel that is connected already, for blocking clients.
    ///
    /// # Errors
    /// As [`Endpoint::connect`].
    ///
    /// # Panics
    /// In asynchronous code; see [`blocking`](crate::blocking).
    pub fn connect_blocking(&self) -> Result<Channel, Error> {
        block_on(self.connect())
    }

    /// A channel that connects with its first call, for blocking clients, as [`Endpoint::connect_lazy`].
    ///
    /// # Panics
    /// In asynchronous code; see [`blocking`](crate::blocking).
    pub fn connect_lazy_blocking(&self) -> Channel {
        block_on(async { self.connect_lazy() })
    }
}
