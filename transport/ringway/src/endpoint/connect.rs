//! Channels to an endpoint.

use std::pin::pin;

use http::Uri;
use ringway_local::runtime;
use ringway_net::{Pool, rt};
use tonic::codegen::StdError;
use tower::Service;

use super::{Endpoint, no_pipe};
use crate::channel::Channel;
use crate::error::Error;
use crate::path::Path;

/// Connecting.
impl Endpoint {
    /// A channel that is connected already.
    ///
    /// # Errors
    /// Why no path leads to the server, of each path that may be taken, or which settings contradict each
    /// other. A program that starts before its server asks again, or takes [`Self::connect_lazy`].
    pub async fn connect(&self) -> Result<Channel, Error> {
        let channel = Channel::new(self.clone())?;
        runtime::anywhere(channel.connect_now()).await?;
        Ok(channel)
    }

    /// A channel that connects with its first call. Settings that contradict each other fail each call with
    /// `FAILED_PRECONDITION`.
    pub fn connect_lazy(&self) -> Channel {
        Channel::new(self.clone()).unwrap_or_else(|error| Channel::refusing(self.clone(), &error))
    }

    /// A channel over connections that `connector` makes, the first of them made already. It takes no
    /// local path: the connector is the way.
    ///
    /// # Errors
    /// The connector's, or which settings contradict each other.
    pub async fn connect_with_connector<C>(&self, connector: C) -> Result<Channel, Error>
    where
        C: Service<Uri> + Send + 'static,
        C::Response: rt::Read + rt::Write + Send + Unpin,
        C::Future: Send,
        StdError: From<C::Error> + Send,
    {
        let target = self.target_of_connector()?;
        let connecting = ringway_net::connect_through(target, &self.net, connector);
        let pool = runtime::anywhere(pin!(connecting)).await?;
        Ok(Channel::through(self.over_the_network(), pool))
    }

    /// The same, made with the first call.
    pub fn connect_with_connector_lazy<C>(&self, connector: C) -> Channel
    where
        C: Service<Uri> + Send + 'static,
        C::Response: rt::Read + rt::Write + Send + Unpin,
        C::Future: Send,
        StdError: From<C::Error> + Send,
    {
        let _around = runtime::enter();
        let pool = self.target_of_connector().and_then(|target| {
            let pool = ringway_net::connect_through_lazy(target, &self.net, connector);
            Ok(pool?)
        });
        match pool {
            Ok(pool) => Channel::through(self.over_the_network(), pool),
            Err(error) => Channel::refusing(self.clone(), &error),
        }
    }

    fn over_the_network(&self) -> Self {
        self.clone().path(Path::Grpc)
    }

    fn target_of_connector(&self) -> Result<&ringway_net::Target, Error> {
        self.check()?;
        match (&self.target, self.forced) {
            (Some(target), None | Some(Path::Grpc)) => Ok(target),
            (_, path) => Err(Error::Forced {
                path: path.unwrap_or(Path::Grpc),
                reason: format!("a connector leads to `{}` over the network", self.name),
            }),
        }
    }

    /// Refuses what contradicts itself.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if let Some(address) = &self.refused {
            // Refused before: by the address itself, or by the environment, which may have changed.
            address.parse::<Self>()?;
            return Err(Error::Address {
                address: address.clone(),
                reason: "it was refused".to_owned(),
            });
        }
        if self.forced == Some(Path::Pipe) && self.pipe.is_none() {
            return Err(no_pipe(&self.name));
        }
        match self.forced {
            Some(path) if path.is_local() && !self.may_stay_local() => Err(Error::Forced {
                path,
                reason: "TLS is configured: say allow_local() to go without it on this host".into(),
            }),
            _ => Ok(()),
        }
    }

    /// The way over the network, if calls may take it.
    pub(crate) fn pool(&self) -> Result<Option<Pool>, Error> {
        let needed = self.forced.is_none_or(|path| path == Path::Grpc);
        match &self.target {
            Some(target) if needed => Ok(Some(ringway_net::connect_lazy(target, &self.net)?)),
            _ => Ok(None),
        }
    }
}
