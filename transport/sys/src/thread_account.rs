//! The CPU time that a thread has had, and how often it has waited.

use std::time::Duration;

/// What the kernel has counted of a thread since it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadAccount {
    /// Its CPU time, in user mode and in the kernel.
    pub cpu: Duration,
    /// How often it has given up its CPU because it had to wait, and not because another thread wanted the CPU:
    /// getrusage(2)'s `ru_nvcsw`.
    pub waits: u64,
}

/// Reads the account of this thread; `None` where the system keeps none. Costs two system calls.
///
/// ```
/// use ringway_sys::thread_account;
/// if let Some(before) = thread_account() {
///     std::thread::sleep(std::time::Duration::from_millis(1));
///     let after = thread_account().unwrap();
///     assert!(after.waits > before.waits && after.cpu >= before.cpu);
/// }
/// ```
#[cfg(target_os = "linux")]
pub fn thread_account() -> Option<ThreadAccount> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel writes one `rusage`, for which there is room.
    let result = unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) };
    if result != 0 {
        return None;
    }
    // SAFETY: all of it is integers, which were zeroed before the kernel filled them in.
    let usage = unsafe { usage.assume_init() };
    Some(ThreadAccount {
        // Of the running slice getrusage(2) knows nothing yet.
        cpu: thread_cpu_time()?,
        waits: u64::try_from(usage.ru_nvcsw).ok()?,
    })
}

/// Reads the CPU time of this thread; `None` where the system does not tell. Costs a system call.
#[cfg(target_os = "linux")]
pub fn thread_cpu_time() -> Option<Duration> {
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    cpu.try_into().ok()
}

/// Other systems are not asked.
#[cfg(not(target_os = "linux"))]
pub fn thread_cpu_time() -> Option<Duration> {
    None
}

/// Other systems keep no such account.
#[cfg(not(target_os = "linux"))]
pub fn thread_account() -> Option<ThreadAccount> {
    None
}
