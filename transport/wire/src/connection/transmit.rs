//! Frames that the core itself has to send: answers to pings, credit, resets, refusals, GOAWAY.

use super::Connection;
use crate::call::{Call, Control, Phase};
use crate::flow::LargeWindows;
use crate::limits::MAX_GOAWAY_TEXT_BYTES;
use crate::{CallId, Flags, FrameHeader, Kind, Role, StatusHead};

/// A frame of the core's own. It has no payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlFrame {
    /// Its header.
    pub header: FrameHeader,
    /// Its head; empty, and then without an allocation, for all but refusals and GOAWAY.
    pub head: Vec<u8>,
}

impl Connection {
    /// Whether [`poll_transmit`](Self::poll_transmit) has something.
    #[inline]
    pub fn wants_transmit(&self) -> bool {
        if self.closed {
            return self.goaway.is_some();
        }
        self.recv.is_due(self.scarcity.is_scarce())
            || LargeWindows::is_due(self.large.as_ref())
            || !self.due.is_empty()
            || self.pings.is_due()
            || self.goaway.is_some()
    }

    /// The next frame of the core's own. Ask only with room to write it: it is not offered again.
    #[inline]
    pub fn poll_transmit(&mut self) -> Option<ControlFrame> {
        if !self.wants_transmit() {
            return None;
        }
        self.next_control()
    }

    fn next_control(&mut self) -> Option<ControlFrame> {
        if let Some((code, text)) = self.goaway.take() {
            return Some(goaway(code, &text));
        }
        if let Some(token) = self.pings.next_pong() {
            return Some(ControlFrame::bare(Kind::Pong, token));
        }
        if self.recv.is_due(self.scarcity.is_scarce()) {
            return Some(ControlFrame::credit(0, self.recv.take_grant()));
        }
        if let Some(large) = self
            .large
            .as_mut()
            .filter(|large| LargeWindows::is_due(Some(large)))
        {
            let mut frame = ControlFrame::credit(0, large.recv.take_grant());
            frame.header.flags = Flags::LARGE;
            return Some(frame);
        }
        while let Some(slot) = self.due.pop_front() {
            if let Some(frame) = self.next_of_call(slot) {
                return Some(frame);
            }
        }
        self.pings
            .next_ping()
            .map(|token| ControlFrame::bare(Kind::Ping, token))
    }

    fn next_of_call(&mut self, slot: u32) -> Option<ControlFrame> {
        let client = self.role == Role::Client;
        let scarce = self.scarcity.is_scarce();
        let call = self.calls.at(slot);
        call.queued = false;
        let id = CallId::new(slot, call.generation)?;
        let Some(control) = call.control.take() else {
            return credit_of(call, id, scarce);
        };
        if client && call.released {
            self.calls.free(slot);
        }
        Some(control_frame(id, control))
    }
}

impl ControlFrame {
    fn bare(kind: Kind, call: u64) -> ControlFrame {
        ControlFrame {
            header: FrameHeader {
                call,
                ..FrameHeader::new(kind)
            },
            head: Vec::new(),
        }
    }

    fn credit(call: u64, granted: u32) -> ControlFrame {
        let mut frame = Self::bare(Kind::Credit, call);
        frame.header.message_len = granted;
        frame
    }

    fn with_head(mut self, head: Vec<u8>) -> ControlFrame {
        self.header.head_len = u32::try_from(head.len()).unwrap_or(u32::MAX);
        self.head = head;
        self
    }
}

fn credit_of(call: &mut Call, id: CallId, scarce: bool) -> Option<ControlFrame> {
    let wanted = call.phase == Phase::Open && !call.recv_end && call.recv.is_due_to_call(scarce);
    wanted.then(|| ControlFrame::credit(id.to_wire(), call.recv.take_grant()))
}

fn control_frame(id: CallId, control: Control) -> ControlFrame {
    match control {
        Control::Reset { code, refused } => {
            let mut frame = ControlFrame::bare(Kind::Reset, id.to_wire());
            frame.header.code = code;
            frame.header.flags = frame.header.flags.with(Flags::REFUSED, refused);
            frame
        }
        Control::Trailers { code, text } => {
            let mut frame = ControlFrame::bare(Kind::Trailers, id.to_wire());
            frame.header.code = code;
            frame.with_head(status_head(text))
        }
    }
}

fn status_head(text: &'static str) -> Vec<u8> {
    let status = StatusHead {
        message: text,
        ..StatusHead::default()
    };
    // Our own texts are far below the limit; without its text a status is still a status.
    let mut head = vec![0; status.encoded_len().unwrap_or(0)];
    if !head.is_empty() {
        status.encode(&mut head);
    }
    head
}

fn goaway(code: u16, text: &str) -> ControlFrame {
    let fitting = text.floor_char_boundary(MAX_GOAWAY_TEXT_BYTES as usize);
    let mut frame = ControlFrame::bare(Kind::GoAway, 0);
    frame.header.code = code;
    frame.with_head(text.as_bytes()[..fitting].to_vec())
}
