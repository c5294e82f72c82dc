//! The network path where the network, or what is at its other end, is not at its best.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use futures_util::future::join_all;
use ringway::{BackoffOptions, Channel, Endpoint, OutlierOptions, RetryPolicy, WaitForReady};
use ringway_proto::bench::bench_client::BenchClient;
use ringway_tests::{
    Addresses, Http2Server, Running, Script, Way, client_of, free_address, leaving, payload, within,
};
use tokio::time::Instant;
use tonic::{Code, Request};

fn at(server: &Http2Server) -> Endpoint {
    Endpoint::new(format!("grpc://{}", server.address)).unwrap()
}

async fn succeeds(client: &mut BenchClient<Channel>) {
    assert_eq!(
        client.unary(payload(7, 1000)).await.unwrap().into_inner(),
        payload(7, 1000)
    );
}

#[tokio::test]
async fn a_graceful_goaway_moves_calls_to_a_new_connection() {
    within(async {
        let server = Http2Server::start(|call| match call % 10 {
            9 => Script::EchoAndGoAway,
            _ => Script::Echo,
        })
        .await;
        let mut client = client_of(&at(&server)).await;
        for _ in 0..35 {
            succeeds(&mut client).await;
        }
        assert_eq!(server.connections(), 4);
    })
    .await;
}

#[tokio::test]
async fn a_graceful_goaway_fails_none_of_many_calls() {
    within(async {
        let server = Http2Server::start(|call| match call % 50 {
            49 => Script::EchoAndGoAway,
            _ => Script::Nap,
        })
        .await;
        let client = client_of(&at(&server)).await;
        let callers = (0..16).map(|_| {
            let mut client = client.clone();
            async move {
                for _ in 0..20 {
                    succeeds(&mut client).await;
                }
            }
        });
        join_all(callers).await;
        assert!(server.connections() > 1);
    })
    .await;
}

#[tokio::test]
async fn a_reset_fails_its_call_alone() {
    within(async {
        for script in [
            Script::ResetAfterHeader,
            Script::ResetDuringData,
            Script::ResetAfterData,
        ] {
            let server = Http2Server::start(move |call| match call {
                1 => script,
                _ => Script::Nap,
            })
            .await;
            let client = client_of(&at(&server)).await;
            succeeds(&mut client.clone()).await;
            let (mut doomed, mut other) = (client.clone(), client.clone());
            let (failed, ()) = tokio::join!(doomed.unary(payload(1, 1000)), succeeds(&mut other));
            let status = failed.unwrap_err();
            assert_eq!(status.code(), Code::Internal, "{script:?}: {status:?}");
            succeeds(&mut client.clone()).await;
            assert_eq!((server.connections(), server.calls()), (1, 4), "{script:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn one_stream_at_a_time_carries_ten_calls() {
    within(async {
        let server = Http2Server::with_max_streams(1, |_| Script::Nap).await;
        let client = client_of(&at(&server)).await;
        // Its answer comes after the server's settings.
        succeeds(&mut client.clone()).await;
        join_all((0..10).map(|_| {
            let mut client = client.clone();
            async move { succeeds(&mut client).await }
        }))
        .await;
        assert_eq!((server.connections(), server.calls()), (1, 11));
        assert_eq!(server.most_at_once(), 1);
    })
    .await;
}

/// No handler saw it: it is sent again without a policy, once.
#[tokio::test]
async fn a_refused_call_is_sent_again_once() {
    within(async {
        let server = Http2Server::start(|call| match call {
            0 | 2 | 3 => Script::Refuse,
            _ => Script::Echo,
        })
        .await;
        let mut client = client_of(&at(&server)).await;
        succeeds(&mut client).await;
        assert_eq!(server.calls(), 2);
        let status = client.unary(payload(1, 1000)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert_eq!(server.calls(), 4);
    })
    .await;
}

/// Instances that drain one after another saw none of it: the one that stays gets it, without a policy.
#[tokio::test]
async fn a_call_that_one_instance_after_another_leaves_out_reaches_the_one_that_stays() {
    within(async {
        let stays = Http2Server::start(|_| Script::Echo).await;
        let mut addresses = vec![stays.address];
        for _ in 0..3 {
            addresses.insert(0, leaving().await);
        }
        let endpoint = Addresses::new(addresses).endpoint();
        let mut client = client_of(&endpoint).await;
        for calls in 1..=4 {
            succeeds(&mut client).await;
            assert_eq!(stays.calls(), calls);
        }
    })
    .await;
}

/// If none stays, it ends.
#[tokio::test]
async fn a_call_that_every_instance_leaves_out_ends() {
    within(async {
        let endpoint = Addresses::new([leaving().await, leaving().await]).endpoint();
        let mut client = client_of(&endpoint).await;
        let status = client.unary(payload(1, 1000)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        let mut soon = Request::new(payload(1, 1000));
        soon.set_timeout(Duration::from_millis(200));
        let status = client.unary(soon).await.unwrap_err();
        let late = matches!(status.code(), Code::DeadlineExceeded | Code::Unavailable);
        assert!(late, "{status:?}");
    })
    .await;
}

/// It counts as no attempt of a policy's.
#[tokio::test]
async fn a_refused_call_uses_up_no_attempt() {
    within(async {
        let server = Http2Server::start(|call| match call {
            0 | 1 => Script::Refuse,
            _ => Script::Echo,
        })
        .await;
        let endpoint = at(&server).retry_policy(RetryPolicy {
            max_attempts: 2,
            initial_backoff: Duration::from_millis(1),
            ..RetryPolicy::default()
        });
        succeeds(&mut client_of(&endpoint).await).await;
        assert_eq!(server.calls(), 3);
    })
    .await;
}

fn quick(endpoint: Endpoint) -> Endpoint {
    endpoint.backoff(BackoffOptions {
        initial: Duration::from_millis(200),
        ..BackoffOptions::default()
    })
}

#[tokio::test]
async fn calls_fail_at_once_between_attempts_to_connect_unless_they_wait() {
    within(async {
        let address = free_address();
        let endpoint = Endpoint::new(format!("grpc://{address}")).unwrap();
        let mut client = BenchClient::new(quick(endpoint).connect_lazy());
        let status = client.unary(payload(1, 1000)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(
            status.message().contains(&address.to_string()),
            "{status:?}"
        );

        let mut hasty = Request::new(payload(1, 1000));
        hasty.extensions_mut().insert(WaitForReady(true));
        hasty.set_timeout(Duration::from_millis(50));
        let began = Instant::now();
        let status = client.unary(hasty).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        assert!(began.elapsed() >= Duration::from_millis(50));

        let mut patient = Request::new(payload(1, 1000));
        patient.extensions_mut().insert(WaitForReady(true));
        let mut waiting = client.clone();
        let waiting = tokio::spawn(async move { waiting.unary(patient).await });
        let directory = tempfile::tempdir().unwrap();
        let server = serve(directory.path(), &address.to_string()).await;
        waiting.await.unwrap().unwrap();
        succeeds(&mut client).await;
        server.abort();
    })
    .await;
}

async fn serve(
    directory: &std::path::Path,
    address: &str,
) -> tokio::task::JoinHandle<Result<(), ringway::Error>> {
    let handler = ringway_tests::ours::Handler::default();
    let server = ringway::Server::builder()
        .directory(directory)
        .listen(address)
        .unwrap()
        .add_service(ringway_proto::bench::bench_server::BenchServer::new(
            handler,
        ))
        .bind()
        .await
        .unwrap();
    tokio::spawn(server.serve())
}

#[tokio::test]
async fn attempts_to_connect_keep_their_distance() {
    within(async {
        // It accepts, and hangs up at once.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let endpoint = Endpoint::new(format!("grpc://{address}")).unwrap();
        let attempts = tokio::spawn(async move {
            let mut attempts = Vec::new();
            for _ in 0..4 {
                listener.accept().await.unwrap();
                attempts.push(Instant::now());
            }
            attempts
        });
        let mut client = BenchClient::new(quick(endpoint).connect_lazy());
        let status = client.unary(payload(1, 1000)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        let attempts = attempts.await.unwrap();
        let waited: Vec<_> = attempts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        for (waited, expected) in waited.iter().zip([200.0, 320.0, 512.0_f64]) {
            let least = Duration::from_secs_f64(expected * 0.8 / 1000.0 - 0.05);
            assert!(*waited >= least, "{waited:?} instead of {expected} ms");
        }
    })
    .await;
}

async fn instances(count: usize) -> (Vec<Running>, Addresses) {
    let mut running = Vec::new();
    for _ in 0..count {
        running.push(Running::start(Way::GrpcTcp).await);
    }
    let addresses = Addresses::new(running.iter().map(Running::address));
    (running, addresses)
}

/// Calls until every instance is connected.
async fn all_connected(client: &mut BenchClient<Channel>, running: &[&Running]) {
    let before: Vec<_> = running.iter().map(|one| one.seen.entered()).collect();
    while running
        .iter()
        .zip(&before)
        .any(|(one, before)| one.seen.entered() == *before)
    {
        succeeds(client).await;
    }
}

#[tokio::test]
async fn calls_go_to_all_addresses_in_turn() {
    within(async {
        let (running, addresses) = instances(3).await;
        let mut client = client_of(&addresses.endpoint()).await;
        all_connected(&mut client, &running.iter().collect::<Vec<_>>()).await;
        let before: Vec<_> = running.iter().map(|one| one.seen.entered()).collect();
        for _ in 0..30 {
            succeeds(&mut client).await;
        }
        for (one, before) in running.iter().zip(before) {
            assert_eq!(one.seen.entered() - before, 10);
        }
    })
    .await;
}

#[tokio::test]
async fn a_name_is_resolved_anew_when_an_instance_is_lost() {
    within(async {
        let (mut running, addresses) = instances(2).await;
        let mut client = client_of(&addresses.endpoint()).await;
        all_connected(&mut client, &running.iter().collect::<Vec<_>>()).await;
        let moved = Running::start(Way::GrpcTcp).await;
        addresses.set([running[0].address(), moved.address()]);
        running.remove(1).stop().await;
        all_connected(&mut client, &[&running[0], &moved]).await;
    })
    .await;
}

/// It is an answer: a failure to resolve leaves the addresses that are known.
#[tokio::test]
async fn an_answer_without_addresses_takes_them_away() {
    within(async {
        let (mut running, addresses) = instances(2).await;
        let mut client = client_of(&addresses.endpoint()).await;
        all_connected(&mut client, &running.iter().collect::<Vec<_>>()).await;
        addresses.set([]);
        // The name is resolved anew, and the one that is left gets no more calls.
        running.remove(1).stop().await;
        let status = loop {
            match client.unary(payload(1, 1)).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(status) => break status,
            }
        };
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        let served = running[0].seen.entered();
        for _ in 0..10 {
            client.unary(payload(1, 1)).await.unwrap_err();
        }
        let status = client.unary(payload(1, 1)).await.unwrap_err();
        assert!(status.message().contains("it has no address"), "{status:?}");
        assert_eq!(running[0].seen.entered(), served);
        addresses.set([running[0].address()]);
        while client.unary(payload(1, 1)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// One that answers `UNAVAILABLE` again and again gets no calls for a while, and then some again.
#[tokio::test]
async fn an_instance_that_fails_is_put_aside_and_comes_back() {
    within(async {
        let (running, addresses) = instances(1).await;
        let bad = Http2Server::start(|call| match call {
            // Twice each: a refused call is sent again, and may meet the same instance.
            0..30 => Script::Refuse,
            _ => Script::Echo,
        })
        .await;
        addresses.set([running[0].address(), bad.address]);
        let aside = Duration::from_millis(300);
        let endpoint = addresses.endpoint().outliers(OutlierOptions {
            consecutive_failures: 5,
            base_time: aside,
            max_time: aside,
        });
        let mut client = client_of(&endpoint).await;
        while bad.calls() < 5 {
            succeeds(&mut client).await;
        }
        let refused = bad.calls();
        for _ in 0..20 {
            succeeds(&mut client).await;
        }
        assert_eq!(bad.calls(), refused, "it still gets calls");
        // Until it has failed for the last time, and has served some.
        while bad.calls() < 40 {
            succeeds(&mut client).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// One that ends its connections in order has failed nobody, however many calls came too late.
#[tokio::test]
async fn an_instance_that_drains_is_not_put_aside() {
    within(async {
        let (running, addresses) = instances(1).await;
        let draining = Http2Server::start(|call| match call % 10 {
            9 => Script::EchoAndGoAway,
            _ => Script::Nap,
        })
        .await;
        addresses.set([running[0].address(), draining.address]);
        let endpoint = addresses.endpoint().outliers(OutlierOptions {
            consecutive_failures: 1,
            base_time: Duration::from_secs(300),
            ..OutlierOptions::default()
        });
        let client = client_of(&endpoint).await;
        let calls = (0..20).map(|_| {
            let mut client = client.clone();
            let draining = &draining;
            async move {
                // If it were put aside, that would stay as it is.
                while draining.connections() < 10 {
                    succeeds(&mut client).await;
                }
            }
        });
        join_all(calls).await;
    })
    .await;
}
