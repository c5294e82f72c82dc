//! A semaphore in shared memory, on futex(2).

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::thread::futex;

use super::page::{Page, Side};
use super::{Link, Message, exactly};

struct Semaphore(Page);

pub(super) fn open() -> io::Result<(Box<dyn Link>, Vec<OwnedFd>)> {
    let (page, memfd) = Page::create()?;
    Ok((Box::new(Semaphore(page)), vec![memfd]))
}

pub(super) fn join(descriptors: Vec<OwnedFd>) -> io::Result<Box<dyn Link>> {
    let [memfd] = exactly(descriptors)?;
    Ok(Box::new(Semaphore(Page::map(&memfd, Side::Child)?)))
}

impl Link for Semaphore {
    fn send(&mut self, message: &Message) -> io::Result<()> {
        let lane = self.0.outgoing();
        lane.write(message);
        lane.word.fetch_add(1, Ordering::Release);
        futex::wake(&lane.word, futex::Flags::empty(), 1)?;
        Ok(())
    }

    fn receive(&mut self, step: Duration) -> io::Result<Option<Message>> {
        let lane = self.0.incoming();
        let timeout = step.try_into().map_err(io::Error::other)?;
        while !take(&lane.word) {
            match futex::wait(&lane.word, futex::Flags::empty(), 0, Some(&timeout)) {
                Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::TIMEDOUT) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(Some(lane.read()))
    }
}

fn take(count: &AtomicU32) -> bool {
    count
        .try_update(Ordering::Acquire, Ordering::Relaxed, |count| {
            count.checked_sub(1)
        })
        .is_ok()
}
