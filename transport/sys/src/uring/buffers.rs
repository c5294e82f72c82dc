//! The ring of buffers that multishot receives take from (IORING_REGISTER_PBUF_RING, Linux 5.19).
//!
//! The kernel owns a buffer from when it is offered until a completion names it; this side owns it
//! from then until it offers it again. Nothing reads or writes a buffer that it doesn't own.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use io_uring::{IoUring, Submitter};
use rustix::mm::{MapFlags, ProtFlags};

use super::Settings;

/// The only buffer group of a ring.
pub(super) const GROUP: u16 = 0;

pub(super) struct Buffers {
    /// The entries, page-aligned, and behind them the buffers.
    memory: NonNull<u8>,
    memory_len: usize,
    /// Where the first buffer starts.
    offset: usize,
    count: u16,
    buffer_len: u32,
    /// What the kernel sees as tail once stored; kept here so that it is never read back.
    tail: u16,
}

// SAFETY: the memory is this struct's alone (and the kernel's); nothing in it belongs to a thread.
unsafe impl Send for Buffers {}

/// A received buffer, given back on drop, also when the callback that reads it panics.
pub(super) struct Lease<'a> {
    buffers: &'a mut Buffers,
    index: u16,
    len: usize,
}

impl Buffers {
    /// Maps the memory, registers it with `ring` and offers every buffer.
    pub(super) fn register(ring: &IoUring, settings: &Settings) -> io::Result<Self> {
        if !settings.buffers.is_power_of_two() || settings.buffer_len == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut buffers = Self::map(settings)?;
        let address = u64::try_from(buffers.memory.as_ptr().addr()).map_err(io::Error::other)?;
        // SAFETY: the mapping holds `count` entries at its page-aligned start; it outlives the
        // registration: `Uring` takes it back (or leaks the mapping) before it drops this struct.
        unsafe {
            ring.submitter()
                .register_buf_ring_with_flags(address, buffers.count, GROUP, 0)?;
        }
        for index in 0..buffers.count {
            buffers.offer(index);
        }
        Ok(buffers)
    }

    pub(super) fn unregister(&self, submitter: &Submitter<'_>) -> io::Result<()> {
        submitter.unregister_buf_ring(GROUP)
    }

    /// Takes what a completion says was received. `None` if the kernel named what it cannot have.
    pub(super) fn lease(&mut self, index: u16, len: usize) -> Option<Lease<'_>> {
        let limit = usize::try_from(self.buffer_len).ok()?;
        (index < self.count && len <= limit).then_some(Lease {
            buffers: self,
            index,
            len,
        })
    }

    fn map(settings: &Settings) -> io::Result<Self> {
        let count = usize::from(settings.buffers);
        let buffer_len = usize::try_from(settings.buffer_len).map_err(io::Error::other)?;
        let offset = (count * size_of::<BufRingEntry>()).next_multiple_of(64);
        let memory_len = buffer_len
            .checked_mul(count)
            .and_then(|len| len.checked_add(offset))
            .ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new private mapping wherever the kernel likes; no existing memory is touched.
        let memory = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                memory_len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )?
        };
        Ok(Self {
            memory: NonNull::new(memory.cast()).ok_or(io::ErrorKind::OutOfMemory)?,
            memory_len,
            offset,
            count: settings.buffers,
            buffer_len: settings.buffer_len,
            tail: 0,
        })
    }

    /// Start of buffer `index`, which the callers have checked against `count`.
    fn buffer(&self, index: u16) -> *mut u8 {
        let distance = usize::from(index) * self.buffer_len as usize;
        // SAFETY: `index < count`, and the mapping is `offset + count * buffer_len` bytes long.
        unsafe { self.memory.as_ptr().add(self.offset + distance) }
    }

    /// Gives buffer `index` to the kernel.
    fn offer(&mut self, index: u16) {
        let address = self.buffer(index).addr() as u64;
        let ring = self.memory.as_ptr().cast::<BufRingEntry>();
        let place = usize::from(self.tail & (self.count - 1));
        // SAFETY: `place < count`, and the entry is ours to write: the kernel reads entries below
        // the published tail only, and no more than `count` buffers are ever out. Fields are
        // written one by one because the tail lies in the first entry's reserved bytes.
        unsafe {
            let entry = &mut *ring.add(place);
            entry.set_addr(address);
            entry.set_len(self.buffer_len);
            entry.set_bid(index);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `ring` is the base of the ring as registered; its tail is an aligned u16 that
        // this side alone writes, and the kernel loads with acquire.
        unsafe {
            AtomicU16::from_ptr(BufRingEntry::tail(ring).cast_mut())
                .store(self.tail, Ordering::Release);
        }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length; by now the kernel has no operation that could
        // write into it (see `register`), and every lease borrows from this struct.
        // Nothing sensible can be done about an error.
        let _ = unsafe { rustix::mm::munmap(self.memory.as_ptr().cast(), self.memory_len) };
    }
}

impl Lease<'_> {
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: a completion named this buffer, so it is ours until `drop` offers it again; the
        // mapping is zeroed at first, and `len` was checked against the buffer's length.
        unsafe { std::slice::from_raw_parts(self.buffers.buffer(self.index), self.len) }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.buffers.offer(self.index);
    }
}
