//! Facts about the machine for a waiting policy: how many cores, how many of them are ours, and how
//! many threads want them right now. Facts only; what to make of them is decided elsewhere.

use std::fs::File;
use std::io::{self, Read};
#[cfg(target_os = "linux")]
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

pub use crate::cgroup::cpu_quota;

/// The CPUs that this thread may run on (its affinity mask), at least one.
#[must_use]
pub fn online_cpus() -> usize {
    #[cfg(target_os = "linux")]
    if let Ok(set) = rustix::thread::sched_getaffinity(None) {
        return usize::try_from(set.count()).unwrap_or(1).max(1);
    }
    // More CPUs than the mask holds: not a machine to be stingy on.
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Identifies this process's network namespace: loopback addresses mean something only within one.
///
/// # Errors
/// `/proc` is not mounted.
pub fn network_namespace_id() -> io::Result<u64> {
    Ok(std::fs::metadata("/proc/self/ns/net")?.ino())
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
    run_delay_at("/proc/thread-self/schedstat")
}

/// The same of another thread of this process, by its id (gettid(2)).
///
/// # Errors
/// As [`run_delay`]; or there is no such thread any more.
pub fn run_delay_of(thread_id: i32) -> io::Result<Duration> {
    run_delay_at(&format!("/proc/self/task/{thread_id}/schedstat"))
}

/// How long the CPUs that this thread may run on have idled since the machine began, in sum. Costs an open(2), a
/// read(2) and a close(2), of a file that grows with the CPUs of the machine.
///
/// ```
/// use ringway_sys::schedule::idle_time;
/// let before = idle_time()?;
/// assert!(idle_time()? >= before);
/// # std::io::Result::Ok(())
/// ```
///
/// # Errors
/// `/proc` is not mounted or no descriptor is free.
#[cfg(target_os = "linux")]
pub fn idle_time() -> io::Result<Duration> {
    let ours = rustix::thread::sched_getaffinity(None)?;
    let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
    let mut ticks = 0;
    for line in BufReader::new(File::open("/proc/stat")?).lines() {
        let line = line?;
        // The lines of CPUs come first: `cpu`, the sum, and `cpu0` with its fellows.
        let Some(cpu) = line.strip_prefix("cpu") else {
            break;
        };
        if let Some((number, idle)) = parse_idle(cpu)
            && number < rustix::thread::CpuSet::MAX_CPU
            && ours.is_set(number)
        {
            ticks += idle;
        }
    }
    Ok(Duration::from_millis(ticks * 1000 / ticks_per_second))
}

/// The same on other systems: not known.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub fn idle_time() -> io::Result<Duration> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Number and idle ticks of a CPU, with and without I/O to wait for: `0 6304 18 2590 158402 87 0 12 0 0 0`.
#[cfg(target_os = "linux")]
fn parse_idle(cpu: &str) -> Option<(usize, u64)> {
    let mut fields = cpu.split(' ');
    let number = fields.next()?.parse().ok()?;
    let mut fields = fields.skip(3).map(str::parse::<u64>);
    Some((number, fields.next()?.ok()? + fields.next()?.ok()?))
}

/// The id of this thread; 0 on other systems than Linux, where [`run_delay_of`] has no use for it.
#[cfg(not(target_os = "linux"))]
pub fn thread_id() -> i32 {
    0
}

/// The id of this thread.
#[cfg(target_os = "linux")]
pub fn thread_id() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

fn run_delay_at(path: &str) -> io::Result<Duration> {
    let mut text = [0; 128];
    let len = File::open(path)?.read(&mut text)?;
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
    fn idle_ticks_are_those_of_a_cpu() {
        let idle = parse_idle("0 6304 18 2590 158402 87 0 12 0 0 0");
        assert_eq!(idle, Some((0, 158_489)));
        assert_eq!(parse_idle("  6304 18 2590 158402 87 0 12"), None);
        assert!(idle_time().unwrap() > Duration::ZERO);
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
}
