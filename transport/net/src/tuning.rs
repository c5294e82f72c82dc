//! Settings that tonic has, and that this path passes on as they are: nothing here has a default of
//! ours.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::{HeaderValue, Uri};
use rustix::net::sockopt;
use tokio::net::{TcpSocket, TcpStream};
use tonic::transport::{Endpoint, Server};

/// What a client's connections say and keep, beside what [`NetOptions`](crate::NetOptions) has.
#[derive(Clone, Debug, Default)]
pub struct ClientTuning {
    /// What is said before tonic's own name in `user-agent`.
    pub user_agent: Option<HeaderValue>,
    /// Scheme and authority that calls name, in place of where they go.
    pub origin: Option<Uri>,
    /// How TCP finds out that a peer has gone.
    pub tcp_keepalive: TcpKeepalive,
    /// The address of this host that connections come from.
    pub local_address: Option<IpAddr>,
    /// Calls that wait before a connection takes them.
    pub buffer_size: Option<usize>,
    /// Windows that follow what the network does, in place of fixed ones.
    pub adaptive_window: Option<bool>,
    /// HPACK's table, in bytes.
    pub header_table_bytes: Option<u32>,
    /// The most that a response's head may hold, in bytes.
    pub max_header_list_bytes: Option<u32>,
    /// Streams that were reset here and are remembered.
    pub max_concurrent_reset_streams: Option<usize>,
    /// How long they are.
    pub reset_stream_duration: Option<Duration>,
    /// Resets for errors of the peer before the connection is given up; `Some(None)` is without end.
    pub max_local_error_reset_streams: Option<Option<usize>>,
}

/// What a server's connections keep, beside what [`ServerOptions`](crate::ServerOptions) has.
#[derive(Clone, Debug, Default)]
pub struct ServerTuning {
    /// How TCP finds out that a peer has gone.
    pub tcp_keepalive: TcpKeepalive,
    /// Windows that follow what the network does, in place of fixed ones.
    pub adaptive_window: Option<bool>,
    /// The most that a request's head may hold, in bytes.
    pub max_header_list_bytes: Option<u32>,
    /// Streams reset by the client before they were accepted, before the connection is given up.
    pub max_pending_accept_reset_streams: Option<usize>,
    /// Resets for errors of the peer before the connection is given up.
    pub max_local_error_reset_streams: Option<usize>,
    /// How long a connection lives before its client is told to make another.
    pub max_connection_age: Option<Duration>,
    /// How long calls in flight may go on then.
    pub max_connection_age_grace: Option<Duration>,
    /// Whether HTTP/1.1 is spoken as well, as grpc-web needs it.
    pub accept_http1: bool,
    /// Whether a call above the limit of a connection ends `RESOURCE_EXHAUSTED`, instead of waiting.
    pub load_shed: bool,
}

/// How TCP finds out that a peer has gone (tcp(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// Silence before the first probe; `None` probes nothing.
    pub idle: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
    /// Probes without an answer before the peer is given up.
    pub retries: Option<u32>,
}

impl TcpKeepalive {
    /// Sets it up on a connection.
    pub(crate) fn apply(&self, connection: &TcpStream) -> std::io::Result<()> {
        let Some(idle) = self.idle else {
            return Ok(());
        };
        sockopt::set_socket_keepalive(connection, true)?;
        sockopt::set_tcp_keepidle(connection, idle)?;
        if let Some(interval) = self.interval {
            sockopt::set_tcp_keepintvl(connection, interval)?;
        }
        if let Some(retries) = self.retries {
            sockopt::set_tcp_keepcnt(connection, retries)?;
        }
        Ok(())
    }
}

impl ClientTuning {
    /// What tonic itself takes.
    pub(crate) fn apply(&self, mut endpoint: Endpoint) -> Endpoint {
        if let Some(user_agent) = self.user_agent.clone() {
            // A header's value becomes no other value.
            endpoint = match endpoint.clone().user_agent(user_agent) {
                Ok(named) => named,
                Err(_) => endpoint,
            };
        }
        if let Some(origin) = self.origin.clone() {
            endpoint = endpoint.origin(origin);
        }
        if let Some(size) = self.buffer_size {
            endpoint = endpoint.buffer_size(size);
        }
        if let Some(enabled) = self.adaptive_window {
            endpoint = endpoint.http2_adaptive_window(enabled);
        }
        if let Some(bytes) = self.header_table_bytes {
            endpoint = endpoint.http2_header_table_size(bytes);
        }
        if let Some(bytes) = self.max_header_list_bytes {
            endpoint = endpoint.http2_max_header_list_size(bytes);
        }
        if let Some(max) = self.max_concurrent_reset_streams {
            endpoint = endpoint.http2_max_concurrent_reset_streams(max);
        }
        if let Some(duration) = self.reset_stream_duration {
            endpoint = endpoint.http2_reset_stream_duration(duration);
        }
        if let Some(max) = self.max_local_error_reset_streams {
            endpoint = endpoint.http2_max_local_error_reset_streams(max);
        }
        endpoint
    }

    /// Connects from where it is to come from.
    pub(crate) async fn connect(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        let connection = match self.local_address {
            None => TcpStream::connect(address).await?,
            Some(local) => {
                let socket = match address {
                    SocketAddr::V4(_) => TcpSocket::new_v4()?,
                    SocketAddr::V6(_) => TcpSocket::new_v6()?,
                };
                socket.bind(SocketAddr::new(local, 0))?;
                socket.connect(address).await?
            }
        };
        self.tcp_keepalive.apply(&connection)?;
        Ok(connection)
    }
}

impl ServerTuning {
    /// What tonic itself takes.
    pub(crate) fn apply(&self, server: Server) -> Server {
        let mut server = server
            .http2_adaptive_window(self.adaptive_window)
            .accept_http1(self.accept_http1)
            .load_shed(self.load_shed);
        if let Some(bytes) = self.max_header_list_bytes {
            server = server.http2_max_header_list_size(bytes);
        }
        if let Some(max) = self.max_pending_accept_reset_streams {
            server = server.http2_max_pending_accept_reset_streams(Some(max));
        }
        if let Some(max) = self.max_local_error_reset_streams {
            server = server.http2_max_local_error_reset_streams(Some(max));
        }
        if let Some(age) = self.max_connection_age {
            server = server.max_connection_age(age);
        }
        if let Some(grace) = self.max_connection_age_grace {
            server = server.max_connection_age_grace(grace);
        }
        server
    }
}
