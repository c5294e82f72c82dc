//! One suite that every path passes.
//!
//! A new path is one more [`suite!`] line, and an arm in [`ringway_tests::Way`].
#![allow(clippy::unwrap_used)]

mod api;
mod at_once;
mod bad_input;
mod cancellation;
mod compression;
mod context;
mod deadlines;
mod drain;
mod failures;
mod handles;
mod http;
mod kinds;
mod large;
mod large_metadata;
mod limits;
mod load;
mod metadata;
mod middleware;
mod other_makes;
mod panics;
mod promptly;
mod retry;
mod trailers;

/// Makes tests of async functions that take a [`ringway_tests::Way`].
macro_rules! tests_of {
    ($way:expr; $($module:ident :: $test:ident),* $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            ringway_tests::within(crate::$module::$test($way)).await;
        }
    )*};
}

/// What every path has to do.
macro_rules! suite {
    ($name:ident, $way:expr) => {
        mod $name {
            tests_of! { $way;
                kinds::unary_of_every_size,
                kinds::server_streams,
                kinds::client_streams,
                kinds::bidi_in_lockstep,
                kinds::bidi_at_full_speed,
                kinds::large_messages_in_streams,
                kinds::the_path_is_visible,
                large::unary_either_way,
                large::streams_of_each_kind,
                large::many_calls_at_once,
                large::a_lower_limit_ends_its_call_alone,
                large::what_may_not_be_sent_ends_its_call,
                large::by_plain_stubs_to_a_plain_service,
                metadata::ascii_and_binary_both_ways,
                metadata::repeated_keys_keep_their_order,
                metadata::on_streams,
                metadata::reserved_names_are_left_out_as_tonic_does,
                metadata::bad_details_reach_no_handler,
                large_metadata::comes_with_an_answer,
                large_metadata::comes_with_a_stream_and_with_a_status,
                large_metadata::too_much_ends_its_call_alone,
                large_metadata::too_much_of_a_handler_is_a_status,
                failures::a_status_comes_whole,
                failures::a_status_ends_a_stream,
                failures::unknown_methods_and_services,
                failures::a_request_over_the_limit,
                failures::a_response_over_the_limit,
                failures::a_panic_fails_its_call_alone,
                panics::an_upload_ends,
                panics::an_exchange_ends,
                cancellation::a_dropped_call_cancels_its_handler,
                cancellation::a_dropped_stream_cancels_its_handler,
                at_once::calls_dropped_at_once_leave_no_handler,
                at_once::a_call_is_not_ended_by_the_one_before,
                cancellation::a_failed_upload_is_never_committed,
                cancellation::a_dropped_exchange_cancels_its_handler,
                cancellation::a_dropped_exchange_that_stalls_cancels_its_handler,
                cancellation::a_killed_upload_is_never_committed,
                cancellation::a_task_that_reads_on_learns_that_the_call_was_answered,
                promptly::a_dropped_call_stops_its_handler,
                promptly::a_dropped_stream_stops_its_handler,
                promptly::a_dropped_call_stops_the_calls_of_its_handler,
                deadlines::end_a_call,
                deadlines::end_a_stream,
                deadlines::end_an_exchange,
                deadlines::that_are_past,
                context::a_deadline_reaches_the_calls_of_a_handler,
                context::a_dropped_call_cancels_the_calls_of_its_handler,
                context::a_spawned_task_learns_that_the_call_is_over,
                context::a_handler_learns_who_calls,
                context::requests_have_tonics_connect_info,
                context::both_ends_have_a_timeout_of_their_own,
                trailers::with_an_answer,
                trailers::after_a_stream,
                trailers::of_another_make,
                handles::a_handle_cancels_an_upload,
                handles::a_handle_cancels_an_exchange,
                load::many_calls_in_flight,
                load::many_large_calls_in_flight,
                load::eight_calls_are_sent_before_the_first_is_waited_for,
                load::answers_found_for_the_calls_beside_are_taken,
                load::exchanges_in_lockstep_take_turns,
                load::a_slow_reader_stalls_its_own_stream_only,
                load::a_thousand_unread_streams_stall_themselves_only,
                load::a_slow_handler_stalls_its_own_upload_only,
                load::calls_in_flight_finish_while_the_server_stops,
                drain::calls_in_flight_come_to_their_end,
                drain::draining_has_an_upper_time,
                limits::one_call_too_many_at_once_is_shed,
                limits::one_call_too_many_at_once_waits,
                limits::streams_that_have_begun_leave_room,
                limits::a_refused_first_call_leaves_its_method_usable,
                limits::hold_for_services_of_other_makes,
                limits::of_messages_hold_for_other_makes_and_behind_interceptors,
                retry::a_policy_makes_failed_calls_again,
                retry::a_policy_makes_failed_streams_again,
                retry::the_policy_of_one_of_several_endpoints_holds,
                retry::without_a_policy_nothing_is_made_again,
                retry::a_stream_too_long_to_keep_is_not_made_again,
                retry::the_server_says_when_to_come_back,
                retry::failures_throttle_retries,
                bad_input::malformed_messages,
                bad_input::strings_that_are_no_utf8,
                bad_input::malformed_bodies,
                bad_input::odd_paths_and_headers,
                bad_input::too_much_of_anything,
                bad_input::statuses_that_are_none,
                compression::by_our_stubs,
                compression::by_stubs_of_tonics,
                compression::a_bomb_ends_at_the_limit,
                api::a_wrapped_service_sees_each_call,
                api::routes_answer_for_all_other_services,
                api::calls_are_handled_in_spans_of_the_applications_own,
                api::interceptors_see_the_method,
                api::calls_above_a_channels_limit_wait,
                api::calls_above_a_limit_wait_for_clients_of_other_makes,
                api::calls_above_the_limit_of_one_of_several_endpoints_wait,
                api::calls_above_the_rate_of_one_of_several_endpoints_wait,
                http::handlers_see_what_the_client_is_called,
                http::handlers_see_what_one_of_several_endpoints_is_called,
                http::handlers_see_the_trace_that_they_belong_to,
                http::a_layer_sees_whom_the_client_dials,
                http::a_layer_of_the_client_sees_the_method,
                http::a_layers_bare_status_means_the_same,
                middleware::a_layer_of_the_server,
                middleware::a_layer_of_the_client,
                middleware::an_interceptor_of_the_server,
                middleware::an_interceptor_adds_metadata,
                middleware::an_interceptor_refuses,
                other_makes::plain_stubs_over_our_channel,
                other_makes::our_stubs_to_a_plain_service,
                other_makes::plain_stubs_to_a_plain_service,
                other_makes::health,
                other_makes::reflection,
                failures::richer_errors,
            }
        }
    };
}

suite!(shm, ringway_tests::Way::Shm);
suite!(socket, ringway_tests::Way::Socket);
suite!(socket_epoll, ringway_tests::Way::SocketEpoll);
suite!(pipe, ringway_tests::Way::Pipe);
suite!(inproc, ringway_tests::Way::Inproc);
suite!(grpc_tcp, ringway_tests::Way::GrpcTcp);
suite!(grpc_unix, ringway_tests::Way::GrpcUnix);

/// One end is tonic alone: what only gRPC reaches.
macro_rules! mixed_suite {
    ($name:ident, $way:expr) => {
        mod $name {
            tests_of! { $way;
                other_makes::a_tonic_client_to_our_server,
                other_makes::our_client_to_a_tonic_server,
            }
        }
    };
}

mixed_suite!(grpc_tcp_mixed, ringway_tests::Way::GrpcTcp);
mixed_suite!(grpc_unix_mixed, ringway_tests::Way::GrpcUnix);
