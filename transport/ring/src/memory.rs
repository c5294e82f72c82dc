//! A region's memory with its rules: who may store what, with which ordering.
//!
//! [`Own`] stores and never decides by what it reads back. [`Peer`] only loads, each word once.
//!
//! Orderings. Every word that hands something over is stored with Release after what it hands over
//! and loaded with Acquire before that is used: the producer index hands over records, the consumer
//! cursor hands back ring space, the release index hands back blocks. Only the doorbell needs more
//! (see [`doorbell`](crate::doorbell)).

use std::{mem::MaybeUninit, sync::Arc};

#[cfg(not(loom))]
pub(crate) use self::mapped::RegionMemory;
#[cfg(loom)]
pub(crate) use self::modelled::RegionMemory;
use crate::{
    layout::Layout,
    sync::{AtomicU32, AtomicU64, Ordering, fence},
};

/// This side's region, as seen by those who write its control words.
#[derive(Debug, Clone)]
pub(crate) struct Own(pub(crate) Arc<RegionMemory>);

impl Own {
    pub(crate) fn layout(&self) -> &Layout {
        self.0.layout()
    }

    pub(crate) fn publish_producer_index(&self, index: u64) {
        self.0.producer_index().store(index, Ordering::Release);
    }

    /// What was published last, for threads that do not hold the producer. Reading back is sound, as
    /// the page is this side's own; nothing but a doorbell hangs on it.
    pub(crate) fn producer_index(&self) -> u64 {
        self.0.producer_index().load(Ordering::Relaxed)
    }

    pub(crate) fn publish_consumer_cursor(&self, cursor: u64) {
        self.0.consumer_cursor().store(cursor, Ordering::Release);
    }

    pub(crate) fn sleep_word(&self) -> &AtomicU32 {
        self.0.sleep_word()
    }

    pub(crate) fn sleep_cpu(&self) -> &AtomicU32 {
        self.0.sleep_cpu()
    }

    pub(crate) fn room_word(&self) -> &AtomicU32 {
        self.0.room_word()
    }

    /// Writes one entry of the release list. Relaxed: the index that follows carries the ordering.
    pub(crate) fn write_release(&self, slot: usize, entry: u64) {
        self.0.release_slot(slot).store(entry, Ordering::Relaxed);
    }

    pub(crate) fn publish_release_index(&self, index: u64) {
        self.0.release_index().store(index, Ordering::Release);
    }
}

/// The ring inside this side's own region: exactly one per region, held by its producer.
#[derive(Debug)]
pub(crate) struct OwnRing(Arc<RegionMemory>);

impl OwnRing {
    /// # Safety
    /// Called once per region: two of these would hand out overlapping slices.
    pub(crate) unsafe fn new(memory: Arc<RegionMemory>) -> Self {
        Self(memory)
    }

    /// Ring bytes to write into. The peer reads them only after they were published.
    pub(crate) fn bytes_mut(&mut self, offset: usize, len: usize) -> &mut [u8] {
        // SAFETY: in bounds; this side's own region, so mapped for writing and written by nobody
        // else; initialised, because fresh pages read as zeroes. `&mut self` of the region's only
        // `OwnRing` makes the slice exclusive for as long as it lives.
        unsafe { &mut *self.0.ring_range(offset, len) }
    }

    /// The same for reading back what a reservation holds so far.
    pub(crate) fn bytes(&self, offset: usize, len: usize) -> &[u8] {
        // SAFETY: as above; `&self` keeps `bytes_mut` away.
        unsafe { &*self.0.ring_range(offset, len) }
    }
}

/// The peer's region: loads only, because its pages are mapped read-only.
#[derive(Debug, Clone)]
pub(crate) struct Peer(pub(crate) Arc<RegionMemory>);

impl Peer {
    pub(crate) fn layout(&self) -> &Layout {
        self.0.layout()
    }

    pub(crate) fn producer_index(&self) -> u64 {
        load_acquire(self.0.producer_index())
    }

    pub(crate) fn consumer_cursor(&self) -> u64 {
        load_acquire(self.0.consumer_cursor())
    }

    pub(crate) fn release_index(&self) -> u64 {
        load_acquire(self.0.release_index())
    }

    /// One entry of the release list, after `release_index` has covered it.
    pub(crate) fn release(&self, slot: usize) -> u64 {
        self.0.release_slot(slot).load(Ordering::Relaxed)
    }

    pub(crate) fn sleep_word(&self) -> &AtomicU32 {
        self.0.sleep_word()
    }

    pub(crate) fn sleep_cpu(&self) -> &AtomicU32 {
        self.0.sleep_cpu()
    }

    pub(crate) fn room_word(&self) -> &AtomicU32 {
        self.0.room_word()
    }

    pub(crate) fn copy_ring(&self, offset: usize, into: &mut [MaybeUninit<u8>]) {
        self.0.copy_ring(offset, into);
    }
}

/// A Relaxed load and an Acquire fence instead of an Acquire load: std promises only for Relaxed
/// that a load works on read-only pages ("Atomic accesses to read-only memory").
fn load_acquire(word: &AtomicU64) -> u64 {
    let value = word.load(Ordering::Relaxed);
    fence(Ordering::Acquire);
    value
}

#[cfg(not(loom))]
mod mapped {
    use std::mem::MaybeUninit;

    use crate::{
        copy::Way,
        layout::{self, Layout},
        mapping::Mapping,
        sync::{AtomicU32, AtomicU64},
    };

    /// A region in a memory file.
    #[derive(Debug)]
    pub(crate) struct RegionMemory {
        mapping: Mapping,
        layout: Layout,
    }

    impl RegionMemory {
        pub(crate) fn new(mapping: Mapping, layout: Layout) -> Self {
            assert_eq!(mapping.len(), layout.region_bytes());
            Self { mapping, layout }
        }

        pub(crate) fn layout(&self) -> &Layout {
            &self.layout
        }

        pub(crate) fn producer_index(&self) -> &AtomicU64 {
            self.mapping.atomic_u64(layout::PRODUCER_INDEX_AT)
        }

        pub(crate) fn consumer_cursor(&self) -> &AtomicU64 {
            self.mapping.atomic_u64(layout::CONSUMER_CURSOR_AT)
        }

        pub(crate) fn sleep_word(&self) -> &AtomicU32 {
            self.mapping.atomic_u32(layout::SLEEP_WORD_AT)
        }

        pub(crate) fn sleep_cpu(&self) -> &AtomicU32 {
            self.mapping.atomic_u32(layout::SLEEP_CPU_AT)
        }

        pub(crate) fn room_word(&self) -> &AtomicU32 {
            self.mapping.atomic_u32(layout::ROOM_WORD_AT)
        }

        pub(crate) fn release_index(&self) -> &AtomicU64 {
            self.mapping.atomic_u64(layout::RELEASE_INDEX_AT)
        }

        pub(crate) fn release_slot(&self, slot: usize) -> &AtomicU64 {
            assert!(slot < self.layout.release_slots);
            self.mapping
                .atomic_u64(layout::RELEASE_LIST_AT + slot * size_of::<u64>())
        }

        pub(crate) fn ring_range(&self, offset: usize, len: usize) -> *mut [u8] {
            assert!(offset <= self.layout.ring_bytes && len <= self.layout.ring_bytes - offset);
            self.mapping.range(self.layout.control_bytes + offset, len)
        }

        pub(crate) fn copy_ring(&self, offset: usize, into: &mut [MaybeUninit<u8>]) {
            self.mapping
                .copy_to(self.layout.control_bytes + offset, into, Way::Caches);
        }
    }
}

#[cfg(loom)]
mod modelled {
    use std::{cell::UnsafeCell as PlainCell, mem::MaybeUninit};

    use loom::cell::UnsafeCell;

    use crate::{
        layout::Layout,
        sync::{AtomicU32, AtomicU64},
    };

    /// A region on the heap whose words and ring accesses loom follows.
    #[derive(Debug)]
    pub(crate) struct RegionMemory {
        layout: Layout,
        producer_index: AtomicU64,
        consumer_cursor: AtomicU64,
        sleep_word: AtomicU32,
        sleep_cpu: AtomicU32,
        room_word: AtomicU32,
        release_index: AtomicU64,
        release_list: Vec<AtomicU64>,
        ring: PlainCell<Box<[u8]>>,
        /// One per 8 bytes of the ring: loom's record of who touched them after whom.
        touched: Vec<UnsafeCell<()>>,
    }

    // SAFETY: loom runs one thread at a time, and reports through `touched` any two accesses to the
    // ring that the orderings of the words do not keep apart.
    unsafe impl Send for RegionMemory {}
    // SAFETY: as above.
    unsafe impl Sync for RegionMemory {}

    impl RegionMemory {
        pub(crate) fn new(ring_bytes: usize, release_slots: usize) -> Self {
            Self {
                layout: Layout {
                    ring_bytes,
                    release_slots,
                    control_bytes: 0,
                },
                producer_index: AtomicU64::new(0),
                consumer_cursor: AtomicU64::new(0),
                sleep_word: AtomicU32::new(0),
                sleep_cpu: AtomicU32::new(0),
                room_word: AtomicU32::new(0),
                release_index: AtomicU64::new(0),
                release_list: (0..release_slots).map(|_| AtomicU64::new(0)).collect(),
                ring: PlainCell::new(vec![0; ring_bytes].into_boxed_slice()),
                touched: (0..ring_bytes / 8).map(|_| UnsafeCell::new(())).collect(),
            }
        }

        pub(crate) fn layout(&self) -> &Layout {
            &self.layout
        }

        pub(crate) fn producer_index(&self) -> &AtomicU64 {
            &self.producer_index
        }

        pub(crate) fn consumer_cursor(&self) -> &AtomicU64 {
            &self.consumer_cursor
        }

        pub(crate) fn sleep_word(&self) -> &AtomicU32 {
            &self.sleep_word
        }

        pub(crate) fn sleep_cpu(&self) -> &AtomicU32 {
            &self.sleep_cpu
        }

        pub(crate) fn room_word(&self) -> &AtomicU32 {
            &self.room_word
        }

        pub(crate) fn release_index(&self) -> &AtomicU64 {
            &self.release_index
        }

        pub(crate) fn release_slot(&self, slot: usize) -> &AtomicU64 {
            &self.release_list[slot]
        }

        fn touched(&self, offset: usize, len: usize) -> &[UnsafeCell<()>] {
            &self.touched[offset / 8..(offset + len).div_ceil(8)]
        }

        pub(crate) fn ring_range(&self, offset: usize, len: usize) -> *mut [u8] {
            self.touched(offset, len)
                .iter()
                .for_each(|cell| cell.with_mut(|_| ()));
            // SAFETY: loom runs one thread at a time, and no reference to the ring outlives a call.
            let ring = unsafe { &mut *self.ring.get() };
            &raw mut ring[offset..offset + len]
        }

        pub(crate) fn copy_ring(&self, offset: usize, into: &mut [MaybeUninit<u8>]) {
            self.touched(offset, into.len())
                .iter()
                .for_each(|cell| cell.with(|_| ()));
            // SAFETY: loom has just checked that no write is concurrent with this read.
            let ring = unsafe { &*self.ring.get() };
            for (to, from) in into.iter_mut().zip(&ring[offset..]) {
                to.write(*from);
            }
        }
    }
}
