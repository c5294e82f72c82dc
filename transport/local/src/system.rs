//! Of Linux alone, and what stands in its place on other systems, where local paths between processes are compiled
//! but never taken.

use rustix::fs::OFlags;
use rustix::net::{SendFlags, SocketFlags};

#[cfg(target_os = "linux")]
pub(crate) use rustix::event::epoll;

#[cfg(target_os = "linux")]
pub(crate) const PATH: OFlags = OFlags::PATH;
#[cfg(not(target_os = "linux"))]
pub(crate) const PATH: OFlags = OFlags::empty();

#[cfg(target_os = "linux")]
pub(crate) const WITHOUT_SIGNAL: SendFlags = SendFlags::NOSIGNAL;
#[cfg(not(target_os = "linux"))]
pub(crate) const WITHOUT_SIGNAL: SendFlags = SendFlags::empty();

#[cfg(target_os = "linux")]
pub(crate) const SOCKET_FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);
#[cfg(not(target_os = "linux"))]
pub(crate) const SOCKET_FLAGS: SocketFlags = SocketFlags::empty();

/// Widens a number that systems have in several widths; none of them has a negative one.
pub(crate) fn widened(number: impl TryInto<u64>) -> u64 {
    number.try_into().unwrap_or(u64::MAX)
}

/// Widens a file's mode, which has 16 bits on some systems.
pub(crate) fn mode_bits(mode: impl Into<u32>) -> u32 {
    mode.into()
}

/// In place of epoll(7): no set can be made.
#[cfg(not(target_os = "linux"))]
pub(crate) mod epoll {
    use std::mem::MaybeUninit;
    use std::ops::{BitAnd, BitOr};
    use std::os::fd::{AsFd, OwnedFd};

    use rustix::event::Timespec;
    use rustix::io::{Errno, Result};

    #[derive(Debug)]
    pub(crate) struct CreateFlags;

    impl CreateFlags {
        pub(crate) const CLOEXEC: Self = Self;
    }

    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Event;

    #[derive(Debug, Clone, Copy)]
    pub(crate) struct EventData;

    impl EventData {
        pub(crate) fn new_u64(_: u64) -> Self {
            Self
        }
    }

    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub(crate) struct EventFlags(u32);

    impl EventFlags {
        pub(crate) const IN: Self = Self(1);
        pub(crate) const OUT: Self = Self(4);
        pub(crate) const ET: Self = Self(1 << 31);

        pub(crate) const fn empty() -> Self {
            Self(0)
        }

        pub(crate) const fn contains(self, other: Self) -> bool {
            self.0 & other.0 == other.0
        }

        pub(crate) const fn symmetric_difference(self, other: Self) -> Self {
            Self(self.0 ^ other.0)
        }
    }

    impl BitOr for EventFlags {
        type Output = Self;

        fn bitor(self, other: Self) -> Self {
            Self(self.0 | other.0)
        }
    }

    impl BitAnd for EventFlags {
        type Output = Self;

        fn bitand(self, other: Self) -> Self {
            Self(self.0 & other.0)
        }
    }

    pub(crate) fn create(_: CreateFlags) -> Result<OwnedFd> {
        Err(Errno::NOSYS)
    }

    pub(crate) fn add(_: impl AsFd, _: impl AsFd, _: EventData, _: EventFlags) -> Result<()> {
        Err(Errno::NOSYS)
    }

    pub(crate) fn modify(_: impl AsFd, _: impl AsFd, _: EventData, _: EventFlags) -> Result<()> {
        Err(Errno::NOSYS)
    }

    pub(crate) fn wait(
        _: impl AsFd,
        _: &mut [MaybeUninit<Event>],
        _: Option<&Timespec>,
    ) -> Result<()> {
        Err(Errno::NOSYS)
    }
}
