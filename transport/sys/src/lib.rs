//! Kernel calls behind safe interfaces: io_uring, descriptor passing, pipes, peer credentials, control
//! groups, the comparison's bare mechanisms.
//!
//! Nothing here knows Ringway's protocol, and nothing here needs a runtime: each module wraps one
//! facility of the kernel so that the crates above can stay free of `unsafe`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod cgroup;
pub mod credentials;
pub mod descriptors;
mod error;
#[cfg_attr(not(target_os = "linux"), path = "no_eventfd.rs")]
pub mod eventfd;
#[cfg(all(feature = "floor", target_os = "linux"))]
pub mod floor;
#[cfg_attr(not(target_os = "linux"), path = "no_fork.rs")]
pub mod fork;
pub mod limits;
pub mod pipe;
#[cfg(target_os = "linux")]
pub mod process;
pub mod queued;
pub mod schedule;
pub mod thread_account;
#[cfg(all(feature = "io-uring", target_os = "linux"))]
pub mod uring;

pub use credentials::{PeerCredentials, is_hidden_uid, peer_credentials};
pub use descriptors::{
    Blocking, Received, check_passing, receive_or_refuse, receive_with_descriptors,
    send_with_descriptors,
};
pub use error::Error;
pub use eventfd::EventFd;
pub use fork::NotInChildren;
pub use limits::Means;
pub use thread_account::{ThreadAccount, thread_account};
