//! eventfd(2) as a doorbell: ringing never blocks, and one drain silences any number of rings.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::EventfdFlags;
use rustix::fs::OFlags;
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use crate::Error;

/// An eventfd, non-blocking and close-on-exec. Readable (for epoll) once rung, until drained.
///
/// ```
/// use ringway_sys::EventFd;
/// let bell = EventFd::new()?;
/// assert!(!bell.drain()?);
/// bell.ring()?;
/// bell.ring()?;
/// assert!(bell.drain()?); // both at once
/// assert!(!bell.drain()?);
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// Creates one.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM, or EPERM where a seccomp profile refuses it.
    pub fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self(rustix::event::eventfd(0, flags)?))
    }

    /// Takes a descriptor that a peer passed, after checking that it is what it should be.
    ///
    /// The name in `/proc/self/fd` is given by the kernel alone: no file, memfd, pipe or socket can
    /// carry it. The check does not bind the future: `O_NONBLOCK` belongs to the open file that both
    /// sides share, and a peer may clear it later. A thread that is held up then is freed by
    /// [`Self::relieve`] from another one.
    ///
    /// # Errors
    /// [`Error::PeerPassedNoEventFd`], [`Error::PeerPassedBlockingEventFd`],
    /// [`Error::PeerPassedSemaphore`]; [`Error::Io`] without `/proc`.
    pub fn from_peer(descriptor: OwnedFd) -> Result<Self, Error> {
        let number = descriptor.as_raw_fd();
        let target = std::fs::read_link(format!("/proc/self/fd/{number}"))?;
        if target.as_os_str() != "anon_inode:[eventfd]" {
            let found = target.to_string_lossy().into_owned();
            return Err(Error::PeerPassedNoEventFd { found });
        }
        if !rustix::fs::fcntl_getfl(&descriptor)?.contains(OFlags::NONBLOCK) {
            return Err(Error::PeerPassedBlockingEventFd);
        }
        if is_semaphore(&std::fs::read_to_string(format!(
            "/proc/self/fdinfo/{number}"
        ))?) {
            return Err(Error::PeerPassedSemaphore);
        }
        Ok(Self(descriptor))
    }

    /// Makes it readable. A saturated counter (EAGAIN) means that it already is, which is as good.
    ///
    /// # Errors
    /// None that a caller could act on; the system call's, should there be one.
    pub fn ring(&self) -> io::Result<()> {
        match rustix::io::retry_on_intr(|| rustix::io::write(&self.0, &1_u64.to_ne_bytes())) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Silences it, and tells whether it had been rung.
    ///
    /// # Errors
    /// None that a caller could act on; the system call's, should there be one.
    pub fn drain(&self) -> io::Result<bool> {
        let mut count = [0; 8];
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut count)) {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Empties it if it is so full that ringing it would block, and tells if it was. Never waits,
    /// though the peer may have cleared `O_NONBLOCK`.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] on kernels before 5.8, and what reading `/proc` comes to.
    pub fn relieve(&self) -> io::Result<bool> {
        let path = format!("/proc/self/fdinfo/{}", self.as_raw_fd());
        if count(&std::fs::read_to_string(path)?) < Some(u64::MAX - 1) {
            return Ok(false);
        }
        let mut count = [0; 8];
        let bytes = &mut [io::IoSliceMut::new(&mut count)];
        // An eventfd has no position.
        let read = || preadv2(&self.0, bytes, u64::MAX, ReadWriteFlags::NOWAIT);
        match rustix::io::retry_on_intr(read) {
            // Or it was emptied just now by its owner.
            Ok(_) | Err(Errno::AGAIN) => Ok(true),
            Err(errno) => Err(errno.into()),
        }
    }

    /// A second descriptor of the same doorbell.
    ///
    /// # Errors
    /// EMFILE.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

impl From<EventFd> for OwnedFd {
    fn from(bell: EventFd) -> Self {
        bell.0
    }
}

/// What it counts to, of which fdinfo tells in hexadecimal.
fn count(fdinfo: &str) -> Option<u64> {
    let count = fdinfo
        .lines()
        .find_map(|line| line.strip_prefix("eventfd-count:"));
    u64::from_str_radix(count?.trim(), 16).ok()
}

/// Kernels before 6.5 do not say; there a semaphore merely wakes its owner more often.
fn is_semaphore(fdinfo: &str) -> bool {
    fdinfo
        .lines()
        .filter_map(|line| line.strip_prefix("eventfd-semaphore:"))
        .any(|value| value.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_saturated_counter_does_not_block() {
        let bell = EventFd::new().unwrap();
        rustix::io::write(&bell, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        bell.ring().unwrap();
        assert!(bell.drain().unwrap());
        assert!(!bell.drain().unwrap());
    }

    #[test]
    fn a_full_one_is_relieved_without_waiting() {
        let bell = EventFd::new().unwrap();
        rustix::fs::fcntl_setfl(&bell, OFlags::empty()).unwrap();
        assert!(!bell.relieve().unwrap(), "empty");
        bell.ring().unwrap();
        assert!(!bell.relieve().unwrap(), "rung");
        rustix::io::write(&bell, &(u64::MAX - 2).to_ne_bytes()).unwrap();
        assert!(bell.relieve().unwrap());
        assert!(!bell.relieve().unwrap(), "empty again");
        assert_eq!(count("pos: 0\neventfd-count:               2a\n"), Some(42));
        assert_eq!(count("pos: 0\n"), None);
    }

    #[test]
    fn rings_cross_the_clone() {
        let bell = EventFd::new().unwrap();
        let other = EventFd::from_peer(bell.try_clone().unwrap().into()).unwrap();
        other.ring().unwrap();
        assert!(bell.drain().unwrap());
        assert!(!other.drain().unwrap());
    }

    #[test]
    fn anything_else_from_a_peer_is_refused() {
        let (socket, _other) = UnixStream::pair().unwrap();
        let (reader, _writer) = std::io::pipe().unwrap();
        let memfd = rustix::fs::memfd_create("[eventfd]", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let impostors: [OwnedFd; 4] = [
            File::open("/dev/null").unwrap().into(),
            socket.into(),
            reader.into(),
            memfd,
        ];
        for impostor in impostors {
            assert!(matches!(
                EventFd::from_peer(impostor),
                Err(Error::PeerPassedNoEventFd { .. })
            ));
        }
    }

    #[test]
    fn a_blocking_or_semaphore_eventfd_is_refused() {
        let blocking = rustix::event::eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        assert!(matches!(
            EventFd::from_peer(blocking),
            Err(Error::PeerPassedBlockingEventFd)
        ));
        let flags = EventfdFlags::NONBLOCK | EventfdFlags::SEMAPHORE;
        let semaphore = rustix::event::eventfd(0, flags).unwrap();
        let number = semaphore.as_raw_fd();
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap();
        if info.contains("eventfd-semaphore") {
            assert!(matches!(
                EventFd::from_peer(semaphore),
                Err(Error::PeerPassedSemaphore)
            ));
        }
        assert!(is_semaphore("pos:\t0\neventfd-semaphore: 1\n"));
        assert!(!is_semaphore("eventfd-count: 1\neventfd-semaphore: 0\n"));
    }
}
