//! A block of metadata: a list of (name, value), both bytes.
//!
//! ```text
//! empty block:  no bytes at all
//! otherwise:    per entry: name_len u16 | value_len u32 | name | value
//! ```
//! Values are raw: `-bin` values travel without base64. Which names are legal is judged above,
//! where it can become a status; this module only bounds what a peer may send.

use crate::HeadError;
use crate::cursor::Reader;
use crate::limits::{MAX_METADATA_BYTES, MAX_METADATA_ENTRIES};

const ENTRY_PREFIX_BYTES: usize = 6;

/// A checked block, borrowed from the head it came in or from a [`MetadataBuf`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Metadata<'a> {
    bytes: &'a [u8],
    entries: u16,
}

impl<'a> Metadata<'a> {
    /// No metadata.
    pub const EMPTY: Metadata<'static> = Metadata {
        bytes: &[],
        entries: 0,
    };

    /// Checks a block once, so that [`Metadata::iter`] cannot fail.
    ///
    /// # Errors
    /// Truncated, or beyond [`crate::limits`].
    #[inline]
    pub fn decode(bytes: &'a [u8]) -> Result<Metadata<'a>, HeadError> {
        if bytes.is_empty() {
            return Ok(Metadata::EMPTY);
        }
        Self::decode_entries(bytes)
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        usize::from(self.entries)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// The block as it stands on the wire.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The entries in the order in which they were sent; names may repeat.
    pub fn iter(&self) -> Iter<'a> {
        Iter {
            reader: Reader::new(self.bytes),
        }
    }

    fn decode_entries(bytes: &'a [u8]) -> Result<Metadata<'a>, HeadError> {
        if bytes.len() > MAX_METADATA_BYTES {
            return Err(HeadError::MetadataTooLarge);
        }
        let mut reader = Reader::new(bytes);
        let mut entries = 0;
        while !reader.is_empty() {
            if entries == MAX_METADATA_ENTRIES {
                return Err(HeadError::TooManyEntries);
            }
            read_entry(&mut reader)?;
            entries += 1;
        }
        Ok(Metadata { bytes, entries })
    }
}

impl<'a> IntoIterator for Metadata<'a> {
    type Item = (&'a [u8], &'a [u8]);
    type IntoIter = Iter<'a>;
    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Iterator over the entries of a [`Metadata`].
#[derive(Debug, Clone)]
pub struct Iter<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        // The block was walked once in `decode`, or written by `MetadataBuf`: no error can occur.
        read_entry(&mut self.reader).ok()
    }
}

fn read_entry<'a>(reader: &mut Reader<'a>) -> Result<(&'a [u8], &'a [u8]), HeadError> {
    let name_len = usize::from(reader.u16()?);
    let value_len = reader.len32()?;
    Ok((reader.take(name_len)?, reader.take(value_len)?))
}

/// Builds a block. Keep one and [`MetadataBuf::clear`] it to reuse its memory.
///
/// ```
/// use ringway_wire::MetadataBuf;
///
/// let mut block = MetadataBuf::new();
/// block.push(b"traceparent", b"00-...")?;
/// assert_eq!(block.as_metadata().iter().count(), 1);
/// # Ok::<(), ringway_wire::HeadError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct MetadataBuf {
    bytes: Vec<u8>,
    entries: u16,
}

impl MetadataBuf {
    /// An empty block, without an allocation.
    pub const fn new() -> MetadataBuf {
        MetadataBuf {
            bytes: Vec::new(),
            entries: 0,
        }
    }

    /// An empty block with room for `entries` whose names and values have `bytes` bytes together.
    pub fn with_capacity(entries: usize, bytes: usize) -> MetadataBuf {
        let prefixes = entries.saturating_mul(ENTRY_PREFIX_BYTES);
        // More than the limit will not be used.
        let capacity = prefixes.saturating_add(bytes).min(MAX_METADATA_BYTES);
        MetadataBuf {
            bytes: Vec::with_capacity(capacity),
            entries: 0,
        }
    }

    /// Adds an entry; the block is unchanged if that fails.
    ///
    /// # Errors
    /// The block would pass a limit.
    pub fn push(&mut self, name: &[u8], value: &[u8]) -> Result<(), HeadError> {
        if self.entries == MAX_METADATA_ENTRIES {
            return Err(HeadError::TooManyEntries);
        }
        let len = ENTRY_PREFIX_BYTES
            .saturating_add(name.len())
            .saturating_add(value.len());
        if self.bytes.len().saturating_add(len) > MAX_METADATA_BYTES {
            return Err(HeadError::MetadataTooLarge);
        }
        let name_len = u16::try_from(name.len()).map_err(|_| HeadError::MetadataTooLarge)?;
        let value_len = u32::try_from(value.len()).map_err(|_| HeadError::MetadataTooLarge)?;
        self.bytes.extend_from_slice(&name_len.to_le_bytes());
        self.bytes.extend_from_slice(&value_len.to_le_bytes());
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.entries += 1;
        Ok(())
    }

    /// Empties it and keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries = 0;
    }

    /// The block, to put into a head.
    pub fn as_metadata(&self) -> Metadata<'_> {
        Metadata {
            bytes: &self.bytes,
            entries: self.entries,
        }
    }
}
