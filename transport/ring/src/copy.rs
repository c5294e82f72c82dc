//! Copies between memory that two cores share and memory of one's own.

use std::ptr;

/// Copies of this length and more are made by plain loads and stores.
#[cfg(target_arch = "x86_64")]
const MIN_PLAIN_BYTES: usize = 4096;
/// Blocks of these lengths go past the caches where that is faster: for less it takes longer until memory
/// answers, and what is longer does not stay in a core's caches until it is written again.
#[cfg(target_arch = "x86_64")]
const PAST_CACHES_BYTES: std::ops::Range<usize> = 24 * 1024..384 * 1024;
/// So many pages are read side by side, each ahead of its own reads, where memory is read and no cache.
#[cfg(target_arch = "x86_64")]
const PAGES_SIDE_BY_SIDE: usize = 4;
#[cfg(target_arch = "x86_64")]
const PAGE_BYTES: usize = 4096;
#[cfg(target_arch = "x86_64")]
const LINE_BYTES: usize = 64;

/// How the bytes of a block get from one core to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// By the caches.
    Caches,
    /// By memory: written past the caches, and so read from there.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    Memory,
}

impl Way {
    /// That of a block of `len` bytes on this processor.
    ///
    /// A core that writes again what the other one has read must first take each line from it. On Zen
    /// (measured on two cores of a virtual Genoa, 64 KiB) that takes 7 to 12 ns a line, in some runs 27 to
    /// 47, perhaps because of where the memory lies; written past the caches, a line takes 2 to 4 in all of
    /// them, and then 3 to 4 to be read in place of 1.5. On Cascade Lake it is the other way round.
    pub(crate) fn of_block(len: usize) -> Self {
        #[cfg(target_arch = "x86_64")]
        if PAST_CACHES_BYTES.contains(&len) && zen::is_here() {
            return Self::Memory;
        }
        let _ = len;
        Self::Caches
    }
}

#[cfg(target_arch = "x86_64")]
mod zen {
    use std::{arch::x86_64::__cpuid, sync::LazyLock};

    /// Whether this processor is of that family, or of its licensee's: asked for once, because a hypervisor
    /// answers in place of the processor.
    pub(super) fn is_here() -> bool {
        static HERE: LazyLock<bool> = LazyLock::new(|| {
            let vendor = __cpuid(0);
            let name = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes);
            matches!(name.as_flattened(), b"AuthenticAMD" | b"HygonGenuine")
        });
        *HERE
    }
}

/// Copies `len` bytes into memory that the peer reads.
///
/// # Safety
/// As for [`ptr::copy_nonoverlapping`]: `from` is readable and `to` writable for `len` bytes, and they do
/// not overlap.
pub(crate) unsafe fn copy_in(way: Way, from: *const u8, to: *mut u8, len: usize) {
    #[cfg(target_arch = "x86_64")]
    if way == Way::Memory {
        // SAFETY: as the caller has promised.
        unsafe { copy_past_caches(from, to, len) };
        return;
    }
    let _ = way;
    // SAFETY: as the caller has promised.
    unsafe { copy(from, to, len) };
}

/// Copies `len` bytes out of memory that the peer writes.
///
/// # Safety
/// As for [`copy_in`]. The peer may write `from` meanwhile: then what arrives is any mixture.
pub(crate) unsafe fn copy_out(way: Way, from: *const u8, to: *mut u8, len: usize) {
    #[cfg(target_arch = "x86_64")]
    let copied = match way {
        // SAFETY: as the caller has promised.
        Way::Memory => unsafe { copy_side_by_side(from, to, len) },
        Way::Caches => 0,
    };
    #[cfg(not(target_arch = "x86_64"))]
    let copied = 0;
    let _ = way;
    // SAFETY: as the caller has promised; `copied` is at most `len`.
    unsafe { copy(from.add(copied), to.add(copied), len - copied) };
}

/// Copies `len` bytes, as [`ptr::copy_nonoverlapping`] does.
///
/// The C library's copy moves some KiB and more by `rep movsb`. That is slower where another core has
/// the lines: 64 KiB take it 5.2 µs to write and 5.3 to read (Cascade Lake), plain loads and stores 3.3
/// and 4.6. From 1 MiB on, where a copy outgrows the second cache, the two are even.
///
/// # Safety
/// As for [`copy_out`].
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    #[cfg(target_arch = "x86_64")]
    let copied = match len >= MIN_PLAIN_BYTES {
        // SAFETY: as the caller has promised.
        true => unsafe { copy_lines(from, to, len) },
        false => 0,
    };
    #[cfg(not(target_arch = "x86_64"))]
    let copied = 0;
    // SAFETY: as the caller has promised; `copied` is at most `len`.
    unsafe { ptr::copy_nonoverlapping(from.add(copied), to.add(copied), len - copied) };
}

/// Copies as many whole lines as there are; gives back their length.
///
/// # Safety
/// As for [`copy`].
#[cfg(target_arch = "x86_64")]
unsafe fn copy_lines(from: *const u8, to: *mut u8, len: usize) -> usize {
    let end = len - len % LINE_BYTES;
    for at in (0..end).step_by(LINE_BYTES) {
        // SAFETY: the line that begins at `at` ends within `len`.
        unsafe { copy_line(from.add(at), to.add(at)) };
    }
    end
}

/// Copies as many whole groups of pages as there are, a line of each in turn; gives back their length.
///
/// # Safety
/// As for [`copy`].
#[cfg(target_arch = "x86_64")]
unsafe fn copy_side_by_side(from: *const u8, to: *mut u8, len: usize) -> usize {
    const GROUP_BYTES: usize = PAGES_SIDE_BY_SIDE * PAGE_BYTES;
    let end = len - len % GROUP_BYTES;
    for group in (0..end).step_by(GROUP_BYTES) {
        for line in (group..group + PAGE_BYTES).step_by(LINE_BYTES) {
            for at in (line..line + GROUP_BYTES).step_by(PAGE_BYTES) {
                // SAFETY: the line that begins at `at` lies in the group, which ends within `len`.
                unsafe { copy_line(from.add(at), to.add(at)) };
            }
        }
    }
    end
}

/// # Safety
/// As for [`copy`], of one line.
#[cfg(target_arch = "x86_64")]
unsafe fn copy_line(from: *const u8, to: *mut u8) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_storeu_si128};

    let (from, to) = (from.cast::<__m128i>(), to.cast::<__m128i>());
    // SAFETY: four words are a line; the loads and stores need no alignment, and SSE2 belongs to every
    // processor of this architecture.
    unsafe {
        let (first, second) = (_mm_loadu_si128(from), _mm_loadu_si128(from.add(1)));
        let (third, fourth) = (_mm_loadu_si128(from.add(2)), _mm_loadu_si128(from.add(3)));
        _mm_storeu_si128(to, first);
        _mm_storeu_si128(to.add(1), second);
        _mm_storeu_si128(to.add(2), third);
        _mm_storeu_si128(to.add(3), fourth);
    }
}

/// Copies `len` bytes, the whole lines of the target past the caches.
///
/// # Safety
/// As for [`copy`].
#[cfg(target_arch = "x86_64")]
unsafe fn copy_past_caches(from: *const u8, to: *mut u8, len: usize) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};

    let begin = to.align_offset(LINE_BYTES).min(len);
    let end = len - (len - begin) % LINE_BYTES;
    // SAFETY: what lies before `begin` and behind `end` lies within `len`.
    unsafe {
        ptr::copy_nonoverlapping(from, to, begin);
        ptr::copy_nonoverlapping(from.add(end), to.add(end), len - end);
    }
    for at in (begin..end).step_by(LINE_BYTES) {
        // SAFETY: the line that begins at `at` ends within `len`, its place in the target is aligned, and
        // SSE2 belongs to every processor of this architecture.
        unsafe {
            let (from, to) = (from.add(at).cast::<__m128i>(), to.add(at).cast::<__m128i>());
            let (first, second) = (_mm_loadu_si128(from), _mm_loadu_si128(from.add(1)));
            let (third, fourth) = (_mm_loadu_si128(from.add(2)), _mm_loadu_si128(from.add(3)));
            _mm_stream_si128(to, first);
            _mm_stream_si128(to.add(1), second);
            _mm_stream_si128(to.add(2), third);
            _mm_stream_si128(to.add(3), fourth);
        }
    }
    // What is written past the caches is not ordered with other stores: without this the peer could be
    // told of bytes that are not there yet.
    // SAFETY: SSE belongs to every processor of this architecture.
    unsafe { _mm_sfence() };
}

#[cfg(test)]
mod tests {
    use super::*;

    type Copies = unsafe fn(Way, *const u8, *mut u8, usize);

    /// Every length, from and to every alignment.
    fn check(way: Way) {
        let lengths = [
            0, 1, 63, 64, 4095, 4096, 4097, 4159, 4160, 12_345, 16_384, 38_000,
        ];
        for len in lengths {
            for (from, to) in [(0, 0), (1, 0), (0, 3), (7, 9)] {
                check_one(copy_in, way, (from, to), len);
                check_one(copy_out, way, (from, to), len);
            }
        }
    }

    /// Looks at what was copied, and at what lies beside.
    fn check_one(copies: Copies, way: Way, (from, to): (usize, usize), len: usize) {
        const ROOM: usize = 40_000;
        let source: Vec<u8> = (1..=251).cycle().take(ROOM).collect();
        let mut target = vec![0; ROOM];
        let (begin, place) = (source[from..].as_ptr(), target[to..].as_mut_ptr());
        // SAFETY: both ranges lie in their vectors.
        unsafe { copies(way, begin, place, len) };
        assert_eq!(target[to..to + len], source[from..from + len], "{len}");
        assert!(target[..to].iter().all(|byte| *byte == 0));
        assert!(target[to + len..].iter().all(|byte| *byte == 0), "{len}");
    }

    #[test]
    fn every_byte_is_copied_and_none_beside() {
        check(Way::Caches);
    }

    #[test]
    fn every_byte_is_copied_past_the_caches_and_none_beside() {
        check(Way::Memory);
    }

    #[test]
    fn what_is_short_or_outgrows_the_caches_goes_by_them() {
        for len in [0, 64, 16 * 1024, 384 * 1024, 1 << 20] {
            assert_eq!(Way::of_block(len), Way::Caches, "{len}");
        }
    }
}
