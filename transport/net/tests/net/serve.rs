//! Calls of every kind through `NetServer`, over TCP and over a Unix socket; how it ends, and what
//! it refuses.

use std::{sync::atomic::Ordering, time::Duration};

use crate::echo::{Running, path, start};
use ringway_net::{
    CallSettings, Error, ListenAddress, NetOptions, NetServer, Pool, ServerOptions, Target,
    client_streaming, connect_lazy, server_streaming, streaming, unary,
};
use tokio_stream::{StreamExt, iter};
use tonic::{Code, Request, Status, codec::CompressionEncoding, service::Routes};

fn channel(target: &Target) -> Pool {
    connect_lazy(target, &NetOptions::default()).unwrap()
}

async fn ask(channel: &Pool, method: &str, text: &str) -> Result<String, Status> {
    let request = Request::new(text.to_owned());
    unary::<_, String, String>(
        channel.clone(),
        path(method),
        &CallSettings::default(),
        request,
    )
    .await
    .map(tonic::Response::into_inner)
}

async fn every_kind_answers(channel: Pool) {
    let settings = CallSettings::default();
    assert_eq!(ask(&channel, "Unary", "hello").await.unwrap(), "hello");

    let words = || Request::new(iter(["a", "b", "c"].map(str::to_owned)));
    let joined: tonic::Response<String> =
        client_streaming(channel.clone(), path("ClientStream"), &settings, words())
            .await
            .unwrap();
    assert_eq!(joined.into_inner(), "abc");

    let letters = server_streaming::<_, _, String>(
        channel.clone(),
        path("ServerStream"),
        &settings,
        Request::new("xyz".to_owned()),
    );
    let letters: Vec<String> = letters
        .await
        .unwrap()
        .into_inner()
        .map(Result::unwrap)
        .collect()
        .await;
    assert_eq!(letters, ["x", "y", "z"]);

    let echoed = streaming::<_, _, _, String>(channel, path("Bidi"), &settings, words());
    let echoed: Vec<String> = echoed
        .await
        .unwrap()
        .into_inner()
        .map(Result::unwrap)
        .collect()
        .await;
    assert_eq!(echoed, ["a", "b", "c"]);
}

#[tokio::test]
async fn tcp_and_unix_serve_every_kind_of_call_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(|server| {
        server
            .listen("127.0.0.1:0".parse().unwrap())
            .listen("[::1]:0".parse().unwrap())
            .listen(ListenAddress::Unix(dir.path().join("a.sock")))
    })
    .await;
    assert_eq!(running.targets.len(), 3);
    for target in &running.targets {
        every_kind_answers(channel(target)).await;
    }
    running.stop().await.unwrap();
    assert!(!dir.path().join("a.sock").exists());
}

/// Of streams that stay open, such as watches, a client may have thousands on its connection.
#[tokio::test]
async fn thousands_of_open_streams_leave_room_for_other_calls() {
    const STREAMS: usize = 2100;
    let running = start_tcp().await;
    let channel = channel(&running.targets[0]);
    let mut open = Vec::new();
    for _ in 0..STREAMS {
        let (settings, quiet) = (CallSettings::default(), tokio_stream::pending::<String>());
        let opened = streaming::<_, _, _, String>(
            channel.clone(),
            path("Bidi"),
            &settings,
            Request::new(quiet),
        );
        let opened = tokio::time::timeout(Duration::from_secs(10), opened).await;
        open.push(opened.expect("a stream waits for others to end").unwrap());
    }
    let answered = tokio::time::timeout(Duration::from_secs(10), ask(&channel, "Unary", "hello"));
    assert_eq!(answered.await.unwrap().unwrap(), "hello");
}

#[tokio::test]
async fn handlers_learn_who_calls_from_tonics_own_types() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(|server| {
        server
            .listen("127.0.0.1:0".parse().unwrap())
            .listen(ListenAddress::Unix(dir.path().join("a.sock")))
    })
    .await;
    assert_eq!(
        ask(&channel(&running.targets[0]), "Peer", "")
            .await
            .unwrap(),
        "tcp"
    );
    assert_eq!(
        ask(&channel(&running.targets[1]), "Peer", "")
            .await
            .unwrap(),
        "unix"
    );
    running.stop().await.unwrap();
}

#[tokio::test]
async fn shutdown_finishes_the_call_in_flight_and_refuses_new_connections() {
    let running = start_tcp().await;
    let target = running.targets[0].clone();
    let slow = tokio::spawn({
        let channel = channel(&target);
        async move { ask(&channel, "Slow", "done").await }
    });
    running.echo.slow_entered.notified().await;

    let Running {
        echo,
        serving,
        stop,
        ..
    } = running;
    stop.send(()).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!serving.is_finished(), "it waits for the call");
    assert_eq!(
        ask(&channel(&target), "Unary", "late")
            .await
            .unwrap_err()
            .code(),
        Code::Unavailable
    );

    echo.slow_release.notify_one();
    assert_eq!(slow.await.unwrap().unwrap(), "done");
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn draining_ends_at_its_timeout() {
    let options = ServerOptions {
        drain_timeout: Some(Duration::from_millis(50)),
        ..ServerOptions::default()
    };
    let running = start(|server| {
        server
            .options(options)
            .listen("127.0.0.1:0".parse().unwrap())
    })
    .await;
    let channel = channel(&running.targets[0]);
    let _slow = tokio::spawn(async move { ask(&channel, "Slow", "").await });
    running.echo.slow_entered.notified().await;
    assert!(matches!(
        running.stop().await,
        Err(Error::DrainTimedOut { .. })
    ));
}

#[tokio::test]
async fn a_channel_comes_back_after_the_server_restarted_over_its_stale_file() {
    let dir = tempfile::tempdir().unwrap();
    let socket = ListenAddress::Unix(dir.path().join("a.sock"));
    let running = start(|server| server.listen(socket.clone())).await;
    let channel = channel(&running.targets[0]);
    assert_eq!(ask(&channel, "Unary", "1").await.unwrap(), "1");
    running.stop().await.unwrap();
    assert_eq!(
        ask(&channel, "Unary", "2").await.unwrap_err().code(),
        Code::Unavailable
    );

    drop(std::os::unix::net::UnixListener::bind(dir.path().join("a.sock")).unwrap());
    let running = start(|server| server.listen(socket.clone())).await;
    // The backoff since the last attempt passes first.
    channel.pick(true).await.unwrap();
    assert_eq!(ask(&channel, "Unary", "3").await.unwrap(), "3");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn an_upload_killed_in_the_middle_is_not_committed() {
    let running = start_tcp().await;
    let channel = channel(&running.targets[0]);
    let endless = iter(["half".to_owned()]).chain(tokio_stream::pending());
    let upload = tokio::spawn(async move {
        let settings = CallSettings::default();
        client_streaming::<_, _, _, String>(
            channel,
            path("ClientStream"),
            &settings,
            Request::new(endless),
        )
        .await
    });
    running.echo.upload_began.notified().await;
    upload.abort();
    tokio::time::timeout(Duration::from_secs(5), running.echo.upload_over.notified())
        .await
        .expect("the handler ends");
    assert_eq!(running.echo.committed.load(Ordering::SeqCst), 0);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn settings_reach_tonic() {
    let running = start_tcp().await;
    let channel = channel(&running.targets[0]);
    let call = |settings: CallSettings| {
        let request = Request::new("x".repeat(1000));
        let channel = channel.clone();
        async move { unary::<_, String, String>(channel, path("Unary"), &settings, request).await }
    };
    let too_small = CallSettings {
        max_decoding_bytes: Some(100),
        ..CallSettings::default()
    };
    assert_eq!(call(too_small).await.unwrap_err().code(), Code::OutOfRange);
    // tonic resets the stream of a request that it refuses to encode.
    let too_small = CallSettings {
        max_encoding_bytes: Some(100),
        ..CallSettings::default()
    };
    assert_eq!(call(too_small).await.unwrap_err().code(), Code::OutOfRange);
    let zipped = CallSettings {
        send_compression: Some(CompressionEncoding::Gzip),
        accept_compression: vec![CompressionEncoding::Gzip],
        ..CallSettings::default()
    };
    let answer = call(zipped).await.unwrap();
    assert_eq!(answer.metadata().get("grpc-encoding").unwrap(), "gzip");
    assert_eq!(answer.into_inner().len(), 1000);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn plain_tonic_stubs_are_served_too() {
    let (_reporter, health) = tonic_health::server::health_reporter();
    let server = NetServer::new(Routes::new(health))
        .listen("127.0.0.1:0".parse().unwrap())
        .bind()
        .await
        .unwrap();
    let target: Target = server.addresses()[0].to_string().parse().unwrap();
    let serving = tokio::spawn(server.serve(std::future::pending()));
    let mut client = tonic_health::pb::health_client::HealthClient::new(channel(&target));
    let request = tonic_health::pb::HealthCheckRequest::default();
    assert_eq!(client.check(request).await.unwrap().into_inner().status, 1);
    serving.abort();
}

#[tokio::test]
async fn nobody_there_is_unavailable() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let target = nobody.local_addr().unwrap().to_string().parse().unwrap();
    drop(nobody);
    for target in [target, Target::Unix("/nonexistent/a.sock".into())] {
        assert_eq!(
            ask(&channel(&target), "Unary", "")
                .await
                .unwrap_err()
                .code(),
            Code::Unavailable
        );
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_had_says_why() {
    let bind = |server: NetServer| async { server.bind().await.unwrap_err() };
    let server = || NetServer::new(Routes::default());
    assert!(matches!(bind(server()).await, Error::NoAddress));

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = ListenAddress::Tcp(taken.local_addr().unwrap());
    let error = bind(server().listen(address.clone())).await;
    assert!(matches!(error, Error::Bind { .. }));
    assert!(error.to_string().contains(&address.to_string()));
}

async fn start_tcp() -> Running {
    start(|server| server.listen("127.0.0.1:0".parse().unwrap())).await
}
