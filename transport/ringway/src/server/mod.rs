//! One handler on every path at once.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `settings.rs`, `http2.rs` | what is asked of a server |
//! | `serve.rs` | where it is served |
//! | `bound.rs` | one whose names and addresses are taken, serving |

mod bound;
mod http2;
mod serve;
mod settings;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum_core::response::IntoResponse;
use parking_lot::Mutex;
use ringway_local::{Directory, LocalConfig, UidPolicy};
use ringway_net::{Handler, ListenAddress, ServerOptions};
use tonic::body::Body;
use tonic::codegen::{Service, StdError as BoxError};
use tonic::server::NamedService;
use tonic::service::Routes;

pub use self::bound::BoundServer;
use crate::answering::Answering;
use crate::bridge;
use crate::endpoint::LocalPolicy;
use crate::in_context::InContext;
#[cfg(feature = "introspection")]
use crate::introspection::Introspect;
#[cfg(feature = "introspection")]
use crate::introspection::v1::introspection_server::IntrospectionServer;
use crate::layered::{Layers, TraceFn};
use crate::pipe::Pipe;
use crate::probe;
use crate::services::{Services, Spare};
use crate::settings::Settings;

/// What a server is to serve, and where: on every path at once.
///
/// ```no_run
/// # async fn serve(handler: impl Send) -> Result<(), ringway::Error> {
/// ringway::Server::builder()
///     .name("catalog:50051") // local clients find it by this name
///     // .add_service(CatalogServer::new(handler))
///     .serve(([0, 0, 0, 0], 50051).into()) // all others by this address
///     .await
/// # }
/// ```
///
/// Settings hold in whatever order they are made: one by one they are stronger than the options that
/// come as a whole, and of two for one thing the later holds. Layers alone have an order.
#[derive(Debug, Clone)]
pub struct Server {
    services: Services,
    routes: Routes,
    /// What answers calls for all other services.
    others: Option<Routes>,
    layers: Layers,
    traced: Option<TraceFn>,
    names: Vec<String>,
    /// The addresses make names, too.
    name_from_listen: bool,
    addresses: Vec<ListenAddress>,
    /// Shared with clones: the first that is bound has them.
    pipes: Vec<Arc<Mutex<Option<Pipe>>>>,
    directory: Directory,
    local: Settings<LocalConfig>,
    net: Settings<ServerOptions>,
    policy: LocalPolicy,
    peers: Option<UidPolicy>,
    /// What was asked for expressly, and so holds for the local paths as well.
    keepalive_interval: Option<Duration>,
    drain_timeout: Option<Option<Duration>>,
    /// Calls of one connection that are handled at once.
    limit: Option<usize>,
    /// One more is refused, instead of waiting.
    load_shed: bool,
    twice: Option<&'static str>,
}

/// The name that [`Server`] had.
pub type ServerBuilder = Server;

impl Default for Server {
    fn default() -> Self {
        Self {
            services: Services::default(),
            routes: Routes::default(),
            others: None,
            layers: Layers::default(),
            traced: None,
            names: Vec::new(),
            name_from_listen: false,
            addresses: Vec::new(),
            pipes: Vec::new(),
            directory: Directory::from_environment(),
            local: LocalConfig::default().into(),
            net: ServerOptions::default().into(),
            policy: LocalPolicy::default(),
            peers: None,
            keepalive_interval: None,
            drain_timeout: None,
            limit: None,
            load_shed: false,
            twice: None,
        }
    }
}

/// What is served.
impl Server {
    /// A server of nothing yet.
    pub fn builder() -> Self {
        Self::default()
    }

    /// Serves a service on every path.
    ///
    /// A generated one takes calls without HTTP types on local paths. Any other goes through them, which
    /// adds about two microseconds to a local call: tonic's own (health, reflection), and generated ones
    /// behind an interceptor or a layer. A second service of a name is an error of [`Self::bind`].
    #[must_use]
    pub fn add_service<S>(&self, service: S) -> Self
    where
        S: Service<http::Request<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Response: IntoResponse,
        S::Future: Send + 'static,
    {
        let mut with = self.clone();
        if with.services.has(S::NAME) {
            with.twice = Some(S::NAME);
            return with;
        }
        let local = probe::local_service(&service);
        let service = Answering(service);
        match local {
            Some(local) => with.services.add(S::NAME, local),
            None => {
                let service = bridge::HttpService::new(service.clone());
                with.services.add_http(S::NAME, service);
            }
        }
        with.routes = with.routes.add_service(InContext(service));
        with
    }

    /// The same where there is one; a server without services answers `UNIMPLEMENTED`.
    #[must_use]
    pub fn add_optional_service<S>(&self, service: Option<S>) -> Self
    where
        S: Service<http::Request<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Response: IntoResponse,
        S::Future: Send + 'static,
    {
        match service {
            Some(service) => self.add_service(service),
            None => self.clone(),
        }
    }

    /// Has `routes` answer the calls for all services that were not added by themselves, on every path
    /// and through HTTP types. Of two, the later holds.
    #[must_use]
    pub fn add_routes(&self, routes: Routes) -> Self {
        let mut with = self.clone();
        with.others = Some(routes);
        with
    }

    /// The name that [`Self::add_service`] had for services of tonic's.
    #[deprecated(note = "add_service takes all services")]
    #[must_use]
    pub fn add_tonic_service<S>(self, service: S) -> Self
    where
        S: Service<http::Request<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Response: IntoResponse,
        S::Future: Send + 'static,
    {
        self.add_service(service)
    }

    /// Offers the service that `ringway top` asks: this process's connections by path, what they have
    /// done, and how long calls take; the latter is recorded only while somebody watches. Whoever can
    /// call the server can ask it.
    #[cfg(feature = "introspection")]
    #[must_use]
    pub fn introspection(self) -> Self {
        self.add_service(IntrospectionServer::new(Introspect))
    }

    /// Puts a tower layer around all services, on every path. The first one added is the outermost.
    ///
    /// It sees HTTP types, so with a layer every call goes through them: that adds about two
    /// microseconds to one on a local path.
    #[must_use]
    pub fn layer<L, B>(mut self, layer: L) -> Self
    where
        L: tower::Layer<Handler> + Send + Sync + 'static,
        L::Service: Service<http::Request<Body>, Response = http::Response<B>>
            + Clone
            + Send
            + Sync
            + 'static,
        <L::Service as Service<http::Request<Body>>>::Error: Into<BoxError>,
        <L::Service as Service<http::Request<Body>>>::Future: Send + 'static,
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.layers.add(layer);
        self
    }

    /// Has each call handled in the span that `f` makes of its head, on every path. As with
    /// [`Self::layer`], every call goes through HTTP types then.
    #[must_use]
    pub fn trace_fn<F>(mut self, f: F) -> Self
    where
        F: Fn(&http::Request<()>) -> tracing::Span + Send + Sync + 'static,
    {
        self.traced = Some(TraceFn::by(f));
        self
    }

    /// All services, behind all layers.
    fn handler(&self) -> Handler {
        let own = self.routes.clone().prepare();
        let handler = match &self.others {
            None => Handler::new(own),
            Some(others) => {
                let others = InContext(others.clone().prepare());
                Handler::new(Spare::new(self.services.names(), own, others))
            }
        };
        let handler = self.layers.around(handler);
        match &self.traced {
            Some(traced) => traced.around(handler),
            None => handler,
        }
    }
}

// They ask for TLS.
#[cfg(all(test, feature = "_tls-any"))]
mod tests {
    use ringway_net::tls::ServerTlsConfig;

    use super::*;
    #[cfg(feature = "introspection")]
    use crate::error::Error;
    use crate::settings::in_every_order;

    const SECOND: Duration = Duration::from_secs(1);

    /// Each sets one thing of the network path or of the local ones, or all of either.
    const SETTERS: [fn(Server) -> Server; 8] = [
        |server| {
            server.net_options(ServerOptions {
                tls: Some(ServerTlsConfig::new()),
                timeout: Some(9 * SECOND),
                drain_timeout: Some(9 * SECOND),
                stream_window_bytes: 1,
                ..ServerOptions::default()
            })
        },
        |server| {
            server.local_config(LocalConfig {
                peers: UidPolicy::Anyone,
                max_connections: 7,
                handshake_timeout: SECOND,
                ..LocalConfig::default()
            })
        },
        |server| server.timeout(SECOND),
        |server| server.drain_timeout(2 * SECOND),
        |server| server.max_connections(3),
        |server| {
            server
                .http2_keepalive_interval(SECOND)
                .http2_keepalive_timeout(3 * SECOND)
        },
        |server| server.allow_local(LocalPolicy::Allow(UidPolicy::Only([7, 8].into()))),
        |server| server.local_peers(UidPolicy::Only([8, 9].into())),
    ];

    #[test]
    fn setters_hold_in_every_order() {
        in_every_order(&SETTERS, Server::builder, &mut |server, order| {
            let local = server.local_settings();
            assert_eq!(server.net.timeout, Some(SECOND), "{order:?}");
            assert_eq!(local.wire.call_timeout, Some(SECOND), "{order:?}");
            assert_eq!(
                server.drain_timeout_settled(),
                Some(2 * SECOND),
                "{order:?}"
            );
            assert_eq!(server.net.max_connections, Some(3), "{order:?}");
            assert_eq!(local.max_connections, 3, "{order:?}");
            assert_eq!(local.wire.keepalive.map(|ping| ping.interval), Some(SECOND));
            assert_eq!(
                local.wire.keepalive.map(|ping| ping.timeout),
                Some(3 * SECOND)
            );
            // What nothing else sets is as the whole has it.
            assert_eq!(server.net.stream_window_bytes, 1, "{order:?}");
            assert_eq!(local.handshake_timeout, SECOND, "{order:?}");
            // In by either policy is in by none.
            assert_eq!(local.peers, UidPolicy::Only([8].into()), "{order:?}");
        });
    }

    #[cfg(feature = "introspection")]
    #[tokio::test]
    async fn a_second_service_of_a_name_is_an_error() {
        let server = Server::builder().introspection().introspection();
        let error = server.name("catalog:1").bind().await.unwrap_err();
        assert!(matches!(error, Error::ServiceTwice(name) if name.contains("introspection")));
    }

    #[test]
    fn tls_is_lost_in_no_order() {
        let setters: [fn(Server) -> Server; 5] = [
            SETTERS[0],
            |server| server.net_options(ServerOptions::default()),
            SETTERS[1],
            SETTERS[2],
            SETTERS[7],
        ];
        in_every_order(&setters, Server::builder, &mut |server, order| {
            assert!(server.net.tls.is_some(), "{order:?}");
            assert!(!server.may_serve_locally(), "{order:?}");
        });
    }
}
