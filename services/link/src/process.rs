//! A service as a process: its log, its end.

use std::fmt::Display;
use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

/// Runs a service as the whole process: log to stderr as `RUST_LOG` says, exit
/// code 1 with the reason if it failed.
pub async fn run<E: Display>(service: impl Future<Output = Result<(), E>>) -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match service.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Ready once the process is asked to end, by SIGTERM or ctrl-c.
pub fn signalled() -> impl Future<Output = ()> + Send {
    ringway::terminated()
}
