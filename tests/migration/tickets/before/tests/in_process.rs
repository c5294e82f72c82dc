//! The office as its own tests call it, without an address.
#![allow(clippy::unwrap_used)]

use std::io;

use hyper_util::rt::TokioIo;
use tickets::v1::box_office_client::BoxOfficeClient;
use tickets::v1::box_office_server::BoxOfficeServer;
use tickets::v1::{Booking, Show};
use tickets::{Doorman, Office, Shows, over};
use tickets_before as tickets;
use tonic::Code;
use tonic::transport::{Channel, Endpoint, Server};

fn hamlet() -> Shows {
    let shows = Shows::default();
    shows.put_on("Hamlet", 100);
    shows
}

fn two_seats() -> Booking {
    Booking {
        show: "Hamlet".to_owned(),
        seats: 2,
    }
}

/// A channel to a server of this process, over a pair of pipes that nothing else sees.
async fn channel(shows: Shows) -> Channel {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let office = BoxOfficeServer::with_interceptor(Office::of(shows), Doorman);
    tokio::spawn(async move {
        Server::builder()
            .add_service(office)
            .serve_with_incoming(tokio_stream::once(Ok::<_, io::Error>(far)))
            .await
    });
    let mut near = Some(near);
    Endpoint::from_static("http://office.test")
        .connect_with_connector(tower::service_fn(move |_| {
            let near = near.take();
            async move {
                near.map(TokioIo::new)
                    .ok_or_else(|| io::Error::other("one is enough"))
            }
        }))
        .await
        .unwrap()
}

#[tokio::test]
async fn tickets_are_made_out_to_the_caller() {
    let mut client = over(channel(hamlet()).await, "Ada").unwrap();
    let ticket = client.book(two_seats()).await.unwrap().into_inner();
    assert_eq!((ticket.holder.as_str(), ticket.first_seat), ("Ada", 1));
}

#[tokio::test]
async fn strangers_are_turned_away() {
    let mut client = BoxOfficeClient::new(channel(hamlet()).await);
    let refused = client.book(two_seats()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_server_is_a_client_s_transport() {
    let server = BoxOfficeServer::new(Office::of(hamlet()));
    let mut client = BoxOfficeClient::new(server);
    let ticket = client.book(two_seats()).await.unwrap().into_inner();
    assert_eq!(ticket.holder, "anybody");
    let show = Show {
        name: "Hamlet".to_owned(),
        seats: 0,
    };
    let mut seats = client.watch(show).await.unwrap().into_inner();
    assert_eq!(seats.message().await.unwrap().unwrap().left, 98);
}
