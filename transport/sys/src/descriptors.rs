//! Passing file descriptors over a Unix socket (`SCM_RIGHTS`), see unix(7) and cmsg(3).
//!
//! The receiving side never leaks what a hostile peer passes: a message with more descriptors than
//! allowed, or one that the kernel cut, is an error, and every descriptor that came with it is closed.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use crate::Error;

/// Other systems have no such flags, and no local paths that would need them.
#[cfg(target_os = "linux")]
const WITHOUT_SIGNAL: SendFlags = SendFlags::NOSIGNAL;
#[cfg(not(target_os = "linux"))]
const WITHOUT_SIGNAL: SendFlags = SendFlags::empty();
#[cfg(target_os = "linux")]
const CLOSED_ON_EXEC: RecvFlags = RecvFlags::CMSG_CLOEXEC;
#[cfg(not(target_os = "linux"))]
const CLOSED_ON_EXEC: RecvFlags = RecvFlags::empty();

/// The most descriptors that one message may carry, in either direction (D-Bus's limit as well).
pub const MAX_DESCRIPTORS: usize = 16;

const CONTROL_BYTES: usize = rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS));

/// Whether a call may wait, whatever the socket's own `O_NONBLOCK` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Blocking {
    /// Wait if the socket itself is blocking.
    #[default]
    AsSocket,
    /// Never wait: `WouldBlock` instead (MSG_DONTWAIT).
    Never,
}

/// What [`receive_with_descriptors`] took from the socket.
#[derive(Debug)]
pub struct Received {
    /// How many bytes were written to the buffer; 0 is the end of the stream.
    pub len: usize,
    /// The descriptors that came with those bytes, close-on-exec.
    pub descriptors: Vec<OwnedFd>,
    /// More came than this process could take, its table of descriptors being full. All have been closed.
    pub out_of_descriptors: bool,
}

/// Sends `bytes` and `descriptors` in one message, and returns how many of the bytes went.
///
/// The descriptors travel with the first byte, so on a short send they have gone.
///
/// # Errors
/// [`Error::DescriptorLimit`] for more than [`MAX_DESCRIPTORS`], [`Error::TooManyInFlight`] for
/// ETOOMANYREFS, [`Error::Io`] otherwise; descriptors without a byte to carry them are `InvalidInput`.
///
/// ```
/// use ringway_sys::{Blocking, receive_with_descriptors, send_with_descriptors};
/// use std::{fs::File, os::{fd::AsFd, unix::net::UnixStream}};
///
/// let (here, there) = UnixStream::pair()?;
/// let file = File::open("/dev/null")?;
/// send_with_descriptors(here.as_fd(), b"take it", &[file.as_fd()], Blocking::AsSocket)?;
///
/// let mut buffer = [0; 16];
/// let received = receive_with_descriptors(there.as_fd(), &mut buffer, 1, Blocking::AsSocket)?;
/// assert_eq!(&buffer[..received.len], b"take it");
/// assert_eq!(received.descriptors.len(), 1);
/// # Ok::<(), ringway_sys::Error>(())
/// ```
pub fn send_with_descriptors(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
    blocking: Blocking,
) -> Result<usize, Error> {
    check_count(descriptors.len())?;
    if bytes.is_empty() && !descriptors.is_empty() {
        return Err(Errno::INVAL.into());
    }
    let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::INVAL.into());
    }
    let mut flags = WITHOUT_SIGNAL;
    flags.set(SendFlags::DONTWAIT, blocking == Blocking::Never);
    let iov = [IoSlice::new(bytes)];
    let sent =
        rustix::io::retry_on_intr(|| rustix::net::sendmsg(socket, &iov, &mut control, flags))?;
    Ok(sent)
}

/// Checks that this process may pass `descriptor` now, by a socket of its own. Where no pair of sockets is to be had
/// nothing is known, and that is no error.
///
/// # Errors
/// As [`send_with_descriptors`]: [`Error::TooManyInFlight`] is what a user without privileges can meet.
///
/// ```
/// use std::os::fd::AsFd;
/// let file = std::fs::File::open("/dev/null")?;
/// ringway_sys::check_passing(file.as_fd())?;
/// # Ok::<(), ringway_sys::Error>(())
/// ```
pub fn check_passing(descriptor: BorrowedFd<'_>) -> Result<(), Error> {
    let Ok((here, _there)) = UnixStream::pair() else {
        return Ok(());
    };
    send_with_descriptors(here.as_fd(), b"?", &[descriptor], Blocking::Never).map(drop)
}

/// Receives bytes into `buffer`, and with them at most `max_descriptors` descriptors (0 for a
/// message that takes none).
///
/// # Errors
/// [`Error::PeerPassedTooMany`] when the peer passed more, [`Error::OutOfDescriptors`] when this
/// process could not take them; either way each received descriptor has been closed, and the bytes
/// are lost: end the connection. [`Error::Io`] otherwise.
pub fn receive_with_descriptors(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    max_descriptors: usize,
    blocking: Blocking,
) -> Result<Received, Error> {
    let received = receive_or_refuse(socket, buffer, max_descriptors, blocking)?;
    if received.out_of_descriptors {
        return Err(Error::OutOfDescriptors);
    }
    Ok(received)
}

/// Receives as [`receive_with_descriptors`] does, but keeps the bytes whose descriptors this process could not take:
/// [`Received::out_of_descriptors`] tells of that.
///
/// # Errors
/// [`Error::PeerPassedTooMany`] when the peer passed more than allowed: end the connection. [`Error::Io`] otherwise.
pub fn receive_or_refuse(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    max_descriptors: usize,
    blocking: Blocking,
) -> Result<Received, Error> {
    check_count(max_descriptors)?;
    let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
    // The kernel reports both a short buffer and an exhausted table as MSG_CTRUNC, never as EMFILE. How many
    // descriptors it has handed out tells them apart, whatever the peer sends and other threads open or close
    // meanwhile: there is room for `MAX_DESCRIPTORS` in any case, so that a peer that passes too many has the buffer
    // filled, and with fewer the kernel has stopped at a descriptor that this process could not take.
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut flags = CLOSED_ON_EXEC;
    flags.set(RecvFlags::DONTWAIT, blocking == Blocking::Never);
    let message = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags)
    })?;

    // Taken out first: from here on whatever returns early closes them.
    let mut descriptors = take_descriptors(&mut control);
    let out_of_descriptors =
        message.flags.contains(ReturnFlags::CTRUNC) && descriptors.len() < MAX_DESCRIPTORS;
    if descriptors.len() > max_descriptors
        || message.flags.contains(ReturnFlags::CTRUNC) && !out_of_descriptors
    {
        return Err(Error::PeerPassedTooMany {
            allowed: max_descriptors,
        });
    }
    if out_of_descriptors {
        descriptors.clear();
    }
    Ok(Received {
        len: message.bytes,
        descriptors,
        out_of_descriptors,
    })
}

fn check_count(asked: usize) -> Result<(), Error> {
    if asked > MAX_DESCRIPTORS {
        return Err(Error::DescriptorLimit {
            asked,
            limit: MAX_DESCRIPTORS,
        });
    }
    Ok(())
}

fn take_descriptors(control: &mut RecvAncillaryBuffer<'_>) -> Vec<OwnedFd> {
    control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};

    fn pipes(count: usize) -> (Vec<std::io::PipeReader>, Vec<std::io::PipeWriter>) {
        (0..count).map(|_| std::io::pipe().unwrap()).unzip()
    }

    /// All writers are closed, those in flight and received included: the reader sees the end.
    fn assert_closed(readers: Vec<std::io::PipeReader>) {
        for mut reader in readers {
            assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0);
        }
    }

    fn send(socket: &UnixStream, writers: &[std::io::PipeWriter]) -> Result<usize, Error> {
        let descriptors: Vec<_> = writers.iter().map(AsFd::as_fd).collect();
        send_with_descriptors(socket.as_fd(), b"x", &descriptors, Blocking::AsSocket)
    }

    #[test]
    fn descriptors_arrive_and_work() {
        let (here, there) = UnixStream::pair().unwrap();
        let (mut readers, writers) = pipes(MAX_DESCRIPTORS);
        assert_eq!(send(&here, &writers).unwrap(), 1);
        drop(writers);
        let mut buffer = [0; 8];
        let received = receive_with_descriptors(
            there.as_fd(),
            &mut buffer,
            MAX_DESCRIPTORS,
            Blocking::AsSocket,
        )
        .unwrap();
        assert_eq!((received.len, buffer[0]), (1, b'x'));
        assert_eq!(received.descriptors.len(), MAX_DESCRIPTORS);
        for (index, descriptor) in received.descriptors.into_iter().enumerate() {
            let flags = rustix::io::fcntl_getfd(&descriptor).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
            File::from(descriptor).write_all(b"hello").unwrap();
            let mut text = String::new();
            readers[index].read_to_string(&mut text).unwrap();
            assert_eq!(text, "hello");
        }
    }

    #[test]
    fn more_than_allowed_is_refused_and_closed() {
        for (sent, allowed) in [(1, 0), (2, 1), (4, 3), (16, 2)] {
            let (here, there) = UnixStream::pair().unwrap();
            let (readers, writers) = pipes(sent);
            send(&here, &writers).unwrap();
            drop(writers);
            let error =
                receive_with_descriptors(there.as_fd(), &mut [0; 8], allowed, Blocking::AsSocket)
                    .unwrap_err();
            assert!(matches!(error, Error::PeerPassedTooMany { allowed: a } if a == allowed));
            assert_closed(readers);
        }
    }

    #[test]
    fn a_truncated_message_is_refused_and_closed() {
        // 253 is what the kernel lets a hostile peer put in one message (SCM_MAX_FD).
        let (here, there) = UnixStream::pair().unwrap();
        let (mut readers, mut writers) = pipes(1);
        let writer = writers.remove(0);
        let many = vec![writer.as_fd(); 253];
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&many)));
        rustix::net::sendmsg(
            &here,
            &[IoSlice::new(b"x")],
            &mut control,
            SendFlags::empty(),
        )
        .unwrap();
        drop(writer);
        let error = receive_with_descriptors(there.as_fd(), &mut [0; 8], 16, Blocking::AsSocket)
            .unwrap_err();
        assert!(matches!(error, Error::PeerPassedTooMany { allowed: 16 }));
        assert_closed(vec![readers.remove(0)]);
    }

    #[test]
    fn limits_and_waiting() {
        let (here, there) = UnixStream::pair().unwrap();
        let (_readers, writers) = pipes(17);
        assert!(matches!(
            send(&here, &writers),
            Err(Error::DescriptorLimit { asked: 17, .. })
        ));
        let nothing =
            receive_with_descriptors(there.as_fd(), &mut [0; 8], 1, Blocking::Never).unwrap_err();
        assert!(matches!(&nothing, Error::Io(e) if e.kind() == std::io::ErrorKind::WouldBlock));
        assert!(
            send_with_descriptors(here.as_fd(), b"", &[writers[0].as_fd()], Blocking::AsSocket)
                .is_err()
        );
        drop(here);
        let end = receive_with_descriptors(there.as_fd(), &mut [0; 8], 1, Blocking::Never).unwrap();
        assert_eq!(end.len, 0);
        // MSG_NOSIGNAL: an error, not the end of this process.
        let gone = send_with_descriptors(there.as_fd(), b"x", &[], Blocking::Never).unwrap_err();
        assert!(matches!(&gone, Error::Io(e) if e.kind() == std::io::ErrorKind::BrokenPipe));
    }

    #[test]
    fn errnos_keep_their_culprit() {
        assert!(matches!(
            Error::from(Errno::TOOMANYREFS),
            Error::TooManyInFlight
        ));
        assert!(matches!(Error::from(Errno::MFILE), Error::OutOfDescriptors));
    }

    const AS_CHILD: &str = "RINGWAY_TEST_OUT_OF_DESCRIPTORS";

    /// The limit is the whole process's, so this test runs alone in a process of its own.
    #[test]
    fn out_of_descriptors_is_said_clearly() {
        if std::env::var_os(AS_CHILD).is_some() {
            return without_free_descriptors();
        }
        let name = "descriptors::tests::out_of_descriptors_is_said_clearly";
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(AS_CHILD, "1")
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
    }

    fn without_free_descriptors() {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let (here, there) = UnixStream::pair().unwrap();
        let (readers, writers) = pipes(3);
        send(&here, &writers).unwrap();
        let mut held = writers;
        let before = getrlimit(Resource::Nofile);
        // One descriptor is free, three come.
        let highest = std::os::fd::AsRawFd::as_raw_fd(&held[2]);
        let mut limit = before;
        limit.current = Some(u64::try_from(highest).unwrap() + 2);
        setrlimit(Resource::Nofile, limit).unwrap();
        let error = receive_with_descriptors(there.as_fd(), &mut [0; 8], 3, Blocking::AsSocket);
        setrlimit(Resource::Nofile, before).unwrap();
        let Err(Error::OutOfDescriptors) = error else {
            panic!("{error:?}");
        };
        held.clear();
        assert_closed(readers);
    }
}
