//! A service as a process: its log, its traces and metrics, its end.

use std::error::Error as _;
use std::fmt::Display;
use std::process::ExitCode;

/// Runs a service as the whole process: log to stderr as `RUST_LOG` says, traces and metrics as
/// OpenTelemetry's variables say, under `name` unless they say otherwise; exit
/// code 1 with the reason if it failed.
pub async fn run<E: Display>(name: &str, service: impl Future<Output = Result<(), E>>) -> ExitCode {
    let telemetry = ringway_telemetry::Builder::new().service_name(name).init();
    let telemetry = match telemetry {
        Ok(telemetry) => telemetry,
        Err(error) => {
            let why = error.source().map(|why| format!(": {why}"));
            eprintln!("{name}: {error}{}", why.unwrap_or_default());
            return ExitCode::FAILURE;
        }
    };
    let code = match service.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    };
    // It blocks until the collector has the last spans.
    tokio::task::block_in_place(|| drop(telemetry));
    code
}

/// Ready once the process is asked to end, by SIGTERM or ctrl-c.
pub fn signalled() -> impl Future<Output = ()> + Send {
    ringway::terminated()
}
