//! Other processes: what they cost, and how to end them without hitting a pid that was used again.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

/// A process held by a pidfd(2): as long as this lives, it means that process and no other.
///
/// ```
/// use ringway_sys::process::Process;
/// use std::{process::Command, time::Duration};
/// let mut child = Command::new("sleep").arg("60").spawn()?;
/// let process = Process::open(child.id())?;
/// assert!(!process.wait_exit(Duration::ZERO)?);
/// process.terminate()?;
/// assert!(process.wait_exit(Duration::from_secs(10))?);
/// child.wait()?;
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct Process(OwnedFd);

impl Process {
    /// Takes hold of the process that has this pid now.
    ///
    /// # Errors
    /// ESRCH when there is none; ENOSYS before Linux 5.3.
    pub fn open(pid: u32) -> io::Result<Self> {
        Ok(Self(rustix::process::pidfd_open(
            to_pid(pid)?,
            PidfdFlags::empty(),
        )?))
    }

    /// Asks it to end (SIGTERM).
    ///
    /// # Errors
    /// ESRCH when it has ended and been waited for, EPERM.
    pub fn terminate(&self) -> io::Result<()> {
        Ok(rustix::process::pidfd_send_signal(&self.0, Signal::TERM)?)
    }

    /// Ends it (SIGKILL).
    ///
    /// # Errors
    /// ESRCH when it has ended and been waited for, EPERM.
    pub fn kill(&self) -> io::Result<()> {
        Ok(rustix::process::pidfd_send_signal(&self.0, Signal::KILL)?)
    }

    /// Waits until it has ended, and tells whether it has. Its parent still has to wait for it.
    ///
    /// # Errors
    /// The system call's.
    pub fn wait_exit(&self, timeout: Duration) -> io::Result<bool> {
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        let mut watched = [PollFd::new(&self.0, PollFlags::IN)];
        let ready = rustix::event::poll(&mut watched, Some(&timeout))?;
        Ok(ready > 0)
    }
}

/// Readable once the process has ended.
impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// User and system time that all threads of the process have used, to the nanosecond.
/// Children of it don't count.
///
/// # Errors
/// ESRCH when there is no such process.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    let pid = to_pid(pid)?.as_raw_nonzero().get();
    let mut clock: libc::clockid_t = 0;
    // SAFETY: `clock` is a live clockid_t that the call writes.
    let errno = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    if errno != 0 {
        return Err(io::Error::from_raw_os_error(errno));
    }
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a live timespec that the call writes; a clock that has gone is an error.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let seconds = u64::try_from(time.tv_sec).map_err(io::Error::other)?;
    let nanoseconds = u32::try_from(time.tv_nsec).map_err(io::Error::other)?;
    Ok(Duration::new(seconds, nanoseconds))
}

/// Proportional set size of the process: its own pages, and its share of those that it shares.
///
/// # Errors
/// No such process, or not ours to look into.
pub fn pss_bytes(pid: u32) -> io::Result<u64> {
    let text = io::read_to_string(File::open(format!("/proc/{pid}/smaps_rollup"))?)?;
    parse_pss(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no Pss line"))
}

fn parse_pss(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

fn to_pid(pid: u32) -> io::Result<Pid> {
    i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::Instant;

    #[test]
    fn cpu_time_of_this_process_grows_with_work() {
        let before = cpu_time(std::process::id()).unwrap();
        let start = Instant::now();
        let mut after = before;
        while after < before + Duration::from_millis(2) {
            assert!(start.elapsed() < Duration::from_secs(30));
            after = cpu_time(std::process::id()).unwrap();
        }
    }

    #[test]
    fn another_process_is_seen_killed_and_gone() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::open(child.id()).unwrap();
        assert!(cpu_time(child.id()).unwrap() < Duration::from_secs(10));
        process.kill().unwrap();
        assert!(process.wait_exit(Duration::from_secs(10)).unwrap());
        child.wait().unwrap();
        assert!(process.kill().is_err());
        assert!(Process::open(0).is_err());
        assert!(Process::open(u32::MAX).is_err());
    }

    #[test]
    fn memory_is_measured() {
        assert!(pss_bytes(std::process::id()).unwrap() > 4096);
        assert_eq!(
            parse_pss("00-ff [rollup]\nRss:  9 kB\nPss:      12 kB\nPss_Anon: 3 kB"),
            Some(12 * 1024)
        );
        assert_eq!(parse_pss("Rss: 9 kB"), None);
    }
}
