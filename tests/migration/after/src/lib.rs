//! A greeter: its server, and a client that calls it.
#![forbid(unsafe_code)]

use std::pin::Pin;

use ringway::{Channel, Endpoint, Error, Server};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use greeter::greeter_client::GreeterClient;
use greeter::greeter_server::{Greeter, GreeterServer};
use greeter::{Greeting, Hello};

#[allow(missing_docs)]
pub mod greeter {
    tonic::include_proto!("greeter");
}

struct Polite;

fn greeting(hello: Hello) -> Greeting {
    let text = format!("Hello {}!", hello.name);
    Greeting { text }
}

#[tonic::async_trait]
impl Greeter for Polite {
    type GreetAllStream = Pin<Box<dyn Stream<Item = Result<Greeting, Status>> + Send>>;

    async fn greet(&self, request: Request<Hello>) -> Result<Response<Greeting>, Status> {
        Ok(Response::new(greeting(request.into_inner())))
    }

    async fn greet_all(
        &self,
        request: Request<Streaming<Hello>>,
    ) -> Result<Response<Self::GreetAllStream>, Status> {
        let greetings = request.into_inner().map(|hello| hello.map(greeting));
        Ok(Response::new(Box::pin(greetings)))
    }
}

/// Serves at `address` (`127.0.0.1:50051`, say) until `shutdown` is done.
///
/// # Errors
/// The address can't be had.
pub async fn serve(address: &str, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    Server::builder()
        .name(address)
        .add_service(GreeterServer::new(Polite))
        .serve_with_shutdown(address.parse().expect("an address"), shutdown)
        .await
}

/// Connects to the server at `address`.
///
/// # Errors
/// Nobody serves there.
pub async fn connect(address: &str) -> Result<GreeterClient<Channel>, Error> {
    let channel = Endpoint::from_shared(format!("http://{address}"))?
        .connect()
        .await?;
    Ok(GreeterClient::new(channel))
}
