//! What this kernel, and whatever filters its system calls, really allow.
//!
//! The list of opcodes that IORING_REGISTER_PROBE returns tells neither of multishot nor of seccomp,
//! so each tier carries bytes over a socket pair, best tier first.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::{Completion, Settings, Tier, Uring};

/// Longer than any kernel needs that does it at all.
const PATIENCE: Duration = Duration::from_secs(1);

const SMALL: Settings = Settings {
    entries: 8,
    buffers: 4,
    buffer_len: 4096,
    cooperative: false,
};

/// The best that [`Support::probe`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// Everything works.
    Multishot,
    /// Single receives only: the kernel is older than 6.0.
    Single,
    /// Nothing; the error number says why: EPERM by seccomp (Docker) or `kernel.io_uring_disabled`,
    /// ENOSYS by a kernel without it.
    Refused(i32),
}

impl Support {
    /// Tries the tiers. Takes well below a millisecond; ask once a process.
    #[must_use]
    pub fn probe() -> Self {
        if try_tier(Tier::Multishot).is_ok() {
            return Self::Multishot;
        }
        match try_tier(Tier::Single) {
            Ok(()) => Self::Single,
            Err(error) => Self::Refused(error.raw_os_error().unwrap_or(libc::EIO)),
        }
    }

    /// What to make a [`Uring`] of, if of anything.
    #[must_use]
    pub fn tier(self) -> Option<Tier> {
        match self {
            Self::Multishot => Some(Tier::Multishot),
            Self::Single => Some(Tier::Single),
            Self::Refused(_) => None,
        }
    }
}

impl fmt::Display for Support {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Multishot => Tier::Multishot.fmt(f),
            Self::Single => Tier::Single.fmt(f),
            Self::Refused(errno) => {
                write!(f, "refused: {}", io::Error::from_raw_os_error(*errno))
            }
        }
    }
}

impl Tier {
    /// Carries bytes by this tier.
    ///
    /// # Errors
    /// What refused it: EPERM by seccomp or `kernel.io_uring_disabled`, ENOSYS by a kernel without it,
    /// EINVAL by one that is too old for the tier.
    pub fn try_out(self) -> io::Result<()> {
        try_tier(self)
    }
}

/// Two messages there, so that a standing receive has to stand, and one back.
pub(super) fn try_tier(tier: Tier) -> io::Result<()> {
    let mut uring = Uring::with_settings(tier, SMALL).map_err(io::Error::from)?;
    let (ours, mut peer) = UnixStream::pair()?;
    peer.set_read_timeout(Some(PATIENCE))?;
    let id = uring.attach(ours.into()).map_err(io::Error::from)?;
    uring.submit().map_err(io::Error::from)?;
    for message in [b"one", b"two"] {
        peer.write_all(message)?;
        if receive(&mut uring)? != message {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    uring.send_slice(id, b"back").map_err(io::Error::from)?;
    uring.submit().map_err(io::Error::from)?;
    let mut back = [0; 4];
    peer.read_exact(&mut back)?;
    if &back != b"back" {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(())
}

fn receive(uring: &mut Uring) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    let mut outcome = None;
    while outcome.is_none() && Instant::now() < deadline {
        uring.wait(PATIENCE).map_err(io::Error::from)?;
        uring.reap(|completion| match completion {
            Completion::Received { data, .. } => outcome = Some(Ok(data.to_vec())),
            Completion::Failed { error, .. } => outcome = Some(Err(error)),
            Completion::Closed { .. } | Completion::Sent { .. } => {}
        });
        uring.submit().map_err(io::Error::from)?;
    }
    outcome.unwrap_or_else(|| Err(io::Error::from_raw_os_error(libc::ETIMEDOUT)))
}
