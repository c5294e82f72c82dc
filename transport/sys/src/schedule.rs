//! Facts about the machine for a waiting policy: how many cores, how many of them are ours, and how
//! many threads want them right now. Facts only; what to make of them is decided elsewhere.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

pub use crate::cgroup::cpu_quota;

/// The CPUs that this thread may run on (its affinity mask), at least one.
#[must_use]
pub fn online_cpus() -> usize {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => usize::try_from(set.count()).unwrap_or(1).max(1),
        // More CPUs than the mask holds: not a machine to be stingy on.
        Err(_) => std::thread::available_parallelism().map_or(1, usize::from),
    }
}

/// Moves this thread to another of its CPUs, now; afterwards it may run on all of them as before.
///
/// Linux wakes a thread where its waker runs, or where it slept, and on a machine of few CPUs it
/// does not search for an idle one: so two threads that wake each other can share a CPU for long
/// while another idles. Whoever knows that it is so can step aside.
///
/// # Errors
/// The kernel refuses to change the affinity mask (a seccomp filter), or there is no other CPU.
pub fn step_aside() -> io::Result<()> {
    let allowed = rustix::thread::sched_getaffinity(None)?;
    let mut others = allowed;
    others.unset(rustix::thread::sched_getcpu());
    if others.count() == 0 {
        return Err(io::ErrorKind::NotFound.into());
    }
    rustix::thread::sched_setaffinity(None, &others)?;
    rustix::thread::sched_setaffinity(None, &allowed)?;
    Ok(())
}

/// Identifies this process's network namespace: loopback addresses mean something only within one.
///
/// # Errors
/// `/proc` is not mounted.
pub fn network_namespace_id() -> io::Result<u64> {
    Ok(std::fs::metadata("/proc/self/ns/net")?.ino())
}

/// Counts the runnable threads of the whole machine, at the price of one pread(2) a look.
///
/// ```
/// use ringway_sys::schedule::RunnableThreads;
/// let runnable = RunnableThreads::open()?;
/// assert!(runnable.sample()? >= 1); // whoever asks is running
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct RunnableThreads {
    loadavg: File,
}

impl RunnableThreads {
    /// Opens `/proc/loadavg` and keeps it open.
    ///
    /// # Errors
    /// `/proc` is not mounted, or no descriptor is free.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            loadavg: File::open("/proc/loadavg")?,
        })
    }

    /// How many threads are running or waiting for a core at this moment, the caller included.
    ///
    /// # Errors
    /// The file does not read as proc_loadavg(5) says.
    pub fn sample(&self) -> io::Result<u32> {
        let mut text = [0; 128];
        let len = rustix::io::pread(&self.loadavg, &mut text, 0)?;
        parse_running(&text[..len]).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// How long this thread has waited for a CPU while it could have run, since it began: so long others have
/// kept it from running. Costs an open(2), a read(2) and a close(2).
///
/// ```
/// use ringway_sys::schedule::run_delay;
/// let before = run_delay()?;
/// assert!(run_delay()? >= before);
/// # std::io::Result::Ok(())
/// ```
///
/// # Errors
/// `/proc` is not mounted, no descriptor is free, or the kernel keeps no such account
/// (`CONFIG_SCHED_INFO`): its Documentation/scheduler/sched-stats.rst describes `schedstat`.
pub fn run_delay() -> io::Result<Duration> {
    let mut text = [0; 128];
    let len = File::open("/proc/thread-self/schedstat")?.read(&mut text)?;
    let waited = parse_run_delay(&text[..len]).ok_or(io::ErrorKind::Unsupported)?;
    Ok(Duration::from_nanos(waited))
}

/// The second field: `1234567 89012 345`. The third, how often the thread was run, is zero only where
/// nothing is counted.
fn parse_run_delay(text: &[u8]) -> Option<u64> {
    let mut fields = text.split(u8::is_ascii_whitespace).map(|field| {
        let digits = std::str::from_utf8(field).ok()?;
        digits.parse::<u64>().ok()
    });
    let (waited, runs) = (fields.nth(1)??, fields.next()??);
    (runs > 0).then_some(waited)
}

/// The number before the slash in the fourth field: `0.20 0.18 0.12 1/80 11206`.
fn parse_running(text: &[u8]) -> Option<u32> {
    let field = text.split(|byte| *byte == b' ').nth(3)?;
    let digits = field.split(|byte| *byte == b'/').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_cpu_and_a_namespace() {
        assert!(online_cpus() >= 1);
        assert_eq!(
            network_namespace_id().unwrap(),
            network_namespace_id().unwrap()
        );
    }

    #[test]
    fn stepping_aside_leaves_the_mask_as_it_was() {
        let mask = || rustix::thread::sched_getaffinity(None).unwrap();
        let before = mask();
        match step_aside() {
            Ok(()) => assert!(before.count() > 1),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::NotFound),
        }
        assert_eq!(mask(), before);
    }

    #[test]
    fn the_caller_is_counted() {
        let runnable = RunnableThreads::open().unwrap();
        for _ in 0..100 {
            assert!(runnable.sample().unwrap() >= 1);
        }
    }

    #[test]
    fn whoever_shares_a_cpu_waits_for_it() {
        let here = rustix::thread::sched_getcpu();
        let mut only_here = rustix::thread::CpuSet::new();
        only_here.set(here);
        let busy = || {
            rustix::thread::sched_setaffinity(None, &only_here).unwrap();
            let begun = std::time::Instant::now();
            let before = run_delay().unwrap();
            while begun.elapsed() < Duration::from_millis(100) {
                std::hint::spin_loop();
            }
            run_delay().unwrap() - before
        };
        let waited = std::thread::scope(|scope| {
            let two = [(); 2].map(|()| scope.spawn(busy));
            two.map(|thread| thread.join().unwrap())
        });
        let both = waited[0] + waited[1];
        assert!(both > Duration::from_millis(50), "{waited:?}");
    }

    #[test]
    fn schedstat_is_parsed() {
        assert_eq!(parse_run_delay(b"1234567 89012 345\n"), Some(89_012));
        assert_eq!(parse_run_delay(b"0 0 0\n"), None);
        assert_eq!(parse_run_delay(b"1234567\n"), None);
        assert_eq!(parse_run_delay(b""), None);
        assert_eq!(parse_run_delay(b"a b c"), None);
    }

    #[test]
    fn loadavg_is_parsed() {
        assert_eq!(parse_running(b"0.20 0.18 0.12 1/80 11206\n"), Some(1));
        assert_eq!(parse_running(b"9.99 0.18 0.12 128/4000 1\n"), Some(128));
        assert_eq!(parse_running(b"0.20 0.18 0.12\n"), None);
        assert_eq!(parse_running(b""), None);
        assert_eq!(parse_running(b"a b c d/e"), None);
    }
}
