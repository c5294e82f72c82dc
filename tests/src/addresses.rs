//! A name that leads to the addresses that a test says.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use ringway::{Endpoint, Resolve, Resolving};

/// A resolver that a test is in charge of.
#[derive(Debug, Clone)]
pub struct Addresses(Arc<Mutex<Vec<SocketAddr>>>);

impl Addresses {
    /// Every name leads to these.
    pub fn new(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self(Arc::new(Mutex::new(addresses.into_iter().collect())))
    }

    /// From now on every name leads to these.
    pub fn set(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        *self.0.lock().unwrap() = addresses.into_iter().collect();
    }

    /// A server that is called over the network at these addresses.
    pub fn endpoint(&self) -> Endpoint {
        let endpoint = Endpoint::new("grpc://everywhere:50051").unwrap();
        endpoint.resolver(self.clone())
    }
}

impl Resolve for Addresses {
    fn resolve<'a>(&'a self, _host: &'a str, _port: u16) -> Resolving<'a> {
        let addresses = self.0.lock().unwrap().clone();
        Box::pin(async move { Ok(addresses) })
    }
}

/// An address on which nobody listens, and nobody else will for a while.
pub fn free_address() -> SocketAddr {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap()
}
