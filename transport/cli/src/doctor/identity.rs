//! Who this process is: users, namespaces, and the labels by which a security module keeps containers
//! apart.

use std::fs;

use super::finding::{Finding, State};

const AREA: &str = "user";
/// Where a uid that is not mapped into a namespace reads as another.
const INITIAL_MAP: [&str; 3] = ["0", "0", "4294967295"];

pub(super) fn findings() -> Vec<Finding> {
    vec![
        uids(),
        user_namespace(&read("/proc/self/uid_map")),
        network_namespace(),
        label(&read("/proc/self/attr/current")),
    ]
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn uids() -> Finding {
    use rustix::process::{getegid, geteuid, getuid};
    let (real, effective, group) = (getuid(), geteuid(), getegid());
    let found = match real == effective {
        true => format!("uid {effective}, gid {group}"),
        false => format!("uid {effective} (really {real}), gid {group}"),
    };
    Finding::new(
        AREA,
        "user",
        State::Note,
        format!("{found}: peers are to be the same, or root"),
    )
}

fn user_namespace(map: &str) -> Finding {
    let what = "user namespace";
    let rows: Vec<Vec<&str>> = map
        .lines()
        .map(|row| row.split_whitespace().collect())
        .collect();
    match rows.as_slice() {
        [] => Finding::new(
            AREA,
            what,
            State::Note,
            "not known: /proc/self/uid_map is not there",
        ),
        [row] if row == &INITIAL_MAP => Finding::new(AREA, what, State::Ok, "the host's"),
        rows => {
            let ranges: Vec<_> = rows.iter().map(|row| row.join(" ")).collect();
            let found = format!(
                "one of its own (inside, outside, count: {})",
                ranges.join("; ")
            );
            let advice = "users outside of the map all read as uid 65534: put containers that are to \
                          share memory into one user namespace";
            Finding::new(AREA, what, State::Note, found).advise(advice)
        }
    }
}

fn network_namespace() -> Finding {
    let found = match ringway_sys::schedule::network_namespace_id() {
        Ok(id) => format!("{id}: loopback names are found by processes of this one alone"),
        Err(error) => format!("not known: {error}"),
    };
    Finding::new(AREA, "network namespace", State::Note, found)
}

/// SELinux's `user:role:type:level`, or AppArmor's `profile (mode)`.
fn label(current: &str) -> Finding {
    let what = "security label";
    let current = current.trim_end_matches(['\0', '\n']);
    if current.is_empty() {
        return Finding::new(AREA, what, State::Ok, "none");
    }
    if current == "unconfined" {
        return Finding::new(AREA, what, State::Ok, "AppArmor: unconfined");
    }
    let mut parts = current.splitn(4, ':');
    match (parts.nth(2), parts.next()) {
        (Some(kind), Some(level)) => selinux(current, kind, level),
        _ => Finding::new(AREA, what, State::Note, format!("AppArmor: {current}"))
            .advise("both ends need leave for the socket directory's files in their profiles"),
    }
}

fn selinux(label: &str, kind: &str, level: &str) -> Finding {
    let found = format!("SELinux: {label}");
    let finding = Finding::new(AREA, "security label", State::Note, found);
    match level.contains(":c") && kind.contains("container") {
        true => finding.advise(format!(
            "containers of other categories than {level} can't open this one's sockets or memory: \
             give them one level (--security-opt label=level:{level}) and relabel the volume with :z"
        )),
        false => finding,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_users_are_told_from_a_map_of_their_own() {
        let host = user_namespace("         0          0 4294967295\n");
        assert_eq!(host.state, State::Ok, "{host:?}");
        let own =
            user_namespace("         0       1000          1\n         1     100000      65536\n");
        assert!(own.found.contains("0 1000 1; 1 100000 65536"), "{own:?}");
        assert!(own.advice.unwrap().contains("65534"));
    }

    #[test]
    fn categories_keep_containers_apart() {
        let apart = label("system_u:system_r:container_t:s0:c12,c345\0");
        let advice = apart.advice.unwrap();
        assert!(advice.contains("label=level:s0:c12,c345"), "{advice}");
        assert!(
            label("unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023")
                .advice
                .is_none()
        );
        assert_eq!(label("").state, State::Ok);
        assert!(
            label("docker-default (enforce)\n")
                .found
                .contains("AppArmor: docker-default")
        );
    }
}
