//! A control group with a limit of memory, as a container has one.

use std::fs;
use std::path::{Path, PathBuf};

/// Where version 1 of the control groups has its controller, and the files of both versions.
const V1: &str = "/sys/fs/cgroup/memory";
const V2: &str = "/sys/fs/cgroup";

/// A control group of its own; removed when this is dropped, once its processes are gone.
#[derive(Debug)]
pub struct MemoryGroup {
    path: PathBuf,
    limit: &'static str,
}

impl MemoryGroup {
    /// A group whose processes may take `limit_bytes` from when they are added; says so where there can be none.
    pub fn create(limit_bytes: u64) -> Option<Self> {
        let made = Self::make(limit_bytes);
        if made.is_none() {
            println!("skipped: this user can make no control group with a limit of memory");
        }
        made
    }

    fn make(limit_bytes: u64) -> Option<Self> {
        let version_2 = Path::new(V2).join("cgroup.controllers");
        let (root, limit) = if version_2.exists() {
            // It may be there already.
            let _ = fs::write(Path::new(V2).join("cgroup.subtree_control"), "+memory");
            (V2, "memory.max")
        } else {
            (V1, "memory.limit_in_bytes")
        };
        let path = Path::new(root).join(format!("ringway-test-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        let group = Self { path, limit };
        // Else what is too much goes to the disk.
        let _ = fs::write(group.path.join("memory.swap.max"), "0");
        let _ = fs::write(group.path.join("memory.swappiness"), "0");
        fs::write(group.path.join(group.limit), limit_bytes.to_string()).ok()?;
        Some(group)
    }

    /// Adds a process. What it has already is charged to the group from which it comes.
    pub fn add(&self, pid: u32) {
        fs::write(self.path.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Its processes were waited for.
        let _ = fs::remove_dir(&self.path);
    }
}
