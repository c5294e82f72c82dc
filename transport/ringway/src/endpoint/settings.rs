//! What is asked for on every path, and of the choice between them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ringway_local::{Directory, LocalConfig, WaitPolicy};
use ringway_net::tls::{self, ClientTlsConfig};
use ringway_net::{BackoffOptions, NetOptions, OutlierOptions, Resolve, Target};

use super::{Endpoint, LocalPolicy};
use crate::error::Error;
use crate::path::Path;
use crate::retry::{RetryPolicy, RetryThrottling};

/// What is asked for.
impl Endpoint {
    /// Takes this path or none.
    #[must_use]
    pub fn path(mut self, path: Path) -> Self {
        self.forced = Some(path);
        self
    }

    /// Looks for local servers in `directory` instead of where the environment says.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Directory::at(directory);
        self
    }

    /// Uses TLS on the network path; no local path is taken then unless [`Self::allow_local`]
    /// says so. No other setting takes it back.
    ///
    /// # Errors
    /// The configuration can't be used.
    pub fn tls_config(mut self, tls: ClientTlsConfig) -> Result<Self, Error> {
        if let Some(target @ Target::Network { .. }) = &self.target {
            let endpoint = tonic::transport::Endpoint::from_static("https://localhost");
            tls::client(endpoint, &tls).map_err(|source| ringway_net::Error::ClientTls {
                target: target.clone(),
                source,
            })?;
        }
        let tls = Some(tls);
        self.net.ask(move |net| net.tls.clone_from(&tls));
        Ok(self)
    }

    /// Says whether calls may stay on the host.
    #[must_use]
    pub fn allow_local(mut self, policy: LocalPolicy) -> Self {
        if let LocalPolicy::Allow(peers) = policy.clone() {
            self.local.ask(move |local| local.peers = peers.clone());
        }
        self.policy = policy;
        self
    }

    /// How calls wait for a local server: they poll, park, or learn which pays. Default: what `RINGWAY_WAIT` says
    /// (`adaptive`, `park`, `spin:20us`), else adaptive.
    #[must_use]
    pub fn wait_policy(mut self, policy: WaitPolicy) -> Self {
        self.local.ask(move |local| local.wait_policy = policy);
        self
    }

    /// Holds so many local connections to one instance of the server, at most: a further one is made where the
    /// caller's threads contend for one and CPUs idle, stays if it pays, and goes when it is needed no more. Limits
    /// hold for the channel all the same. Default: half of the CPUs, and no more than 8; 1 makes no further one.
    /// `RINGWAY_CONNECTIONS` fixes the number below that, for all channels of a process.
    #[must_use]
    pub fn max_connections(mut self, limit: usize) -> Self {
        self.max_connections = limit;
        self
    }

    /// The longest that a call may take, where the call itself does not say less.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Lets so many calls be on their way at once, on every path; one more waits, with its deadline
    /// running. A call counts until its response begins. Default: no limit.
    #[must_use]
    pub fn concurrency_limit(mut self, limit: usize) -> Self {
        self.concurrency_limit = Some(limit);
        self
    }

    /// Lets `limit` calls begin within each `duration`, on every path; one more waits, with its deadline
    /// running. Default: no limit.
    #[must_use]
    pub fn rate_limit(mut self, limit: u64, duration: Duration) -> Self {
        self.rate_limit = Some((limit, duration));
        self
    }

    /// Settings of the local paths as a whole; those that were made one by one are stronger.
    #[must_use]
    pub fn local_config(mut self, config: LocalConfig) -> Self {
        self.local.replace(config);
        self
    }

    /// Settings of the network path as a whole; those that were made one by one are stronger. Options
    /// without TLS take none away.
    #[must_use]
    pub fn net_options(mut self, mut options: NetOptions) -> Self {
        options.tls = options.tls.or_else(|| self.net.tls.clone());
        self.net.replace(options);
        self
    }

    /// Pings a server that says nothing for so long while calls are in flight, on every path, and
    /// gives it up if it does not answer: its calls end `UNAVAILABLE`. Default: 310 s on the network
    /// path, since many servers end connections that are pinged more often than every five minutes, and
    /// not at all on the local ones, where the end of a process is noticed at once.
    #[must_use]
    pub fn http2_keep_alive_interval(mut self, interval: Duration) -> Self {
        self.keep_alive_interval = Some(interval);
        self.net
            .ask(move |net| net.keepalive_interval = Some(interval));
        self
    }

    /// How long a server's answer to a ping may take. Default: 10 s.
    #[must_use]
    pub fn keep_alive_timeout(mut self, timeout: Duration) -> Self {
        self.net.ask(move |net| net.keepalive_timeout = timeout);
        self
    }

    /// Whether to ping while no call is in flight, too. Default: no, since some servers end
    /// connections for it.
    #[must_use]
    pub fn keep_alive_while_idle(mut self, enabled: bool) -> Self {
        self.net.ask(move |net| net.keepalive_while_idle = enabled);
        self
    }

    /// Makes calls again that ended with certain codes, unless [`Self::retry_policy_for`] says
    /// otherwise for them.
    #[must_use]
    pub fn retry_policy(mut self, policy: RetryPolicy) -> Self {
        self.retry.general = Some(Arc::new(policy));
        self
    }

    /// The same for the calls of a service (`shop.v1.Catalog`) or of a method
    /// (`shop.v1.Catalog/Get`); a method's policy is stronger than its service's.
    #[must_use]
    pub fn retry_policy_for(mut self, name: impl Into<String>, policy: RetryPolicy) -> Self {
        self.retry.named.push((name.into(), Arc::new(policy)));
        self
    }

    /// Retries nothing while most of what is sent fails. Default: not throttled.
    #[must_use]
    pub fn retry_throttling(mut self, throttling: RetryThrottling) -> Self {
        self.retry.throttling = Some(throttling);
        self
    }

    /// How much of a stream's requests is kept, in bytes, in case the call has to be sent again: by
    /// a policy, or because its connection was lost before the server saw it. A stream that sends
    /// more before it is answered is not sent again. Default: 256 KiB.
    #[must_use]
    pub fn retry_buffer_bytes(mut self, bytes: usize) -> Self {
        self.retry_buffer_bytes = bytes;
        self
    }

    /// Whether calls wait while no server can be reached, instead of failing at once with
    /// `UNAVAILABLE`. A [`crate::WaitForReady`] in a request's extensions is stronger. Default: no.
    #[must_use]
    pub fn wait_for_ready(mut self, wait: bool) -> Self {
        self.retry.wait_for_ready = wait;
        self
    }

    /// What finds the addresses of the server's instances on the network, in place of the system's
    /// resolver. Calls go to all of them in turn.
    #[must_use]
    pub fn resolver(mut self, resolver: impl Resolve + 'static) -> Self {
        let resolver = Arc::new(resolver);
        self.net
            .ask(move |net| net.resolver = Arc::clone(&resolver) as _);
        self
    }

    /// How the time between attempts to connect over the network grows. Default: gRPC's, from 1 s to
    /// 120 s, and no more than 500 ms while calls come.
    #[must_use]
    pub fn backoff(mut self, backoff: BackoffOptions) -> Self {
        self.net.ask(move |net| net.backoff = backoff);
        self
    }

    /// When an instance that fails calls again and again is put aside, while there are others;
    /// `None` is never.
    #[must_use]
    pub fn outliers(mut self, outliers: impl Into<Option<OutlierOptions>>) -> Self {
        let outliers = outliers.into();
        self.net.ask(move |net| net.outliers = outliers);
        self
    }
}
