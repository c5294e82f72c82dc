//! Whom to call: a network address or a Unix socket, parsed once and checked then.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use http::uri::Authority;

use crate::Error;

/// The longest path that fits `sockaddr_un` with its terminating NUL (unix(7)).
pub(crate) const UNIX_PATH_LIMIT_BYTES: usize = 107;

/// Whether a network target is called over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `http`: without TLS.
    Http,
    /// `https`: with TLS.
    Https,
}

/// Whom to call.
///
/// | text | meaning |
/// | --- | --- |
/// | `http://host:port` | without TLS; port 80 if none is given |
/// | `https://host:port` | with TLS; port 443 if none is given |
/// | `host:port` | with TLS if [`NetOptions::tls`](crate::NetOptions::tls) is set |
/// | `unix:/path`, `unix:///path`, `unix:relative/path` | a Unix socket, as gRPC names them |
///
/// ```
/// use ringway_net::Target;
///
/// let target: Target = "http://catalog:50051".parse()?;
/// assert_eq!(target.host(), Some("catalog"));
/// assert_eq!(target.port(), Some(50051));
///
/// let socket: Target = "unix:///run/shop/catalog.sock".parse()?;
/// assert_eq!(socket.to_string(), "unix:/run/shop/catalog.sock");
/// # Ok::<(), ringway_net::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A host and a port.
    Network {
        /// Said by the text, or left to the TLS configuration.
        scheme: Option<Scheme>,
        /// A name or an IP address, IPv6 in brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix stream socket.
    Unix(PathBuf),
}

impl Target {
    /// The host, unless it is a Unix socket; an IPv6 address is in brackets.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        match self {
            Target::Network { host, .. } => Some(host),
            Target::Unix(_) => None,
        }
    }

    /// The port, unless it is a Unix socket.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self {
            Target::Network { port, .. } => Some(*port),
            Target::Unix(_) => None,
        }
    }

    /// Whether the text itself asked for TLS.
    #[must_use]
    pub fn asks_for_tls(&self) -> bool {
        matches!(
            self,
            Target::Network {
                scheme: Some(Scheme::Https),
                ..
            }
        )
    }
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some(path) = text.strip_prefix("unix:") {
            return parse_unix(text, path);
        }
        if let Some(rest) = strip_scheme(text, "http://") {
            return parse_network(text, Some(Scheme::Http), rest);
        }
        if let Some(rest) = strip_scheme(text, "https://") {
            return parse_network(text, Some(Scheme::Https), rest);
        }
        if text.contains("://") {
            return Err(invalid(text, "its scheme is not known"));
        }
        parse_network(text, None, text)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Network { scheme, host, port } => {
                let prefix = match scheme {
                    None => "",
                    Some(Scheme::Http) => "http://",
                    Some(Scheme::Https) => "https://",
                };
                write!(f, "{prefix}{host}:{port}")
            }
            Target::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The path of `unix:path` or `unix://path`, checked to fit a socket address.
pub(crate) fn unix_path(rest: &str) -> Result<Option<PathBuf>, Error> {
    let path = Path::new(rest.strip_prefix("//").unwrap_or(rest));
    let len_bytes = path.as_os_str().len();
    if len_bytes > UNIX_PATH_LIMIT_BYTES {
        return Err(Error::UnixPathTooLong {
            path: path.to_owned(),
            len_bytes,
        });
    }
    let usable = len_bytes > 0 && !rest.contains('\0');
    Ok(usable.then(|| path.to_owned()))
}

fn parse_unix(text: &str, rest: &str) -> Result<Target, Error> {
    unix_path(rest)?
        .map(Target::Unix)
        .ok_or_else(|| invalid(text, "it has no usable path"))
}

/// URI schemes compare without case (RFC 3986, 3.1).
fn strip_scheme<'a>(text: &'a str, scheme: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then_some(rest)
}

fn parse_network(text: &str, scheme: Option<Scheme>, rest: &str) -> Result<Target, Error> {
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#']) {
        return Err(invalid(text, "gRPC takes no path, query or fragment here"));
    }
    if rest.contains('@') {
        return Err(invalid(text, "user information is not supported"));
    }
    let authority: Authority = rest
        .parse()
        .map_err(|_| invalid(text, "its host or port is malformed"))?;
    if authority.host().is_empty() {
        return Err(invalid(text, "it has no host"));
    }
    Ok(Target::Network {
        scheme,
        host: authority.host().to_owned(),
        port: port_of(text, scheme, &authority)?,
    })
}

fn port_of(text: &str, scheme: Option<Scheme>, authority: &Authority) -> Result<u16, Error> {
    // `host:` and `host:99999` both parse as an authority without a port.
    let written = authority.as_str().len() > authority.host().len();
    match (authority.port_u16(), scheme) {
        (Some(0), _) => Err(invalid(text, "port 0 cannot be called")),
        (Some(port), _) => Ok(port),
        (None, _) if written => Err(invalid(text, "its port is not a number below 65536")),
        (None, Some(Scheme::Http)) => Ok(80),
        (None, Some(Scheme::Https)) => Ok(443),
        (None, None) => Err(invalid(text, "it has no port")),
    }
}

fn invalid(text: &str, reason: &'static str) -> Error {
    Error::InvalidTarget {
        text: text.to_owned(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(scheme: Option<Scheme>, host: &str, port: u16) -> Target {
        Target::Network {
            scheme,
            host: host.into(),
            port,
        }
    }

    #[test]
    fn every_form_is_read() {
        let cases = [
            (
                "http://catalog:50051",
                network(Some(Scheme::Http), "catalog", 50051),
            ),
            (
                "HTTP://catalog:50051/",
                network(Some(Scheme::Http), "catalog", 50051),
            ),
            ("http://catalog", network(Some(Scheme::Http), "catalog", 80)),
            (
                "https://shop.example",
                network(Some(Scheme::Https), "shop.example", 443),
            ),
            ("127.0.0.1:1", network(None, "127.0.0.1", 1)),
            ("[::1]:50051", network(None, "[::1]", 50051)),
            ("unix:/run/a.sock", Target::Unix("/run/a.sock".into())),
            ("unix:///run/a.sock", Target::Unix("/run/a.sock".into())),
            ("unix:a.sock", Target::Unix("a.sock".into())),
        ];
        for (text, target) in cases {
            assert_eq!(text.parse::<Target>().unwrap(), target, "{text}");
        }
    }

    #[test]
    fn what_is_printed_is_read_back() {
        for text in ["http://a:1", "https://a:2", "a:3", "[::1]:4", "unix:/a"] {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.to_string(), text);
            assert_eq!(target.to_string().parse::<Target>().unwrap(), target);
        }
    }

    #[test]
    fn what_cannot_be_called_is_refused_by_name() {
        let cases = [
            "",
            "catalog",
            "catalog:",
            "catalog:0",
            "catalog:65536",
            ":50051",
            "http://",
            "ftp://a:1",
            "http://a:1/path",
            "http://a:1?q",
            "http://user@a:1",
            "unix:",
            "unix://",
            "a b:1",
            "::1:1",
        ];
        for text in cases {
            let error = text.parse::<Target>().unwrap_err();
            assert!(
                matches!(error, Error::InvalidTarget { .. }),
                "{text}: {error}"
            );
            assert!(error.to_string().contains(text));
        }
    }

    #[test]
    fn a_path_too_long_for_the_kernel_is_refused_before_it_is_tried() {
        let text = format!("unix:/{}", "x".repeat(UNIX_PATH_LIMIT_BYTES));
        assert!(matches!(
            text.parse::<Target>(),
            Err(Error::UnixPathTooLong { len_bytes: 108, .. })
        ));
        assert!(
            format!("unix:/{}", "x".repeat(106))
                .parse::<Target>()
                .is_ok()
        );
    }
}
