//! How much memory a process has, for tests that bound it.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// Bytes of this process's memory that are in use, shared ones included (`VmRSS`, proc(5)).
pub fn resident_bytes() -> usize {
    status_bytes("VmRSS:")
}

/// The most that this process ever had in memory.
pub fn peak_resident_bytes() -> usize {
    status_bytes("VmHWM:")
}

fn status_bytes(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.unwrap().trim().strip_suffix(" kB").unwrap();
    kib.parse::<usize>().unwrap() * 1024
}

const ALONE: &str = "RINGWAY_TEST_ALONE";

/// Whether this process was started for the test `name` alone. If not, one is, and has to succeed:
/// memory that other tests have freed would hide what this one takes.
pub fn in_a_process_of_its_own(name: &str) -> bool {
    in_a_process_of_its_own_with(name, &[])
}

/// The same with these environment variables.
pub fn in_a_process_of_its_own_with(name: &str, environment: &[(&str, &str)]) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    let command = command.args(["--exact", name, "--nocapture"]);
    let command = command.envs(environment.iter().copied()).env(ALONE, "yes");
    let status = command.status().unwrap();
    assert!(status.success(), "{name}: {status}");
    false
}

/// Returns true if this process was started for the test `name` alone, by a user without privileges: `uid` if root runs
/// the tests, and the user that runs them otherwise.
pub fn in_a_process_of_another_user(name: &str, uid: u32) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    // One at a time: the kernel counts for a user, not for a process.
    static OF_USER: Mutex<()> = Mutex::new(());
    let _of_user = OF_USER.lock().unwrap_or_else(PoisonError::into_inner);
    // By a way that is open to users that can't enter its directory.
    let mut command = Command::new("/proc/self/exe");
    command
        .args(["--exact", name, "--nocapture"])
        .env(ALONE, "yes");
    if rustix::process::geteuid().is_root() {
        command.uid(uid);
    }
    let status = command.status().unwrap();
    assert!(status.success(), "{name}: {status}");
    false
}
