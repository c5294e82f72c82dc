//! From a host's name to its addresses.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

/// Addresses, as they are found.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>>;

/// Finds the addresses of a server's instances.
///
/// It is asked when a channel is first used, again every
/// [`NetOptions::resolve_interval`](crate::NetOptions::resolve_interval), and whenever an instance
/// was lost or can't be reached.
pub trait Resolve: fmt::Debug + Send + Sync {
    /// All addresses of `host`, each with the port to call.
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Resolving<'a>;
}

/// The system's resolver, `getaddrinfo`: what every other program of the host uses, so that
/// `/etc/hosts`, search domains, mDNS and whatever else `nsswitch.conf` names lead to the same
/// addresses here. It does not tell how long an answer is good for, hence the interval.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Resolving<'a> {
        Box::pin(async move {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let found = tokio::net::lookup_host((host, port)).await?;
            Ok(found.collect())
        })
    }
}
