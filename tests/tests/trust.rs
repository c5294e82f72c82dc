//! Who may be at the other end: users by the kernel's word, holders of certificates by theirs.
#![allow(clippy::unwrap_used)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path as FilePath;
use std::time::{Duration, Instant};

use ringway::{Directory, Endpoint, LocalPolicy, Path, Server, UidPolicy};
use ringway_proto::bench::Payload;
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench::bench_server::BenchServer;
use ringway_tests::ours::Handler;
use ringway_tests::{
    Authority, ChildClient, ChildServer, Log, LoggedValues, Running, Way, call_as_child,
    can_be_another_user, client_of, in_a_process_of_its_own, serve_as_child, within,
};
use ringway_wire::{Capabilities, Config, Hello, Role};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tonic::Code;
use tonic::transport::{ClientTlsConfig, ServerTlsConfig};

/// Users whom nobody else is, on a usual system.
const SOMEBODY: u32 = 61_001;
const STRANGER: u32 = 61_002;

/// Not a test: what a child process runs.
#[tokio::test]
async fn server_process() {
    serve_as_child().await;
}

/// Not a test: what a child process runs.
#[tokio::test]
async fn calling_process() {
    within(call_as_child()).await;
}

fn only(uid: u32) -> UidPolicy {
    UidPolicy::Only([uid].into())
}

/// Somebody else than this process's user.
fn another_uid() -> u32 {
    rustix::process::geteuid().as_raw() + 1
}

async fn refused(endpoint: &Endpoint) -> String {
    endpoint.connect().await.unwrap_err().to_string()
}

async fn serve(way: Way, peers: UidPolicy) -> Running {
    Running::with(way, |builder| {
        let service = BenchServer::new(Handler::default());
        builder.local_peers(peers).add_service(service)
    })
    .await
}

/// A directory that every user can enter.
fn open_directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    directory
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_no_list_names_is_refused_at_either_end() {
    within(async {
        for way in [Way::Shm, Way::Socket, Way::SocketEpoll] {
            let running = serve(way, only(another_uid())).await;
            let error = refused(&running.endpoint()).await;
            assert!(error.contains("handshake"), "{error}");

            let running = serve(way, UidPolicy::SameUser).await;
            let strict = LocalPolicy::Allow(only(another_uid()));
            let error = refused(&running.endpoint().allow_local(strict)).await;
            assert!(error.contains("not allowed"), "{error}");
            client_of(&running.endpoint()).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_lets_in_the_users_on_its_list() {
    if !can_be_another_user() {
        return;
    }
    within(async {
        let directory = open_directory();
        let root = directory.path().join("ringway");
        let bound = |name: &str, peers| {
            let service = BenchServer::new(Handler::default());
            let server = Server::builder().directory(&root).name(name);
            server.local_peers(peers).add_service(service).bind()
        };
        let listed = bound("listed:1", only(SOMEBODY)).await.unwrap();
        let closed = bound("closed:1", UidPolicy::SameUser).await.unwrap();
        for server in [listed, closed] {
            tokio::spawn(server.serve());
        }
        let call = async |uid, address: &'static str| {
            let root = root.clone();
            let call = move || ChildClient::call_as(uid, &root, address);
            tokio::task::spawn_blocking(call).await.unwrap()
        };
        assert_eq!(call(SOMEBODY, "shm://listed:1").await, "shm");
        assert_eq!(call(SOMEBODY, "socket://listed:1").await, "socket");
        let error = call(STRANGER, "shm://listed:1").await;
        assert!(error.contains("handshake"), "{error}");
        // Nobody else can enter what a server makes for its own user.
        let error = call(SOMEBODY, "shm://closed:1").await;
        assert!(error.contains("denied"), "{error}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_calls_the_users_on_its_list() {
    if !can_be_another_user() {
        return;
    }
    within(async {
        let directory = open_directory();
        let root = directory.path().join("ringway");
        fs::create_dir(&root).unwrap();
        chown(&root, Some(SOMEBODY), None).unwrap();
        let own = rustix::process::geteuid().as_raw();
        let server = ChildServer::start_as(SOMEBODY, &root, "theirs:1", &[own]);
        let endpoint = Endpoint::new("shm://theirs:1").unwrap().directory(&root);
        let error = refused(&endpoint).await;
        assert!(error.contains(&format!("uid {SOMEBODY}")), "{error}");
        let stranger = LocalPolicy::Allow(only(STRANGER));
        let error = refused(&endpoint.clone().allow_local(stranger)).await;
        assert!(error.contains(&format!("uid {SOMEBODY}")), "{error}");
        let allowing = endpoint.clone();
        let allowing = allowing.allow_local(LocalPolicy::Allow(only(SOMEBODY)));
        let response = client_of(&allowing).await.unary(Payload::default()).await;
        assert_eq!(Path::of(&response.unwrap()), Some(Path::Shm));

        // Its socket lies where one would trust it: what counts is who listens on it.
        let of_name = Directory::at(&root).of_name("theirs:1").unwrap();
        for step in [&root, &of_name] {
            chown(step, Some(own), None).unwrap();
        }
        let error = refused(&endpoint).await;
        let served = format!("served by uid {SOMEBODY}, which is not allowed");
        assert!(error.contains(&served), "{error}");
        drop(server);
    })
    .await;
}

#[tokio::test]
async fn a_directory_that_others_may_write_is_one_warning() {
    let (log, _logging) = Log::begin();
    let directory = tempfile::tempdir().unwrap();
    let address = ringway_tests::free_address().to_string();
    let server = bind_on_both(&address, directory.path()).await;
    let serving = tokio::spawn(server.serve());
    let of_name = Directory::at(directory.path()).of_name(&address).unwrap();
    fs::set_permissions(&of_name, Permissions::from_mode(0o770)).unwrap();
    let endpoint = Endpoint::new(&*address).unwrap();
    let mut client = client_of(&endpoint.directory(directory.path())).await;
    for _ in 0..5 {
        let response = client.unary(Payload::default()).await.unwrap();
        assert_eq!(Path::of(&response), Some(Path::Grpc));
    }
    assert_eq!(log.count("WARN"), 1);
    assert_eq!(log.count("mode 770"), 1);
    assert_eq!(log.count("chmod 0700"), 1);

    // A server says it as well, and serves over the network.
    let other_address = ringway_tests::free_address().to_string();
    drop(bind_on_both(&other_address, directory.path()).await);
    let unsafe_name = Directory::at(directory.path())
        .of_name(&other_address)
        .unwrap();
    fs::set_permissions(&unsafe_name, Permissions::from_mode(0o770)).unwrap();
    let _served = bind_on_both(&other_address, directory.path()).await;
    assert_eq!(log.count("WARN"), 2);
    serving.abort();
}

#[tokio::test]
async fn a_peer_that_misbehaves_again_and_again_does_not_fill_the_log() {
    const TIMES: u64 = 50;
    let (log, _logging) = Log::begin();
    let running = Running::start(Way::Socket).await;
    let (_, name) = running.called().split_once("://").unwrap();
    let sockets = Directory::at(running.root()).of_name(name).unwrap();
    let socket = fs::read_dir(sockets).unwrap().next().unwrap().unwrap();
    let frames_over_the_socket = Capabilities(2 | 4);
    let hello = Hello::new(
        Role::Client,
        &Config::default(),
        7,
        name,
        frames_over_the_socket,
    );
    let said = [&hello.encode().unwrap()[..], &[0xff; 4096]].concat();
    let began = Instant::now();
    for _ in 0..TIMES {
        let mut peer = UnixStream::connect(socket.path()).await.unwrap();
        peer.write_all(&said).await.unwrap();
        // With what it did not read, or without.
        let _ = within(peer.read_to_end(&mut Vec::new())).await;
    }
    let told = u64::try_from(log.count("connection ended")).unwrap();
    let seldom = 1..=1 + began.elapsed().as_secs();
    assert!(seldom.contains(&told), "{told} warnings of {TIMES}");
}

/// Names that are more than that, where a log or a terminal takes them as they are; and how they are told of.
const FORGED_NAMES: [(&str, &str); 4] = [
    ("evil:1\nWARN forged", "bad server name"),
    ("\u{1b}[2J\u{1b}]0;forged\u{7}", "bad server name"),
    ("\u{9b}31mred", "bad server name"),
    ("\u{202e}\u{2028}\"'`", r#"`\u{202e}\u{2028}\"\'`"#),
];

/// A hello that names a server, or to the client its own.
fn hello_that_names(role: Role, name: &str) -> Vec<u8> {
    let shm_or_socket = Capabilities(1 | 2);
    let hello = Hello::new(role, &Config::default(), 7, name, shm_or_socket);
    hello.encode().unwrap()
}

fn assert_fit_for_logs(value: &str) {
    let odd = |letter: char| letter.is_control() || "\u{202e}\u{2028}".contains(letter);
    assert!(!value.contains(odd), "{value:?}");
    assert!(value.len() < 4096, "{} bytes", value.len());
}

#[tokio::test]
async fn names_that_clients_choose_are_escaped_in_logs() {
    if !in_a_process_of_its_own("names_that_clients_choose_are_escaped_in_logs") {
        return;
    }
    let (values, _logging) = LoggedValues::begin();
    let running = Running::start(Way::Shm).await;
    let (_, name) = running.called().split_once("://").unwrap();
    let sockets = Directory::at(running.root()).of_name(name).unwrap();
    let socket = fs::read_dir(sockets).unwrap().next().unwrap().unwrap();
    // As long as a name may be, of letters that take ten times the space.
    let longest = "\u{202e}".repeat(100);
    let longest = (&*longest, r"\u{202e}\u{202e}");
    for (asked, told) in FORGED_NAMES.into_iter().chain([longest]) {
        let hello = hello_that_names(Role::Client, asked);
        within(async {
            loop {
                let mut peer = UnixStream::connect(socket.path()).await.unwrap();
                peer.write_all(&hello).await.unwrap();
                // With what it did not read, or without.
                let _ = peer.read_to_end(&mut Vec::new()).await;
                let values = values.take();
                values.iter().for_each(|value| assert_fit_for_logs(value));
                // One of many is told.
                if values.iter().any(|value| value.contains(told)) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }
}

/// Finds no server of this name in `directory` that could be called, and says so in words that are fit for logs.
async fn refuse(directory: &FilePath) {
    for address in ["shm://false:1", "socket://false:1", "false:1"] {
        let endpoint = Endpoint::new(address).unwrap().directory(directory);
        if let Err(error) = within(endpoint.connect()).await {
            assert_fit_for_logs(&error.to_string());
        }
    }
}

/// Reads what the client tells its caller and its log of a server whose name would forge lines of it.
#[tokio::test]
async fn names_that_servers_choose_are_escaped_in_logs() {
    let (values, _logging) = LoggedValues::begin();
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o700)).unwrap();
    let of_name = Directory::at(directory.path()).of_name("false:1").unwrap();
    fs::create_dir(&of_name).unwrap();
    fs::set_permissions(&of_name, Permissions::from_mode(0o700)).unwrap();
    for (forged, _) in FORGED_NAMES {
        // By the name of its socket, and by what it says.
        let stale = of_name.join(format!("{forged}.sock"));
        drop(UnixListener::bind(&stale).unwrap());
        refuse(directory.path()).await;
        let named = of_name.join("1-1-0.sock");
        let listener = UnixListener::bind(&named).unwrap();
        let hello = hello_that_names(Role::Server, forged);
        let answering = tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                client.write_all(&hello).await.unwrap();
            }
        });
        refuse(directory.path()).await;
        answering.abort();
        for socket in [named, stale] {
            fs::remove_file(socket).unwrap();
        }
    }
    values
        .take()
        .iter()
        .for_each(|value| assert_fit_for_logs(value));
}

async fn bind_on_both(address: &str, directory: &FilePath) -> ringway::BoundServer {
    let server = Server::builder().directory(directory).name(address);
    let server = server.listen(address).unwrap();
    let service = BenchServer::new(Handler::default());
    server.add_service(service).bind().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutual_tls_lets_in_whom_the_authority_knows() {
    within(async {
        let [servers, clients] = [(); 2].map(|()| Authority::default());
        let tls = ServerTlsConfig::new()
            .identity(servers.identity())
            .client_ca_root(clients.certificate());
        let running = Running::with(Way::GrpcTcp, |builder| {
            let service = BenchServer::new(Handler::default());
            builder
                .name("secret:1")
                .tls_config(tls)
                .unwrap()
                .add_service(service)
        })
        .await;
        let address = format!("https://localhost:{}", running.address().port());
        let call = async |tls: ClientTlsConfig| {
            let endpoint = Endpoint::new(&*address).unwrap().tls_config(tls).unwrap();
            let channel = endpoint.directory(running.root()).connect_lazy();
            let mut client = BenchClient::new(channel);
            client.unary(Payload::default()).await
        };
        let trusting = ClientTlsConfig::new().ca_certificate(servers.certificate());
        let known = trusting.clone().identity(clients.identity());
        let response = call(known.clone()).await.unwrap();
        assert_eq!(Path::of(&response), Some(Path::Grpc));

        let strangers = Authority::default();
        for (who, tls) in [
            ("nobody", trusting.clone()),
            ("a stranger", trusting.identity(strangers.identity())),
        ] {
            let status = call(tls).await.unwrap_err();
            assert_eq!(status.code(), Code::Unavailable, "{who}: {status:?}");
        }
        // Nor does the client call a server that it does not know.
        let elsewhere = ClientTlsConfig::new()
            .ca_certificate(strangers.certificate())
            .identity(clients.identity());
        let status = call(elsewhere).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        call(known).await.unwrap();
    })
    .await;
}
