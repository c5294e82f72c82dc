//! Reading and writing the small binary blocks of this protocol. Bounds are checked once a step;
//! nothing allocates.

use crate::HeadError;

/// Walks over bytes that a peer sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], HeadError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(HeadError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], HeadError> {
        let (taken, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(HeadError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, HeadError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, HeadError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, HeadError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, HeadError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A length of 32 bits, as a `usize`.
    pub(crate) fn len32(&mut self) -> Result<usize, HeadError> {
        usize::try_from(self.u32()?).map_err(|_| HeadError::BadNumber)
    }

    /// LEB128, at most five bytes, and only in its shortest form.
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u32, HeadError> {
        let first = self.u8()?;
        if first < 0x80 {
            return Ok(u32::from(first));
        }
        let mut value = u64::from(first & 0x7f);
        for shift in [7, 14, 21, 28] {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                let shortest = byte != 0;
                let value = u32::try_from(value).ok().filter(|_| shortest);
                return value.ok_or(HeadError::BadNumber);
            }
        }
        Err(HeadError::BadNumber)
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }
}

/// Fills a slice whose length the caller has worked out before.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    rest: &'a mut [u8],
}

impl<'a> Writer<'a> {
    #[inline]
    pub(crate) fn new(out: &'a mut [u8]) -> Self {
        Writer { rest: out }
    }

    /// Panics if the slice is full: `encoded_len` and `encode` stand side by side, and the caller
    /// of `encode` is told that the slice must have that length.
    #[inline]
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        let (into, rest) = std::mem::take(&mut self.rest).split_at_mut(bytes.len());
        into.copy_from_slice(bytes);
        self.rest = rest;
    }

    #[inline]
    pub(crate) fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.put(&[value.to_le_bytes()[0] | 0x80]);
            value >>= 7;
        }
        self.put(&[value.to_le_bytes()[0]]);
    }

    /// A length that a limit keeps within 32 bits.
    pub(crate) fn len32(&mut self, len: usize) {
        self.put(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
    }

    pub(crate) fn finish(self) {
        assert!(
            self.rest.is_empty(),
            "the slice must have exactly the encoded length"
        );
    }
}

/// Bytes that [`Writer::varint`] needs.
#[inline]
pub(crate) const fn varint_len(value: u32) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        0x20_0000..0x1000_0000 => 4,
        _ => 5,
    }
}

/// UTF-8 or an error that says so.
pub(crate) fn utf8(bytes: &[u8]) -> Result<&str, HeadError> {
    std::str::from_utf8(bytes).map_err(|_| HeadError::NotUtf8)
}
