//! A process that the kernel refuses certain system calls, as a container's seccomp profile would.
//!
//! A test file that uses it has a test called `filtered_process` that calls [`become_filtered`].

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

const PROGRAM: &str = "RINGWAY_TEST_FILTERED_PROGRAM";
const ARGUMENTS: &str = "RINGWAY_TEST_FILTERED_ARGUMENTS";
const REFUSED: &str = "RINGWAY_TEST_FILTERED_CALLS";

/// System calls that a profile may refuse, and how they are written in the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// memfd_create(2).
    Memfd,
    /// io_uring_setup(2), as Docker's default profile does since 25.0.
    IoUring,
    /// mmap(2) of memory that processes share.
    SharedMapping,
    /// eventfd2(2). A runtime does not start without it.
    EventFd,
    /// futex(2) for those that want to sleep: it lets them go on at once, and they look again, and again.
    FutexWait,
}

impl Refused {
    const ALL: [Self; 5] = [
        Self::Memfd,
        Self::IoUring,
        Self::SharedMapping,
        Self::EventFd,
        Self::FutexWait,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Memfd => "memfd_create",
            Self::IoUring => "io_uring_setup",
            Self::SharedMapping => "mmap",
            Self::EventFd => "eventfd2",
            Self::FutexWait => "futex",
        }
    }

    fn number(self) -> i64 {
        match self {
            Self::Memfd => libc::SYS_memfd_create,
            Self::IoUring => libc::SYS_io_uring_setup,
            Self::SharedMapping => libc::SYS_mmap,
            Self::EventFd => libc::SYS_eventfd2,
            Self::FutexWait => libc::SYS_futex,
        }
    }

    /// With which arguments it is refused: with any, if there is no rule.
    fn rules(self) -> Vec<SeccompRule> {
        match self {
            Self::Memfd | Self::IoUring | Self::EventFd => Vec::new(),
            Self::SharedMapping => {
                const FLAGS: u8 = 3;
                let (kinds, shared) = (3, 1);
                vec![rule(FLAGS, kinds, shared)]
            }
            Self::FutexWait => {
                const OPERATION: u8 = 1;
                let waits = [libc::FUTEX_WAIT, libc::FUTEX_WAIT_BITSET];
                // Without the flags for private words and the clock.
                let rules = waits.map(|wait| rule(OPERATION, 0x7f, wait.unsigned_abs().into()));
                rules.into()
            }
        }
    }

    /// The kernel's answer.
    fn errno(self) -> rustix::io::Errno {
        match self {
            // As if the word had changed: what has to sleep on futexes takes no other refusal.
            Self::FutexWait => rustix::io::Errno::AGAIN,
            _ => rustix::io::Errno::PERM,
        }
    }
}

/// Matches an argument of which the bits of `mask` are `value`.
fn rule(argument: u8, mask: u64, value: u64) -> SeccompRule {
    let masked = SeccompCmpOp::MaskedEq(mask);
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, masked, value);
    SeccompRule::new(vec![condition.unwrap()]).unwrap()
}

/// As [`refused_in`] reads them.
pub(crate) fn names_of(refused: &[Refused]) -> String {
    let names: Vec<_> = refused.iter().map(|refused| refused.name()).collect();
    names.join(" ")
}

/// The system calls that are named.
pub(crate) fn refused_in(names: &str) -> Vec<Refused> {
    let known = Refused::ALL.into_iter();
    known
        .filter(|known| names.split(' ').any(|name| name == known.name()))
        .collect()
}

/// Has the kernel refuse system calls to all threads of this process, and to what it starts.
pub fn refuse_from_now_on(refused: &[Refused]) {
    for refused in refused {
        seccompiler::apply_filter_all_threads(&filter(*refused)).unwrap();
    }
}

/// `program`, to which the kernel will refuse these system calls.
pub fn filtered(program: impl AsRef<Path>, arguments: &[&str], refused: &[Refused]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "filtered_process", "--nocapture"])
        .env(PROGRAM, program.as_ref())
        .env(ARGUMENTS, arguments.join(" "))
        .env(REFUSED, names_of(refused));
    command
}

/// Becomes the program that this process was started for, behind its filter; else returns at once.
pub fn become_filtered() {
    let Some(program) = std::env::var_os(PROGRAM) else {
        return;
    };
    let arguments = std::env::var(ARGUMENTS).unwrap();
    let refused = std::env::var(REFUSED).unwrap();
    for refused in refused_in(&refused) {
        seccompiler::apply_filter(&filter(refused)).unwrap();
    }
    let mut command = Command::new(program);
    let error = command.args(arguments.split_whitespace()).exec();
    panic!("the program could not be started: {error}");
}

fn filter(refused: Refused) -> BpfProgram {
    let rules = BTreeMap::from([(refused.number(), refused.rules())]);
    let answer = SeccompAction::Errno(refused.errno().raw_os_error().unsigned_abs());
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, answer, arch).unwrap();
    filter.try_into().unwrap()
}
