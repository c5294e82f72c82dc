//! Where a service listens, and so which path leads to it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use ringway_proto::shop::v1::Path;

use crate::Error;

/// Where a service is reached: `HOST:PORT`, `grpc://HOST:PORT` or `unix:/PATH`.
///
/// ```
/// use shop_link::Address;
///
/// let address: Address = "unix:/run/shop/orders.sock".parse()?;
/// assert_eq!(address.to_string(), "unix:/run/shop/orders.sock");
/// # Ok::<(), shop_link::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP port, as `HOST:PORT`.
    Tcp(String),
    /// A Unix socket, by its absolute path.
    Unix(PathBuf),
}

impl Address {
    /// The path that calls to this address take.
    #[must_use]
    pub fn path(&self) -> Path {
        match self {
            Self::Tcp(_) => Path::GrpcTcp,
            Self::Unix(_) => Path::GrpcUnix,
        }
    }

    /// The address as tonic's endpoint wants it.
    pub(crate) fn uri(&self) -> String {
        match self {
            Self::Tcp(authority) => format!("http://{authority}"),
            Self::Unix(path) => format!("unix://{}", path.display()),
        }
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = || Error::Address(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
            return if path.is_absolute() {
                Ok(Self::Unix(path))
            } else {
                Err(invalid())
            };
        }
        let authority = text.strip_prefix("grpc://").unwrap_or(text);
        let (host, port) = authority.rsplit_once(':').ok_or_else(invalid)?;
        if host.is_empty() || host.contains('/') || port.parse::<u16>().is_err() {
            return Err(invalid());
        }
        Ok(Self::Tcp(authority.to_owned()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(authority) => f.write_str(authority),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_tells_the_path() {
        let path = |text: &str| text.parse::<Address>().map(|address| address.path()).ok();
        assert_eq!(path("127.0.0.1:50051"), Some(Path::GrpcTcp));
        assert_eq!(path("grpc://catalog:50051"), Some(Path::GrpcTcp));
        assert_eq!(path("unix:/run/catalog.sock"), Some(Path::GrpcUnix));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "catalog",
            ":1",
            "catalog:port",
            "catalog:70000",
            "http://a:1",
            "unix:a",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
