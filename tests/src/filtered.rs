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
}

impl Refused {
    const ALL: [Self; 3] = [Self::Memfd, Self::IoUring, Self::SharedMapping];

    fn name(self) -> &'static str {
        match self {
            Self::Memfd => "memfd_create",
            Self::IoUring => "io_uring_setup",
            Self::SharedMapping => "mmap",
        }
    }

    fn number(self) -> i64 {
        match self {
            Self::Memfd => libc::SYS_memfd_create,
            Self::IoUring => libc::SYS_io_uring_setup,
            Self::SharedMapping => libc::SYS_mmap,
        }
    }

    /// With which arguments it is refused: with any, if there is no rule.
    fn rules(self) -> Vec<SeccompRule> {
        const FLAGS: u8 = 3;
        let (kinds, shared) = (3, 1);
        let is_shared = SeccompCmpOp::MaskedEq(kinds);
        match self {
            Self::Memfd | Self::IoUring => Vec::new(),
            Self::SharedMapping => {
                let is_shared =
                    SeccompCondition::new(FLAGS, SeccompCmpArgLen::Dword, is_shared, shared);
                vec![SeccompRule::new(vec![is_shared.unwrap()]).unwrap()]
            }
        }
    }
}

/// `program`, which the kernel will answer EPERM to the system calls that are `refused`.
pub fn filtered(program: impl AsRef<Path>, arguments: &[&str], refused: &[Refused]) -> Command {
    let names: Vec<_> = refused.iter().map(|refused| refused.name()).collect();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "filtered_process", "--nocapture"])
        .env(PROGRAM, program.as_ref())
        .env(ARGUMENTS, arguments.join(" "))
        .env(REFUSED, names.join(" "));
    command
}

/// Becomes the program that this process was started for, behind its filter; else returns at once.
pub fn become_filtered() {
    let Some(program) = std::env::var_os(PROGRAM) else {
        return;
    };
    let arguments = std::env::var(ARGUMENTS).unwrap();
    let refused = std::env::var(REFUSED).unwrap();
    let known = Refused::ALL.into_iter();
    let refused = known.filter(|known| refused.split(' ').any(|name| name == known.name()));
    seccompiler::apply_filter(&filter(refused)).unwrap();
    let mut command = Command::new(program);
    let error = command.args(arguments.split_whitespace()).exec();
    panic!("the program could not be started: {error}");
}

fn filter(refused: impl Iterator<Item = Refused>) -> BpfProgram {
    let rules: BTreeMap<_, _> = refused
        .map(|refused| (refused.number(), refused.rules()))
        .collect();
    let eperm = SeccompAction::Errno(rustix::io::Errno::PERM.raw_os_error().unsigned_abs());
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, eperm, arch).unwrap();
    filter.try_into().unwrap()
}
