//! Tests of a service without a process or a port: four ways, the shortest first.
#![allow(clippy::unwrap_used)]

use std::sync::LazyLock;

use ringway::{Channel, Endpoint, Path, Server};
use ringway_examples::Polite;
use ringway_examples::greeter::Hello;
use ringway_examples::greeter::greeter_client::GreeterClient;
use ringway_examples::greeter::greeter_server::{Greeter, GreeterServer};
use tokio::runtime::Runtime;
use tonic::{Code, Request};

/// The handler alone: a plain function call.
#[tokio::test]
async fn the_handler_alone() {
    let hello = Request::new(Hello::default());
    let status = Polite.greet(hello).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

/// The stubs at both ends and nothing between them: a generated client takes a generated server for a channel.
#[tokio::test]
async fn a_client_over_the_service() {
    let mut client = GreeterClient::new(GreeterServer::new(Polite));
    let hello = Hello { name: "Ada".into() };
    let greeting = client.greet(hello).await.unwrap().into_inner();
    assert_eq!(greeting.text, "Hello Ada!");
}

/// A whole server and a channel, with all settings in force: `inproc://` needs no directory. The name is this
/// test's own, because tests of one file share a process.
#[tokio::test]
async fn a_server_of_this_process() {
    let server = Server::builder()
        .name("greeter-of-this-test:50051")
        .directory(tempfile::tempdir().unwrap().path())
        .add_service(GreeterServer::new(Polite));
    tokio::spawn(server.bind().await.unwrap().serve());

    let endpoint = Endpoint::new("inproc://greeter-of-this-test:50051").unwrap();
    let mut client = GreeterClient::new(endpoint.connect().await.unwrap());
    let response = client.greet(Hello { name: "Ada".into() }).await.unwrap();
    assert_eq!(Path::of(&response), Some(Path::Inproc));
    assert_eq!(response.into_inner().text, "Hello Ada!");
}

/// Tests have a runtime each, which ends with them; a channel in a static goes on, and so does a server on a thread
/// of its own.
static CHANNEL: LazyLock<Channel> = LazyLock::new(|| {
    std::thread::spawn(|| {
        let server = Server::builder()
            .name("greeter-of-all-tests:50051")
            .directory(tempfile::tempdir().unwrap().path())
            .add_service(GreeterServer::new(Polite));
        Runtime::new().unwrap().block_on(server.run())
    });
    Endpoint::from_static("inproc://greeter-of-all-tests:50051")
        .wait_for_ready(true) // until the thread serves
        .connect_lazy()
});

#[tokio::test]
async fn one_of_two_that_share_a_channel() {
    let mut client = GreeterClient::new(CHANNEL.clone());
    client.greet(Hello { name: "Ada".into() }).await.unwrap();
}

#[tokio::test]
async fn the_other_of_two_that_share_a_channel() {
    let mut client = GreeterClient::new(CHANNEL.clone());
    client.greet(Hello { name: "Eve".into() }).await.unwrap();
}
