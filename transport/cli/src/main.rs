//! The `ringway` command.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod compare;
mod doctor;
mod interop;
mod plain;
mod top;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

/// Ringway: one set of stubs, calls over memory rings, a Unix socket or gRPC.
#[derive(Parser)]
#[command(name = "ringway", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Time calls over each path, and the machine's bare mechanisms beside them.
    Compare(compare::Options),
    /// Say what this kernel, container and user allow, which paths that leaves, and why not the others
    Doctor(doctor::Options),
    /// Show the connections of running servers, by path
    Top(top::Options),
    /// Serve gRPC's interoperability tests, on every path
    InteropServer(interop::ServerOptions),
    /// Run gRPC's interoperability tests against a server, over one path
    InteropClient(interop::ClientOptions),
    /// The processes that `compare` starts: this binary again.
    #[command(flatten)]
    Part(compare::Part),
}

fn main() -> ExitCode {
    log_to_stderr();
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ringway: {}", compare::with_causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// What the process is to exit with, if it did what it was asked to.
fn run(command: Command) -> Result<ExitCode, Box<dyn Error>> {
    match command {
        Command::Compare(options) => compare::run(&options)?,
        Command::Part(part) => compare::play(part)?,
        Command::Doctor(options) => return Ok(doctor::run(&options)?),
        Command::Top(options) => top::run(&options)?,
        Command::InteropServer(options) => interop::serve(options)?,
        Command::InteropClient(options) => interop::call(&options)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Warnings, unless `RUST_LOG` asks for more: standard output belongs to results.
fn log_to_stderr() {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::WARN.into())
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}
