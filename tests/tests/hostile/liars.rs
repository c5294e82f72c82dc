//! Servers that lie to a client, while the same client calls an honest server: its calls to the liar end, its others
//! don't notice, and nothing is left of the liar's connections.

use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use ringway::{Channel, Endpoint as Address, Server};
use ringway_proto::bench::bench_client::BenchClient;
use ringway_proto::bench::bench_server::BenchServer;
use ringway_proto::bench::{Payload, StreamRequest};
use ringway_tests::{alone_for, asking, descriptors, eventually, mapped_regions, ours, payload};
use ringway_wire::{Flags, FrameHeader, Kind};
use tokio::runtime::Handle;
use tonic::{Code, Request, Status};

use crate::NAME;
use crate::servers::{Link, Said, serve};
use crate::siege::{CONTROL, LIMIT};

/// What a call may take from the liar's first wrong word.
const LONGEST_END: Duration = Duration::from_millis(100);
/// What a call to the honest server may take meanwhile.
const LONGEST_CALL: Duration = Duration::from_millis(50);
/// Rounds, of which one has to be within these times: the machine may have been busy at the others.
const ROUNDS: usize = 4;

/// Later than any bar.
const DEADLINE: Duration = Duration::from_secs(5);
const HONEST: &str = "honest:50051";

fn frame(kind: Kind) -> FrameHeader {
    FrameHeader::new(kind)
}

fn said(header: FrameHeader) -> Said {
    Said::new(header, Vec::new())
}

fn message(bytes: u32) -> FrameHeader {
    FrameHeader {
        flags: Flags::HAS_MESSAGE,
        message_len: bytes,
        ..frame(Kind::Message)
    }
}

fn whole_answer() -> Said {
    // Of no metadata, twice.
    let head = ringway_wire::ResponseHead::default();
    let mut bytes = vec![0; head.encoded_len()];
    head.encode(&mut bytes);
    let header = FrameHeader {
        flags: Flags::HAS_MESSAGE,
        ..frame(Kind::Response)
    };
    Said::new(header, bytes)
}

/// What no server may say.
fn lies() -> Vec<(&'static str, Vec<Said>)> {
    let of_another = |header: FrameHeader| FrameHeader {
        call: 7 << 32 | 99,
        ..header
    };
    let connection = |header: FrameHeader| FrameHeader {
        // What is added to the call makes it a number that no slot has.
        call: 1 << 63,
        ..header
    };
    let response = frame(Kind::Response);
    vec![
        (
            "an answer to an unknown call",
            vec![said(of_another(frame(Kind::Trailers)))],
        ),
        (
            "headers of an unknown call",
            vec![said(of_another(frame(Kind::Headers)))],
        ),
        ("a request", vec![said(frame(Kind::Request))]),
        ("an answer without a head", vec![said(response)]),
        (
            "an answer with a head that is none",
            vec![Said::new(response, vec![255; 40])],
        ),
        (
            "trailers with a head that is none",
            vec![Said::new(frame(Kind::Trailers), vec![255; 40])],
        ),
        (
            "headers twice",
            vec![said(frame(Kind::Headers)), said(frame(Kind::Headers))],
        ),
        (
            "a message longer than its frames",
            vec![said(message(9)), said(frame(Kind::Trailers))],
        ),
        (
            "a pong that nobody asked for",
            vec![said(connection(frame(Kind::Pong)))],
        ),
        (
            "credit out of nothing",
            vec![said(FrameHeader {
                message_len: u32::MAX,
                ..frame(Kind::Credit)
            })],
        ),
    ]
}

/// What is odd, and no lie: an answer that comes twice is late the second time.
fn oddities() -> Vec<(&'static str, Vec<Said>)> {
    vec![
        (
            "an answer to a finished call",
            vec![whole_answer(), said(frame(Kind::Trailers))],
        ),
        (
            "a reset of a finished call",
            vec![whole_answer(), said(frame(Kind::Reset))],
        ),
    ]
}

/// An honest server, and a client of it in this process.
async fn honest(root: &Path) -> (tokio::task::JoinHandle<()>, BenchClient<Channel>) {
    let server = Server::builder()
        .directory(root)
        .name(HONEST)
        .add_service(BenchServer::new(ours::Handler::default()));
    let server = server.bind().await.unwrap();
    let serving = tokio::spawn(async { server.serve().await.unwrap() });
    let address = Address::new(format!("shm://{HONEST}")).unwrap();
    let channel = address.directory(root).connect().await.unwrap();
    let mut client = BenchClient::new(channel);
    client.unary(payload(0, 100)).await.unwrap();
    (serving, client)
}

/// Calls the liar in two ways at once; how each call ended.
async fn calls(root: &Path, link: Link) -> Vec<Result<(), Status>> {
    let address = Address::new(link.address()).unwrap().directory(root);
    let Ok(channel) = address.connect().await else {
        return vec![Err(Status::unavailable("it was refused at once"))];
    };
    let (mut one, mut other) = (BenchClient::new(channel.clone()), BenchClient::new(channel));
    // A lie that is not noticed ends its call with the deadline.
    let mut asked = Request::new(Payload::default());
    asked.set_timeout(DEADLINE);
    let mut listens = Request::new(StreamRequest::default());
    listens.set_timeout(DEADLINE);
    let unary = async { one.unary(asked).await.map(drop) };
    let stream = async {
        let mut messages = other.server_stream(listens).await?.into_inner();
        while messages.message().await?.is_some() {}
        Ok(())
    };
    let (unary, stream) = tokio::join!(unary, stream);
    vec![unary, stream]
}

/// Has a client call a server that answers with `answers`, and an honest one meanwhile.
async fn lied_to(link: Link, what: &str, answers: &[Said], judge: impl Fn(&Result<(), Status>)) {
    LazyLock::force(&CONTROL);
    let directory = tempfile::tempdir().unwrap();
    let (serving, mut honest) = honest(directory.path()).await;
    let mut late = Vec::new();
    for _ in 0..ROUNDS {
        let liar = tempfile::tempdir().unwrap();
        serve(liar.path(), link, answers);
        let held = held();
        let calling = tokio::spawn({
            let root = liar.path().to_owned();
            async move {
                let began = Instant::now();
                (calls(&root, link).await, began, Instant::now())
            }
        });
        let mut longest = Duration::ZERO;
        while !calling.is_finished() {
            let began = Instant::now();
            honest.unary(payload(0, 100)).await.unwrap();
            let now = Instant::now();
            longest = longest.max((now - began).saturating_sub(CONTROL.lateness(began, now)));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (ends, began, ended) = calling.await.unwrap();
        println!("{link:?}: {what}: {ends:?} after {:?}", ended - began);
        ends.iter().for_each(&judge);
        let took = (ended - began).saturating_sub(CONTROL.lateness(began, ended));
        eventually("nothing is left of the liar's connections", || {
            let now = self::held();
            now.0 <= held.0 && now.1 <= held.1 && now.2 <= held.2
        })
        .await;
        // The handshake is part of it.
        if longest <= LONGEST_CALL && took <= 2 * LONGEST_END {
            late.clear();
            break;
        }
        late.push((longest, took));
    }
    assert!(late.is_empty(), "{link:?}: {what}: {late:?}");
    serving.abort();
}

/// Descriptors, mappings and tasks; the liars' listeners are threads of this process, too.
fn held() -> (usize, usize, usize) {
    let tasks = Handle::current().metrics().num_alive_tasks();
    (descriptors(), mapped_regions(), tasks)
}

#[test]
fn lies_of_a_server_end_its_connection_alone() {
    alone_for(LIMIT, async {
        for link in [Link::Shm, Link::Socket] {
            for (what, answers) in lies() {
                lied_to(link, what, &answers, |end| {
                    let status = end.as_ref().expect_err(what);
                    assert_ne!(
                        status.code(),
                        Code::DeadlineExceeded,
                        "{what} is not noticed"
                    );
                })
                .await;
            }
        }
    });
}

#[test]
fn answers_that_come_too_late_are_no_lies() {
    alone_for(LIMIT, async {
        for link in [Link::Shm, Link::Socket] {
            for (what, answers) in oddities() {
                lied_to(link, what, &answers, |end| {
                    assert!(end.is_ok(), "{link:?}: {what}: {end:?}");
                })
                .await;
            }
        }
    });
}

/// Says nothing at all: its calls meet their deadlines.
#[test]
fn a_server_that_never_answers() {
    alone_for(LIMIT, async {
        for link in [Link::Shm, Link::Socket] {
            let liar = tempfile::tempdir().unwrap();
            serve(liar.path(), link, &[]);
            let address = Address::new(link.address()).unwrap().directory(liar.path());
            let mut client = BenchClient::new(address.connect().await.unwrap());
            let mut request = asking("answer", payload(1, 100_000));
            request.set_timeout(Duration::from_millis(50));
            let status = client.unary(request).await.unwrap_err();
            assert_eq!(status.code(), Code::DeadlineExceeded, "{link:?}: {NAME}");
        }
    });
}
