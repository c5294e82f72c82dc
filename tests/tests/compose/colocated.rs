//! The stack as it comes: containers that share a volume, and so memory.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::engine::{built_image, docker, inspect, ringway};
use crate::jaeger;
use crate::load::{Load, Seen, eventually, page, place};
use crate::stack::{Overlay, SERVICES, Stack};

/// Hops of one order.
const HOPS: u64 = 7;
/// Orders a second while something happens to a container.
const RATE: u32 = 40;

/// One stack for most tests: what one of them changes is less than all of it.
static STACK: Mutex<Option<Stack>> = Mutex::new(None);

/// The shared stack, with whatever overlay it has.
pub(crate) fn with_any_stack(test: impl FnOnce(&mut Stack)) {
    let mut kept = STACK.lock().unwrap_or_else(|poisoned| {
        // What a test that failed left behind says nothing about the next one.
        let mut kept = poisoned.into_inner();
        *kept = None;
        STACK.clear_poison();
        kept
    });
    let up = || Stack::up_with_jaeger("shared", Overlay::default());
    test(kept.get_or_insert_with(up));
}

/// The shared stack, with this overlay.
pub(crate) fn with_stack(overlay: &Overlay, test: impl FnOnce(&mut Stack)) {
    with_any_stack(|stack| {
        stack.switch(overlay);
        test(stack);
    });
}

fn colocated(test: impl FnOnce(&mut Stack)) {
    with_stack(&Overlay::default(), test);
}

/// All services are told to end at once, callers and called: each does so by itself. What is left of
/// the stack is of no use to another test.
pub(crate) fn sigterm() {
    with_any_stack(|stack| {
        stack.compose(&[&["stop", "--timeout", "10"], &SERVICES[..]].concat());
        for service in SERVICES {
            let code = inspect(&stack.container(service), "{{.State.ExitCode}}");
            assert_eq!(code, "0", "{service}");
        }
    });
    end();
}

/// Takes the shared stack down, should it be up.
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
    colocated(|stack| {
        let seen = place(stack.gateway(), 100, 50);
        assert_eq!(seen.hops("shm"), 100 * HOPS, "{seen:?}");
        for service in SERVICES {
            assert!(Stack::is_healthy(&stack.container(service)), "{service}");
            assert_eq!(stack.warnings(service), [""; 0], "{service}");
            let metrics = page(&stack.published(service, 9464), "/metrics");
            assert!(metrics.contains("ringway_path=\"shm\""), "{metrics}");
        }
        jaeger::check_orders(stack, "shm", 100);
    });
}

/// The project's own program, as somebody who looks for a reason asks it inside a container.
pub(crate) fn tools() {
    colocated(|stack| {
        let orders = stack.container("orders");
        assert_eq!(ringway(&orders, &["doctor", "--json"])["verdict"], "shm");
        let seen = ringway(
            &orders,
            &["top", "--json", "--iterations=1", "orders:50051"],
        );
        let paths = seen["paths"].as_array().unwrap();
        assert!(paths.iter().any(|it| it["path"] == "shm"), "{seen}");
    });
}

pub(crate) fn no_privileges() {
    colocated(|stack| {
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
    colocated(|stack| {
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
    colocated(|stack| {
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

/// Two instances of a service share its calls: of one that is killed only those that it was at may be
/// lost, of one that is told to end none.
pub(crate) fn two_instances() {
    colocated(|stack| {
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
        let both_are_well = || {
            eventually("both are well", || {
                catalogs.iter().all(|it| Stack::is_healthy(it))
            });
        };
        both_are_well();
        let sockets = || docker(&["exec", &catalogs[0], "ls", "/run/ringway/catalog:50051"]);
        assert_eq!(sockets().lines().count(), 2);

        let load = Load::start(stack.gateway(), RATE);
        load.until("shared memory at first", is_back);
        docker(&["kill", &catalogs[1]]);
        let seen = load.until("the other one's answers", is_back);
        assert!(seen.iter().all(Seen::fails_cleanly), "{seen:?}");
        docker(&["start", &catalogs[1]]);
        both_are_well();

        load.until("shared memory again", is_back);
        docker(&["stop", "--time", "10", &catalogs[1]]);
        let after = load.until("orders that went on", is_back);
        assert!(after.iter().all(|seen| seen.failed() == 0), "{after:?}");
        assert_eq!(inspect(&catalogs[1], "{{.State.ExitCode}}"), "0");
        assert_eq!(sockets().lines().count(), 1);
        // One again, for those that come after.
        docker(&["rm", &catalogs[1]]);
    });
}
