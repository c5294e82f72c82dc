//! Each way does with Ringway what it does with tonic.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::Duration;

use ringway_ways::{over_ringway, over_tonic};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;

/// No way takes longer, and a call that hangs is to fail its test.
const LIMIT: Duration = Duration::from_secs(30);

/// Those of the 124 that do not compile: `Endpoint::executor`, `Channel::new`, tonic's error type, the
/// type name `Router`, and one that tonic does not compile either.
const EXCLUDED: usize = 5;

macro_rules! all_run {
    ($ways:ident) => {{
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at: SocketAddr = listener.local_addr().unwrap();
        let service = $ways::stubs::probe_server::ProbeServer::new($ways::Handler)
            .accept_compressed(tonic::codec::CompressionEncoding::Gzip)
            .send_compressed(tonic::codec::CompressionEncoding::Gzip);
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        let mut failed = Vec::new();
        for (name, way) in $ways::ways() {
            match tokio::time::timeout(LIMIT, way(at)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => failed.push(format!("{name}: {error}")),
                Err(_) => failed.push(format!("{name}: hangs")),
            }
        }
        assert!(failed.is_empty(), "{failed:#?}");
    }};
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_tonic() {
    all_run!(over_tonic);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_ringway() {
    all_run!(over_ringway);
}

#[test]
fn none_is_forgotten() {
    let ours: Vec<_> = over_ringway::ways().iter().map(|(name, _)| *name).collect();
    let tonics: Vec<_> = over_tonic::ways().iter().map(|(name, _)| *name).collect();
    assert_eq!(ours, tonics);
    // Two more than were counted.
    assert_eq!(ours.len(), 124 - EXCLUDED + 2);
}
