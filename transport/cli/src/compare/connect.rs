//! The client side of each path.

use std::path::Path as FsPath;

use ringway::Endpoint;

use super::error::{Cause, Error};
use super::options::Path;
use super::server::{CONNECTION_WINDOW_BYTES, FRAME_BYTES, STREAM_WINDOW_BYTES, unlimited};
use super::stubs::{Caller, Payload, ours, plain};

/// A connected client: the stubs differ with the path.
#[derive(Debug, Clone)]
pub(crate) enum Client {
    /// Ringway's stubs over a channel of its own.
    Ringway(ours::BenchClient<ringway::Channel>),
    /// tonic's stubs over Ringway's channel.
    RingwayTonic(plain::BenchClient<ringway::Channel>),
    /// tonic's stubs over tonic's channel.
    Tonic(plain::BenchClient<tonic::transport::Channel>),
}

/// Runs the same generic code for whichever client it is.
macro_rules! with_caller {
    ($client:expr, $caller:ident => $body:expr) => {
        match $client {
            $crate::compare::connect::Client::Ringway($caller) => $body,
            $crate::compare::connect::Client::RingwayTonic($caller) => $body,
            $crate::compare::connect::Client::Tonic($caller) => $body,
        }
    };
}
pub(crate) use with_caller;

/// Opens a new connection over `path` to a server at `address`, which lives in `scratch`.
pub(crate) async fn connect(path: Path, address: &str, scratch: &FsPath) -> Result<Client, Error> {
    let connected = match path {
        Path::GrpcUnix | Path::GrpcTcp => {
            let channel = tonic_channel(address).await;
            channel.map(|channel| Client::Tonic(unlimited!(plain::BenchClient::new(channel))))
        }
        Path::ShmTonic => {
            let channel = ringway_channel(address, scratch).await;
            channel
                .map(|channel| Client::RingwayTonic(unlimited!(plain::BenchClient::new(channel))))
        }
        Path::Shm
        | Path::Socket
        | Path::SocketEpoll
        | Path::Inproc
        | Path::Pipe
        | Path::ShmBlocking => {
            let channel = ringway_channel(address, scratch).await;
            channel.map(over)
        }
    };
    connected.map_err(|source| Error::Connect {
        path,
        address: address.to_owned(),
        source,
    })
}

/// Ringway's stubs over a channel that is there already.
pub(crate) fn over(channel: ringway::Channel) -> Client {
    Client::Ringway(unlimited!(ours::BenchClient::new(channel)))
}

/// Ringway as a user gets it; only the directory is the comparison's own.
async fn ringway_channel(address: &str, scratch: &FsPath) -> Result<ringway::Channel, Cause> {
    let endpoint = Endpoint::new(address)?.directory(scratch);
    Ok(endpoint.connect().await?)
}

/// The same without a runtime.
pub(crate) fn connect_blocking(
    address: &str,
    scratch: &FsPath,
) -> Result<ours::BenchBlockingClient, Error> {
    let endpoint = Endpoint::new(address).map(|endpoint| endpoint.directory(scratch));
    let channel = endpoint.and_then(|endpoint| endpoint.connect_blocking());
    let client = channel.map(|channel| unlimited!(ours::BenchClient::new(channel)));
    client.map(Into::into).map_err(|error| Error::Connect {
        path: Path::ShmBlocking,
        address: address.to_owned(),
        source: error.into(),
    })
}

/// Plain tonic at its best: see [`super::server`].
async fn tonic_channel(address: &str) -> Result<tonic::transport::Channel, Cause> {
    let endpoint = tonic::transport::Endpoint::from_shared(address.to_owned())?
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES);
    Ok(endpoint.connect().await?)
}

/// Makes one empty call, whose answer has to have come by `path`.
pub(crate) async fn prove(path: Path, client: &Client) -> Result<(), Error> {
    let Some(expected) = path.of_ringway() else {
        return Ok(());
    };
    let answered = with_caller!(client, caller => path_taken(caller).await);
    let taken = answered.map_err(|status| Error::Call {
        row: format!("{path}, first call"),
        source: status.into(),
    })?;
    if taken == Some(expected) {
        return Ok(());
    }
    Err(Error::OtherPath {
        path,
        taken: taken.map_or("none known", ringway::Path::name),
    })
}

async fn path_taken<C: Caller>(caller: &C) -> Result<Option<ringway::Path>, tonic::Status> {
    let empty = C::Payload::new(0, bytes::Bytes::new());
    let response = caller.clone().unary(tonic::Request::new(empty)).await?;
    Ok(ringway::Path::of(&response))
}
