//! Handlers as real services have them: they block, compute, call others and never end. Whatever one
//! does, the calls beside it go on, on every path.
//!
//! gRPC's paths are the yardstick: most of what is asserted holds with tonic. Each test has a watchdog, and
//! client and server have runtimes of their own, as two processes have.
#![allow(clippy::unwrap_used)]

mod blocking;
mod crowd;
mod endless;
mod lives;
mod nested;
mod scripted;
mod stage;
mod stopwatch;

/// Makes tests of functions that take a [`ringway_tests::Way`].
macro_rules! tests_of {
    ($way:expr; $($beside:ident: $($module:ident :: $test:ident),* $(,)?);* $(;)?) => {$($(
        #[test]
        fn $test() {
            use crate::stopwatch::{Beside, watched};
            watched(Beside::$beside, || crate::$module::$test($way));
        }
    )*)*};
}

/// What every path has to do.
macro_rules! suite {
    ($name:ident, $way:expr $(; $($more:tt)*)?) => {
        mod $name {
            tests_of! { $way;
                Others:
                    blocking::sleeping_handlers_run_side_by_side,
                    blocking::sleeping_handlers_of_a_quick_method_run_side_by_side,
                    blocking::sleeping_handlers_in_the_runtime_of_their_callers,
                    blocking::a_blocking_response_stream_stops_itself_alone,
                    blocking::a_blocking_request_stream_stops_itself_alone,
                    blocking::a_blocking_drop_stops_itself_alone,
                    nested::a_call_of_this_server_by_block_in_place,
                    nested::a_call_of_another_server_by_block_in_place,
                    lives::a_context_is_there,
                    lives::a_panic_is_a_status,
                    lives::a_dropped_call_ends_a_handler_that_waits,
                    lives::a_deadline_ends_a_handler_that_waits,
                    lives::a_killed_upload_is_never_committed,
                    lives::an_upload_killed_while_its_handler_blocks_is_never_committed,
                    lives::a_server_that_stops_waits_for_its_handlers;
                None:
                    blocking::an_always_ready_loop_stops_itself_alone,
                    blocking::an_always_ready_loop_yields_on_one_worker,
                    crowd::two_hundred_handlers_sleep_their_threads,
                    crowd::two_thousand_connections_have_handlers_that_wait;
                $($($more)*)?
            }
        }
    };
}

/// What every local path has to do, and gRPC cannot: there a worker that was woken from epoll_wait(2) for one
/// call, and blocks in its handler, leaves the runtime's sockets and timers to nobody until it returns.
macro_rules! local_suite {
    ($name:ident, $way:expr) => {
        suite! { $name, $way;
            Others:
                nested::a_call_of_this_server_by_a_joined_thread,
                nested::a_call_of_another_server_by_a_joined_thread,
                nested::a_call_by_a_foreign_executor_stops_itself_alone,
                endless::blocked_handlers_stand_side_by_side,
                endless::blocked_handlers_of_a_quick_method_stand_side_by_side,
                endless::a_blocked_handler_leaves_a_quiet_server_awake,
                endless::a_blocked_handler_of_a_quick_method_leaves_a_quiet_server_awake,
                endless::a_handler_that_never_returns_stops_itself_alone,
                endless::a_handler_blocks_while_its_connection_closes,
                endless::a_server_runtime_ends_amid_calls,
                endless::a_client_runtime_ends_amid_calls;
        }
    };
}

local_suite!(shm, ringway_tests::Way::Shm);
local_suite!(socket, ringway_tests::Way::Socket);
local_suite!(socket_epoll, ringway_tests::Way::SocketEpoll);
local_suite!(pipe, ringway_tests::Way::Pipe);
local_suite!(inproc, ringway_tests::Way::Inproc);
suite!(grpc_tcp, ringway_tests::Way::GrpcTcp);
suite!(grpc_unix, ringway_tests::Way::GrpcUnix);
