//! The header in front of everything a peer sends: 24 bytes, little-endian, then `head_len` bytes
//! of head, then `payload_len` bytes of payload.
//!
//! ```text
//!  0 kind u8 | 1 flags u8 | 2 code u16 | 4 head_len u32 | 8 call u64
//! 16 payload_len u32      | 20 message_len u32
//! ```

use std::ops::{BitAnd, BitOr, BitOrAssign};

use crate::ProtocolError;
use crate::limits::{MAX_GOAWAY_TEXT_BYTES, MAX_HEAD_BYTES, MAX_MESSAGE_BYTES};

/// What a frame is. No kind is 0, so that zeroed memory is never a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Client: opens a call. Head: [`crate::RequestHead`]; may carry the only or first message.
    Request,
    /// Either side: a message, a piece of one, or (client) a half-close alone.
    Message,
    /// Server: initial metadata. Head: a metadata block.
    Headers,
    /// Server: the whole answer of a call that succeeded with one message: of a unary call, and of any
    /// other if the client [takes it](crate::Capabilities::WHOLE_STREAMS). Head: [`crate::ResponseHead`].
    Response,
    /// Server: the end of a call. `code` and a [`crate::StatusHead`].
    Trailers,
    /// Client: cancelled. Server: refused or given up. `code` says why.
    Reset,
    /// Either side: `message_len` bytes of credit for the call, or, with call 0, the connection.
    Credit,
    /// Either side: answer with a pong of the same `call` word.
    Ping,
    /// The answer.
    Pong,
    /// Either side: takes no more calls. `code` is 0 for a drain; head: text.
    GoAway,
    /// 0x80 and above: what the link below says to itself (segments of an arena and the like).
    Link(u8),
}

impl Kind {
    /// The byte on the wire.
    #[inline]
    pub const fn as_u8(self) -> u8 {
        match self {
            Kind::Request => 1,
            Kind::Message => 2,
            Kind::Headers => 3,
            Kind::Response => 4,
            Kind::Trailers => 5,
            Kind::Reset => 6,
            Kind::Credit => 7,
            Kind::Ping => 8,
            Kind::Pong => 9,
            Kind::GoAway => 10,
            Kind::Link(kind) => kind,
        }
    }

    /// The kind behind a byte.
    ///
    /// # Errors
    /// [`ProtocolError::UnknownKind`].
    #[inline]
    pub const fn from_u8(byte: u8) -> Result<Kind, ProtocolError> {
        Ok(match byte {
            1 => Kind::Request,
            2 => Kind::Message,
            3 => Kind::Headers,
            4 => Kind::Response,
            5 => Kind::Trailers,
            6 => Kind::Reset,
            7 => Kind::Credit,
            8 => Kind::Ping,
            9 => Kind::Pong,
            10 => Kind::GoAway,
            0x80.. => Kind::Link(byte),
            _ => return Err(ProtocolError::UnknownKind(byte)),
        })
    }

    const fn allowed_flags(self) -> u8 {
        let message = Flags::HAS_MESSAGE.0 | Flags::COMPRESSED.0;
        match self {
            Kind::Request => message | Flags::END.0,
            Kind::Message => {
                message | Flags::END.0 | Flags::MORE.0 | Flags::CONTINUED.0 | Flags::PACKED.0
            }
            Kind::Response => message,
            Kind::Reset => Flags::REFUSED.0,
            Kind::Credit => Flags::LARGE.0,
            Kind::Link(_) => u8::MAX,
            _ => 0,
        }
    }
}

/// A frame's flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Flags(pub u8);

impl Flags {
    /// None.
    pub const NONE: Flags = Flags(0);
    /// A message (perhaps empty) or a piece of one is in the payload.
    pub const HAS_MESSAGE: Flags = Flags(1);
    /// The sender closes its direction after this frame.
    pub const END: Flags = Flags(2);
    /// Further pieces of this message follow.
    pub const MORE: Flags = Flags(4);
    /// The message is compressed, with the encoding that the metadata names.
    pub const COMPRESSED: Flags = Flags(8);
    /// A piece that is not the first of its message.
    pub const CONTINUED: Flags = Flags(16);
    /// On RESET: the call never reached a handler and may be sent again elsewhere.
    pub const REFUSED: Flags = Flags(32);
    /// On MESSAGE: the payload is several messages, each behind its length (u32, little-endian).
    /// Charged to the windows as one.
    pub const PACKED: Flags = Flags(64);
    /// On CREDIT, with call 0: for the connection's window of large messages.
    pub const LARGE: Flags = Flags(128);

    /// Whether all of `other` are set.
    #[inline]
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// These, and `other` if `condition`.
    #[inline]
    #[must_use]
    pub const fn with(self, other: Flags, condition: bool) -> Flags {
        if condition {
            Flags(self.0 | other.0)
        } else {
            self
        }
    }
}

impl BitOr for Flags {
    type Output = Flags;
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Flags) {
        self.0 |= other.0;
    }
}

impl BitAnd for Flags {
    type Output = Flags;
    fn bitand(self, other: Flags) -> Flags {
        Flags(self.0 & other.0)
    }
}

/// The header of a frame.
///
/// ```
/// use ringway_wire::{FrameHeader, Kind};
///
/// let ping = FrameHeader { call: 7, ..FrameHeader::new(Kind::Ping) };
/// assert_eq!(FrameHeader::decode(&ping.encode())?, ping);
/// # Ok::<(), ringway_wire::ProtocolError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// What it is.
    pub kind: Kind,
    /// How it is meant.
    pub flags: Flags,
    /// Status code of TRAILERS, RESET and GOAWAY.
    pub code: u16,
    /// Bytes of head.
    pub head_len: u32,
    /// [`crate::CallId`], or the token of a ping.
    pub call: u64,
    /// Bytes of payload in this frame.
    pub payload_len: u32,
    /// Bytes of the whole message; of CREDIT, the bytes granted.
    pub message_len: u32,
}

impl FrameHeader {
    /// Size on the wire.
    pub const LEN: usize = 24;

    /// A header with nothing in it but its kind.
    #[inline]
    pub const fn new(kind: Kind) -> FrameHeader {
        FrameHeader {
            kind,
            flags: Flags::NONE,
            code: 0,
            head_len: 0,
            call: 0,
            payload_len: 0,
            message_len: 0,
        }
    }

    /// The bytes on the wire.
    #[inline]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[0] = self.kind.as_u8();
        out[1] = self.flags.0;
        out[2..4].copy_from_slice(&self.code.to_le_bytes());
        out[4..8].copy_from_slice(&self.head_len.to_le_bytes());
        out[8..16].copy_from_slice(&self.call.to_le_bytes());
        out[16..20].copy_from_slice(&self.payload_len.to_le_bytes());
        out[20..24].copy_from_slice(&self.message_len.to_le_bytes());
        out
    }

    /// Reads a header and checks everything that needs no state: kind, flags, lengths against
    /// their limits and each other, and that a call is named where one is needed.
    ///
    /// # Errors
    /// The rule that the peer broke.
    #[inline]
    pub fn decode(bytes: &[u8; Self::LEN]) -> Result<FrameHeader, ProtocolError> {
        let b = bytes;
        let header = FrameHeader {
            kind: Kind::from_u8(b[0])?,
            flags: Flags(b[1]),
            code: u16::from_le_bytes([b[2], b[3]]),
            head_len: u32::from_le_bytes([b[4], b[5], b[6], b[7]]),
            call: u64::from_le_bytes([b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]),
            payload_len: u32::from_le_bytes([b[16], b[17], b[18], b[19]]),
            message_len: u32::from_le_bytes([b[20], b[21], b[22], b[23]]),
        };
        header.check()?;
        Ok(header)
    }

    /// Bytes that follow the header. Cannot overflow on 64 bits: each length is 32 bits.
    #[inline]
    pub const fn body_len(&self) -> u64 {
        self.head_len as u64 + self.payload_len as u64
    }

    /// Whether a message begins here, and is charged to the windows.
    #[inline]
    pub const fn starts_message(&self) -> bool {
        self.flags.has(Flags::HAS_MESSAGE) && !self.flags.has(Flags::CONTINUED)
    }

    fn check(&self) -> Result<(), ProtocolError> {
        if self.head_len > MAX_HEAD_BYTES {
            return Err(self.bad_length(self.head_len));
        }
        if self.flags.0 & !self.kind.allowed_flags() != 0 {
            return Err(self.bad_flags());
        }
        match self.kind {
            Kind::Link(_) => return Ok(()),
            Kind::Message | Kind::Reset | Kind::Credit | Kind::Ping | Kind::Pong
                if self.head_len != 0 =>
            {
                return Err(self.bad_length(self.head_len));
            }
            Kind::GoAway if self.head_len > MAX_GOAWAY_TEXT_BYTES => {
                return Err(self.bad_length(self.head_len));
            }
            Kind::Request | Kind::Response | Kind::Message => self.check_message()?,
            _ if self.payload_len != 0 => return Err(self.bad_length(self.payload_len)),
            Kind::Ping | Kind::Pong | Kind::GoAway => return Ok(()),
            Kind::Credit if self.call == 0 => return Ok(()),
            _ => {}
        }
        if self.call >> 32 == 0 {
            return Err(ProtocolError::CallIdZero);
        }
        Ok(())
    }

    fn check_message(&self) -> Result<(), ProtocolError> {
        if self.message_len > MAX_MESSAGE_BYTES || self.payload_len > self.message_len {
            return Err(self.bad_length(self.payload_len.max(self.message_len)));
        }
        if !self.flags.has(Flags::HAS_MESSAGE) {
            if self.message_len != 0 {
                return Err(self.bad_length(self.message_len));
            }
            // A frame without a message has nothing to compress or to cut up, and only a
            // half-close may be alone.
            let alone = self.flags.0 & !Flags::END.0 == 0;
            let closes = self.kind == Kind::Request || self.flags.has(Flags::END);
            return if alone && closes {
                Ok(())
            } else {
                Err(self.bad_flags())
            };
        }
        let pieces = Flags::MORE.0 | Flags::CONTINUED.0;
        if self.flags.0 & pieces == 0 && self.payload_len != self.message_len {
            return Err(self.bad_length(self.payload_len));
        }
        // An empty piece would let a peer keep us busy for ever without ending its message.
        if self.flags.0 & pieces != 0 && self.payload_len == 0 {
            return Err(self.bad_length(0));
        }
        if self.flags.has(Flags::MORE | Flags::END) {
            return Err(self.bad_flags());
        }
        Ok(())
    }

    fn bad_length(&self, len: u32) -> ProtocolError {
        ProtocolError::BadLength {
            kind: self.kind.as_u8(),
            len,
        }
    }

    fn bad_flags(&self) -> ProtocolError {
        ProtocolError::BadFlags {
            kind: self.kind.as_u8(),
            flags: self.flags.0,
        }
    }
}
