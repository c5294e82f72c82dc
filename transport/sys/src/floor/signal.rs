//! A realtime signal in each direction; the bytes lie in shared memory.
//!
//! Signals go to a thread that has blocked this one and waits for it, not to the process: the
//! others know nothing of it, and one of them would be ended by it.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::page::{Page, Side};
use super::{Link, Message, PATIENCE, exactly};

struct Signals {
    page: Page,
    /// The thread that has blocked the signal and said so; 0 before the first.
    thread: i32,
}

pub(super) fn open() -> io::Result<(Box<dyn Link>, Vec<OwnedFd>)> {
    let (page, memfd) = Page::create()?;
    Ok((Box::new(Signals { page, thread: 0 }), vec![memfd]))
}

pub(super) fn join(descriptors: Vec<OwnedFd>) -> io::Result<Box<dyn Link>> {
    let [memfd] = exactly(descriptors)?;
    let page = Page::map(&memfd, Side::Child)?;
    Ok(Box::new(Signals { page, thread: 0 }))
}

impl Signals {
    /// Makes the calling thread the one that the other side signals.
    fn take_over(&mut self) -> io::Result<()> {
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        if thread != self.thread {
            block()?;
            let process = rustix::process::getpid().as_raw_nonzero().get();
            self.page.publish_thread(process, thread);
            self.thread = thread;
        }
        Ok(())
    }

    /// The other side's thread, once it has said that it is ready to be signalled.
    fn other(&self) -> io::Result<(i32, i32)> {
        let start = Instant::now();
        loop {
            if let Some(other) = self.page.other_thread() {
                return Ok(other);
            }
            if start.elapsed() > PATIENCE {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Link for Signals {
    fn send(&mut self, message: &Message) -> io::Result<()> {
        self.take_over()?;
        let (process, thread) = self.other()?;
        self.page.outgoing().write(message);
        // SAFETY: three integers; a thread that has gone is an error. The system call orders what
        // was written before what the woken thread reads.
        let result = unsafe { libc::syscall(libc::SYS_tgkill, process, thread, number()) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    fn receive(&mut self, step: Duration) -> io::Result<Option<Message>> {
        self.take_over()?;
        let timeout = libc::timespec {
            tv_sec: step.as_secs().try_into().map_err(io::Error::other)?,
            tv_nsec: step.subsec_nanos().into(),
        };
        let wanted = wanted();
        // SAFETY: a live set and a live timespec; a null pointer for the details is allowed.
        let signal = unsafe {
            libc::sigtimedwait(&raw const wanted, std::ptr::null_mut(), &raw const timeout)
        };
        if signal == number() {
            return Ok(Some(self.page.incoming().read()));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR) => Ok(None),
            _ => Err(error),
        }
    }
}

/// One that C libraries and profilers leave alone.
fn number() -> libc::c_int {
    libc::SIGRTMIN() + 5
}

fn wanted() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the whole set, to which sigaddset adds a valid signal.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), number());
        set.assume_init()
    }
}

fn block() -> io::Result<()> {
    let wanted = wanted();
    // SAFETY: a live set; a null pointer for the old one is allowed. Changes only this thread.
    let errno =
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const wanted, std::ptr::null_mut()) };
    if errno != 0 {
        return Err(io::Error::from_raw_os_error(errno));
    }
    Ok(())
}
