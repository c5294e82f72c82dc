//! TLS and mutual TLS, and that what is not trusted is not called.

use crate::echo::{Running, path, start};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use ringway_net::{
    CallSettings, Error, ListenAddress, NetOptions, NetServer, ServerOptions, Target, connect_lazy,
    unary,
};
use tonic::{
    Code, Request, Status,
    service::Routes,
    transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig},
};

/// A certificate authority of one test.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    fn certificate(&self) -> Certificate {
        Certificate::from_pem(&self.pem)
    }

    fn identity(&self) -> Identity {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity::from_pem(certificate.pem(), key.serialize_pem())
    }
}

async fn serve(tls: ServerTlsConfig) -> (Running, Target) {
    let options = ServerOptions {
        tls: Some(tls),
        ..ServerOptions::default()
    };
    let running = start(|server| {
        server
            .options(options)
            .listen("127.0.0.1:0".parse().unwrap())
    })
    .await;
    let port = running.targets[0].port().unwrap();
    let target = format!("https://localhost:{port}").parse().unwrap();
    (running, target)
}

async fn call(target: &Target, tls: Option<ClientTlsConfig>) -> Result<String, Status> {
    let channel = connect_lazy(
        target,
        &NetOptions {
            tls,
            ..NetOptions::default()
        },
    )
    .unwrap();
    let request = Request::new("hello".to_owned());
    unary::<_, String, String>(channel, path("Unary"), &CallSettings::default(), request)
        .await
        .map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_trusted_server_is_called_and_another_is_not() {
    let (trusted, stranger) = (Authority::new(), Authority::new());
    let (running, target) = serve(ServerTlsConfig::new().identity(trusted.identity())).await;
    let trusting = |ca: &Authority| Some(ClientTlsConfig::new().ca_certificate(ca.certificate()));

    assert_eq!(call(&target, trusting(&trusted)).await.unwrap(), "hello");
    assert_eq!(
        call(&target, trusting(&stranger)).await.unwrap_err().code(),
        Code::Unavailable
    );
    let without_scheme = target.to_string().replace("https://", "").parse().unwrap();
    assert_eq!(
        call(&without_scheme, trusting(&trusted)).await.unwrap(),
        "hello"
    );
    assert!(
        call(&running.targets[0], None).await.is_err(),
        "TLS servers take no plain call"
    );
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_demands_certificates_refuses_who_has_none() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let tls = ServerTlsConfig::new()
        .identity(servers.identity())
        .client_ca_root(clients.certificate());
    let (running, target) = serve(tls).await;
    let tls = ClientTlsConfig::new().ca_certificate(servers.certificate());

    assert!(call(&target, Some(tls.clone())).await.is_err());
    assert!(
        call(&target, Some(tls.clone().identity(servers.identity())))
            .await
            .is_err()
    );
    assert_eq!(
        call(&target, Some(tls.identity(clients.identity())))
            .await
            .unwrap(),
        "hello"
    );
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_unix_socket_beside_tls_is_refused_unless_asked_for() {
    let tls = ServerOptions {
        tls: Some(ServerTlsConfig::new()),
        ..ServerOptions::default()
    };
    let server = NetServer::new(Routes::default()).options(tls);
    let socket = ListenAddress::Unix("/tmp/a.sock".into());
    let error = server.listen(socket).bind().await.unwrap_err();
    assert!(matches!(error, Error::UnixWithoutTls { .. }));
}
