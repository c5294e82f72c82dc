//! Holds the code that the examples share: the generated stubs, and the service that most of them call.
//!
//! | program | shows |
//! | --- | --- |
//! | `unary` | a server, a client, and the transport that a call took |
//! | `streaming` | streams from the server, from the client, and both ways |
//! | `interceptors` | a token that the client adds and the server demands |
//! | `limits` | where handlers run, how ends wait, and calls that are too many |
//! | `plugin` | a server that is a child process |
//! | `blocking` | calls from threads without a runtime |
//! | `tests/in_process.rs` | tests of a service without a process or a port |
//!
//! Each serves and calls in one process, to be started by itself. Between two processes nothing changes but
//! that `main` is two. `tests/programs.rs` runs all of them.
#![forbid(unsafe_code)]

use greeter::greeter_server::Greeter;
use greeter::{Greeting, Hello};
use tonic::{Request, Response, Status};

/// Stubs of `proto/greeter.proto`.
#[allow(missing_docs)]
pub mod greeter {
    tonic::include_proto!("greeter");
}

/// Stubs of `proto/weather.proto`.
#[allow(missing_docs)]
pub mod weather {
    tonic::include_proto!("weather");
}

/// Greets by name, and refuses an empty one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Polite;

#[tonic::async_trait]
impl Greeter for Polite {
    async fn greet(&self, request: Request<Hello>) -> Result<Response<Greeting>, Status> {
        let Hello { name } = request.into_inner();
        if name.is_empty() {
            return Err(Status::invalid_argument("the name is empty"));
        }
        let text = format!("Hello {name}!");
        Ok(Response::new(Greeting { text }))
    }
}
