//! CPU time of processes, as the kernel counts it.

use std::fs;

/// User and system time of these processes so far, ns. Threads that have ended are
/// left out; services keep theirs.
pub(crate) fn cpu_ns(pids: &[u32]) -> u64 {
    pids.iter()
        .map(|&pid| scheduled_ns(pid).unwrap_or_else(|| ticked_ns(pid)))
        .sum()
}

/// By the scheduler, exact, of each thread; absent from kernels without its statistics.
fn scheduled_ns(pid: u32) -> Option<u64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let thread = |path: std::path::PathBuf| {
        let text = fs::read_to_string(path.join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    let times: Option<Vec<u64>> = threads
        .flatten()
        .map(|entry| thread(entry.path()))
        .collect();
    Some(times?.iter().sum()).filter(|&ns| ns > 0)
}

/// By `stat`, whose ticks are hundredths of a second for every user of Linux.
fn ticked_ns(pid: u32) -> u64 {
    const TICK_NS: u64 = 10_000_000;
    let ticks = || {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold spaces; utime and stime are 14 and 15 of
        // proc_pid_stat(5), so 11 and 12 behind it.
        let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
        let mut next = || fields.next()?.parse::<u64>().ok();
        Some(next()? + next()?)
    };
    ticks().unwrap_or(0) * TICK_NS
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn work_is_counted() {
        let pids = [std::process::id()];
        let before = cpu_ns(&pids);
        let start = Instant::now();
        while start.elapsed().as_millis() < 60 {
            std::hint::spin_loop();
        }
        assert!(cpu_ns(&pids) > before);
        assert!(ticked_ns(pids[0]) > 0);
    }

    #[test]
    fn nobody_uses_nothing() {
        assert_eq!(cpu_ns(&[u32::MAX]), 0);
    }
}
