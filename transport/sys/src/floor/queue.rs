//! A POSIX message queue in each direction, see mq_overview(7).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Link, Message, exactly};

/// On Linux a queue's descriptor is a file descriptor.
struct Queues {
    outgoing: OwnedFd,
    incoming: OwnedFd,
}

pub(super) fn open() -> io::Result<(Box<dyn Link>, Vec<OwnedFd>)> {
    let (outgoing, incoming) = (create()?, create()?);
    let descriptors = vec![incoming.try_clone()?, outgoing.try_clone()?];
    let link = Queues { outgoing, incoming };
    Ok((Box::new(link), descriptors))
}

pub(super) fn join(descriptors: Vec<OwnedFd>) -> io::Result<Box<dyn Link>> {
    let [outgoing, incoming] = exactly(descriptors)?;
    Ok(Box::new(Queues { outgoing, incoming }))
}

/// A queue without a name: it goes away with its last descriptor, however the process ends.
fn create() -> io::Result<OwnedFd> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("/ringway-floor-{}-{count}", std::process::id());
    let name = CString::new(name).map_err(io::Error::other)?;
    // SAFETY: all-zero bits are a valid `mq_attr`.
    let mut attributes: libc::mq_attr = unsafe { std::mem::zeroed() };
    attributes.mq_maxmsg = 2;
    attributes.mq_msgsize = 64;
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR | libc::O_CLOEXEC;
    let mode: libc::mode_t = 0o600;
    // SAFETY: `name` is a C string and `attributes` a live mq_attr; O_CREAT takes both of the
    // further arguments.
    let queue = unsafe { libc::mq_open(name.as_ptr(), flags, mode, &raw const attributes) };
    if queue < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
    let queue = unsafe { OwnedFd::from_raw_fd(queue) };
    // SAFETY: `name` is a C string.
    if unsafe { libc::mq_unlink(name.as_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(queue)
}

impl Link for Queues {
    fn send(&mut self, message: &Message) -> io::Result<()> {
        // SAFETY: `message` is readable for the length given.
        let result = unsafe {
            libc::mq_send(
                self.outgoing.as_raw_fd(),
                message.as_ptr().cast(),
                message.len(),
                0,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    fn receive(&mut self, step: Duration) -> io::Result<Option<Message>> {
        let mut message = [0; size_of::<Message>()];
        let until = deadline(step)?;
        // SAFETY: `message` is writable for the length given, which is the queue's message size;
        // `until` is a live timespec.
        let len = unsafe {
            libc::mq_timedreceive(
                self.incoming.as_raw_fd(),
                message.as_mut_ptr().cast(),
                message.len(),
                std::ptr::null_mut(),
                &raw const until,
            )
        };
        if usize::try_from(len).is_ok_and(|len| len == message.len()) {
            return Ok(Some(message));
        }
        if len >= 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ETIMEDOUT | libc::EINTR) => Ok(None),
            _ => Err(error),
        }
    }
}

/// The call wants a time of day.
fn deadline(step: Duration) -> io::Result<libc::timespec> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let until = now.map_err(io::Error::other)? + step;
    Ok(libc::timespec {
        tv_sec: until.as_secs().try_into().map_err(io::Error::other)?,
        tv_nsec: until.subsec_nanos().into(),
    })
}
