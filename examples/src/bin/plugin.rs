//! A server that is a child process, called over two pipes: no file, port or name is left behind.
//!
//! Host and plugin are one program here, so that one command starts both; a real plugin is a program of its own.
//!
//! ```text
//! cargo run --bin plugin
//! ```
#![forbid(unsafe_code)]

use std::error::Error;
use std::process::Command;
use std::time::Duration;

use ringway_examples::Polite;
use ringway_examples::greeter::Hello;
use ringway_examples::greeter::greeter_client::GreeterClient;
use ringway_examples::greeter::greeter_server::GreeterServer;

const PLUGIN: &str = "serve";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    if std::env::args().nth(1).as_deref() == Some(PLUGIN) {
        return Ok(plugin().await?);
    }
    host().await
}

/// The plugin's `main`: it ends when the host hangs up or is gone.
async fn plugin() -> Result<(), ringway::Error> {
    // The pipes are descriptors of their own: standard output stays usable.
    println!("plugin: at your service");
    ringway::Server::builder()
        .add_service(GreeterServer::new(Polite))
        .serve_pipe()
        .await
}

async fn host() -> Result<(), Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(PLUGIN);
    let child = ringway::Child::spawn(command).await?;
    let mut client = GreeterClient::new(child.channel());

    let response = client.greet(Hello { name: "Ada".into() }).await?;
    let path = ringway::Path::of(&response);
    println!("host: {} (over {path:?})", response.into_inner().text);

    let status = child.stop(Duration::from_secs(5)).await?;
    println!("host: the plugin ended with {status}");
    Ok(())
}
