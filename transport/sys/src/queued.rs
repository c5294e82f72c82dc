//! The bytes that lie in the kernel on their way to a peer.

use std::io;
use std::os::fd::AsFd;

use rustix::ioctl::{Getter, ioctl, opcode};

/// Bytes that were sent into a Unix stream socket, and which its peer has not received (SIOCOUTQ, unix(7)).
///
/// # Errors
/// If the descriptor is no socket.
///
/// ```
/// use std::io::Write;
/// use std::os::unix::net::UnixStream;
/// let (mut here, there) = UnixStream::pair()?;
/// assert_eq!(ringway_sys::queued::in_socket(&here)?, 0);
/// here.write_all(b"ring")?;
/// assert!(ringway_sys::queued::in_socket(&here)? > 0);
/// # drop(there);
/// # std::io::Result::Ok(())
/// ```
pub fn in_socket(socket: impl AsFd) -> io::Result<u64> {
    /// TIOCOUTQ, which is SIOCOUTQ.
    const SIOCOUTQ: rustix::ioctl::Opcode =
        opcode::from_components(rustix::ioctl::Direction::None, b'T', 0x11, 0);
    // SAFETY: the kernel fills in one `int` for this request (unix_ioctl in net/unix/af_unix.c), which is what
    // the getter makes room for; the caller's `AsFd` keeps the descriptor open.
    let queued = unsafe { ioctl(socket, Getter::<SIOCOUTQ, libc::c_int>::new()) }?;
    Ok(u64::try_from(queued).unwrap_or(0))
}

/// Bytes that were written into a pipe, and which nobody has read.
///
/// # Errors
/// If the descriptor is no pipe.
pub fn in_pipe(pipe: impl AsFd) -> io::Result<u64> {
    Ok(rustix::io::ioctl_fionread(pipe)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_bytes_are_not_queued() {
        let (reader, writer) = crate::pipe::pipe().unwrap();
        rustix::io::write(&writer, b"ringway").unwrap();
        assert_eq!(in_pipe(&writer).unwrap(), 7);
        rustix::io::read(&reader, &mut [0_u8; 4][..]).unwrap();
        assert_eq!(in_pipe(&writer).unwrap(), 3);
        let (here, there) = std::os::unix::net::UnixStream::pair().unwrap();
        rustix::io::write(&here, b"ringway").unwrap();
        let queued = in_socket(&here).unwrap();
        rustix::io::read(&there, &mut [0_u8; 16][..]).unwrap();
        assert!(queued > 0 && in_socket(&here).unwrap() == 0);
    }
}
