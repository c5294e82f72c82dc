//! `ringway compare`: what a call costs over each path, on this machine, beside what the machine
//! itself costs.
//!
//! ```text
//! compare          plans, connects, loads, measures, reports
//!   bench-server     one for each path but inproc
//!   bench-floor      the far end of a bare mechanism
//!   bench-busy       somebody else's work, for --busy
//!   bench-collector  counts the spans of --trace
//!   bench-traced-*   client and server of calls that --report shows step by step
//! ```
//!
//! Client and server are processes on tokio's default runtime, as users have them. Start reading
//! at `client::run`; `plan` says which rows there are, `load` what a client does, `measure` what
//! is made of it.

mod client;
mod connect;
mod error;
mod floors;
mod handler;
mod idle;
mod load;
mod machine;
mod measure;
mod options;
mod pace;
mod pairs;
mod part;
mod payload;
mod peer;
mod plan;
mod report;
mod rounds;
mod server;
mod stubs;
mod switch;
mod traced;
mod work;

pub(crate) use client::run;
pub(crate) use error::{Error, with_causes};
pub(crate) use options::Options;

use clap::Subcommand;

/// The processes of a comparison.
#[derive(Debug, Subcommand)]
pub(crate) enum Part {
    /// Serves one path
    #[command(name = "bench-server", hide = true)]
    Server(server::ServerOptions),
    /// Echoes over one bare mechanism
    #[command(name = "bench-floor", hide = true)]
    Floor(floors::FloorOptions),
    /// Counts spans
    #[command(name = "bench-collector", hide = true)]
    Collector,
    /// Serves one path, its calls traced
    #[command(name = "bench-traced-server", hide = true)]
    TracedServer(traced::TracedOptions),
    /// Calls over one path, its calls traced
    #[command(name = "bench-traced-client", hide = true)]
    TracedClient(traced::TracedOptions),
    /// Keeps a processor busy
    #[command(name = "bench-busy", hide = true)]
    Busy,
}

/// Plays one part of a comparison to its end.
pub(crate) fn play(part: Part) -> Result<(), Error> {
    match part {
        Part::Server(options) => server::run(options),
        Part::Floor(options) => floors::run(options),
        Part::Collector => switch::collect(),
        Part::TracedServer(options) => traced::serve(options),
        Part::TracedClient(options) => traced::call(options),
        Part::Busy => part::busy(),
    }
}
