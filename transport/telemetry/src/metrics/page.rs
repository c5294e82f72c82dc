//! The page that Prometheus reads: `/metrics`, in its text format.

use std::net::{SocketAddr, TcpListener};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use opentelemetry_prometheus::PrometheusExporter;
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::Error;

/// A page that is served, until this is dropped.
#[derive(Debug)]
pub(super) struct Page {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Page {
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Serves the page at `address` (`HOST:PORT`), on the export's own runtime.
pub(super) fn serve(address: &str, runtime: &Handle) -> Result<(PrometheusExporter, Page), Error> {
    let refused = |source| Error::Page {
        address: address.to_owned(),
        source,
    };
    let registry = Registry::new();
    let reader = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .build()
        .map_err(|error| refused(std::io::Error::other(error)))?;
    let listener = TcpListener::bind(address).map_err(refused)?;
    listener.set_nonblocking(true).map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    let _entered = runtime.enter();
    let listener = tokio::net::TcpListener::from_std(listener).map_err(refused)?;
    let app = Router::new()
        .route("/metrics", get(metrics))
        .with_state(registry);
    let serving = runtime.spawn(async move {
        if let Err(error) = axum::serve(listener, app).await {
            tracing::warn!(%address, %error, "the page of metrics is served no more");
        }
    });
    Ok((reader, Page { address, serving }))
}

async fn metrics(State(registry): State<Registry>) -> Response {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&registry.gather(), &mut text) {
        Ok(()) => {
            let kind = encoder.format_type().to_owned();
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
