//! The stack as it comes: containers that share a volume, and so memory.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::engine::{built_image, docker, inspect, jaeger_image};
use crate::load::{Load, Seen, eventually, page, place};
use crate::stack::{SERVICES, Stack};

/// Hops of one order.
const HOPS: u64 = 7;
/// Orders a second while something happens to a container.
const RATE: u32 = 40;

/// One stack for all of these tests.
static STACK: Mutex<Option<Stack>> = Mutex::new(None);

fn with_stack(test: impl FnOnce(&Stack)) {
    let mut kept = STACK.lock().unwrap_or_else(|poisoned| {
        // What a test that failed left behind says nothing about the next one.
        let mut kept = poisoned.into_inner();
        *kept = None;
        STACK.clear_poison();
        kept
    });
    test(kept.get_or_insert_with(|| Stack::up("colocated", &[])));
}

/// Takes the stack down.
pub(crate) fn end() {
    drop(STACK.lock().map(|mut stack| stack.take()));
}

fn is_back(seen: &Seen) -> bool {
    seen.is_all("shm")
}

pub(crate) fn image() {
    let image = built_image();
    assert_eq!(inspect(image, "{{.Config.User}}"), "65532:65532");
    assert_eq!(inspect(image, "{{json .Config.Entrypoint}}"), r#"["shop"]"#);
    assert_eq!(
        inspect(image, "{{json .Config.Healthcheck.Test}}"),
        r#"["CMD","shop","probe"]"#
    );
    let help = docker(&["run", "--rm", image]);
    assert!(help.contains("gateway") && help.contains("load"), "{help}");
    // What only a build needs stays out: no shell scripts, no source, no toolchain.
    let layers = docker(&["history", "--format", "{{.CreatedBy}}", image]);
    assert!(!layers.contains("deploy/binaries"), "{layers}");
}

pub(crate) fn shared_memory() {
    with_stack(|stack| {
        let seen = place(stack.gateway(), 100, 50);
        assert_eq!(seen.hops("shm"), 100 * HOPS, "{seen:?}");
        for service in SERVICES {
            assert!(Stack::is_healthy(&stack.container(service)), "{service}");
            assert_eq!(stack.warnings(service), [""; 0], "{service}");
            let metrics = page(&stack.published(service, 9464), "/metrics");
            assert!(metrics.contains("ringway_path=\"shm\""), "{metrics}");
        }
    });
}

/// Only where there is a Jaeger.
pub(crate) fn traces() {
    if jaeger_image().is_none() {
        println!("left out, RINGWAY_JAEGER names no program");
        return;
    }
    with_stack(|stack| {
        place(stack.gateway(), 20, 20);
        let api = stack.published("jaeger", 16686);
        eventually("each service has sent spans", || {
            let known = page(&api, "/api/services");
            SERVICES
                .iter()
                .all(|it| known.contains(&format!("\"{it}\"")))
        });
        eventually("one trace holds them all", || {
            let traces: Value =
                serde_json::from_str(&page(&api, "/api/traces?service=gateway&limit=20")).unwrap();
            traces["data"].as_array().unwrap().iter().any(|trace| {
                let names = trace["processes"].as_object().unwrap().values();
                let names: BTreeSet<_> = names.map(|it| it["serviceName"].as_str()).collect();
                SERVICES.iter().all(|it| names.contains(&Some(*it)))
                    && trace.to_string().contains(r#""key":"ringway.path""#)
            })
        });
    });
}

pub(crate) fn no_privileges() {
    with_stack(|stack| {
        let facts = [
            ("{{.HostConfig.Privileged}}", "false"),
            ("{{.HostConfig.ReadonlyRootfs}}", "true"),
            ("{{.HostConfig.IpcMode}}", "private"),
            ("{{.HostConfig.PidMode}}", ""),
            ("{{.HostConfig.UsernsMode}}", ""),
            ("{{json .HostConfig.CapAdd}}", "null"),
            ("{{json .HostConfig.CapDrop}}", r#"["ALL"]"#),
            ("{{json .HostConfig.Devices}}", "null"),
            (
                "{{json .HostConfig.SecurityOpt}}",
                r#"["no-new-privileges:true"]"#,
            ),
        ];
        for service in SERVICES {
            let container = stack.container(service);
            for (asked, expected) in facts {
                assert_eq!(inspect(&container, asked), expected, "{service}: {asked}");
            }
            assert_ne!(inspect(&container, "{{.HostConfig.NetworkMode}}"), "host");
            assert_ne!(inspect(&container, "{{.HostConfig.Memory}}"), "0");
            // Not what was asked for, but what came of it: its user, its capabilities, its filter.
            let status = docker(&["exec", &container, "cat", "/proc/1/status"]);
            for line in ["Uid:\t65532\t", "CapEff:\t0000000000000000", "Seccomp:\t2"] {
                assert!(status.contains(line), "{service}: no {line} in {status}");
            }
        }
    });
}

pub(crate) fn killed() {
    with_stack(|stack| {
        let load = Load::start(stack.gateway(), RATE);
        load.until("shared memory at first", is_back);
        let catalog = stack.container("catalog");
        docker(&["kill", &catalog]);
        let seen = load.until("orders that fail", |seen| seen.failed() > 0);
        assert!(seen.iter().all(Seen::fails_cleanly), "{seen:?}");
        docker(&["start", &catalog]);
        let seen = load.until("shared memory again", is_back);
        assert!(seen.iter().all(Seen::fails_cleanly), "{seen:?}");
        // Its predecessor's socket is gone: there is one, and somebody listens on it.
        let sockets = docker(&["exec", &catalog, "ls", "/run/ringway/catalog:50051"]);
        assert_eq!(sockets.lines().count(), 1, "{sockets}");
    });
}

pub(crate) fn paused() {
    with_stack(|stack| {
        let load = Load::start(stack.gateway(), RATE);
        load.until("shared memory at first", is_back);
        let inventory = stack.container("inventory");
        docker(&["pause", &inventory]);
        let start = Instant::now();
        let seen = load.until("orders that fail", |seen| seen.failed() > 0);
        assert!(seen.iter().all(Seen::fails_cleanly), "{seen:?}");
        // No call inside the shop may take longer than 10 s; an order may wait for a free customer.
        assert!(start.elapsed() < Duration::from_secs(25), "{seen:?}");
        docker(&["unpause", &inventory]);
        let seen = load.until("shared memory again", is_back);
        assert!(seen.iter().all(Seen::fails_cleanly), "{seen:?}");
    });
}

/// Two instances of a service share its calls, and one that is told to end loses none.
pub(crate) fn drained() {
    with_stack(|stack| {
        stack.compose(&[
            "up",
            "--detach",
            "--no-build",
            "--no-recreate",
            "--no-deps",
            "--scale=catalog=2",
            "catalog",
        ]);
        let catalogs = stack.containers("catalog");
        assert_eq!(catalogs.len(), 2);
        eventually("both are well", || {
            catalogs.iter().all(|it| Stack::is_healthy(it))
        });
        let sockets = || docker(&["exec", &catalogs[0], "ls", "/run/ringway/catalog:50051"]);
        assert_eq!(sockets().lines().count(), 2);

        let load = Load::start(stack.gateway(), RATE);
        load.until("shared memory at first", is_back);
        docker(&["stop", "--time", "10", &catalogs[1]]);
        let after = load.until("orders that went on", is_back);
        assert!(after.iter().all(|seen| seen.failed() == 0), "{after:?}");
        assert_eq!(inspect(&catalogs[1], "{{.State.ExitCode}}"), "0");
        assert_eq!(sockets().lines().count(), 1);
    });
}
