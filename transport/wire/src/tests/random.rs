//! Random conversations. Two honest cores never find fault with each other, whatever their
//! callers do and whenever; a dishonest one never makes the other panic.

use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;

use super::pair::{Pair, Seen};
use crate::*;

/// What a caller does next; numbers choose among what there is.
#[derive(Debug, Clone)]
enum Step {
    Open {
        len: Option<u16>,
        end: bool,
        timeout_us: Option<u8>,
    },
    Abandon,
    ClientSends {
        call: usize,
        len: u16,
        end: bool,
    },
    ClientSendsPiece {
        call: usize,
    },
    HalfClose {
        call: usize,
    },
    Cancel {
        call: usize,
    },
    Release {
        call: usize,
    },
    ClientConsumes {
        call: usize,
        len: u16,
    },
    ServerSends {
        call: usize,
        len: u16,
    },
    ServerSendsPiece {
        call: usize,
    },
    Respond {
        call: usize,
        len: u16,
    },
    Trailers {
        call: usize,
    },
    ServerCancels {
        call: usize,
    },
    ServerConsumes {
        call: usize,
        len: u16,
    },
    Pass {
        us: u8,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let call = || 0..8_usize;
    let len = || prop_oneof![3 => 0..2000_u16, 1 => any::<u16>()];
    let step = prop_oneof![
        4 => (proptest::option::of(len()), any::<bool>(), proptest::option::weighted(0.3, any::<u8>()))
            .prop_map(|(len, end, timeout_us)| Step::Open { len, end, timeout_us }),
        1 => Just(Step::Abandon),
        3 => (call(), len(), proptest::bool::weighted(0.1))
            .prop_map(|(call, len, end)| Step::ClientSends { call, len, end }),
        1 => call().prop_map(|call| Step::ClientSendsPiece { call }),
        1 => call().prop_map(|call| Step::HalfClose { call }),
        1 => call().prop_map(|call| Step::Cancel { call }),
        2 => call().prop_map(|call| Step::Release { call }),
        2 => (call(), len()).prop_map(|(call, len)| Step::ClientConsumes { call, len }),
        3 => (call(), len()).prop_map(|(call, len)| Step::ServerSends { call, len }),
        1 => call().prop_map(|call| Step::ServerSendsPiece { call }),
        2 => (call(), len()).prop_map(|(call, len)| Step::Respond { call, len }),
        1 => call().prop_map(|call| Step::Trailers { call }),
        1 => call().prop_map(|call| Step::ServerCancels { call }),
        2 => (call(), len()).prop_map(|(call, len)| Step::ServerConsumes { call, len }),
        3 => any::<u8>().prop_map(|us| Step::Pass { us }),
    ];
    vec(step, 1..120)
}

/// A caller that remembers the ids it saw, live or not.
struct Play {
    pair: Pair,
    opened: Vec<CallId>,
    requested: Vec<CallId>,
}

impl Play {
    fn new() -> Play {
        let config = Config {
            call_slots: 6,
            max_concurrent_calls: 4,
            stream_window_bytes: 5000,
            connection_window_bytes: 12_000,
            ..Config::default()
        };
        Play {
            pair: Pair::with(&config, &config),
            opened: vec![],
            requested: vec![],
        }
    }

    /// One of the last eight ids.
    fn opened(&self, call: usize) -> Option<CallId> {
        self.opened.iter().rev().nth(call).copied()
    }

    fn requested(&self, call: usize) -> Option<CallId> {
        self.requested.iter().rev().nth(call).copied()
    }

    fn open(&mut self, len: Option<u16>, end: bool, timeout_us: Option<u8>) {
        let pair = &mut self.pair;
        let timeout = timeout_us.map(|us| Duration::from_micros(us.into()));
        let deadline = timeout.map(|timeout| pair.now + timeout);
        let Ok(call) = pair.client.conn.open(pair.now, deadline) else {
            return;
        };
        let method = pair.client.conn.method(3, "/a.B/C");
        let head = RequestHead {
            timeout,
            ..RequestHead::new(method)
        };
        let mut bytes = vec![0; head.encoded_len().unwrap()];
        head.encode(&mut bytes);
        let flags = Flags::NONE.with(Flags::END, end);
        let conn = &mut pair.client.conn;
        match conn.request_frame(call, bytes.len(), len.map(usize::from), flags) {
            Ok(header) => {
                conn.method_sent(method);
                pair.client_sends(header, &bytes);
                self.opened.push(call);
            }
            Err(_) => conn.abandon_open(call),
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Open {
                len,
                end,
                timeout_us,
            } => self.open(len, end, timeout_us),
            Step::Abandon => {
                if let Ok(call) = self.pair.client.conn.open(self.pair.now, None) {
                    self.pair.client.conn.abandon_open(call);
                }
            }
            Step::Pass { us } => self.pass(us),
            Step::ClientSends { call, .. }
            | Step::ClientSendsPiece { call }
            | Step::HalfClose { call }
            | Step::Cancel { call }
            | Step::Release { call }
            | Step::ClientConsumes { call, .. } => {
                if let Some(id) = self.opened(call) {
                    self.client_step(step, id);
                }
            }
            _ => self.server_step(step),
        }
    }

    fn client_step(&mut self, step: &Step, id: CallId) {
        let conn = &mut self.pair.client.conn;
        let sent = match *step {
            Step::ClientSends { len, end, .. } => conn
                .send_message(id, len.into(), Flags::NONE.with(Flags::END, end))
                .ok(),
            Step::ClientSendsPiece { .. } => conn.send_piece(id, 3000, 1000, Flags::NONE).ok(),
            Step::HalfClose { .. } => conn.half_close(id).ok(),
            Step::Cancel { .. } => {
                conn.cancel(id, code::CANCELLED);
                None
            }
            Step::Release { .. } => {
                conn.release(id);
                None
            }
            Step::ClientConsumes { len, .. } => {
                conn.consumed(id, len.into());
                None
            }
            _ => None,
        };
        if let Some(header) = sent {
            self.pair.client_sends(header, &[]);
        }
    }

    fn server_step(&mut self, step: &Step) {
        let (Step::ServerSends { call, .. }
        | Step::ServerSendsPiece { call }
        | Step::Respond { call, .. }
        | Step::Trailers { call }
        | Step::ServerCancels { call }
        | Step::ServerConsumes { call, .. }) = *step
        else {
            return;
        };
        let Some(id) = self.requested(call) else {
            return;
        };
        let conn = &mut self.pair.server.conn;
        let sent = match *step {
            Step::ServerSends { len, .. } => conn.send_message(id, len.into(), Flags::NONE).ok(),
            Step::ServerSendsPiece { .. } => conn.send_piece(id, 3000, 1000, Flags::NONE).ok(),
            Step::Respond { len, .. } => conn.send_response(id, 0, len.into(), Flags::NONE).ok(),
            Step::Trailers { .. } => conn.send_trailers(id, code::OK, 0).ok(),
            Step::ServerCancels { .. } => {
                conn.cancel(id, code::ABORTED);
                None
            }
            Step::ServerConsumes { len, .. } => {
                conn.consumed(id, len.into());
                None
            }
            _ => None,
        };
        if let Some(header) = sent {
            self.pair.server_sends(header, &[]);
        }
    }

    fn pass(&mut self, us: u8) {
        self.pair.pass(Duration::from_micros(us.into()));
        for seen in self.pair.server.take() {
            if let Seen::Request { call, .. } = seen {
                self.requested.push(call);
            }
        }
        self.pair.client.take();
    }

    /// Everybody gives up; then nothing may be left, and credit must be whole again.
    fn finish(&mut self) {
        for call in std::mem::take(&mut self.opened) {
            self.pair.client.conn.release(call);
        }
        self.pair.assert_clean();
        for _ in 0..20 {
            let call = self.pair.unary(3000);
            self.pair.settle();
            self.pair.respond(call, 3000);
            self.pair.settle();
            self.pair.client.conn.release(call);
            self.pair.settle();
        }
        self.pair.assert_clean();
    }
}

/// A frame as a dishonest peer makes it: near enough to a good one to get past the first checks.
fn frames() -> impl Strategy<Value = (FrameHeader, Vec<u8>)> {
    let kind = prop_oneof![8 => 1..=10_u8, 1 => any::<u8>()];
    let len = || prop_oneof![Just(0_u32), Just(1), Just(64), Just(5000), any::<u32>()];
    let call = (0..4_u64, 0..4_u64).prop_map(|(slot, generation)| generation << 32 | slot);
    let flags = prop_oneof![4 => 0..4_u8, 1 => any::<u8>()];
    let head = prop_oneof![
        2 => Just(vec![]),
        2 => Just(vec![2, 1, b'/']),
        1 => Just(vec![3, 0, 1, b'/']),
        1 => Just(vec![1, 0]),
        1 => vec(any::<u8>(), 0..30),
    ];
    (
        kind,
        flags,
        any::<u16>(),
        call,
        len(),
        proptest::option::of(len()),
        head,
    )
        .prop_map(
            |(kind, flags, code, call, payload_len, message_len, head)| {
                let header = FrameHeader {
                    kind: Kind::from_u8(kind).unwrap_or(Kind::Message),
                    flags: Flags(flags),
                    code,
                    head_len: head.len() as u32,
                    call,
                    payload_len,
                    message_len: message_len.unwrap_or(payload_len),
                };
                (header, head)
            },
        )
}

fn bombard(conn: &mut Connection, now: Instant, frames: &[(FrameHeader, Vec<u8>)], check: bool) {
    for (header, head) in frames {
        let decoded = FrameHeader::decode(&header.encode());
        let header = if check { decoded.ok() } else { Some(*header) };
        let Some(header) = header else { continue };
        let ended = conn.handle_frame(now, &header, head).is_err();
        assert_eq!(conn.is_closed(), ended);
        conn.handle_timeout(now + Duration::from_millis(1));
        while conn.poll_event().is_some() {}
        let mut frames = 0;
        while conn.poll_transmit().is_some() {
            frames += 1;
            assert!(
                frames < 100,
                "one frame makes for a bounded number of answers"
            );
        }
        if ended {
            return;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn honest_peers_never_quarrel(steps in steps()) {
        let mut play = Play::new();
        for step in &steps {
            play.step(step);
            prop_assert_eq!((play.pair.client.error, play.pair.server.error), (None, None));
        }
        play.finish();
    }

    #[test]
    fn no_frame_makes_a_server_panic(frames in vec(frames(), 1..60), check in any::<bool>()) {
        let mut pair = Pair::new();
        pair.request(None, Flags::NONE);
        pair.settle();
        bombard(&mut pair.server.conn, pair.now, &frames, check);
    }

    #[test]
    fn no_frame_makes_a_client_panic(frames in vec(frames(), 1..60), check in any::<bool>()) {
        let mut pair = Pair::new();
        for _ in 0..3 {
            pair.request_until(None, Flags::NONE, Some(Duration::from_millis(5)));
        }
        let cancelled = pair.unary(1);
        pair.client.conn.cancel(cancelled, code::CANCELLED);
        pair.settle();
        bombard(&mut pair.client.conn, pair.now, &frames, check);
    }
}
