//! Which path a channel takes, and what it says where there is none.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path as FilePath;
use std::process::{Command, Stdio};

use ringway::{Endpoint, LocalPolicy, Path, Server, UidPolicy, WaitForReady};
use ringway_proto::bench::Payload;
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench::bench_server::BenchServer;
use ringway_tests::ours::Handler;
use ringway_tests::{
    ChildServer, Log, client_of, free_address, in_a_process_of_its_own, payload, serve_as_child,
    within,
};
use ringway_wire::{Capabilities, Config, Hello, Role};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;
use tonic::transport::ClientTlsConfig;

/// Not a test: what a child process runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_process() {
    serve_as_child().await;
}

/// A server of this process that is reached over the network and, if it may, locally.
struct Both {
    address: String,
    serving: tokio::task::JoinHandle<Result<(), ringway::Error>>,
}

impl Drop for Both {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Serves on a port of the kernel's choice, under the name of that very address.
async fn serve_on_both(directory: &FilePath) -> Both {
    // The name has to be known before the port is bound; nobody else takes it that fast.
    serve_at(&free_address().to_string(), directory).await
}

async fn serve_at(address: &str, directory: &FilePath) -> Both {
    serve_named(address, address, directory).await
}

async fn serve_named(name: &str, address: &str, directory: &FilePath) -> Both {
    let server = Server::builder()
        .directory(directory)
        .name(name)
        .listen(address)
        .unwrap()
        .add_service(BenchServer::new(Handler::default()))
        .bind()
        .await
        .unwrap();
    let serving = tokio::spawn(server.serve());
    let address = address.to_owned();
    Both { address, serving }
}

async fn path_taken(endpoint: &Endpoint) -> Path {
    let mut client = client_of(endpoint).await;
    Path::of(&client.unary(payload(1, 10)).await.unwrap()).unwrap()
}

fn at(address: &str, directory: &FilePath) -> Endpoint {
    Endpoint::new(address).unwrap().directory(directory)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_best_path_is_taken_and_each_can_be_forced() {
    within(async {
        let directory = tempfile::tempdir().unwrap();
        let server = serve_on_both(directory.path()).await;
        let address = &server.address;
        assert_eq!(path_taken(&at(address, directory.path())).await, Path::Shm);
        for (scheme, path) in [
            ("shm", Path::Shm),
            ("inproc", Path::Inproc),
            ("grpc", Path::Grpc),
        ] {
            let forced = at(&format!("{scheme}://{address}"), directory.path());
            assert_eq!(path_taken(&forced).await, path);
            let forced = at(address, directory.path()).path(path);
            assert_eq!(path_taken(&forced).await, path);
        }
        let never = at(address, directory.path()).allow_local(LocalPolicy::Never);
        assert_eq!(path_taken(&never).await, Path::Grpc);
    })
    .await;
}

const EXPECTED_PATH: &str = "RINGWAY_TEST_EXPECTED_PATH";

/// The environment belongs to the whole process, so each value gets a process of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_environment_forces_a_path() {
    if let Ok(expected) = std::env::var(EXPECTED_PATH) {
        return within(takes_as_told(&expected)).await;
    }
    let name = "the_environment_forces_a_path";
    for (value, expected) in [
        ("shm", "shm"),
        ("inproc", "inproc"),
        ("grpc", "grpc"),
        ("auto", "shm"),
        ("", "shm"),
        ("pigeon", "refused"),
        // Two pipes lead to a child process, never to an address.
        ("pipe", "refused"),
    ] {
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env("RINGWAY_PATH", value)
            .env(EXPECTED_PATH, expected)
            .stdout(Stdio::null())
            .status();
        assert!(status.unwrap().success(), "RINGWAY_PATH={value}");
    }
}

async fn takes_as_told(expected: &str) {
    let directory = tempfile::tempdir().unwrap();
    let server = serve_on_both(directory.path()).await;
    if expected == "refused" {
        let error = Endpoint::new(&server.address).unwrap_err().to_string();
        let says_why = error.contains("RINGWAY_PATH=pigeon") || error.contains("Child::spawn");
        assert!(says_why, "{error}");
        return;
    }
    let endpoint = at(&server.address, directory.path());
    assert_eq!(path_taken(&endpoint).await.name(), expected);
    // An address that names a path is stronger.
    let forced = at(&format!("grpc://{}", server.address), directory.path());
    assert_eq!(path_taken(&forced).await, Path::Grpc);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absent_server_is_one_clear_error() {
    within(async {
        let directory = tempfile::tempdir().unwrap();
        let forced = at("shm://nobody:1", directory.path());
        let error = forced.connect().await.unwrap_err().to_string();
        assert!(
            error.contains("nobody:1") && error.contains("RINGWAY_DIR"),
            "{error}"
        );
        let mut client = BenchClient::new(forced.connect_lazy());
        let status = client.unary(payload(1, 10)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(status.message().contains("nobody:1"), "{status:?}");

        // A port on which nobody listens: each path says why it leads nowhere, before a call and by one.
        let nobody = at("127.0.0.1:1", directory.path());
        let error = nobody.connect().await.unwrap_err().to_string();
        let mut client = BenchClient::new(nobody.connect_lazy());
        let status = client.unary(payload(1, 10)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        for said in [error.as_str(), status.message()] {
            let here = format!(
                "called `127.0.0.1:1` listens in {}",
                directory.path().display()
            );
            assert!(said.contains(&here), "{said}");
            let (_, network) = said.split_once("over the network: ").unwrap();
            assert!(
                network.contains("127.0.0.1:1") && network.contains("refused"),
                "{said}"
            );
        }
        let forced = at("grpc://127.0.0.1:1", directory.path());
        let error = forced.connect().await.unwrap_err().to_string();
        assert!(
            error.contains("refused") && !error.contains("listens in"),
            "{error}"
        );

        let server = serve_on_both(directory.path()).await;
        let wrong = at("shm://wrong-name:50051", directory.path());
        assert!(wrong.connect().await.is_err());
        drop(server);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_directory_calls_go_over_the_network() {
    within(async {
        let directory = tempfile::tempdir().unwrap();
        let server = serve_on_both(directory.path()).await;
        let elsewhere = directory.path().join("missing");
        assert_eq!(
            path_taken(&at(&server.address, &elsewhere)).await,
            Path::Grpc
        );

        // A file where the directory should be, on either side.
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(path_taken(&at(&server.address, &file)).await, Path::Grpc);
        let networked = serve_on_both(&file).await;
        assert_eq!(path_taken(&at(&networked.address, &file)).await, Path::Grpc);
        let local_only = Server::builder()
            .directory(&file)
            .name("alone:1")
            .bind()
            .await;
        let error = local_only.unwrap_err().to_string();
        assert!(error.contains("RINGWAY_DIR"), "{error}");
    })
    .await;
}

/// Others could have put a socket of theirs there: it is not trusted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_others_may_write_is_not_used() {
    within(async {
        let directory = tempfile::tempdir().unwrap();
        let server = serve_on_both(directory.path()).await;
        let name = ringway::Directory::at(directory.path())
            .of_name(&server.address)
            .unwrap();
        fs::set_permissions(&name, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(
            path_taken(&at(&server.address, directory.path())).await,
            Path::Grpc
        );
        let forced = at(&format!("shm://{}", server.address), directory.path());
        let error = forced.connect().await.unwrap_err().to_string();
        assert!(
            error.contains("777") && error.contains("chmod 0700"),
            "{error}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_socket_is_passed_over() {
    within(async {
        let directory = tempfile::tempdir().unwrap();
        let server = serve_on_both(directory.path()).await;
        let name = ringway::Directory::at(directory.path())
            .of_name(&server.address)
            .unwrap();
        // Sorted before the server's own; its owner is gone.
        drop(std::os::unix::net::UnixListener::bind(name.join("0-stale.sock")).unwrap());
        assert_eq!(
            path_taken(&at(&server.address, directory.path())).await,
            Path::Shm
        );
    })
    .await;
}

/// Whoever listens there says `hello` to each client, and no more.
fn says(hello: Vec<u8>, directory: &FilePath, address: &str) {
    let name = ringway::Directory::at(directory).of_name(address).unwrap();
    fs::create_dir_all(&name).unwrap();
    for directory in [directory, name.as_path()] {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).unwrap();
    }
    let listener = tokio::net::UnixListener::bind(name.join("0-odd.sock")).unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            // A client that goes away, which it may, is nothing to fail for.
            let _ = client.write_all(&hello).await;
            let _ = client.read_to_end(&mut Vec::new()).await;
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_another_version_is_called_over_the_network() {
    within(async {
        let nowhere = tempfile::tempdir().unwrap();
        let server = serve_on_both(nowhere.path()).await;
        let hello = Hello::new(
            Role::Server,
            &Config::default(),
            7,
            &server.address,
            Capabilities(1),
        );
        let good = hello.encode().unwrap();
        let with = |at: usize, bytes: &[u8]| {
            let mut hello = good.clone();
            hello[at..at + bytes.len()].copy_from_slice(bytes);
            hello
        };
        for (what, hello) in [
            ("version", with(8, &[9, 0, 9, 0])),
            ("magic", with(0, b"HTTP/1.1")),
            ("role", with(14, &[3])),
        ] {
            let directory = tempfile::tempdir().unwrap();
            says(hello, directory.path(), &server.address);
            let taken = path_taken(&at(&server.address, directory.path())).await;
            assert_eq!(taken, Path::Grpc, "{what}");
            let forced = at(&format!("shm://{}", server.address), directory.path());
            let error = forced.connect().await.unwrap_err().to_string();
            assert!(error.contains(what), "{what}: {error}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_never_left_out() {
    within(async {
        let directory = tempfile::tempdir().unwrap();
        let server = serve_on_both(directory.path()).await;
        let with_tls = at(&server.address, directory.path())
            .tls_config(ClientTlsConfig::new())
            .unwrap();
        // The server's network path speaks no TLS, and its local one, which would, is not taken.
        let mut client = BenchClient::new(with_tls.connect_lazy());
        let status = client.unary(payload(1, 10)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(with_tls.connect().await.is_err());
        let https = at(&format!("https://{}", server.address), directory.path());
        let error = https.connect().await.unwrap_err().to_string();
        assert!(error.contains("tls"), "{error}");
        let forced = with_tls
            .clone()
            .path(Path::Shm)
            .connect()
            .await
            .unwrap_err();
        assert!(forced.to_string().contains("allow_local"), "{forced}");
        let allowed = with_tls.allow_local(LocalPolicy::Allow(UidPolicy::SameUser));
        assert_eq!(path_taken(&allowed).await, Path::Shm);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_tls_is_found_by_no_local_client() {
    within(async {
        let directory = tempfile::tempdir().unwrap();
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let identity = tonic::transport::Identity::from_pem(
            certified.cert.pem(),
            certified.signing_key.serialize_pem(),
        );
        let tls = tonic::transport::ServerTlsConfig::new().identity(identity);
        let server = Server::builder()
            .directory(directory.path())
            .name("secret:1")
            .listen("127.0.0.1:0")
            .unwrap()
            .tls_config(tls)
            .unwrap()
            .add_service(BenchServer::new(Handler::default()))
            .bind()
            .await
            .unwrap();
        assert!(
            at("shm://secret:1", directory.path())
                .connect()
                .await
                .is_err()
        );
        drop(server);
    })
    .await;
}

/// Over the network when the local server dies, and back when it returns, without a new channel.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_moves_to_the_network_and_back() {
    within(async {
        let directory = tempfile::tempdir().unwrap();
        let network = serve_on_both(&directory.path().join("of nobody's")).await;
        let local = ChildServer::start(directory.path(), &network.address);
        let channel = at(&network.address, directory.path())
            .connect()
            .await
            .unwrap();
        let mut client = BenchClient::new(channel.clone());
        let mut older_clone = client.clone();
        let path = |response: &tonic::Response<Payload>| Path::of(response).unwrap();
        assert_eq!(
            path(&client.unary(payload(1, 10)).await.unwrap()),
            Path::Shm
        );
        assert_eq!(
            path(&older_clone.unary(payload(1, 10)).await.unwrap()),
            Path::Shm
        );
        local.kill();
        moves(&mut client, Path::Grpc).await;
        moves(&mut older_clone, Path::Grpc).await;
        for _ in 0..20 {
            assert_eq!(
                path(&client.unary(payload(1, 10)).await.unwrap()),
                Path::Grpc
            );
        }
        let local = ChildServer::start(directory.path(), &network.address);
        moves(&mut client, Path::Shm).await;
        moves(&mut older_clone, Path::Shm).await;
        for _ in 0..20 {
            assert_eq!(
                path(&client.unary(payload(1, 10)).await.unwrap()),
                Path::Shm
            );
        }
        drop(local);
    })
    .await;
}

/// Calls until one takes `path`. The call that notices the death may fail, and nothing but so.
async fn moves(client: &mut BenchClient<ringway::Channel>, path: Path) {
    loop {
        match client.unary(payload(1, 10)).await {
            Ok(response) if Path::of(&response) == Some(path) => return,
            Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
        }
    }
}

/// A server that was never there locally is found once it comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_later_is_found() {
    within(async {
        let directory = tempfile::tempdir().unwrap();
        let network = serve_on_both(&directory.path().join("of nobody's")).await;
        let mut client = client_of(&at(&network.address, directory.path())).await;
        moves(&mut client, Path::Grpc).await;
        let local = ChildServer::start(directory.path(), &network.address);
        moves(&mut client, Path::Shm).await;
        drop(local);
    })
    .await;
}

/// By each path, a call that waits is made once a server comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_waits_for_ready_finds_the_server_that_comes() {
    within(async {
        let schemes = [
            "",
            "shm://",
            "socket://",
            "socket+epoll://",
            "inproc://",
            "grpc://",
            "unix:",
        ];
        for (port, scheme) in schemes.into_iter().enumerate() {
            let directory = tempfile::tempdir().unwrap();
            let name = free_address().to_string();
            let socket = format!("unix:{}", directory.path().join("grpc.sock").display());
            let (address, listens) = match scheme {
                "unix:" => (socket.clone(), &socket),
                _ => (format!("{scheme}{name}"), &name),
            };
            let endpoint = at(&address, directory.path());
            let mut waiting = BenchClient::new(endpoint.connect_lazy());
            let mut request = tonic::Request::new(payload(1, 10));
            // Each way of saying so in turn.
            if port % 2 == 0 {
                request.extensions_mut().insert(WaitForReady(true));
            } else {
                let endpoint = endpoint.wait_for_ready(true);
                waiting = BenchClient::new(endpoint.connect_lazy());
            }
            let mut hasty = waiting.clone();
            let mut impatient = tonic::Request::new(payload(1, 10));
            impatient.extensions_mut().insert(WaitForReady(false));
            let status = hasty.unary(impatient).await.unwrap_err();
            assert_eq!(status.code(), Code::Unavailable, "{scheme}: {status:?}");

            let call = tokio::spawn(async move { waiting.unary(request).await });
            let server = serve_named(&name, listens, directory.path()).await;
            call.await.unwrap().unwrap();
            drop(server);
        }
    })
    .await;
}

/// As programs do that wait for a server to start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connecting_fails_until_somebody_listens() {
    within(async {
        for scheme in ["", "grpc://"] {
            let directory = tempfile::tempdir().unwrap();
            let address = free_address().to_string();
            let endpoint = at(&format!("{scheme}{address}"), directory.path());
            for _ in 0..3 {
                endpoint.connect().await.unwrap_err();
            }
            let server = serve_at(&address, directory.path()).await;
            let mut client = client_of(&endpoint).await;
            client.unary(payload(1, 10)).await.unwrap();
            drop(server);
        }
    })
    .await;
}

/// A server that is called by another name than its own.
#[tokio::test]
async fn a_caller_who_dials_another_name_is_told_which_there_are() {
    within(async {
        let directory = tempfile::tempdir().unwrap();
        let address = free_address().to_string();
        let server = serve_named("greeter:50051", &address, directory.path()).await;
        let dialled = at("127.0.0.1:1", directory.path());
        let error = dialled.connect().await.unwrap_err().to_string();
        assert!(error.contains("there are: `greeter:50051`"), "{error}");
        drop(server);
    })
    .await;
}

#[tokio::test]
async fn a_server_says_once_whom_its_name_misses() {
    within(async {
        let directory = tempfile::tempdir().unwrap();
        let said = async |names: &[&str]| {
            let (log, _logging) = Log::begin();
            let server = Server::builder().directory(directory.path());
            let server = names.iter().fold(server, |server, name| server.name(*name));
            let bound = server.listen("127.0.0.1:50999").unwrap().bind().await;
            drop(bound.unwrap());
            log
        };
        let log = said(&[]).await;
        assert_eq!(log.count("INFO"), 1, "{}", log.text());
        assert_eq!(log.count("has no name"), 1, "{}", log.text());
        let log = said(&["greeter:50999"]).await;
        assert_eq!(log.count("INFO"), 1, "{}", log.text());
        assert_eq!(log.count("localhost:50999"), 1, "{}", log.text());
        let log = said(&["greeter:50999", "localhost:50999"]).await;
        assert_eq!(log.count("INFO"), 0, "{}", log.text());
    })
    .await;
}

/// To make a larger file than that ends a process, a memory file too.
#[tokio::test]
async fn a_limit_of_file_sizes_leads_to_a_socket_with_one_warning() {
    if !in_a_process_of_its_own("a_limit_of_file_sizes_leads_to_a_socket_with_one_warning") {
        return;
    }
    within(async {
        let limit = rustix::process::Rlimit {
            current: Some(1 << 20),
            maximum: Some(1 << 20),
        };
        rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).unwrap();
        let (log, _logging) = Log::begin();
        let directory = tempfile::tempdir().unwrap();
        let server = serve_on_both(directory.path()).await;
        for _ in 0..3 {
            let mut client = client_of(&at(&server.address, directory.path())).await;
            let answer = client.unary(payload(1, 3 << 20)).await.unwrap();
            assert_eq!(Path::of(&answer), Some(Path::Socket));
        }
        assert_eq!(log.count("WARN"), 1, "{}", log.text());
        assert_eq!(log.count("RLIMIT_FSIZE"), 1, "{}", log.text());
        let forced = at(&format!("shm://{}", server.address), directory.path());
        let error = forced.connect().await.unwrap_err().to_string();
        assert!(error.contains("RLIMIT_FSIZE"), "{error}");
    })
    .await;
}
