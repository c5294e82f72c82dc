//! Where fuzzers come in: bytes of a peer's choosing against each parser, and against the state machine in both
//! roles. Public under `cfg(fuzzing)`, for `tests/fuzz`; `cargo test` runs them over the seeds that are kept
//! there.

#![allow(missing_docs, clippy::unwrap_used)]

use std::time::{Duration, Instant};

use self::choices::Choices;
use crate::*;

#[path = "../../../tests/fuzz/choices.rs"]
mod choices;

/// Steps of one conversation, at most.
const MAX_STEPS: usize = 2048;
const SLOTS: u32 = 8;

/// A hello: what is understood is said again alike, and agreed on within this side's limits.
pub fn handshake(data: &[u8]) {
    if let Some(prefix) = data.first_chunk() {
        let _ = Hello::total_len(prefix);
    }
    let Ok(hello) = Hello::decode(data) else {
        return;
    };
    let again = Hello::decode(&hello.encode().unwrap()).unwrap();
    assert_eq!(again, hello);
    let config = Config::default();
    for role in [Role::Client, Role::Server] {
        let ours = Hello::new(role, &config, 1, "catalog:50051", Capabilities(u64::MAX));
        if let Ok(agreed) = ours.negotiate(&hello) {
            assert!((1..=limits::MAX_CALL_SLOTS).contains(&agreed.call_slots));
            assert!(agreed.send_stream_window_bytes >= limits::MIN_WINDOW_BYTES);
            let _ = Connection::new(role, &agreed, &config, Instant::now());
        }
    }
}

/// A head of each kind: what is understood is encoded to something that means the same.
pub fn heads(data: &[u8]) {
    if let Ok(head) = RequestHead::decode(data) {
        let mut bytes = vec![0; head.encoded_len().unwrap()];
        head.encode(&mut bytes);
        assert_eq!(RequestHead::decode(&bytes).unwrap(), head);
    }
    if let Ok(head) = ResponseHead::decode(data) {
        let mut bytes = vec![0; head.encoded_len()];
        head.encode(&mut bytes);
        assert_eq!(ResponseHead::decode(&bytes).unwrap(), head);
    }
    if let Ok(head) = StatusHead::decode(data) {
        let mut bytes = vec![0; head.encoded_len().unwrap()];
        head.encode(&mut bytes);
        assert_eq!(StatusHead::decode(&bytes).unwrap(), head);
    }
}

/// A block of metadata: as many entries as it says, and the same when they are written again.
pub fn metadata(data: &[u8]) {
    let Ok(block) = Metadata::decode(data) else {
        return;
    };
    let mut again = MetadataBuf::new();
    for (name, value) in block {
        again.push(name, value).unwrap();
    }
    assert_eq!(again.as_metadata().as_bytes(), data);
    assert_eq!(block.iter().count(), block.len());
}

/// One side of a connection, of which the peer and the application do as the bytes say.
pub fn frames(data: &[u8]) {
    let mut choices = Choices::new(data);
    let mut side = Side::new(choices.byte());
    for _ in 0..MAX_STEPS {
        if choices.is_empty() {
            return;
        }
        side.step(&mut choices);
    }
}

struct Side {
    core: Connection,
    now: Instant,
    calls: Vec<CallId>,
    failed: bool,
}

impl Side {
    fn new(choice: u8) -> Self {
        let role = if choice & 1 == 0 {
            Role::Client
        } else {
            Role::Server
        };
        let config = Config {
            call_slots: SLOTS,
            max_concurrent_calls: SLOTS / 2,
            stream_window_bytes: limits::MIN_WINDOW_BYTES,
            connection_window_bytes: 4 * limits::MIN_WINDOW_BYTES,
            max_early_resets: 4,
            keepalive: (choice & 2 != 0).then_some(KeepAlive {
                interval: Duration::from_secs(1),
                timeout: Duration::from_secs(1),
                while_idle: true,
            }),
            ..Config::default()
        };
        let agreed = Negotiated::within_process(role, &config, &config);
        let now = Instant::now();
        Self {
            core: Connection::new(role, &agreed, &config, now),
            now,
            calls: Vec::new(),
            failed: false,
        }
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        match choices.byte() % 12 {
            0 => self.pass_time(choices.byte()),
            1 => self.open(choices),
            2..=5 => self.act(choices),
            6 => self.core.drain(),
            _ => self.receive(choices),
        }
        while let Some(frame) = self.core.poll_transmit() {
            let header = FrameHeader::decode(&frame.header.encode()).unwrap();
            assert_eq!(header.head_len as usize, frame.head.len());
        }
        assert!(self.core.calls_in_flight() <= SLOTS as usize);
    }

    fn pass_time(&mut self, tenths: u8) {
        self.now += Duration::from_millis(u64::from(tenths) * 100);
        if self.core.poll_timeout().is_some_and(|at| at <= self.now) {
            self.core.handle_timeout(self.now);
        }
        while self.core.poll_event().is_some() {}
    }

    fn open(&mut self, choices: &mut Choices<'_>) {
        let timeout = Duration::from_millis(u64::from(choices.byte()) * 100);
        let deadline = (!timeout.is_zero()).then_some(self.now + timeout);
        let Ok(call) = self.core.open(self.now, deadline) else {
            return;
        };
        let len = usize::from(choices.number());
        let flags = Flags::NONE.with(Flags::END, choices.byte() & 1 != 0);
        match self.core.request_frame(call, 2, Some(len), flags) {
            Ok(header) if choices.byte().is_multiple_of(8) => self.core.retract(&header),
            Ok(_) => {
                self.core.limit_messages(call, choices.number().into());
                self.calls.push(call);
            }
            Err(_) => self.core.abandon_open(call),
        }
    }

    /// The application does something with one of its calls.
    fn act(&mut self, choices: &mut Choices<'_>) {
        let Some(last) = self.calls.len().checked_sub(1) else {
            return;
        };
        let call = self.calls[last - usize::from(choices.byte()) % self.calls.len()];
        let len = u32::from(choices.number());
        match choices.byte() % 10 {
            0 => self.core.cancel(call, code::CANCELLED),
            1 => self.core.release(call),
            2 => self.core.consumed(call, len),
            3 => drop(self.core.half_close(call)),
            4 => drop(self.core.send_message(call, len as usize, Flags::NONE)),
            5 => drop(
                self.core
                    .send_piece(call, 2 * len as usize, len as usize, Flags::NONE),
            ),
            6 => drop(self.core.send_headers(call, 0)),
            7 => drop(self.core.send_response(call, 0, len as usize, Flags::NONE)),
            8 => drop(self.core.send_trailers(call, code::OK, 0)),
            _ => self.core.limit_messages(call, len),
        }
    }

    fn receive(&mut self, choices: &mut Choices<'_>) {
        let header = match choices.byte() % 4 {
            0 => choices.array(),
            _ => nearly_right(choices).encode(),
        };
        let Ok(header) = FrameHeader::decode(&header) else {
            return;
        };
        let mut head = choices.take(header.head_len as usize).to_vec();
        head.resize(header.head_len as usize, 0);
        if choices.byte() & 1 != 0 && self.core.judge(&header, &head).is_err() {
            assert!(self.core.is_closed());
            self.failed = true;
        }
        match self.core.handle_frame(self.now, &header, &head) {
            Ok(event) => {
                assert!(!self.failed, "{event:?} after the end");
                if let Event::Request(request) = event {
                    self.core
                        .limit_messages(request.call, choices.number().into());
                    self.calls.push(request.call);
                }
            }
            Err(_) => {
                assert!(self.core.is_closed());
                self.failed = true;
            }
        }
    }
}

/// A header that gets past the first checks.
fn nearly_right(choices: &mut Choices<'_>) -> FrameHeader {
    const KINDS: [Kind; 11] = [
        Kind::Request,
        Kind::Message,
        Kind::Headers,
        Kind::Response,
        Kind::Trailers,
        Kind::Reset,
        Kind::Credit,
        Kind::Ping,
        Kind::Pong,
        Kind::GoAway,
        Kind::Link(0x80),
    ];
    let kind = KINDS[usize::from(choices.byte()) % KINDS.len()];
    let (slot, generation) = (choices.byte() % 10, choices.byte() % 4);
    let (message_len, flags) = (u32::from(choices.number()), Flags(choices.byte()));
    let whole = choices.byte() & 1 == 0;
    FrameHeader {
        flags,
        code: u16::from(choices.byte()),
        head_len: u32::from(choices.byte() % 64),
        call: u64::from(generation) << 32 | u64::from(slot),
        payload_len: if whole { message_len } else { message_len / 2 },
        message_len,
        ..FrameHeader::new(kind)
    }
}

#[cfg(test)]
#[path = "../../../tests/fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay::replay;

    #[test]
    fn the_seeds_of_handshakes() {
        replay("handshake", super::handshake);
    }

    #[test]
    fn the_seeds_of_heads() {
        replay("heads", super::heads);
    }

    #[test]
    fn the_seeds_of_metadata_blocks() {
        replay("metadata", super::metadata);
    }

    #[test]
    fn the_seeds_of_frames() {
        replay("frames", super::frames);
    }
}
