//! Where a service listens, and so which path leads to it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::Error;

/// Where a service is reached.
///
/// | address | path |
/// | --- | --- |
/// | `HOST:PORT` | the best that works: the service listens on the port and under its local name |
/// | `shm://HOST:PORT` | shared memory, or none |
/// | `socket://HOST:PORT` | Ringway's frames over a Unix socket, or none |
/// | `grpc://HOST:PORT` | gRPC over TCP |
/// | `unix:/PATH` | gRPC over a Unix socket |
///
/// ```
/// use shop_link::Address;
///
/// let address: Address = "shm://orders:50054".parse()?;
/// assert_eq!(address, Address::Shm("orders:50054".to_owned()));
/// assert_eq!(address.to_string(), "shm://orders:50054");
/// # Ok::<(), shop_link::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `HOST:PORT` by whatever path is best.
    Auto(String),
    /// `HOST:PORT` as a name on this host, by shared memory.
    Shm(String),
    /// `HOST:PORT` as a name on this host, by a Unix socket with Ringway's frames.
    Socket(String),
    /// `HOST:PORT` by gRPC over TCP.
    Tcp(String),
    /// A Unix socket's absolute path, for gRPC.
    Unix(PathBuf),
}

impl Address {
    /// The name by which clients on this host find the service, if it has one.
    pub(crate) fn local_name(&self) -> Option<&str> {
        match self {
            Self::Auto(name) | Self::Shm(name) | Self::Socket(name) => Some(name),
            Self::Tcp(_) | Self::Unix(_) => None,
        }
    }

    /// Where the service listens for gRPC, if it does.
    pub(crate) fn grpc(&self) -> Option<String> {
        match self {
            Self::Auto(authority) | Self::Tcp(authority) => Some(authority.clone()),
            Self::Unix(_) => Some(self.to_string()),
            Self::Shm(_) | Self::Socket(_) => None,
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
        let (scheme, authority) = text.split_once("://").unwrap_or(("", text));
        let form = match scheme {
            "" => Self::Auto,
            "shm" => Self::Shm,
            "socket" => Self::Socket,
            "grpc" => Self::Tcp,
            _ => return Err(invalid()),
        };
        let (host, port) = authority.rsplit_once(':').ok_or_else(invalid)?;
        if host.is_empty() || host.contains('/') || port.parse::<u16>().is_err() {
            return Err(invalid());
        }
        Ok(form(authority.to_owned()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto(authority) => f.write_str(authority),
            Self::Shm(name) => write!(f, "shm://{name}"),
            Self::Socket(name) => write!(f, "socket://{name}"),
            Self::Tcp(authority) => write!(f, "grpc://{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_as_it_is_written() {
        for text in [
            "127.0.0.1:50051",
            "shm://catalog:50051",
            "socket://catalog:50051",
            "grpc://[::1]:50051",
            "unix:/run/catalog.sock",
        ] {
            let address = text.parse::<Address>().map(|address| address.to_string());
            assert_eq!(address.ok().as_deref(), Some(text));
        }
    }

    #[test]
    fn only_the_automatic_form_listens_everywhere() {
        let listens = |text: &str| {
            let address = text.parse::<Address>().ok()?;
            Some((address.local_name().is_some(), address.grpc().is_some()))
        };
        assert_eq!(listens("catalog:1"), Some((true, true)));
        assert_eq!(listens("shm://catalog:1"), Some((true, false)));
        assert_eq!(listens("socket://catalog:1"), Some((true, false)));
        assert_eq!(listens("grpc://catalog:1"), Some((false, true)));
        assert_eq!(listens("unix:/run/catalog.sock"), Some((false, true)));
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
            "shm://catalog",
            "unix:a",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
