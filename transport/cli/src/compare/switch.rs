//! Tracing that is switched on and off while calls are timed: `--trace RATIO`.
//!
//! Client and server are set up as any program is that sends its spans by OTLP. The collector is a
//! process of its own, as it is for users, which counts spans and keeps none.

use clap::Args;
use ringway_report::Counter;
use ringway_telemetry::{Builder, Sampler, Telemetry};
use serde::{Deserialize, Serialize};

use super::error::Error;
use super::options::Options;
use super::part::{Process, Ready, announce, questions};
use super::peer::Peer;

/// What a server is asked to do.
pub(crate) const ON: &str = "trace";
pub(crate) const OFF: &str = "do not trace";
/// What a server, or the collector, is asked for.
pub(crate) const SPANS: &str = "spans";

/// Which calls are recorded, and where their spans go.
#[derive(Debug, Clone, Args)]
pub(crate) struct TraceOptions {
    /// The share of traces that is recorded
    #[arg(
        long = "trace",
        id = "recorded",
        required = false,
        requires = "collector"
    )]
    ratio: f64,
    /// Where spans go
    #[arg(long, required = false, requires = "recorded")]
    collector: String,
}

impl TraceOptions {
    /// As the command line of a server has them.
    pub(crate) fn arguments(&self) -> [String; 4] {
        let (ratio, collector) = (self.ratio.to_string(), self.collector.clone());
        [
            "--trace".to_owned(),
            ratio,
            "--collector".to_owned(),
            collector,
        ]
    }
}

/// The answer to [`SPANS`]: how many the collector has, or how many a sender lost.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Spans {
    pub(crate) count: u64,
}

/// One process's tracing, off until it is switched on.
#[derive(Debug)]
pub(crate) struct Switch(Telemetry);

impl Switch {
    /// Sets this process up; once.
    pub(crate) fn install(service: &str, options: &TraceOptions) -> Result<Self, Error> {
        let telemetry = Builder::new()
            .without_logs()
            .without_metrics()
            .service_name(service)
            .endpoint(&options.collector)
            .sampler(Sampler::ratio(options.ratio))
            .init()?;
        let switch = Switch(telemetry);
        switch.set(false);
        match switch.0.records_traces() {
            true => Ok(switch),
            false => Err(Error::TracesDisabled),
        }
    }

    /// Traces calls from now on, or no longer.
    pub(crate) fn set(&self, on: bool) {
        ringway::trace::set_active(on);
    }

    /// Sends what waits, and tells how many spans were lost until then. Blocks.
    pub(crate) fn lost(&self) -> Spans {
        self.0.flush();
        Spans {
            count: self.0.lost_spans(),
        }
    }
}

/// The tracing of a whole comparison.
#[derive(Debug)]
pub(crate) struct Tracing {
    options: TraceOptions,
    client: Switch,
    collector: Process,
}

impl Tracing {
    /// Starts the collector, and sets this process up; none if that was not asked for.
    pub(crate) fn start(options: &Options) -> Result<Option<Self>, Error> {
        let Some(ratio) = options.trace else {
            return Ok(None);
        };
        let mut collector = Process::start_part("bench-collector", [""; 0])?;
        let Ready { address } = collector.hear()?;
        let options = TraceOptions {
            ratio,
            collector: address,
        };
        Ok(Some(Tracing {
            client: Switch::install("client", &options)?,
            options,
            collector,
        }))
    }

    /// What the servers are told.
    pub(crate) fn options(&self) -> &TraceOptions {
        &self.options
    }

    /// The share of traces that is recorded.
    pub(crate) fn ratio(&self) -> f64 {
        self.options.ratio
    }

    /// Has both ends trace calls from now on, or no longer.
    pub(crate) fn set(&self, peer: &mut Peer, on: bool) -> Result<(), Error> {
        self.client.set(on);
        peer.trace(on)
    }

    /// The spans that were sent and lost since the start, when all that wait have been sent.
    pub(crate) fn spans(&mut self, peer: &mut Peer) -> Result<(u64, u64), Error> {
        // Its input and output is this runtime's only in part.
        let lost = tokio::task::block_in_place(|| self.client.lost());
        let lost = lost.count + peer.lost_spans()?;
        let sent: Spans = self.collector.ask(SPANS)?;
        Ok((sent.count, lost))
    }
}

/// The process `bench-collector`: counts spans until its standard input ends.
#[tokio::main]
pub(crate) async fn collect() -> Result<(), Error> {
    let counter = Counter::start().await.map_err(|source| Error::Process {
        what: "could not listen for spans".to_owned(),
        source,
    })?;
    announce(&Ready {
        address: counter.endpoint(),
    });
    let asked = tokio::task::spawn_blocking(move || {
        for _question in questions() {
            announce(&Spans {
                count: counter.spans(),
            });
        }
    });
    // It only ends.
    let _ = asked.await;
    Ok(())
}
