//! How two ends meet over a Unix socket: a hello each, then (for shared memory) a region and a
//! doorbell each; otherwise frames follow on the same socket. Whatever goes wrong here ends in one error that names it, and no connection.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ringway_ring::{Endpoint, Inbox, OwnRegion, PeerRegion, check_file_size_limit};
use ringway_sys::{
    Blocking, EventFd, PeerCredentials, check_passing, receive_with_descriptors,
    send_with_descriptors,
};
use ringway_wire::{Capabilities, Hello, Negotiated, Role};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use crate::budgets::budget_of;
use crate::clock;
use crate::config::{Links, LocalConfig, SocketEngine};
use crate::connection::{Connection, Large, Parts, Wakeups};
use crate::link::shm::peer_bell::PeerBell;
use crate::link::shm::{Blocks, PeerCan, Receiver, Sender};
use crate::link::stream::Stream;
use crate::link::{self, LinkKind, Watch};
use crate::server::Serve;
use crate::socket_peer::SocketPeer;
use crate::watched::Watched;

/// Shared memory.
const SHM: u64 = 1;
/// Frames over the rendezvous socket itself.
const SOCKET: u64 = 2;
/// On such a socket: without io_uring, at both ends.
const EPOLL: u64 = 4;
/// In shared memory: what is filled of a block is copied before its frame comes.
const READS_AHEAD: u64 = 16;
/// In shared memory: is told of its segments that its peer could not take.
const HEARS_REFUSALS: u64 = 64;
/// A client may hold several connections: the server limits nothing for each.
const SEVERAL: u64 = 128;
/// The one byte with which a region and a doorbell travel.
const REGION_NOTE: u8 = b'R';

/// One end of a rendezvous.
pub(crate) struct Rendezvous<'a> {
    pub(crate) stream: UnixStream,
    pub(crate) config: &'a LocalConfig,
    pub(crate) name: &'a str,
    pub(crate) instance: u128,
    pub(crate) peer: PeerCredentials,
}

/// What one end brings to a connection.
struct Offer {
    capabilities: u64,
    engine: SocketEngine,
    /// Made before it is offered: a machine that refuses it offers a socket alone.
    memory: Option<Memory>,
}

/// What of shared memory is this end's own.
struct Memory {
    region: OwnRegion,
    bell: EventFd,
}

impl Memory {
    /// Makes the region and the doorbell, which this process can pass to its peer.
    fn make(config: &LocalConfig, peer_uid: u32) -> Result<Self, String> {
        let arena = &config.memory.arena;
        let largest = arena.max_block_bytes.max(arena.segment_bytes);
        check_file_size_limit(largest).map_err(|error| error.to_string())?;
        let region = OwnRegion::create_within(&config.memory.region, &budget_of(peer_uid, config))
            .map_err(|error| error.to_string())?;
        let bell = EventFd::new().map_err(|error| format!("no doorbell can be made: {error}"))?;
        // Behind the hellos it would be too late for a socket.
        check_passing(bell.as_fd()).map_err(|error| error.to_string())?;
        Ok(Self { region, bell })
    }
}

impl Rendezvous<'_> {
    /// The client's end.
    pub(crate) async fn call(mut self) -> Result<Arc<Connection>, String> {
        let mut offer = self.offer(true)?;
        offer.capabilities |= SEVERAL;
        if offer.engine == SocketEngine::Epoll {
            offer.capabilities |= EPOLL;
        }
        let ours = self.hello(Role::Client, &offer);
        send_hello(&mut self.stream, &ours).await?;
        let theirs = receive_hello(&mut self.stream).await?;
        let agreed = agree(&ours, &theirs)?;
        self.join(Role::Client, agreed, offer, None).await
    }

    /// The server's end.
    pub(crate) async fn answer(
        mut self,
        service: Arc<dyn Serve>,
    ) -> Result<Arc<Connection>, String> {
        let theirs = receive_hello(&mut self.stream).await?;
        let mut offer = self.offer(theirs.capabilities.has(Capabilities(SHM)))?;
        offer.capabilities |= EPOLL;
        let wire = &self.config.wire;
        // Of these limits a client knows the slots alone, and shares them out.
        if self.config.lets_clients_hold_several && wire.max_concurrent_calls >= wire.call_slots {
            offer.capabilities |= SEVERAL;
        }
        let ours = self.hello(Role::Server, &offer);
        // Sent before it is judged: the client, too, should learn which versions do not fit.
        send_hello(&mut self.stream, &ours).await?;
        if theirs.server_name != self.name {
            // Escaped: it is the client's to choose, and stands in the log.
            let asked = theirs.server_name.escape_debug();
            return Err(format!("the client asked for `{asked}`"));
        }
        let agreed = agree(&ours, &theirs)?;
        self.join(Role::Server, agreed, offer, Some(service)).await
    }

    /// What this end can do, of what its settings allow.
    fn offer(&self, shm_is_wanted: bool) -> Result<Offer, String> {
        let links = self.config.links;
        let mut offer = Offer {
            capabilities: match links {
                Links::Any | Links::Socket => SOCKET,
                Links::Shm => 0,
            },
            engine: self.config.socket_engine.resolve()?,
            memory: None,
        };
        if links == Links::Socket || !shm_is_wanted {
            return Ok(offer);
        }
        match Memory::make(self.config, self.peer.uid) {
            Ok(memory) => {
                offer.capabilities |= SHM | READS_AHEAD | HEARS_REFUSALS;
                offer.memory = Some(memory);
            }
            Err(error) if links == Links::Shm => return Err(error),
            Err(error) => warn_once(self.name, &error),
        }
        Ok(offer)
    }

    fn hello(&self, role: Role, offer: &Offer) -> Hello {
        let capabilities = Capabilities(offer.capabilities);
        Hello::new(
            role,
            &self.config.wire,
            self.instance,
            self.name,
            capabilities,
        )
    }

    async fn join(
        self,
        role: Role,
        agreed: Negotiated,
        offer: Offer,
        service: Option<Arc<dyn Serve>>,
    ) -> Result<Arc<Connection>, String> {
        let (own, own_bell) = match offer.memory {
            Some(Memory { region, bell }) if agreed.capabilities.has(Capabilities(SHM)) => {
                (region, bell)
            }
            _ => return self.stay(role, &agreed, offer.engine, service),
        };
        self.send_region(&own, &own_bell).await?;
        let (region, peer_bell) = self.receive_region().await?;
        let region = PeerRegion::map(region, &self.config.memory.region_limits)
            .map_err(|error| format!("the peer's region: {error}"))?;
        let endpoint = Endpoint::join(own, region, &self.config.memory)
            .map_err(|error| format!("the peer's region: {error}"))?;
        let peer_can = PeerCan {
            read_ahead: agreed.capabilities.has(Capabilities(READS_AHEAD)),
            hear_refusals: agreed.capabilities.has(Capabilities(HEARS_REFUSALS)),
        };
        let core = ringway_wire::Connection::new(role, &agreed, &self.config.wire, clock::now());
        let socket_peer = SocketPeer::of(&self.stream, role);
        let socket = Arc::new(OwnedFd::from(self.stream.into_std().map_err(text)?));
        let parts = assemble(
            endpoint,
            peer_can,
            core,
            socket,
            (own_bell, Arc::new(PeerBell::new(peer_bell))),
            service,
            self.peer,
        )?;
        let connection = Connection::start(Parts {
            socket_peer,
            name: self.name.into(),
            ..parts
        });
        if agreed.capabilities.has(Capabilities(SEVERAL)) {
            connection.note_several();
        }
        connection.configure(self.config);
        Ok(connection)
    }

    /// Frames follow the hellos on the socket itself.
    fn stay(
        self,
        role: Role,
        agreed: &Negotiated,
        engine: SocketEngine,
        service: Option<Arc<dyn Serve>>,
    ) -> Result<Arc<Connection>, String> {
        let engine = match agreed.capabilities.has(Capabilities(EPOLL)) {
            true => SocketEngine::Epoll,
            false => engine,
        };
        let core = ringway_wire::Connection::new(role, agreed, &self.config.wire, clock::now());
        let socket_peer = SocketPeer::of(&self.stream, role);
        let socket = OwnedFd::from(self.stream.into_std().map_err(text)?);
        let stream = Stream::new(socket, engine).map_err(text)?;
        let peer = StreamPeer {
            credentials: Some(self.peer),
            socket_peer,
            name: self.name.into(),
        };
        let connection = start_over(&stream, LinkKind::Socket, core, service, peer)?;
        if agreed.capabilities.has(Capabilities(SEVERAL)) {
            connection.note_several();
        }
        connection.configure(self.config);
        Ok(connection)
    }

    async fn send_region(&self, region: &OwnRegion, bell: &EventFd) -> Result<(), String> {
        let descriptors = [region.descriptor(), bell.as_fd()];
        let sent = self.stream.async_io(Interest::WRITABLE, || {
            let note = [REGION_NOTE];
            send_with_descriptors(self.stream.as_fd(), &note, &descriptors, Blocking::Never)
                .map_err(into_io)
        });
        sent.await.map(drop).map_err(text)
    }

    async fn receive_region(&self) -> Result<(OwnedFd, EventFd), String> {
        let mut note = [0];
        let received = self.stream.async_io(Interest::READABLE, || {
            receive_with_descriptors(self.stream.as_fd(), &mut note, 2, Blocking::Never)
                .map_err(into_io)
        });
        let received = received.await.map_err(text)?;
        if received.len == 0 {
            return Err("the peer hung up".into());
        }
        let mut descriptors = received.descriptors.into_iter();
        let (Some(region), Some(bell), REGION_NOTE) =
            (descriptors.next(), descriptors.next(), note[0])
        else {
            return Err("the peer sent something else than a region and a doorbell".into());
        };
        let bell = EventFd::from_peer(bell).map_err(|error| error.to_string())?;
        Ok((region, bell))
    }
}

/// Says why there is no shared memory: loudly for the first connection that lacks it, since it is as a
/// rule the whole process that does.
fn warn_once(name: &str, error: &str) {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if WARNED.swap(true, Ordering::Relaxed) {
        tracing::debug!(name, error, "no shared memory, taking a socket");
    } else {
        tracing::warn!(name, error, "no shared memory, taking a socket");
    }
}

/// Says who this end is.
pub(crate) async fn send_hello(
    peer: &mut (impl AsyncWrite + Unpin),
    hello: &Hello,
) -> Result<(), String> {
    let bytes = hello.encode().map_err(|error| error.to_string())?;
    peer.write_all(&bytes).await.map_err(text)
}

/// Hears who the other end is.
pub(crate) async fn receive_hello(peer: &mut (impl AsyncRead + Unpin)) -> Result<Hello, String> {
    let mut prefix = [0; Hello::PREFIX_LEN];
    peer.read_exact(&mut prefix).await.map_err(text)?;
    let total = Hello::total_len(&prefix).map_err(|error| error.to_string())?;
    let mut bytes = vec![0; total];
    bytes[..prefix.len()].copy_from_slice(&prefix);
    let rest = &mut bytes[prefix.len()..];
    peer.read_exact(rest).await.map_err(text)?;
    Hello::decode(&bytes).map_err(|error| error.to_string())
}

fn agree(ours: &Hello, theirs: &Hello) -> Result<Negotiated, String> {
    let agreed = ours.negotiate(theirs).map_err(|error| error.to_string())?;
    if agreed.capabilities.0 & (SHM | SOCKET) == 0 {
        return Err(
            "one end takes shared memory alone, the other has none: its log says why".into(),
        );
    }
    Ok(agreed)
}

/// Who is at the other end of a stream.
#[derive(Debug, Default)]
pub(crate) struct StreamPeer {
    pub(crate) credentials: Option<PeerCredentials>,
    pub(crate) socket_peer: Option<Arc<SocketPeer>>,
    /// The server's name; empty where there is none.
    pub(crate) name: Box<str>,
}

/// A connection whose frames travel through `stream`.
pub(crate) fn start_over(
    stream: &Arc<Stream>,
    kind: LinkKind,
    core: ringway_wire::Connection,
    service: Option<Arc<dyn Serve>>,
    peer: StreamPeer,
) -> Result<Arc<Connection>, String> {
    let (sender, receiver, watch) = stream.halves();
    let connection = Connection::start(Parts {
        kind,
        core,
        sender: link::Sender::Stream(sender),
        receiver: link::Receiver::Stream(receiver),
        watch: Watch::Stream(watch),
        large: None,
        wakeups: Wakeups {
            doorbell: None,
            socket: Some(Watched::new(stream.bell())?),
        },
        service,
        peer: peer.credentials,
        socket_peer: peer.socket_peer,
        name: peer.name,
        runtime: None,
    });
    stream.belongs_to(&connection);
    Ok(connection)
}

/// Assembles the parts of a connection over joined regions.
pub(crate) fn assemble(
    endpoint: Endpoint,
    peer_can: PeerCan,
    core: ringway_wire::Connection,
    socket: Arc<OwnedFd>,
    (own_bell, peer_bell): (EventFd, Arc<PeerBell>),
    service: Option<Arc<dyn Serve>>,
    peer: PeerCredentials,
) -> Result<Parts, String> {
    let sleep_of_peer = endpoint.producer.peer_sleep();
    let sender = Sender::new(endpoint.producer);
    let watch = Watch::Shm {
        peek: endpoint.consumer.peek(),
        sleep: endpoint.consumer.sleep_word(),
        peer: sleep_of_peer,
        peer_bell: Arc::clone(&peer_bell),
        room: Arc::clone(sender.room()),
    };
    let receiver = Receiver {
        consumer: endpoint.consumer,
        inbox: Inbox::default(),
        parsed: None,
        notes_left: 0,
        sought: 0,
        arena: endpoint.peer_arena,
        pool: endpoint.pool,
        socket: Arc::clone(&socket),
        doorbell: Arc::clone(&peer_bell),
        ahead: None,
        ahead_bytes: 0,
        ahead_rests: false,
        read_ahead: false,
        fetched: false,
        refusals: Vec::new(),
        limits: link::Limits::USUAL,
    };
    let pool = receiver.pool.clone();
    Ok(Parts {
        kind: LinkKind::Shm,
        core,
        sender: link::Sender::Shm(sender),
        receiver: link::Receiver::Shm(Box::new(receiver)),
        watch,
        large: Some(Large::new(
            Blocks::new(endpoint.arena, Arc::clone(&socket), peer_can),
            pool,
        )),
        wakeups: Wakeups {
            doorbell: Some(Watched::new(own_bell)?),
            socket: Some(Watched::new(socket)?),
        },
        service,
        peer: Some(peer),
        socket_peer: None,
        name: Box::default(),
        runtime: None,
    })
}

#[allow(clippy::needless_pass_by_value, reason = "fits map_err")]
pub(crate) fn text(error: io::Error) -> String {
    error.to_string()
}

fn into_io(error: ringway_sys::Error) -> io::Error {
    match error {
        ringway_sys::Error::Io(error) => error,
        other => io::Error::other(other),
    }
}
