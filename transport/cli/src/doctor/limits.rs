//! CPUs, memory and descriptors, as far as they decide how a path does.

use ringway_local::WaitPolicy;
use ringway_sys::cgroup::{cpu_quota, memory_limit};
use ringway_sys::schedule::online_cpus;
use rustix::process::{Resource, Rlimit, getrlimit};

use super::finding::{Finding, State};

const AREA: &str = "limits";
const WAIT_VARIABLE: &str = "RINGWAY_WAIT";
/// Descriptors of a connection over shared memory at one end: its socket, two doorbells, and one
/// while it is being made.
const DESCRIPTORS_A_CONNECTION: u64 = 4;
/// A process that serves less should not be surprised.
const FEW_DESCRIPTORS: u64 = 256;
/// What a small service takes beside its rings.
const LITTLE_MEMORY_BYTES: u64 = 32 << 20;
const MIB: u64 = 1 << 20;

pub(super) fn findings() -> Vec<Finding> {
    vec![
        cpus(online_cpus()),
        quota(cpu_quota()),
        waiting(std::env::var(WAIT_VARIABLE).ok().as_deref()),
        memory(memory_limit()),
        descriptors(getrlimit(Resource::Nofile)),
        locked(getrlimit(Resource::Memlock)),
    ]
}

fn cpus(cpus: usize) -> Finding {
    let what = "CPUs";
    match cpus {
        1 => Finding::new(AREA, what, State::Limited, "1: each wait sleeps")
            .advise("give it two: on one CPU nobody can look for an answer before sleeping"),
        cpus => Finding::new(AREA, what, State::Ok, cpus.to_string()),
    }
}

fn quota(quota: Option<f64>) -> Finding {
    let what = "CPU quota";
    match quota {
        None => Finding::new(AREA, what, State::Ok, "none"),
        Some(cpus) if cpus < 1.0 => {
            let found =
                format!("{cpus:.2} CPUs: each wait sleeps, so as not to spin into the limit");
            let advice =
                "give it one CPU or more (cpu.max, --cpus) for answers within microseconds";
            Finding::new(AREA, what, State::Limited, found).advise(advice)
        }
        Some(cpus) => Finding::new(AREA, what, State::Ok, format!("{cpus:.2} CPUs")),
    }
}

/// The wait policy of programs that are started as this one was.
fn waiting(value: Option<&str>) -> Finding {
    let what = WAIT_VARIABLE;
    let Some(value) = value else {
        return Finding::new(AREA, what, State::Ok, "not set: adaptive");
    };
    match value.parse::<WaitPolicy>() {
        Ok(policy) => Finding::new(AREA, what, State::Ok, policy.to_string()),
        Err(error) => Finding::new(AREA, what, State::Limited, format!("ignored: {error}"))
            .advise("set it to adaptive, park or a time as spin:20us, or unset it"),
    }
}

fn memory(limit: Option<u64>) -> Finding {
    let what = "memory limit";
    match limit {
        None => Finding::new(AREA, what, State::Ok, "none"),
        Some(bytes) if bytes < LITTLE_MEMORY_BYTES => {
            let found = format!("{} MiB", bytes / MIB);
            let advice = "rings and large messages are charged to who sends them: allow 32 MiB";
            Finding::new(AREA, what, State::Limited, found).advise(advice)
        }
        Some(bytes) => Finding::new(AREA, what, State::Ok, format!("{} MiB", bytes / MIB)),
    }
}

fn descriptors(limit: Rlimit) -> Finding {
    let what = "RLIMIT_NOFILE";
    let Some(soft) = limit.current else {
        return Finding::new(AREA, what, State::Ok, "none");
    };
    let found = format!(
        "{soft}: some {} connections over shared memory",
        soft / DESCRIPTORS_A_CONNECTION
    );
    match soft < FEW_DESCRIPTORS {
        true => Finding::new(AREA, what, State::Limited, found)
            .advise("raise it (ulimit -n): descriptors on their way to a peer count as well"),
        false => Finding::new(AREA, what, State::Ok, found),
    }
}

/// Regions are not locked; io_uring's buffers were charged to it before Linux 5.12.
fn locked(limit: Rlimit) -> Finding {
    let found = match limit.current {
        None => "none".to_owned(),
        Some(bytes) => format!(
            "{} KiB (io_uring alone asks, on kernels before 5.12)",
            bytes / 1024
        ),
    };
    Finding::new(AREA, "RLIMIT_MEMLOCK", State::Note, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_policy_is_named_or_refused() {
        assert_eq!(waiting(None).state, State::Ok);
        assert_eq!(waiting(Some("spin:20us")).found, "spin:20us");
        let refused = waiting(Some("spin"));
        assert_eq!(refused.state, State::Limited);
        assert!(refused.advice.is_some());
    }

    #[test]
    fn what_slows_a_path_down_is_limited_and_no_more() {
        assert_eq!(cpus(1).state, State::Limited);
        assert_eq!(cpus(2).state, State::Ok);
        assert_eq!(quota(Some(0.5)).state, State::Limited);
        assert_eq!(quota(Some(1.0)).state, State::Ok);
        assert_eq!(quota(None).state, State::Ok);
        assert_eq!(memory(Some(16 << 20)).state, State::Limited);
        assert_eq!(memory(Some(64 << 20)).found, "64 MiB");
        let limit = |current| Rlimit {
            current,
            maximum: None,
        };
        assert_eq!(descriptors(limit(Some(64))).state, State::Limited);
        assert_eq!(descriptors(limit(Some(1024))).state, State::Ok);
        assert_eq!(descriptors(limit(None)).state, State::Ok);
    }
}
