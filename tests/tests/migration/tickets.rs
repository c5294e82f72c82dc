//! The box office of `tests/migration/tickets`: calls of all four kinds, tokens, counting, TLS, grpc-web, health,
//! reflection, several servers, and a server that stops amid a call. Each client with each server.

use std::error::Error;
use std::net::SocketAddr;

use ringway_tests::{Authority, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::transport::{Certificate, Channel};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use super::free_address;

/// The service's full name.
const SERVICE: &str = "tickets.v1.BoxOffice";

/// A server of either kind, and how to stop it.
struct Running<C> {
    address: SocketAddr,
    counter: C,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), Box<dyn Error + Send + Sync>>>,
}

impl<C> Running<C> {
    /// Stops the server, which lets its calls finish.
    async fn stopped(self) {
        self.stop.send(()).unwrap();
        self.serving.await.unwrap().unwrap();
    }
}

/// Starts a server of `$office` in whose hall are 100 seats.
macro_rules! start {
    ($office:ident, $identity:expr) => {{
        let (stop, stopped) = oneshot::channel::<()>();
        let settings = $office::Settings {
            address: free_address().parse().unwrap(),
            identity: $identity,
            shows: $office::Shows::default(),
            counter: $office::Counter::default(),
        };
        settings.shows.put_on("Hamlet", 100);
        Running {
            address: settings.address,
            counter: settings.counter.clone(),
            stop,
            serving: tokio::spawn($office::serve(settings, async { stopped.await.unwrap() })),
        }
    }};
}

/// Connects Ada's client of `$office` to a server that may still be starting.
macro_rules! connected {
    ($office:ident, $address:expr, $authority:expr) => {{
        let authority: Option<Certificate> = $authority;
        loop {
            if let Ok(client) = $office::connect($address, "Ada", authority.clone()).await {
                break client;
            }
            tokio::task::yield_now().await;
        }
    }};
}

/// Makes tests of a client's crate and a server's.
macro_rules! offices {
    ($name:ident, $client:ident, $server:ident) => {
        mod $name {
            use super::*;
            use $client::v1::{Booking, Show};

            fn hamlet(seats: u32) -> Booking {
                let show = "Hamlet".to_owned();
                Booking { show, seats }
            }

            fn show(name: &str, seats: u32) -> Show {
                let name = name.to_owned();
                Show { name, seats }
            }

            /// Makes calls of all four kinds by a client that is connected.
            macro_rules! all_kinds {
                ($ada:expr) => {{
                    let mut ada = $ada;
                    let booked = ada.book(hamlet(2)).await.unwrap();
                    assert!(booked.metadata().contains_key("office-version"));
                    let ticket = booked.into_inner();
                    assert_eq!((ticket.first_seat, ticket.holder.as_str()), (1, "Ada"));
                    let refused = ada.book(hamlet(99)).await.unwrap_err();
                    assert_eq!(refused.code(), Code::FailedPrecondition);
                    assert!(refused.message().contains("98 are left"), "{refused}");

                    let mut left = ada.watch(show("Hamlet", 0)).await.unwrap().into_inner();
                    assert_eq!(left.message().await.unwrap().unwrap().left, 98);
                    ada.book(hamlet(1)).await.unwrap();
                    assert_eq!(left.message().await.unwrap().unwrap().left, 97);
                    drop(left);

                    let shows = tokio_stream::iter([show("Faust", 1), show("Medea", 2)]);
                    let imported = ada.import(shows).await.unwrap().into_inner();
                    assert_eq!(imported.shows, 2);

                    let bookings = tokio_stream::iter([hamlet(3), hamlet(4), hamlet(100)]);
                    let mut tickets = ada.queue(bookings).await.unwrap().into_inner();
                    let first = tickets.message().await.unwrap().unwrap();
                    assert_eq!((first.first_seat, first.holder.as_str()), (4, "Ada"));
                    let second = tickets.message().await.unwrap().unwrap();
                    assert_eq!(second.first_seat, 7);
                    let refused = tickets.message().await.unwrap_err();
                    assert_eq!(refused.code(), Code::FailedPrecondition);
                }};
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn calls_of_all_kinds_arrive() {
                within(async {
                    let server = start!($server, None);
                    all_kinds!(connected!($client, server.address, None));
                    // Two refused ones among them.
                    assert_eq!(server.counter.calls(), 6);
                    server.stopped().await;
                })
                .await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn tls_carries_them_too() {
                within(async {
                    let authority = Authority::default();
                    let server = start!($server, Some(authority.identity()));
                    let vouched = Some(authority.certificate());
                    all_kinds!(connected!($client, server.address, vouched));
                    let stranger = Some(Authority::default().certificate());
                    let refused = $client::connect(server.address, "Ada", stranger).await;
                    assert!(refused.is_err(), "nobody vouches for it");
                    server.stopped().await;
                })
                .await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn two_servers_share_the_load() {
                within(async {
                    let servers = [start!($server, None), start!($server, None)];
                    let addresses = [servers[0].address, servers[1].address];
                    for address in addresses {
                        drop(connected!($client, address, None));
                    }
                    let mut ada = $client::balanced(&addresses, "Ada").unwrap();
                    let mut made = 0;
                    // One of them may be connected before the other, and has all calls until then.
                    while servers.iter().any(|server| server.counter.calls() == 0) {
                        ada.watch(show("Hamlet", 0)).await.unwrap();
                        made += 1;
                    }
                    let calls = servers.iter().map(|server| server.counter.calls());
                    assert_eq!(calls.sum::<u64>(), made);
                    drop(ada);
                    for server in servers {
                        server.stopped().await;
                    }
                })
                .await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn a_server_that_stops_lets_calls_finish() {
                within(async {
                    let server = start!($server, None);
                    let mut ada = connected!($client, server.address, None);
                    let (bookings, coming) = tokio::sync::mpsc::channel(1);
                    let coming = tokio_stream::wrappers::ReceiverStream::new(coming);
                    bookings.send(hamlet(1)).await.unwrap();
                    let mut tickets = ada.queue(coming).await.unwrap().into_inner();
                    assert_eq!(tickets.message().await.unwrap().unwrap().first_seat, 1);
                    let stopped = tokio::spawn(server.stopped());
                    // A second one is stopped meanwhile: so this one has had its time to hear of it.
                    start!($server, None).stopped().await;
                    bookings.send(hamlet(1)).await.unwrap();
                    assert_eq!(tickets.message().await.unwrap().unwrap().first_seat, 2);
                    assert!(!stopped.is_finished());
                    drop(bookings);
                    assert_eq!(tickets.message().await.unwrap(), None);
                    stopped.await.unwrap();
                })
                .await;
            }
        }
    };
}

offices!(before, tickets_before, tickets_before);
offices!(after, tickets_after, tickets_after);
offices!(the_client_first, tickets_after, tickets_before);
offices!(the_server_first, tickets_before, tickets_after);

/// Connects a plain client to a server that may still be starting.
async fn plain(address: SocketAddr) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{address}")).unwrap();
    loop {
        if let Ok(channel) = endpoint.connect().await {
            return channel;
        }
        tokio::task::yield_now().await;
    }
}

/// Makes tests of what a server offers beside its own service.
macro_rules! offers {
    ($name:ident, $server:ident) => {
        mod $name {
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn health_is_told() {
                within(async {
                    let server = start!($server, None);
                    let mut health = HealthClient::new(plain(server.address).await);
                    let service = SERVICE.to_owned();
                    let asked = HealthCheckRequest { service };
                    let mut told = health.watch(asked).await.unwrap().into_inner();
                    let first = told.message().await.unwrap().unwrap();
                    assert_eq!(first.status(), ServingStatus::Serving);
                    let stopped = tokio::spawn(server.stopped());
                    let last = told.message().await.unwrap().unwrap();
                    assert_eq!(last.status(), ServingStatus::NotServing);
                    drop(told);
                    stopped.await.unwrap();
                })
                .await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn reflection_names_the_service() {
                within(async {
                    let server = start!($server, None);
                    let channel = plain(server.address).await;
                    let mut reflection = ServerReflectionClient::new(channel);
                    let asked = ServerReflectionRequest {
                        host: String::new(),
                        message_request: Some(MessageRequest::ListServices(String::new())),
                    };
                    let asked = tokio_stream::iter([asked]);
                    let told = reflection.server_reflection_info(asked).await.unwrap();
                    let told = told.into_inner().message().await.unwrap().unwrap();
                    let Some(MessageResponse::ListServicesResponse(listed)) = told.message_response
                    else {
                        panic!("{told:?}");
                    };
                    let mut names = listed.service.iter().map(|service| &service.name);
                    assert!(names.any(|name| name == SERVICE), "{listed:?}");
                    drop(reflection);
                    server.stopped().await;
                })
                .await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn a_browser_calls_by_grpc_web() {
                within(async {
                    let server = start!($server, None);
                    drop(plain(server.address).await);
                    let booking = $server::v1::Booking {
                        show: "Hamlet".to_owned(),
                        seats: 2,
                    };
                    let answer = by_grpc_web(server.address, &booking).await;
                    let text = String::from_utf8_lossy(&answer);
                    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
                    assert!(text.contains("Ada"), "{text}");
                    assert!(text.contains("grpc-status:0"), "{text}");
                    server.stopped().await;
                })
                .await;
            }
        }
    };
}

offers!(offered_before, tickets_before);
offers!(offered_after, tickets_after);

/// Books as a browser does, over HTTP/1.1, and returns the whole answer.
async fn by_grpc_web(address: SocketAddr, booking: &impl prost::Message) -> Vec<u8> {
    let message = booking.encode_to_vec();
    let mut body = vec![0];
    body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    body.extend(message);
    let head = format!(
        "POST /{SERVICE}/Book HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer Ada\r\n\
         content-type: application/grpc-web+proto\r\naccept: application/grpc-web+proto\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(&body).await.unwrap();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await.unwrap();
    answer
}
