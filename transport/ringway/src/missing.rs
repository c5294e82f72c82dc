//! Features that a program calls for and was built without: the compiler names the feature.
//!
//! Where a feature is off, its methods stay, bound by a trait that no type implements.
#![cfg_attr(
    not(feature = "introspection"),
    doc = "\n```compile_fail,E0277\nlet server = ringway::Server::builder().introspection();\n```"
)]
#![cfg_attr(
    not(feature = "signal"),
    doc = "\n```compile_fail,E0277\nlet serving = ringway::Server::builder().serve_until_terminated();\n```"
)]
#![cfg_attr(
    not(feature = "blocking"),
    doc = "\n```compile_fail,E0277\nlet channel = ringway::Endpoint::new(\"a:1\").unwrap().connect_blocking();\n```"
)]
#![cfg_attr(
    not(feature = "_tls-any"),
    doc = "\n```compile_fail,E0277\nlet tls = ringway::ClientTlsConfig::new();\n```"
)]

/// Names the feature `introspection`.
#[cfg(not(feature = "introspection"))]
#[diagnostic::on_unimplemented(
    message = "ringway was built without its feature `introspection`",
    label = "needs the feature `introspection`",
    note = "enable it in Cargo.toml: `features = [\"introspection\"]` of the dependency `ringway`"
)]
pub trait Introspection {}

/// Names the feature `signal`.
#[cfg(not(feature = "signal"))]
#[diagnostic::on_unimplemented(
    message = "ringway was built without its feature `signal`",
    label = "needs the feature `signal`",
    note = "enable it in Cargo.toml: `features = [\"signal\"]` of the dependency `ringway`"
)]
pub trait Signal {}

/// Names the feature `blocking`.
#[cfg(not(feature = "blocking"))]
#[diagnostic::on_unimplemented(
    message = "ringway was built without its feature `blocking`",
    label = "needs the feature `blocking`",
    note = "enable it in Cargo.toml: `features = [\"blocking\"]` of the dependency `ringway`"
)]
pub trait Blocking {}

#[cfg(not(feature = "introspection"))]
impl crate::Server {
    #[doc(hidden)]
    #[must_use]
    pub fn introspection(self) -> Self
    where
        for<'missing> Self: Introspection,
    {
        self
    }
}

#[cfg(not(feature = "signal"))]
impl crate::Server {
    #[doc(hidden)]
    pub async fn serve_until_terminated(self) -> Result<(), crate::Error>
    where
        for<'missing> Self: Signal,
    {
        self.run().await
    }
}

#[cfg(not(feature = "signal"))]
impl crate::BoundServer {
    #[doc(hidden)]
    pub async fn serve_until_terminated(self) -> Result<(), crate::Error>
    where
        for<'missing> Self: Signal,
    {
        self.serve().await
    }
}

#[cfg(not(feature = "blocking"))]
impl crate::Endpoint {
    #[doc(hidden)]
    pub fn connect_blocking(&self) -> Result<crate::Channel, crate::Error>
    where
        for<'missing> Self: Blocking,
    {
        Ok(self.connect_lazy())
    }

    #[doc(hidden)]
    pub fn connect_lazy_blocking(&self) -> crate::Channel
    where
        for<'missing> Self: Blocking,
    {
        self.connect_lazy()
    }
}

#[cfg(test)]
mod tests {
    #[cfg(not(feature = "_tls-any"))]
    #[tokio::test]
    async fn an_https_address_without_tls_names_the_features() {
        let endpoint = crate::Endpoint::new("https://127.0.0.1:1").unwrap();
        let told = format!("{:?}", endpoint.connect().await.unwrap_err());
        assert!(
            told.contains("feature `tls-ring` or `tls-aws-lc` of ringway"),
            "{told}"
        );
        let refused = format!("{:?}", endpoint.connect_lazy());
        assert!(
            refused.contains("feature `tls-ring` or `tls-aws-lc`"),
            "{refused}"
        );
    }

    #[cfg(all(target_os = "linux", not(feature = "io-uring")))]
    #[tokio::test]
    async fn io_uring_that_is_asked_for_without_its_feature_is_named() {
        use crate::{Endpoint, LocalConfig, Server, SocketEngine};

        let root = std::env::temp_dir().join(format!("ringway-missing-{}", std::process::id()));
        let server = Server::builder().name("missing:1").directory(&root);
        let serving = tokio::spawn(server.bind().await.unwrap().serve());
        let mut config = LocalConfig::default();
        config.socket_engine = SocketEngine::Uring;
        let endpoint = Endpoint::new("socket://missing:1").unwrap();
        let connected = endpoint
            .directory(&root)
            .local_config(config)
            .connect()
            .await;
        let told = format!("{:?}", connected.unwrap_err());
        serving.abort();
        std::fs::remove_dir_all(&root).unwrap();
        assert!(told.contains("feature `io-uring`"), "{told}");
    }
}
