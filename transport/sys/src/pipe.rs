//! Pipes (pipe(7)) as a way to another process: made, inherited, and written without SIGPIPE.

use std::collections::BTreeSet;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FileType, fstat};
use rustix::io::{FdFlags, fcntl_setfd};
#[cfg(target_os = "linux")]
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

/// Room for bytes on their way: enough to keep a writer of large messages busy. What is not there
/// (see `/proc/sys/fs/pipe-max-size`) is done without; pages are taken only while they hold bytes.
#[cfg(target_os = "linux")]
const CAPACITY_BYTES: usize = 256 * 1024;

/// A pipe's reading and writing end, which don't outlive an exec.
///
/// # Errors
/// Out of descriptors.
///
/// ```
/// let (reader, writer) = ringway_sys::pipe::pipe()?;
/// let writer = ringway_sys::pipe::Writer::new(writer);
/// writer.write(b"ring")?;
/// let mut buffer = [0; 8];
/// assert_eq!(rustix::io::read(&reader, &mut buffer)?, 4);
/// drop(reader);
/// assert_eq!(writer.write(b"way").unwrap_err(), rustix::io::Errno::PIPE);
/// # std::io::Result::Ok(())
/// ```
#[cfg(target_os = "linux")]
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    // A smaller pipe works as well.
    let _ = fcntl_setpipe_size(&writer, CAPACITY_BYTES);
    Ok((reader, writer))
}

/// Refuses: pipes are a path of Linux alone.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Tells a pipe from every other pipe of this host while it is open.
///
/// # Errors
/// It is no pipe.
pub fn identity(pipe: BorrowedFd<'_>) -> io::Result<u64> {
    let found = fstat(pipe)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::Fifo {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the descriptor is no pipe",
        ));
    }
    Ok(found.st_ino)
}

/// Takes over the pipe's end that this process was started with as descriptor `number`; `identity`
/// is what [`identity()`] said of it where it was made. Once for each number. From here on the
/// programs that this one starts don't inherit it.
///
/// # Errors
/// The descriptor is not open, is another file, or was taken over before.
pub fn inherit(number: RawFd, pipe: u64) -> io::Result<OwnedFd> {
    static TAKEN: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    if number < 0 || taken.contains(&number) {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    // SAFETY: not negative; only asked about, and a number that is not open is an error of the call.
    let asked = unsafe { BorrowedFd::borrow_raw(number) };
    if identity(asked)? != pipe {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the descriptor is another pipe",
        ));
    }
    fcntl_setfd(asked, FdFlags::CLOEXEC)?;
    taken.insert(number);
    // SAFETY: it is open, and is the very pipe that was made for this process before its program
    // ran, so nothing in here opened it; and nobody gets it from here a second time.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Has the program that `command` starts inherit `ends`, under the numbers that they have here. The hold on them
/// goes with `command`.
pub fn pass_on(command: &mut Command, ends: [OwnedFd; 2]) {
    let uncover = move || {
        for end in &ends {
            fcntl_setfd(end, FdFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec this calls fcntl(2) alone, which is async-signal-safe; it takes no lock and
    // no memory, and an error is a number.
    unsafe { command.pre_exec(uncover) };
}

/// A pipe's writing end. A write after the reader has gone fails with EPIPE and nothing more.
///
/// Rust's runtime ignores SIGPIPE, but the host may be a program of another language, or want its
/// own output to end like that of `yes | head`: there the signal would end the process.
#[derive(Debug)]
pub struct Writer {
    pipe: OwnedFd,
    /// SIGPIPE was not ignored when this was made.
    signalled: bool,
}

impl Writer {
    /// Writes to `pipe`.
    pub fn new(pipe: OwnedFd) -> Self {
        Self {
            pipe,
            signalled: !is_ignored(),
        }
    }

    /// Writes as much of `bytes` as there is room for; how much that was.
    ///
    /// # Errors
    /// EPIPE if nobody reads any more; EAGAIN if the pipe is full and does not block.
    pub fn write(&self, bytes: &[u8]) -> Result<usize, rustix::io::Errno> {
        if !self.signalled {
            return rustix::io::write(&self.pipe, bytes);
        }
        let held_back = HeldBack::new();
        let written = rustix::io::write(&self.pipe, bytes);
        held_back.release(written == Err(rustix::io::Errno::PIPE));
        written
    }
}

impl AsFd for Writer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

fn is_ignored() -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: asks for the present action alone, into a live `sigaction`, of which zeroes are one.
    let action = unsafe {
        libc::sigaction(libc::SIGPIPE, ptr::null(), action.as_mut_ptr());
        action.assume_init()
    };
    action.sa_sigaction == libc::SIG_IGN
}

fn sigpipe() -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: `sigemptyset` makes a set of the live memory it is given, and `sigaddset` adds to it.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGPIPE);
        set.assume_init()
    }
}

/// SIGPIPE, kept from this thread for a moment: the kernel sends it to the thread that wrote.
struct HeldBack {
    before: libc::sigset_t,
    was_pending: bool,
}

impl HeldBack {
    fn new() -> Self {
        let mut before = MaybeUninit::<libc::sigset_t>::zeroed();
        let mut pending = MaybeUninit::<libc::sigset_t>::zeroed();
        let set = sigpipe();
        // SAFETY: live sets for all three calls; zeroes are an empty set.
        unsafe {
            libc::sigpending(pending.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, before.as_mut_ptr());
            Self {
                before: before.assume_init(),
                was_pending: libc::sigismember(pending.as_ptr(), libc::SIGPIPE) == 1,
            }
        }
    }

    /// Takes back the one that our write raised, if it did, and lets through what was let before.
    #[cfg_attr(not(target_os = "linux"), allow(unused_variables))]
    fn release(self, raised: bool) {
        let none = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let set = sigpipe();
        // SAFETY: a live set and a live timespec; a null pointer for the details is allowed.
        unsafe {
            if raised && !self.was_pending {
                // Elsewhere no pipe was made to be written.
                #[cfg(target_os = "linux")]
                libc::sigtimedwait(&raw const set, ptr::null_mut(), &raw const none);
            }
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, IntoRawFd};
    use std::process::Command;

    use super::*;

    #[test]
    fn an_inherited_pipe_is_taken_once_and_no_other_file_in_its_place() {
        let (reader, writer) = pipe().unwrap();
        let pipe = identity(reader.as_fd()).unwrap();
        assert_eq!(identity(writer.as_fd()).unwrap(), pipe);
        inherit(writer.as_raw_fd(), pipe + 1).unwrap_err();
        inherit(-1, pipe).unwrap_err();
        inherit(1 << 20, pipe).unwrap_err();
        let file = std::fs::File::open("/dev/null").unwrap();
        inherit(file.as_raw_fd(), pipe).unwrap_err();
        let number = reader.into_raw_fd();
        let taken = inherit(number, pipe).unwrap();
        inherit(number, pipe).unwrap_err();
        Writer::new(writer).write(b"ring").unwrap();
        assert_eq!(rustix::io::read(taken, &mut [0; 8]).unwrap(), 4);
    }

    const AS_CHILD: &str = "RINGWAY_TEST_SIGPIPE";

    /// How signals are taken belongs to the whole process, so this gets one of its own.
    #[test]
    fn a_reader_that_has_gone_is_an_error_and_no_signal() {
        if std::env::var_os(AS_CHILD).is_none() {
            let name = "pipe::tests::a_reader_that_has_gone_is_an_error_and_no_signal";
            let status = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", name])
                .env(AS_CHILD, "1")
                .status();
            assert!(status.unwrap().success());
            return;
        }
        // SAFETY: the default action; no handler of ours.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        assert!(!is_ignored());
        let (reader, writer) = pipe().unwrap();
        let writer = Writer::new(writer);
        assert_eq!(writer.write(b"ring"), Ok(4));
        drop(reader);
        for _ in 0..2 {
            assert_eq!(writer.write(b"way"), Err(rustix::io::Errno::PIPE));
        }
    }
}
