//! `deploy/` as it is really run: its image built, its stack brought up by docker-compose, looked at
//! from outside.
//!
//! Left out, with a line that says so, where no Docker engine answers or nobody can compose. The
//! tests run one after the other: they share the image, the machine and, those of one kind, a stack.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `RINGWAY_TEST_PROGRAMS` | a directory with `shop` and `ringway`; without it they are built first |
//! | `RINGWAY_TEST_BASE` | where the base image's archive is kept, where the image can't be pulled |
//! | `RINGWAY_JAEGER` | Jaeger's program, to run in place of its image; without it the stack has no Jaeger |
#![allow(clippy::unwrap_used)]

mod colocated;
mod engine;
mod jaeger;
mod limits;
mod load;
mod paths;
mod stack;
// What is true of an order's trace is so wherever the shop runs.
#[path = "../../../services/demo/tests/jaeger/trace.rs"]
mod trace;
mod trouble;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

type Case = (&'static str, fn());

/// In this order: the stack that most of them share changes as little as possible from one to the next,
/// and what breaks a container comes after what looks at its log and its traces.
const CASES: &[Case] = &[
    ("the_image_is_of_a_user_of_its_own", colocated::image),
    (
        "with_the_volume_every_hop_is_shared_memory",
        colocated::shared_memory,
    ),
    ("containers_have_no_privileges", colocated::no_privileges),
    ("doctor_and_top_work_inside_a_container", colocated::tools),
    ("a_socket_left_behind_is_one_warning", trouble::left_behind),
    (
        "a_killed_container_comes_back_to_shared_memory",
        colocated::killed,
    ),
    (
        "a_paused_container_holds_nobody_up_for_long",
        colocated::paused,
    ),
    (
        "of_two_instances_one_is_killed_and_one_drains",
        colocated::two_instances,
    ),
    ("the_socket_can_be_forced", paths::socket),
    ("without_io_uring_the_socket_works", paths::no_io_uring),
    ("without_memfds_calls_stay_local", paths::no_memfd),
    ("without_the_volume_every_hop_is_grpc", paths::network),
    ("the_paths_are_side_by_side_in_jaeger", paths::side_by_side),
    ("every_service_ends_at_sigterm", colocated::sigterm),
    (
        "a_volume_of_somebody_else_is_one_warning",
        trouble::wrong_owner,
    ),
    ("half_a_cpu_is_not_spun_away", limits::half_a_cpu),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let missing = engine::missing();
    if let Some(missing) = &missing {
        println!("compose: left out, {missing}");
    }
    let trial = |(name, case): &Case| {
        let case = *case;
        Trial::test(*name, move || {
            case();
            Ok(())
        })
        .with_ignored_flag(missing.is_some())
    };
    let one_at_a_time = Arguments {
        test_threads: Some(1),
        ..arguments
    };
    let conclusion = libtest_mimic::run(&one_at_a_time, CASES.iter().map(trial).collect());
    colocated::end();
    conclusion.exit_code()
}
