//! The first thing each side sends: who it is, which versions it speaks, what it can do and how
//! much it takes. Nothing else is read before the hellos agree.
//!
//! ```text
//! 0 magic [8] | 8 version_min u16 | 10 version_max u16 | 12 total_len u16 | 14 role u8 | 15 zero
//! 16 capabilities u64 | 24 instance u128 | 40 call_slots u32 | 44 stream_window u32
//! 48 connection_window u32 | 52 name_len u16 | name | whatever later versions add
//! ```
//! The first sixteen bytes stay as they are in every version, so that a mismatch of versions is
//! always found as such.

use crate::config::Config;
use crate::cursor::Reader;
use crate::limits::{
    MAX_CALL_SLOTS, MAX_HELLO_BYTES, MAX_SERVER_NAME_BYTES, MAX_WINDOW_BYTES, MIN_WINDOW_BYTES,
};
use crate::{HandshakeError, HeadError};

/// Oldest protocol version that this crate speaks.
pub const VERSION_MIN: u16 = 1;
/// Newest protocol version that this crate speaks.
pub const VERSION_MAX: u16 = 1;

const MAGIC: [u8; 8] = *b"RINGWAY\n";
const FIXED_BYTES: usize = 54;

/// Which end of a connection this is. Clients open calls, servers answer them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Opens calls.
    Client,
    /// Answers calls.
    Server,
}

/// What a side can do beyond the base protocol. Both sides use what both have. The meaning of the
/// lower 32 bits belongs to the link, that of the upper ones to this crate, which sets them itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// Takes a [`TraceContext`](crate::TraceContext) in a request's head.
    pub const TRACES: Capabilities = Capabilities(1 << 32);

    /// Takes a [`Response`](crate::Kind::Response) as the answer to any call, also to one that may be
    /// answered by a stream.
    pub const WHOLE_STREAMS: Capabilities = Capabilities(1 << 33);

    /// Charges messages above [`LARGE_MESSAGE_BYTES`](crate::limits::LARGE_MESSAGE_BYTES) to a window of their own,
    /// for which [`Credit`](crate::Kind::Credit) has a [flag](crate::Flags::LARGE).
    pub const LARGE_WINDOW: Capabilities = Capabilities(1 << 34);

    /// What this crate can do by itself.
    const OF_CORE: Capabilities =
        Capabilities(Self::TRACES.0 | Self::WHOLE_STREAMS.0 | Self::LARGE_WINDOW.0);

    /// Whether all bits of `other` are there.
    pub const fn has(self, other: Capabilities) -> bool {
        self.0 & other.0 == other.0
    }
}

/// One side's introduction.
///
/// ```
/// use ringway_wire::{Capabilities, Config, Hello, Role};
///
/// let config = Config::default();
/// let client = Hello::new(Role::Client, &config, 1, "catalog:50051", Capabilities(0b11));
/// let server = Hello::new(Role::Server, &config, 2, "catalog:50051", Capabilities(0b01));
/// let heard = Hello::decode(&server.encode()?)?;
/// let agreed = client.negotiate(&heard)?;
/// assert!(agreed.capabilities.has(Capabilities(0b01)));
/// assert!(!agreed.capabilities.has(Capabilities(0b10)));
/// # Ok::<(), ringway_wire::HandshakeError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Oldest version spoken.
    pub version_min: u16,
    /// Newest version spoken.
    pub version_max: u16,
    /// Which end sends this.
    pub role: Role,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Random number of the process, to tell a restarted peer from the one before.
    pub instance: u128,
    /// Server: slots for calls. A client's value means nothing.
    pub call_slots: u32,
    /// Bytes it takes for one call before it gives credit.
    pub stream_window_bytes: u32,
    /// Bytes it takes for the connection before it gives credit.
    pub connection_window_bytes: u32,
    /// Client: the server it wants. Server: its name.
    pub server_name: String,
}

impl Hello {
    /// Bytes from which [`Hello::total_len`] can tell how many there are.
    pub const PREFIX_LEN: usize = 16;

    /// The hello of a side with these settings.
    pub fn new(
        role: Role,
        config: &Config,
        instance: u128,
        server_name: &str,
        capabilities: Capabilities,
    ) -> Hello {
        Hello {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            role,
            capabilities: Capabilities(capabilities.0 | Capabilities::OF_CORE.0),
            instance,
            call_slots: config.call_slots.clamp(1, MAX_CALL_SLOTS),
            stream_window_bytes: clamp_window(config.stream_window_bytes),
            connection_window_bytes: clamp_window(config.connection_window_bytes),
            server_name: server_name.to_owned(),
        }
    }

    /// The bytes to send, at most [`MAX_HELLO_BYTES`].
    ///
    /// # Errors
    /// [`HandshakeError::NameTooLong`].
    pub fn encode(&self) -> Result<Vec<u8>, HandshakeError> {
        let name = self.server_name.as_bytes();
        let name_len = u16::try_from(name.len())
            .ok()
            .filter(|_| name.len() <= MAX_SERVER_NAME_BYTES)
            .ok_or(HandshakeError::NameTooLong(name.len()))?;
        let total = u16::try_from(FIXED_BYTES + name.len()).unwrap_or(u16::MAX);
        let mut out = Vec::with_capacity(usize::from(total));
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.version_min.to_le_bytes());
        out.extend_from_slice(&self.version_max.to_le_bytes());
        out.extend_from_slice(&total.to_le_bytes());
        out.extend_from_slice(&[if self.role == Role::Client { 1 } else { 2 }, 0]);
        out.extend_from_slice(&self.capabilities.0.to_le_bytes());
        out.extend_from_slice(&self.instance.to_le_bytes());
        out.extend_from_slice(&self.call_slots.to_le_bytes());
        out.extend_from_slice(&self.stream_window_bytes.to_le_bytes());
        out.extend_from_slice(&self.connection_window_bytes.to_le_bytes());
        out.extend_from_slice(&name_len.to_le_bytes());
        out.extend_from_slice(name);
        Ok(out)
    }

    /// How long a hello is that begins with these bytes, for readers of a byte stream.
    ///
    /// # Errors
    /// [`HandshakeError::WrongMagic`], or a length that no hello has.
    pub fn total_len(prefix: &[u8; Self::PREFIX_LEN]) -> Result<usize, HandshakeError> {
        if prefix[..8] != MAGIC {
            return Err(HandshakeError::WrongMagic);
        }
        let total = usize::from(u16::from_le_bytes([prefix[12], prefix[13]]));
        if !(Self::PREFIX_LEN..=MAX_HELLO_BYTES).contains(&total) {
            return Err(HandshakeError::BadLength(total));
        }
        Ok(total)
    }

    /// Reads a hello. What later versions add at its end is ignored.
    ///
    /// # Errors
    /// [`HandshakeError::WrongMagic`], [`HandshakeError::VersionMismatch`] (against the versions
    /// of this crate), or the field that is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Hello, HandshakeError> {
        let prefix = bytes
            .first_chunk::<{ Self::PREFIX_LEN }>()
            .ok_or(HandshakeError::BadLength(bytes.len()))?;
        if Self::total_len(prefix)? != bytes.len() {
            return Err(HandshakeError::BadLength(bytes.len()));
        }
        let version_min = u16::from_le_bytes([prefix[8], prefix[9]]);
        let version_max = u16::from_le_bytes([prefix[10], prefix[11]]);
        common_version((VERSION_MIN, VERSION_MAX), (version_min, version_max))?;
        let role = match prefix[14] {
            1 => Role::Client,
            2 => Role::Server,
            _ => return Err(HandshakeError::BadField("role")),
        };
        let hello = Self::decode_body(version_min, version_max, role, bytes)
            .map_err(|_| HandshakeError::BadLength(bytes.len()))?;
        hello.check()?;
        Ok(hello)
    }

    /// What two hellos come to, seen from `self`.
    ///
    /// # Errors
    /// [`HandshakeError::VersionMismatch`] or [`HandshakeError::SameRole`].
    pub fn negotiate(&self, peer: &Hello) -> Result<Negotiated, HandshakeError> {
        if self.role == peer.role {
            return Err(HandshakeError::SameRole);
        }
        let ours = (self.version_min, self.version_max);
        let version = common_version(ours, (peer.version_min, peer.version_max))?;
        let server = if self.role == Role::Server {
            self
        } else {
            peer
        };
        Ok(Negotiated {
            version,
            capabilities: Capabilities(self.capabilities.0 & peer.capabilities.0),
            peer_instance: peer.instance,
            call_slots: server.call_slots,
            recv_stream_window_bytes: self.stream_window_bytes,
            recv_connection_window_bytes: self.connection_window_bytes,
            send_stream_window_bytes: peer.stream_window_bytes,
            send_connection_window_bytes: peer.connection_window_bytes,
        })
    }

    fn decode_body(
        version_min: u16,
        version_max: u16,
        role: Role,
        bytes: &[u8],
    ) -> Result<Hello, HeadError> {
        let mut reader = Reader::new(bytes);
        reader.take(Self::PREFIX_LEN)?;
        let mut hello = Hello {
            version_min,
            version_max,
            role,
            capabilities: Capabilities(reader.u64()?),
            instance: reader.array().map(u128::from_le_bytes)?,
            call_slots: reader.u32()?,
            stream_window_bytes: reader.u32()?,
            connection_window_bytes: reader.u32()?,
            server_name: String::new(),
        };
        let name_len = usize::from(reader.u16()?);
        // A name that is not text matches no server; the check below refuses it.
        hello.server_name = String::from_utf8_lossy(reader.take(name_len)?).into_owned();
        Ok(hello)
    }

    fn check(&self) -> Result<(), HandshakeError> {
        let window = MIN_WINDOW_BYTES..=MAX_WINDOW_BYTES;
        if !window.contains(&self.stream_window_bytes) {
            return Err(HandshakeError::BadField("stream window"));
        }
        if !window.contains(&self.connection_window_bytes) {
            return Err(HandshakeError::BadField("connection window"));
        }
        if !(1..=MAX_CALL_SLOTS).contains(&self.call_slots) {
            return Err(HandshakeError::BadField("number of call slots"));
        }
        let name = &self.server_name;
        // Names stand in logs and paths, where control characters would say more than a name.
        let odd = |letter: char| letter == char::REPLACEMENT_CHARACTER || letter.is_control();
        if name.len() > MAX_SERVER_NAME_BYTES || name.contains(odd) {
            return Err(HandshakeError::BadField("server name"));
        }
        Ok(())
    }
}

/// What both sides agreed on, seen from one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Negotiated {
    /// The version spoken.
    pub version: u16,
    /// What both can do.
    pub capabilities: Capabilities,
    /// The peer's instance.
    pub peer_instance: u128,
    /// Slots for calls, as the server announced.
    pub call_slots: u32,
    /// What this side takes for a call.
    pub recv_stream_window_bytes: u32,
    /// What this side takes in all.
    pub recv_connection_window_bytes: u32,
    /// What the peer takes for a call.
    pub send_stream_window_bytes: u32,
    /// What the peer takes in all.
    pub send_connection_window_bytes: u32,
}

impl Negotiated {
    /// Two sides of one process that need no handshake: what the settings come to, seen from the
    /// side that has `ours`.
    pub fn within_process(role: Role, ours: &Config, theirs: &Config) -> Negotiated {
        let slots = if role == Role::Server {
            ours.call_slots
        } else {
            theirs.call_slots
        };
        Negotiated {
            version: VERSION_MAX,
            capabilities: Capabilities::OF_CORE,
            peer_instance: 0,
            call_slots: slots.clamp(1, MAX_CALL_SLOTS),
            recv_stream_window_bytes: clamp_window(ours.stream_window_bytes),
            recv_connection_window_bytes: clamp_window(ours.connection_window_bytes),
            send_stream_window_bytes: clamp_window(theirs.stream_window_bytes),
            send_connection_window_bytes: clamp_window(theirs.connection_window_bytes),
        }
    }
}

fn clamp_window(bytes: u32) -> u32 {
    bytes.clamp(MIN_WINDOW_BYTES, MAX_WINDOW_BYTES)
}

fn common_version(ours: (u16, u16), theirs: (u16, u16)) -> Result<u16, HandshakeError> {
    let newest = ours.1.min(theirs.1);
    if newest < ours.0.max(theirs.0) {
        return Err(HandshakeError::VersionMismatch {
            ours_min: ours.0,
            ours_max: ours.1,
            theirs_min: theirs.0,
            theirs_max: theirs.1,
        });
    }
    Ok(newest)
}
