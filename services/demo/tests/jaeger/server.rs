//! A Jaeger of the test's own, and what its API says.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::trace::Trace;

/// How long Jaeger may take to start.
const START: Duration = Duration::from_secs(60);
/// More than any test makes, so that no answer is cut.
const TRACES_MAX: usize = 10_000;

/// The running process; dropping it ends it.
pub(crate) struct Jaeger {
    process: Child,
    query: SocketAddr,
    collector: SocketAddr,
}

impl Drop for Jaeger {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Jaeger {
    /// Starts it on ports that nobody has, its traces in memory.
    pub(crate) async fn start(program: &Path) -> Self {
        // Held at the same time, so that they differ.
        let free: [TcpListener; 8] =
            std::array::from_fn(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let ports = free.map(|listener| listener.local_addr().unwrap());
        let options = [
            "query.http-server.host-port",
            "collector.otlp.grpc.host-port",
            "collector.otlp.http.host-port",
            "query.grpc-server.host-port",
            "collector.grpc-server.host-port",
            "collector.http-server.host-port",
            "admin.http.host-port",
        ];
        let process = Command::new(program)
            .args(
                options
                    .iter()
                    .zip(ports)
                    .map(|(option, port)| format!("--{option}={port}")),
            )
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()));
        let mut jaeger = Self {
            process,
            query: ports[0],
            collector: ports[1],
        };
        let start = Instant::now();
        while jaeger.try_get("/api/services").await.is_none()
            || TcpStream::connect(jaeger.collector).await.is_err()
        {
            assert!(start.elapsed() < START, "Jaeger does not answer");
            assert_eq!(jaeger.process.try_wait().unwrap(), None, "Jaeger ended");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        jaeger
    }

    /// Where spans are sent, by OTLP over gRPC.
    pub(crate) fn collector(&self) -> String {
        format!("http://{}", self.collector)
    }

    /// The names of the services that it has spans of.
    pub(crate) async fn services(&self) -> Vec<String> {
        let answer = self.get("/api/services").await;
        let names = answer["data"].as_array().cloned().unwrap_or_default();
        names
            .iter()
            .map(|name| name.as_str().unwrap().to_owned())
            .collect()
    }

    /// All traces in which `service` has a part, once there are `count` of them.
    pub(crate) async fn traces(&self, service: &str, count: usize) -> Vec<Trace> {
        let service = service.replace(' ', "%20");
        let path = format!("/api/traces?service={service}&limit={TRACES_MAX}&lookback=1h");
        let start = Instant::now();
        loop {
            let answer = self.get(&path).await;
            let data = answer["data"].as_array().unwrap();
            let traces: Vec<_> = data.iter().map(Trace::read).collect();
            if traces.len() >= count && traces.iter().all(Trace::is_settled) {
                return traces;
            }
            if start.elapsed() > Duration::from_secs(30) {
                let unsettled = traces.iter().find(|trace| !trace.is_settled());
                panic!("{} traces of {count}; {unsettled:#?}", traces.len());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Who calls whom, each pair with the number of calls.
    pub(crate) async fn dependencies(&self) -> Vec<(String, String, u64)> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let path = format!(
            "/api/dependencies?endTs={}&lookback=3600000",
            now.as_millis()
        );
        let answer = self.get(&path).await;
        let edge = |edge: &Value| {
            let name = |of: &str| edge[of].as_str().unwrap().to_owned();
            let calls = edge["callCount"].as_u64().unwrap();
            (name("parent"), name("child"), calls)
        };
        let edges = answer["data"].as_array().unwrap();
        edges.iter().map(edge).collect()
    }

    async fn get(&self, path: &str) -> Value {
        self.try_get(path)
            .await
            .unwrap_or_else(|| panic!("Jaeger does not answer {path}"))
    }

    async fn try_get(&self, path: &str) -> Option<Value> {
        let stream = TcpStream::connect(self.query).await.ok()?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
        let connection = tokio::spawn(connection);
        let request = Request::get(path)
            .header("host", "jaeger")
            .body(Empty::<Bytes>::new())
            .unwrap();
        let response = sender.send_request(request).await.ok()?;
        let is_ok = response.status() == StatusCode::OK;
        let body = response.into_body().collect().await.ok()?.to_bytes();
        connection.abort();
        is_ok.then(|| serde_json::from_slice(&body).unwrap())
    }
}
