//! Two connections with a wire between them. Every frame goes through its 24 bytes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::*;

/// An event, owned.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Seen {
    Request {
        call: CallId,
        path: String,
        message: Option<u32>,
        end: bool,
    },
    Message(Message),
    HalfClosed(CallId),
    Headers(CallId, usize),
    Response(CallId, u32),
    Trailers(CallId, u16, String),
    Reset(CallId, u16, bool),
    Refused(CallId, u16),
    Expired(CallId),
    Writable(CallId),
    WritableAll,
    Pong(u64),
    GoAway(u16, String),
    Link(FrameHeader),
    TooLong(CallId, u32, u32),
    Ignored,
    PeerSilent,
}

pub(super) struct Side {
    pub(super) conn: Connection,
    /// What travels towards this side: when it arrives, header and head.
    inbox: VecDeque<(Instant, FrameHeader, Vec<u8>)>,
    pub(super) seen: Vec<Seen>,
    pub(super) error: Option<ProtocolError>,
    /// Frames of each kind that arrived.
    pub(super) arrived: Vec<Kind>,
}

impl Side {
    fn new(conn: Connection) -> Side {
        Side {
            conn,
            inbox: VecDeque::new(),
            seen: vec![],
            error: None,
            arrived: vec![],
        }
    }

    pub(super) fn take(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.seen)
    }

    fn receive(&mut self, now: Instant) {
        while self.inbox.front().is_some_and(|(at, ..)| *at <= now) {
            let (_, header, head) = self.inbox.pop_front().unwrap();
            self.arrived.push(header.kind);
            let decoded = FrameHeader::decode(&header.encode())
                .inspect_err(|error| self.conn.close(code::INTERNAL, &error.to_string()));
            let path = |conn: &Connection, method: Method<'_>| match method {
                Method::Known(number) => conn.method_path(number).unwrap().to_owned(),
                Method::Define(_, path) | Method::Inline(path) => path.to_owned(),
            };
            let event = decoded.and_then(|header| self.conn.handle_frame(now, &header, &head));
            match event {
                Ok(Event::Request(request)) => self.seen.push(Seen::Request {
                    call: request.call,
                    path: path(&self.conn, request.method),
                    message: request.message_len,
                    end: request.end,
                }),
                Ok(event) => self.seen.extend(owned(event)),
                Err(error) => self.error = self.error.or(Some(error)),
            }
        }
    }
}

fn owned(event: Event<'_>) -> Option<Seen> {
    Some(match event {
        Event::Message(message) => Seen::Message(message),
        Event::HalfClosed { call } => Seen::HalfClosed(call),
        Event::Headers { call, metadata } => Seen::Headers(call, metadata.len()),
        Event::Response(response) => Seen::Response(response.call, response.message_len),
        Event::Trailers { call, code, status } => {
            Seen::Trailers(call, code, status.message.to_owned())
        }
        Event::Reset {
            call,
            code,
            refused,
        } => Seen::Reset(call, code, refused),
        Event::Refused { call, code } => Seen::Refused(call, code),
        Event::Expired { call } => Seen::Expired(call),
        Event::Writable { call } => Seen::Writable(call),
        Event::WritableAll => Seen::WritableAll,
        Event::Pong { token } => Seen::Pong(token),
        Event::GoAway { code, text } => Seen::GoAway(code, text.to_owned()),
        Event::Link(header) => Seen::Link(header),
        Event::TooLong {
            call,
            message_len,
            limit,
        } => Seen::TooLong(call, message_len, limit),
        Event::Ignored => Seen::Ignored,
        Event::PeerSilent => Seen::PeerSilent,
        Event::Request(_) | Event::Handled => return None,
    })
}

pub(super) struct Pair {
    pub(super) now: Instant,
    pub(super) latency: Duration,
    /// Nothing arrives at the server any more, as if it were stopped.
    pub(super) server_hangs: bool,
    pub(super) client: Side,
    pub(super) server: Side,
}

impl Pair {
    pub(super) fn new() -> Pair {
        Pair::with(&Config::default(), &Config::default())
    }

    pub(super) fn with(client: &Config, server: &Config) -> Pair {
        let theirs = Negotiated::within_process(Role::Server, server, client);
        let ours = Negotiated::within_process(Role::Client, client, server);
        Pair::agreed(&ours, &theirs, client, server)
    }

    /// Two sides of which one speaks as it did before there was a capability.
    pub(super) fn without(missing: Capabilities) -> Pair {
        let config = Config::default();
        let agreed = |role| {
            let agreed = Negotiated::within_process(role, &config, &config);
            let capabilities = Capabilities(agreed.capabilities.0 & !missing.0);
            Negotiated {
                capabilities,
                ..agreed
            }
        };
        Pair::agreed(
            &agreed(Role::Client),
            &agreed(Role::Server),
            &config,
            &config,
        )
    }

    fn agreed(ours: &Negotiated, theirs: &Negotiated, client: &Config, server: &Config) -> Pair {
        let now = Instant::now();
        Pair {
            now,
            latency: Duration::from_micros(10),
            server_hangs: false,
            client: Side::new(Connection::new(Role::Client, ours, client, now)),
            server: Side::new(Connection::new(Role::Server, theirs, server, now)),
        }
    }

    pub(super) fn client_sends(&mut self, header: FrameHeader, head: &[u8]) {
        self.server
            .inbox
            .push_back((self.now + self.latency, header, head.to_vec()));
    }

    pub(super) fn server_sends(&mut self, header: FrameHeader, head: &[u8]) {
        self.client
            .inbox
            .push_back((self.now + self.latency, header, head.to_vec()));
    }

    /// Opens a call and sends its request, as every caller does it.
    pub(super) fn request(&mut self, message: Option<usize>, flags: Flags) -> CallId {
        self.request_until(message, flags, None)
    }

    pub(super) fn unary(&mut self, len: usize) -> CallId {
        self.request(Some(len), Flags::END)
    }

    pub(super) fn request_until(
        &mut self,
        message: Option<usize>,
        flags: Flags,
        timeout: Option<Duration>,
    ) -> CallId {
        let deadline = timeout.map(|timeout| self.now + timeout);
        let call = self.client.conn.open(self.now, deadline).unwrap();
        self.send_request(call, message, flags, timeout);
        call
    }

    pub(super) fn send_request(
        &mut self,
        call: CallId,
        message: Option<usize>,
        flags: Flags,
        timeout: Option<Duration>,
    ) {
        let conn = &mut self.client.conn;
        let method = conn.method(0, "/test.Test/Call");
        let head = RequestHead {
            timeout,
            ..RequestHead::new(method)
        };
        let mut bytes = vec![0; head.encoded_len().unwrap()];
        head.encode(&mut bytes);
        let header = conn
            .request_frame(call, bytes.len(), message, flags)
            .unwrap();
        conn.method_sent(method);
        self.client_sends(header, &bytes);
    }

    pub(super) fn respond(&mut self, call: CallId, len: usize) {
        let header = self
            .server
            .conn
            .send_response(call, 0, len, Flags::NONE)
            .unwrap();
        self.server_sends(header, &[]);
    }

    pub(super) fn trailers(&mut self, call: CallId, code: u16) {
        let header = self.server.conn.send_trailers(call, code, 0).unwrap();
        self.server_sends(header, &[]);
    }

    pub(super) fn client_message(&mut self, call: CallId, len: usize, flags: Flags) {
        let header = self.client.conn.send_message(call, len, flags).unwrap();
        self.client_sends(header, &[]);
    }

    pub(super) fn server_message(&mut self, call: CallId, len: usize) {
        let header = self
            .server
            .conn
            .send_message(call, len, Flags::NONE)
            .unwrap();
        self.server_sends(header, &[]);
    }

    /// Everything that is due now: what arrived, timers, and what the cores have to send.
    fn turn(&mut self) {
        let Pair {
            now,
            client,
            server,
            ..
        } = self;
        for side in [client, server] {
            if side.conn.role() == Role::Server && self.server_hangs {
                continue;
            }
            side.receive(*now);
            if side.conn.poll_timeout().is_some_and(|at| at <= *now) {
                side.conn.handle_timeout(*now);
            }
            while let Some(event) = side.conn.poll_event() {
                side.seen.extend(owned(event));
            }
        }
        while let Some(frame) = self.client.conn.poll_transmit() {
            self.client_sends(frame.header, &frame.head);
        }
        if !self.server_hangs {
            while let Some(frame) = self.server.conn.poll_transmit() {
                self.server_sends(frame.header, &frame.head);
            }
        }
    }

    fn next_arrival(&self) -> Option<Instant> {
        let server = self.server.inbox.front().filter(|_| !self.server_hangs);
        let arrivals = [self.client.inbox.front(), server];
        arrivals.into_iter().flatten().map(|(at, ..)| *at).min()
    }

    /// Until nothing travels any more. Timers do not count.
    pub(super) fn settle(&mut self) {
        self.turn();
        while let Some(at) = self.next_arrival() {
            self.now = self.now.max(at);
            self.turn();
        }
    }

    /// Lets time pass, timers included.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.turn();
        loop {
            let (client, server) = (&mut self.client.conn, &mut self.server.conn);
            let server_timer = server.poll_timeout().filter(|_| !self.server_hangs);
            let timers = [client.poll_timeout(), server_timer];
            let next = timers
                .into_iter()
                .flatten()
                .chain(self.next_arrival())
                .min();
            match next.filter(|at| *at <= end) {
                Some(at) => self.now = self.now.max(at),
                None => break,
            }
            self.turn();
        }
        self.now = end;
    }

    /// Nothing is left on either side, and nobody complained.
    pub(super) fn assert_clean(&mut self) {
        self.settle();
        assert_eq!((self.client.error, self.server.error), (None, None));
        assert!(
            self.client.conn.is_idle(),
            "client still has {:?}",
            self.client.conn
        );
        assert!(
            self.server.conn.is_idle(),
            "server still has {:?}",
            self.server.conn
        );
    }
}

/// A whole message, as it is seen.
pub(super) fn whole(call: CallId, len: u32) -> Seen {
    Seen::Message(Message {
        call,
        message_len: len,
        piece_len: len,
        first: true,
        more: false,
        compressed: false,
        end: false,
    })
}
