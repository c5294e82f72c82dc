//! What the kernel, and whatever filters its system calls, allow.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ringway_ring::{MemoryStep, RegionError, probe_memory};
use ringway_sys::uring::Tier;
use ringway_sys::{Blocking, EventFd, receive_with_descriptors, send_with_descriptors};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::thread::futex;

use super::finding::{Finding, State};

const AREA: &str = "kernel";
/// Longer than anything here takes that happens at all.
const PATIENCE: Duration = Duration::from_secs(1);
const PATIENCE_TIMESPEC: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// Everything that is asked of the kernel.
pub(super) fn findings() -> Vec<Finding> {
    let mut findings = vec![release()];
    findings.extend(memory());
    findings.push(memfd_noexec());
    findings.push(checked("eventfd", eventfd(), "rung and drained", REFUSED));
    findings.push(checked("futex", futex(), "woke a thread", REFUSED));
    findings.push(checked(
        "descriptor passing",
        pass_descriptor(),
        "by SCM_RIGHTS over a Unix socket",
        REFUSED,
    ));
    findings.push(proc_mounted());
    findings.push(io_uring());
    findings
}

const REFUSED: &str = "allow it in the seccomp profile: without it there is no shared memory";

fn checked(what: &str, came_to: io::Result<()>, well: &str, advice: &str) -> Finding {
    match came_to {
        Ok(()) => Finding::new(AREA, what, State::Ok, well),
        Err(error) => Finding::new(AREA, what, State::No, error.to_string()).advise(advice),
    }
}

fn release() -> Finding {
    let system = rustix::system::uname();
    let release = system.release().to_string_lossy();
    let filter = match seccomp_filters() {
        true => "system calls are filtered (seccomp)",
        false => "no seccomp filter",
    };
    Finding::new(AREA, "Linux", State::Note, format!("{release}, {filter}"))
}

/// Whether a seccomp filter stands between this process and the kernel.
fn seccomp_filters() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mode = status
        .lines()
        .find_map(|line| line.strip_prefix("Seccomp:"));
    mode.is_some_and(|mode| mode.trim() == "2")
}

fn memory() -> impl Iterator<Item = Finding> {
    probe_memory().into_iter().map(|(step, came_to)| {
        let what = step.to_string();
        match came_to {
            Ok(()) => Finding::new(AREA, what, State::Ok, done(step)),
            Err(error) if !step.is_required() => {
                Finding::new(AREA, what, State::Note, format!("{error}: done without"))
            }
            Err(error) => {
                let advice = memory_advice(&error);
                Finding::new(AREA, what, State::No, error.to_string()).advise(advice)
            }
        }
    })
}

fn done(step: MemoryStep) -> &'static str {
    match step {
        MemoryStep::Create => "a memory file was made",
        MemoryStep::NoexecSeal => "it can't be executed",
        MemoryStep::Seal => "allocated, mapped and sealed",
        MemoryStep::SealsHold => "not resized, punched, written or mapped again",
        MemoryStep::MapAsPeer => "checked and mapped as a peer does",
    }
}

fn memory_advice(error: &RegionError) -> String {
    match error {
        RegionError::Create(Errno::PERM | Errno::ACCESS) if memfd_noexec_level() == Some(2) => {
            "vm.memfd_noexec=2 refuses what this kernel does not seal against execution".to_owned()
        }
        RegionError::Create(Errno::PERM | Errno::ACCESS | Errno::NOSYS) => {
            "allow memfd_create in the seccomp profile (Docker's default does)".to_owned()
        }
        RegionError::Allocate { .. } => "raise the container's memory limit".to_owned(),
        RegionError::Seal(_) => "Linux 5.1 or later is needed; gVisor has no such seals".to_owned(),
        _ => "without it there is no shared memory".to_owned(),
    }
}

fn memfd_noexec_level() -> Option<u8> {
    sysctl("vm/memfd_noexec")
}

fn memfd_noexec() -> Finding {
    let what = "vm.memfd_noexec";
    match memfd_noexec_level() {
        None => Finding::new(
            AREA,
            what,
            State::Note,
            "not known to this kernel (before 6.3)",
        ),
        Some(level) => {
            let means = match level {
                0 => "memory files may be executable; Ringway's are not",
                1 => "memory files are not executable unless asked for",
                _ => "executable memory files are refused; Ringway makes none",
            };
            Finding::new(AREA, what, State::Note, format!("{level}: {means}"))
        }
    }
}

fn sysctl(name: &str) -> Option<u8> {
    let text = fs::read_to_string(format!("/proc/sys/{name}")).ok()?;
    text.trim().parse().ok()
}

fn eventfd() -> io::Result<()> {
    let bell = EventFd::new()?;
    let ringing = bell.as_fd().try_clone_to_owned()?;
    let ringer = thread::spawn(move || EventFd::from_peer(ringing)?.ring().map_err(Into::into));
    let mut watched = [PollFd::new(&bell, PollFlags::IN)];
    let rung = rustix::event::poll(&mut watched, Some(&PATIENCE_TIMESPEC))?;
    joined(ringer)?.map_err(|error: ringway_sys::Error| io::Error::from(error))?;
    match rung > 0 && bell.drain()? {
        true => Ok(()),
        false => Err(io::ErrorKind::TimedOut.into()),
    }
}

fn futex() -> io::Result<()> {
    static WORD: AtomicU32 = AtomicU32::new(0);
    WORD.store(0, Ordering::SeqCst);
    let sleeper = thread::spawn(|| {
        loop {
            match futex::wait(&WORD, futex::Flags::empty(), 0, Some(&PATIENCE_TIMESPEC)) {
                // Woken, or rung for before it slept.
                Ok(()) | Err(Errno::INTR) if WORD.load(Ordering::SeqCst) == 0 => {}
                Ok(()) | Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
    });
    WORD.store(1, Ordering::SeqCst);
    let began = Instant::now();
    while !sleeper.is_finished() && began.elapsed() < PATIENCE {
        futex::wake(&WORD, futex::Flags::empty(), 1)?;
        thread::yield_now();
    }
    Ok(joined(sleeper)??)
}

fn joined<T>(thread: thread::JoinHandle<T>) -> io::Result<T> {
    thread
        .join()
        .map_err(|_| io::Error::other("its thread panicked"))
}

fn pass_descriptor() -> io::Result<()> {
    let (one, other) = UnixStream::pair()?;
    let bell = EventFd::new()?;
    send_with_descriptors(one.as_fd(), b"d", &[bell.as_fd()], Blocking::Never)?;
    let mut note = [0];
    let received = receive_with_descriptors(other.as_fd(), &mut note, 1, Blocking::Never)?;
    let descriptor = received.descriptors.into_iter().next();
    let descriptor = descriptor.ok_or_else(|| io::Error::other("no descriptor arrived"))?;
    EventFd::from_peer(descriptor)?.ring()?;
    match bell.drain()? {
        true => Ok(()),
        false => Err(io::Error::other("another descriptor arrived")),
    }
}

fn proc_mounted() -> Finding {
    let advice = "mount /proc: descriptors are checked there, and long socket paths reached";
    let read = fs::read_link("/proc/self/fd/0").or_else(|_| fs::read_link("/proc/self/exe"));
    checked("/proc", read.map(drop), "mounted", advice)
}

fn io_uring() -> Finding {
    let what = "io_uring";
    let Err(multishot) = Tier::Multishot.try_out() else {
        return Finding::new(AREA, what, State::Ok, "multishot receives");
    };
    match Tier::Single.try_out() {
        Ok(()) => {
            let found = format!("single receives only (multishot: {multishot}; Linux 6.0 has it)");
            Finding::new(AREA, what, State::Limited, found)
        }
        Err(refusal) => {
            let found = format!("refused: {refusal}");
            Finding::new(AREA, what, State::Limited, found).advise(format!(
                "{}; sockets are driven by epoll meanwhile, shared memory does not need it",
                uring_advice(
                    &refusal,
                    sysctl("kernel/io_uring_disabled"),
                    seccomp_filters()
                )
            ))
        }
    }
}

/// Who refuses it, by what the kernel answers.
fn uring_advice(refusal: &io::Error, disabled: Option<u8>, filtered: bool) -> &'static str {
    let errno = Errno::from_io_error(refusal);
    match (errno, disabled, filtered) {
        (Some(Errno::NOSYS), _, true) => {
            "a seccomp profile hides it: allow io_uring_setup, \
            io_uring_enter and io_uring_register"
        }
        (Some(Errno::NOSYS), _, false) => "this kernel has none: Linux 5.7 or later is needed",
        (Some(Errno::PERM | Errno::ACCESS), Some(2), _) => {
            "kernel.io_uring_disabled=2 refuses it to everybody: set it to 0"
        }
        (Some(Errno::PERM | Errno::ACCESS), Some(1), _) => {
            "kernel.io_uring_disabled=1 refuses it \
            to whoever is not in kernel.io_uring_group: set it to 0, or join the group"
        }
        (Some(Errno::PERM | Errno::ACCESS), _, true) => {
            "a seccomp profile refuses it (Docker's \
            default does since 25.0): allow io_uring_setup, io_uring_enter and io_uring_register"
        }
        (Some(Errno::PERM | Errno::ACCESS), _, false) => {
            "a security module refuses it: see the audit log"
        }
        (Some(Errno::NOMEM), _, _) => "raise RLIMIT_MEMLOCK, which old kernels charge for it",
        _ => "see io_uring_setup(2)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_refuses_io_uring_is_told_apart() {
        let advice = |errno: Errno, disabled, filtered| {
            uring_advice(&io::Error::from(errno), disabled, filtered)
        };
        assert!(advice(Errno::PERM, Some(0), true).contains("Docker"));
        assert!(advice(Errno::PERM, None, true).contains("seccomp"));
        assert!(advice(Errno::PERM, Some(2), true).contains("io_uring_disabled=2"));
        assert!(advice(Errno::PERM, Some(1), false).contains("io_uring_group"));
        assert!(advice(Errno::PERM, Some(0), false).contains("security module"));
        assert!(advice(Errno::NOSYS, None, false).contains("5.7"));
        assert!(advice(Errno::NOSYS, None, true).contains("seccomp"));
        assert!(advice(Errno::NOMEM, None, false).contains("MEMLOCK"));
    }

    #[test]
    fn this_machine_has_what_shared_memory_needs() {
        for finding in findings() {
            assert_ne!(finding.state, State::No, "{finding:?}");
        }
    }
}
