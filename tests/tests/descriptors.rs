//! Processes that are out of descriptors: their table is full, or their user has too many on the way between
//! processes. What needs a descriptor is refused by name; connections, and calls that need none, go on.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path as FilePath;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ringway::{Channel, Endpoint, Path, Server, ServerBuilder};
use ringway_local::LocalConfig;
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench::bench_server::{Bench, BenchServer};
use ringway_proto::bench::{Payload, StreamRequest, Summary};
use ringway_sys::{Blocking, Error, send_with_descriptors};
use ringway_tests::{
    ChildServer, LargeHandler, Log, Running, Way, alone, client_of, in_a_process_of_another_user,
    in_a_process_of_its_own, ours, payload, payloads, serve_as_child_with, within,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tonic::{Code, Request, Response, Status, Streaming};

const NAME: &str = "exhausted:50051";
/// A user without other processes, on a usual system.
const STRANGER: u32 = 61_003;

/// Not a test: what a child process runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_process() {
    let add = |builder: ServerBuilder| {
        let service = BenchServer::new(Exhausted::default());
        builder.add_service(service.max_decoding_message_size(usize::MAX))
    };
    serve_as_child_with(add).await;
}

fn over_shm(directory: &FilePath) -> Endpoint {
    let endpoint = Endpoint::new(format!("shm://{NAME}")).unwrap();
    endpoint.directory(directory)
}

/// The kernel closes what no free descriptor is left for; that client is refused, those beside it live, and once
/// there are descriptors again, all is well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_out_of_descriptors_refuses_and_recovers() {
    if !in_a_process_of_its_own("a_process_out_of_descriptors_refuses_and_recovers") {
        return;
    }
    within(async {
        let running = Running::with(Way::Shm, |builder| {
            builder
                .local_config(impatient())
                .add_service(BenchServer::new(ours::Handler::default()))
        })
        .await;
        let mut before = running.client().await;
        before.unary(payload(1, 100)).await.unwrap();
        let limit = Rlimit {
            current: Some(256),
            maximum: Some(256),
        };
        setrlimit(Resource::Nofile, limit).unwrap();
        let mut full: Vec<File> = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            full.push(file);
        }
        assert!(full.len() > 100);
        for _ in 0..14 {
            let attempt = async { client_of_one(&running).await };
            let attempt = tokio::time::timeout(Duration::from_secs(5), attempt).await;
            // A handshake more or less: it ends, with a call or with an error.
            assert!(attempt.is_ok(), "{} descriptors taken", full.len());
            before.unary(payload(1, 100)).await.unwrap();
            full.pop();
        }
        drop(full);
        let answered = client_of_one(&running).await;
        answered.unwrap();
    })
    .await;
}

/// Sequences of empty messages by which a server is told to take all descriptors of its process, to send as many as
/// its user may have in flight, and to let go of them.
const EXHAUST: u64 = 1;
const FLOOD: u64 = 2;
const RECOVER: u64 = 3;

/// Opens what there is room for in this process's table of descriptors.
fn take_all_descriptors() -> Vec<OwnedFd> {
    limit_descriptors();
    std::iter::from_fn(|| File::open("/dev/null").ok().map(OwnedFd::from)).collect()
}

fn limit_descriptors() {
    let limit = Rlimit {
        current: Some(256),
        ..getrlimit(Resource::Nofile)
    };
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// Sends descriptors that nobody receives, until this process's user has as many in flight as the process may have
/// open. They are in flight until the sockets are closed.
fn fill_flight() -> Vec<OwnedFd> {
    limit_descriptors();
    let (sender, receiver) = UnixStream::pair().unwrap();
    let descriptors = [sender.as_fd(); 16];
    let send = || send_with_descriptors(sender.as_fd(), b"x", &descriptors, Blocking::Never);
    let refused = (0..32).find_map(|_| send().err());
    assert!(
        matches!(refused, Some(Error::TooManyInFlight)),
        "{refused:?}"
    );
    vec![sender.into(), receiver.into()]
}

/// Tells how long messages are, and takes descriptors when it is told to.
#[derive(Default)]
struct Exhausted {
    taken: Mutex<Vec<OwnedFd>>,
}

#[tonic::async_trait]
impl Bench for Exhausted {
    type ServerStreamStream = <LargeHandler as Bench>::ServerStreamStream;
    type BidiStream = <LargeHandler as Bench>::BidiStream;

    async fn unary(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        let Payload { sequence, data } = request.get_ref();
        match *sequence {
            EXHAUST if data.is_empty() => *self.taken.lock().unwrap() = take_all_descriptors(),
            FLOOD if data.is_empty() => *self.taken.lock().unwrap() = fill_flight(),
            RECOVER if data.is_empty() => self.taken.lock().unwrap().clear(),
            _ => return LargeHandler.unary(request).await,
        }
        Ok(Response::new(Payload::default()))
    }

    async fn server_stream(
        &self,
        request: Request<StreamRequest>,
    ) -> Result<Response<Self::ServerStreamStream>, Status> {
        LargeHandler.server_stream(request).await
    }

    async fn client_stream(
        &self,
        request: Request<Streaming<Payload>>,
    ) -> Result<Response<Summary>, Status> {
        LargeHandler.client_stream(request).await
    }

    async fn bidi(
        &self,
        request: Request<Streaming<Payload>>,
    ) -> Result<Response<Self::BidiStream>, Status> {
        LargeHandler.bidi(request).await
    }
}

/// Calls that need memory of which a descriptor would have to be received.
async fn in_need(client: &mut BenchClient<Channel>, way: usize) -> Result<(), Status> {
    const LONG: usize = 1 << 20;
    match way % 4 {
        0 => client.unary(payload(3, LONG)).await.map(drop),
        1 => client.unary(payload(3, 20 * LONG)).await.map(drop),
        2 => client.client_stream(payloads(2, LONG)).await.map(drop),
        _ => client.client_stream(payloads(1, 20 * LONG)).await.map(drop),
    }
}

/// Answers that do.
async fn in_need_of_answers(client: &mut BenchClient<Channel>, way: usize) -> Result<(), Status> {
    const LONG: u32 = 1 << 20;
    let asked = |size_bytes| StreamRequest {
        count: 2,
        size_bytes,
    };
    match way % 4 {
        0 => client.unary(payload(LONG.into(), 0)).await.map(drop),
        1 => {
            let asked = payload((20 * LONG).into(), 0);
            client.unary(asked).await.map(drop)
        }
        way => {
            let asked = asked(if way == 2 { LONG } else { 20 * LONG });
            let mut stream = client.server_stream(asked).await?.into_inner();
            while stream.message().await?.is_some() {}
            Ok(())
        }
    }
}

/// Its calls end with words, those beside them go on, and the connection that all share is the same to the end.
async fn live_through(
    client: &mut BenchClient<Channel>,
    call: impl AsyncFn(&mut BenchClient<Channel>, usize) -> Result<(), Status>,
    exhaust: impl AsyncFnOnce(&mut BenchClient<Channel>),
    recover: impl AsyncFnOnce(&mut BenchClient<Channel>),
) {
    client.unary(payload(7, 100)).await.unwrap();
    let connections = || -> Vec<u64> {
        let all = ringway_local::connections();
        all.iter().map(|connection| connection.id()).collect()
    };
    let before = connections();
    exhaust(client).await;
    for round in 0..24 {
        let status = call(client, round).await.unwrap_err();
        assert_eq!(
            status.code(),
            Code::ResourceExhausted,
            "{round}: {status:?}"
        );
        assert!(status.message().contains("RLIMIT_NOFILE"), "{status:?}");
        client.unary(payload(7, 100)).await.unwrap();
        // Now and then another segment is tried.
        tokio::time::sleep(Duration::from_millis(17)).await;
    }
    recover(client).await;
    let began = Instant::now();
    for round in 0..4 {
        while let Err(status) = call(client, round).await {
            assert!(began.elapsed() < Duration::from_secs(5), "{status:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert_eq!(connections(), before, "it is another connection");
}

#[test]
fn a_server_out_of_descriptors_refuses_segments_not_its_connections() {
    alone(async {
        let directory = tempfile::tempdir().unwrap();
        let _server = ChildServer::start(directory.path(), NAME);
        let mut client = client_of(&over_shm(directory.path())).await;
        live_through(
            &mut client,
            in_need,
            async |client| tell(client, EXHAUST).await,
            async |client| tell(client, RECOVER).await,
        )
        .await;
    });
}

#[test]
fn a_client_out_of_descriptors_refuses_segments_not_its_connection() {
    if !in_a_process_of_its_own("a_client_out_of_descriptors_refuses_segments_not_its_connection") {
        return;
    }
    alone(async {
        let directory = tempfile::tempdir().unwrap();
        let _server = ChildServer::start(directory.path(), NAME);
        let client = client_of(&over_shm(directory.path())).await;
        let mut client = client.max_decoding_message_size(usize::MAX);
        let taken = Mutex::new(Vec::new());
        live_through(
            &mut client,
            in_need_of_answers,
            async |_| *taken.lock().unwrap() = take_all_descriptors(),
            async |_| taken.lock().unwrap().clear(),
        )
        .await;
    });
}

async fn tell(client: &mut BenchClient<Channel>, what: u64) {
    client.unary(payload(what, 0)).await.unwrap();
}

/// ETOOMANYREFS (unix(7)) is for users without privileges.
#[test]
fn a_client_with_too_many_in_flight_refuses_its_segments_alone() {
    let name = "a_client_with_too_many_in_flight_refuses_its_segments_alone";
    if !in_a_process_of_another_user(name, STRANGER) {
        return;
    }
    alone(async {
        let directory = tempfile::tempdir().unwrap();
        let _server = ChildServer::start(directory.path(), NAME);
        let mut client = client_of(&over_shm(directory.path())).await;
        let flying = Mutex::new(Vec::new());
        live_through(
            &mut client,
            in_need,
            async |_| *flying.lock().unwrap() = fill_flight(),
            async |_| flying.lock().unwrap().clear(),
        )
        .await;
    });
}

#[test]
fn a_server_with_too_many_in_flight_refuses_its_segments_alone() {
    let name = "a_server_with_too_many_in_flight_refuses_its_segments_alone";
    if !in_a_process_of_another_user(name, STRANGER) {
        return;
    }
    alone(async {
        let directory = tempfile::tempdir().unwrap();
        let _server = ChildServer::start(directory.path(), NAME);
        let client = client_of(&over_shm(directory.path())).await;
        let mut client = client.max_decoding_message_size(usize::MAX);
        live_through(
            &mut client,
            in_need_of_answers,
            async |client| tell(client, FLOOD).await,
            async |client| tell(client, RECOVER).await,
        )
        .await;
    });
}

/// Regions are passed as descriptors: such a user's new connections take a socket.
#[tokio::test]
async fn a_user_with_too_many_in_flight_connects_over_a_socket() {
    let name = "a_user_with_too_many_in_flight_connects_over_a_socket";
    if !in_a_process_of_another_user(name, STRANGER) {
        return;
    }
    let (log, _logging) = Log::begin();
    within(async {
        let directory = tempfile::tempdir().unwrap();
        let service = BenchServer::new(ours::Handler::default());
        let server = Server::builder().directory(directory.path()).name(NAME);
        let server = server.add_service(service).bind().await.unwrap();
        let serving = tokio::spawn(server.serve());
        let anyhow = Endpoint::new(NAME).unwrap().directory(directory.path());
        let path = async || {
            let answer = client_of(&anyhow).await.unary(payload(1, 100_000)).await;
            Path::of(&answer.unwrap())
        };
        let flying = fill_flight();
        assert_eq!(path().await, Some(Path::Socket));
        let text = log.text();
        let told = text.lines().find(|line| line.contains("taking a socket"));
        let refused = over_shm(directory.path()).connect().await.unwrap_err();
        for said in [told.unwrap(), &refused.to_string()] {
            assert!(said.contains("in flight for this user"), "{said}");
            assert!(said.contains("RLIMIT_NOFILE"), "{said}");
        }
        drop(flying);
        assert_eq!(path().await, Some(Path::Shm));
        serving.abort();
    })
    .await;
}

/// The client learns from the server that there is no shared memory, and goes over the socket as well.
#[test]
fn a_server_with_too_many_in_flight_takes_a_socket() {
    let name = "a_server_with_too_many_in_flight_takes_a_socket";
    if !in_a_process_of_another_user(name, STRANGER) {
        return;
    }
    alone(async {
        let directory = tempfile::tempdir().unwrap();
        let _server = ChildServer::start(directory.path(), NAME);
        let mut before = client_of(&over_shm(directory.path())).await;
        tell(&mut before, FLOOD).await;
        let anyhow = Endpoint::new(NAME).unwrap().directory(directory.path());
        let mut client = client_of(&anyhow).await;
        let answer = client.unary(payload(1, 100_000)).await.unwrap();
        assert_eq!(Path::of(&answer), Some(Path::Socket));
        let error = over_shm(directory.path()).connect().await.unwrap_err();
        assert!(error.to_string().contains("its log says why"), "{error}");
        tell(&mut before, RECOVER).await;
        client_of(&over_shm(directory.path())).await;
    });
}

fn impatient() -> LocalConfig {
    LocalConfig {
        handshake_timeout: Duration::from_millis(300),
        ..LocalConfig::default()
    }
}

async fn client_of_one(running: &Running) -> Result<(), String> {
    let endpoint = running.endpoint().local_config(impatient());
    let connected = endpoint.connect().await;
    let channel = connected.map_err(|error| error.to_string())?;
    let mut client = BenchClient::new(channel);
    let answered = client.unary(payload(1, 100)).await;
    answered.map(drop).map_err(|status| status.to_string())
}
