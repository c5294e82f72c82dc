//! What this process may have of what the kernel counts: descriptors, mappings, memory.

use std::fs;

use rustix::process::{Resource, getrlimit};

use crate::cgroup::memory_limit;

/// The kernel's default of `vm.max_map_count`, for where it can't be read.
const DEFAULT_MAPPINGS: u64 = 65_530;

/// Bounds of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Means {
    /// Descriptors that it may have open at once (the soft RLIMIT_NOFILE).
    pub descriptors: u64,
    /// Mappings that it may have at once (`vm.max_map_count`).
    pub mappings: u64,
    /// Bytes of memory that it may use: the machine's, or what its control groups leave it.
    pub memory: u64,
}

impl Means {
    /// Reads the bounds as they are now.
    ///
    /// ```
    /// let means = ringway_sys::limits::Means::of_this_process();
    /// assert!(means.descriptors > 0 && means.mappings > 0 && means.memory > 0);
    /// ```
    #[must_use]
    pub fn of_this_process() -> Self {
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let mappings = fs::read_to_string("/proc/sys/vm/max_map_count");
        let mappings = mappings.ok().and_then(|text| text.trim().parse().ok());
        Self {
            descriptors,
            mappings: mappings.unwrap_or(DEFAULT_MAPPINGS),
            memory: memory(),
        }
    }
}

fn memory() -> u64 {
    let machine = machine_memory();
    memory_limit().map_or(machine, |limit| limit.min(machine))
}

#[cfg(target_os = "linux")]
#[allow(clippy::useless_conversion, reason = "narrower on some architectures")]
fn machine_memory() -> u64 {
    let info = rustix::system::sysinfo();
    u64::from(info.totalram).saturating_mul(u64::from(info.mem_unit))
}

#[cfg(not(target_os = "linux"))]
fn machine_memory() -> u64 {
    u64::MAX
}
