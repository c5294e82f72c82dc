//! A page of shared memory: a word and 64 bytes in each direction.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

use rustix::fs::MemfdFlags;
use rustix::mm::{MapFlags, ProtFlags};

use super::Message;

const PAGE_BYTES: usize = 4096;

/// The word and the bytes of one direction, each in a cache line, both in one aligned pair of them.
#[repr(C, align(128))]
pub(super) struct Lane {
    pub(super) word: AtomicU32,
    padding: [u32; 15],
    payload: [AtomicU64; 8],
}

/// Only atomics: the other process may write any of it at any time, and any bits are valid.
#[repr(C)]
struct Layout {
    lanes: [Lane; 2],
    /// Process and thread of each side, for signals.
    threads: [[AtomicI32; 2]; 2],
}

const _: () = assert!(size_of::<Layout>() <= PAGE_BYTES);

/// Whose lane a message goes into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Parent,
    Child,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Parent => Self::Child,
            Self::Child => Self::Parent,
        }
    }
}

/// The page as one side sees it.
pub(super) struct Page {
    memory: NonNull<Layout>,
    side: Side,
}

// SAFETY: the mapping belongs to no thread, and is accessed through atomics only.
unsafe impl Send for Page {}

impl Page {
    /// The parent's view, and the descriptor that the child maps.
    pub(super) fn create() -> io::Result<(Self, OwnedFd)> {
        let memfd = rustix::fs::memfd_create("ringway-floor", MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&memfd, PAGE_BYTES as u64)?;
        Ok((Self::map(&memfd, Side::Parent)?, memfd))
    }

    pub(super) fn map(memfd: &impl AsFd, side: Side) -> io::Result<Self> {
        let size = rustix::fs::fstat(memfd)?.st_size;
        if usize::try_from(size).is_ok_and(|size| size < PAGE_BYTES) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: a new mapping wherever the kernel likes; no existing memory is touched.
        let memory = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                PAGE_BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                memfd,
                0,
            )?
        };
        let memory = NonNull::new(memory.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { memory, side })
    }

    /// Where this side sends.
    pub(super) fn outgoing(&self) -> &Lane {
        &self.layout().lanes[self.side as usize]
    }

    /// Where the other side sends.
    pub(super) fn incoming(&self) -> &Lane {
        &self.layout().lanes[self.side.other() as usize]
    }

    /// Says which thread of which process waits for signals here.
    pub(super) fn publish_thread(&self, process: i32, thread: i32) {
        let [own_process, own_thread] = &self.layout().threads[self.side as usize];
        own_process.store(process, Ordering::Relaxed);
        own_thread.store(thread, Ordering::Release);
    }

    /// Process and thread that the other side published.
    pub(super) fn other_thread(&self) -> Option<(i32, i32)> {
        let [process, thread] = &self.layout().threads[self.side.other() as usize];
        match thread.load(Ordering::Acquire) {
            0 => None,
            thread => Some((process.load(Ordering::Relaxed), thread)),
        }
    }

    fn layout(&self) -> &Layout {
        // SAFETY: the mapping is page-aligned, at least as long as `Layout`, backed by a file of
        // that size that nobody truncates, lives as long as `self`, and holds only atomics.
        unsafe { self.memory.as_ref() }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length; what borrows from it borrows from `self`.
        // Nothing sensible can be done about an error.
        let _ = unsafe { rustix::mm::munmap(self.memory.as_ptr().cast(), PAGE_BYTES) };
    }
}

impl Lane {
    /// Writes the bytes; whatever announces them has to release.
    pub(super) fn write(&self, message: &Message) {
        for (word, bytes) in self.payload.iter().zip(message.as_chunks().0) {
            word.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
        }
    }

    /// Reads the bytes; whatever announced them has been acquired.
    pub(super) fn read(&self) -> Message {
        let mut message = [0; size_of::<Message>()];
        for (word, bytes) in self.payload.iter().zip(message.as_chunks_mut().0) {
            *bytes = word.load(Ordering::Relaxed).to_ne_bytes();
        }
        message
    }
}
