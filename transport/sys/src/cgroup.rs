//! What the control groups leave this process: CPU time and memory, by version 2 or version 1, the
//! tightest limit of its own group and all groups above it that can be seen.

use std::path::{Path, PathBuf};

/// The CPUs' worth of time that this process may use (`cpu.max`, or the CFS quota), or `None` where
/// nothing limits it.
///
/// Reads several files: ask once, or every few seconds, not at each wait.
#[must_use]
pub fn cpu_quota() -> Option<f64> {
    let limits = of_this_process("cpu", cpu_limit)?;
    limits.into_iter().min_by(f64::total_cmp)
}

/// The bytes that this process and those in its groups may use together (`memory.max`, or
/// `memory.limit_in_bytes`), or `None` where nothing limits them.
#[must_use]
pub fn memory_limit() -> Option<u64> {
    of_this_process("memory", memory_limit_of)?
        .into_iter()
        .min()
}

/// No machine has as much.
const NO_LIMIT_BYTES: u64 = 1 << 60;

type ReadFile<'a> = &'a dyn Fn(&Path) -> Option<String>;

/// Reads one group's limit.
type Limit<T> = fn(Version, &Path, ReadFile<'_>) -> Option<T>;

/// Which version of control groups a group belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

fn of_this_process<T>(controller: &str, limit: Limit<T>) -> Option<Vec<T>> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    Some(limits(controller, limit, &groups, &mounts, &read))
}

/// A line of `/proc/self/cgroup`: `ID:controllers:path`, the controllers empty for version 2.
struct Membership<'a> {
    controllers: &'a str,
    path: &'a str,
}

/// What matters of a line of `/proc/self/mountinfo`, see proc_pid_mountinfo(5).
struct Mount<'a> {
    root: &'a str,
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

/// The limits of all groups that hold this process.
fn limits<T>(
    controller: &str,
    limit: Limit<T>,
    groups: &str,
    mounts: &str,
    read: ReadFile<'_>,
) -> Vec<T> {
    let mut limits = Vec::new();
    for group in groups.lines().filter_map(parse_membership) {
        let Some((version, mount)) = mount_of(&group, controller, mounts) else {
            continue;
        };
        let directories = directories(group.path, &mount);
        limits.extend(
            directories
                .iter()
                .filter_map(|directory| limit(version, directory, read)),
        );
    }
    limits
}

fn mount_of<'a>(
    group: &Membership<'_>,
    controller: &str,
    mounts: &'a str,
) -> Option<(Version, Mount<'a>)> {
    let has = |list: &str| list.split(',').any(|name| name == controller);
    let version = match group.controllers {
        "" => Version::Two,
        controllers if has(controllers) => Version::One,
        _ => return None,
    };
    let mut mounts = mounts.lines().filter_map(parse_mount);
    let mount = mounts.find(|mount| match version {
        Version::Two => mount.kind == "cgroup2",
        Version::One => mount.kind == "cgroup" && has(mount.options),
    })?;
    Some((version, mount))
}

/// The group's directory and those above it, up to the mount. A group outside of what is mounted
/// (a container without a cgroup namespace) is taken for the mount's root, which is that group.
fn directories(group: &str, mount: &Mount<'_>) -> Vec<PathBuf> {
    let inside = Path::new(group)
        .strip_prefix(mount.root)
        .unwrap_or(Path::new(""));
    inside
        .ancestors()
        .map(|ancestor| Path::new(mount.point).join(ancestor))
        .collect()
}

fn cpu_limit(version: Version, directory: &Path, read: ReadFile<'_>) -> Option<f64> {
    match version {
        Version::Two => {
            let text = read(&directory.join("cpu.max"))?;
            let mut fields = text.split_whitespace();
            // "max" does not parse: no limit.
            ratio(fields.next()?.parse().ok()?, fields.next()?.parse().ok()?)
        }
        Version::One => {
            let number = |name: &str| read(&directory.join(name))?.trim().parse().ok();
            // A quota of -1: no limit.
            ratio(number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?)
        }
    }
}

/// "max" does not parse: no limit. Version 1 says the same by a number near the largest there is.
fn memory_limit_of(version: Version, directory: &Path, read: ReadFile<'_>) -> Option<u64> {
    let file = match version {
        Version::Two => "memory.max",
        Version::One => "memory.limit_in_bytes",
    };
    let bytes = read(&directory.join(file))?.trim().parse().ok()?;
    (bytes < NO_LIMIT_BYTES).then_some(bytes)
}

fn ratio(quota_us: f64, period_us: f64) -> Option<f64> {
    (quota_us > 0.0 && period_us > 0.0).then(|| quota_us / period_us)
}

fn parse_membership(line: &str) -> Option<Membership<'_>> {
    let mut fields = line.splitn(3, ':').skip(1);
    Some(Membership {
        controllers: fields.next()?,
        path: fields.next()?,
    })
}

fn parse_mount(line: &str) -> Option<Mount<'_>> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(3);
    let mut right = right.split(' ');
    Some(Mount {
        root: left.next()?,
        point: left.next()?,
        kind: right.next()?,
        options: right.nth(1)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    const V2: &str = "25 1 0:23 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n";

    fn with(groups: &str, mounts: &str, files: &[(&str, &str)]) -> Option<f64> {
        let files: HashMap<PathBuf, String> = files
            .iter()
            .map(|(path, text)| (PathBuf::from(path), (*text).to_owned()))
            .collect();
        limits("cpu", cpu_limit, groups, mounts, &|path| {
            files.get(path).cloned()
        })
        .into_iter()
        .min_by(f64::total_cmp)
    }

    #[test]
    fn the_tightest_group_counts() {
        let files = [
            ("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
            ("/sys/fs/cgroup/a/cpu.max", "50000 100000\n"),
            ("/sys/fs/cgroup/cpu.max", "200000 100000\n"),
        ];
        assert_eq!(with("0::/a/b\n", V2, &files), Some(0.5));
        assert_eq!(with("0::/\n", V2, &files), Some(2.0));
        assert_eq!(with("0::/a/b\n", V2, &files[..1]), None);
    }

    #[test]
    fn version_1_is_read_where_the_cpu_controller_is() {
        let files = [
            ("/sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "150000\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us", "100000\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ];
        let groups = "5:memory:/x\n4:cpu,cpuacct:/x\n0::/x\n";
        assert_eq!(with(groups, V1, &files), Some(1.5));
        assert_eq!(with("4:cpuset:/x\n", V1, &files), None);
    }

    #[test]
    fn a_container_sees_its_own_group_as_the_mount() {
        let mounts = "31 25 0:27 /docker/id /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        let files = [("/sys/fs/cgroup/cpu.max", "25000 100000\n")];
        assert_eq!(with("0::/docker/id\n", mounts, &files), Some(0.25));
        assert_eq!(with("0::/elsewhere\n", mounts, &files), Some(0.25));
    }

    #[test]
    fn nonsense_is_no_limit() {
        assert_eq!(with("", "", &[]), None);
        assert_eq!(with("garbage", V2, &[]), None);
        let files = [("/sys/fs/cgroup/cpu.max", "100000 0\n")];
        assert_eq!(with("0::/\n", V2, &files), None);
    }

    #[test]
    fn memory_is_limited_by_the_tightest_group() {
        let files = HashMap::from([
            ("/sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("/sys/fs/cgroup/a/memory.max", "67108864\n"),
            (
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
        ]);
        let read = |path: &Path| files.get(path.to_str()?).map(|text| (*text).to_owned());
        let of = |groups, mounts| limits("memory", memory_limit_of, groups, mounts, &read);
        assert_eq!(of("0::/a/b\n", V2), [67_108_864]);
        let version_1 = "31 25 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        assert_eq!(of("4:memory:/\n", version_1), []);
    }

    #[test]
    fn this_machine_answers() {
        assert!(cpu_quota().is_none_or(|cpus| cpus > 0.0));
        assert!(memory_limit().is_none_or(|bytes| bytes > 0));
    }
}
