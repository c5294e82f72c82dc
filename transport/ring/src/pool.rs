//! Large private buffers, used again: fresh memory for a message costs a page fault per 4 KiB, which
//! is more than copying it.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;

/// Buffers smaller than this come from the allocator, which has them at hand.
const MIN_POOLED_BYTES: usize = 16 * 1024;

/// Capacities are multiples of this, so that messages of similar size share buffers.
const STEP_BYTES: usize = 64 * 1024;

/// A bounded stock of buffers; clones share it.
///
/// ```
/// # use ringway_ring::BufferPool;
/// let pool = BufferPool::new(8 << 20);
/// let mut buffer = pool.buffer(100_000);
/// buffer.extend_from_slice(&[1; 100_000]);
/// let payload = buffer.freeze();
/// drop(payload);
/// assert!(pool.idle_bytes() >= 100_000);
/// ```
#[derive(Debug, Clone)]
pub struct BufferPool {
    stock: Arc<Mutex<Stock>>,
}

#[derive(Debug)]
struct Stock {
    max_idle_bytes: usize,
    idle_bytes: usize,
    /// Buffers that somebody uses, and that come back.
    lent: usize,
    /// The one used last is at the end.
    buffers: Vec<Idle>,
}

#[derive(Debug)]
struct Idle {
    buffer: Vec<u8>,
    /// The first trim that found it here.
    since: Option<Instant>,
}

impl Default for BufferPool {
    /// At most 16 MiB lie idle.
    fn default() -> Self {
        Self::new(16 * 1024 * 1024)
    }
}

impl BufferPool {
    /// A pool that keeps at most `max_idle_bytes` of buffers nobody uses.
    pub fn new(max_idle_bytes: usize) -> Self {
        let stock = Stock {
            max_idle_bytes,
            idle_bytes: 0,
            lent: 0,
            buffers: Vec::new(),
        };
        Self {
            stock: Arc::new(Mutex::new(stock)),
        }
    }

    /// An empty buffer with room for `len` bytes; the one used last, if it is of about that size.
    pub fn buffer(&self, len: usize) -> PooledBuffer {
        if len < MIN_POOLED_BYTES {
            return PooledBuffer {
                buffer: Vec::with_capacity(len),
                pool: None,
            };
        }
        let reused = self.lock().take(len);
        let buffer = reused.unwrap_or_else(|| Vec::with_capacity(len.next_multiple_of(STEP_BYTES)));
        PooledBuffer {
            buffer,
            pool: Some(self.clone()),
        }
    }

    /// Frees the buffers that lay idle for `idle`, as seen by calls of this method.
    pub fn trim(&self, now: Instant, idle: Duration) {
        let freed = self.lock().take_idle(now, idle);
        // Outside of the lock: giving memory back to the kernel takes a while.
        drop(freed);
    }

    /// Whether it holds no memory, and none is to come back: then there is nothing to trim.
    pub fn is_empty(&self) -> bool {
        let stock = self.lock();
        stock.idle_bytes == 0 && stock.lent == 0
    }

    /// Bytes that wait to be used again.
    pub fn idle_bytes(&self) -> usize {
        self.lock().idle_bytes
    }

    fn lock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stock {
    fn take(&mut self, len: usize) -> Option<Vec<u8>> {
        self.lent += 1;
        // Not a buffer far larger than needed: its owner may keep it for long.
        let most = len.saturating_mul(2).max(STEP_BYTES);
        let at = self
            .buffers
            .iter()
            .rposition(|idle| (len..=most).contains(&idle.buffer.capacity()))?;
        let idle = self.buffers.remove(at);
        self.idle_bytes -= idle.buffer.capacity();
        Some(idle.buffer)
    }

    /// Keeps the buffer, or gives it back to be freed.
    fn put(&mut self, mut buffer: Vec<u8>) -> Option<Vec<u8>> {
        self.lent -= 1;
        buffer.clear();
        let capacity = buffer.capacity();
        if capacity < MIN_POOLED_BYTES || capacity > self.max_idle_bytes - self.idle_bytes {
            return Some(buffer);
        }
        self.idle_bytes += capacity;
        self.buffers.push(Idle {
            buffer,
            since: None,
        });
        None
    }

    fn take_idle(&mut self, now: Instant, idle: Duration) -> Vec<Idle> {
        let freed: Vec<_> = self
            .buffers
            .extract_if(.., |buffer| {
                now.saturating_duration_since(*buffer.since.get_or_insert(now)) >= idle
            })
            .collect();
        self.idle_bytes -= freed
            .iter()
            .map(|idle| idle.buffer.capacity())
            .sum::<usize>();
        freed
    }
}

/// A vector that returns to its pool, by itself or as the `Bytes` that it becomes.
#[derive(Debug)]
pub struct PooledBuffer {
    buffer: Vec<u8>,
    pool: Option<BufferPool>,
}

impl PooledBuffer {
    /// The bytes written so far; the memory goes back to the pool with the last clone.
    pub fn freeze(mut self) -> Bytes {
        if self.pool.is_none() {
            return std::mem::take(&mut self.buffer).into();
        }
        Bytes::from_owner(self)
    }
}

impl Drop for PooledBuffer {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            let refused = pool.lock().put(std::mem::take(&mut self.buffer));
            drop(refused);
        }
    }
}

impl AsRef<[u8]> for PooledBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Deref for PooledBuffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.buffer
    }
}

impl DerefMut for PooledBuffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again() {
        let pool = BufferPool::new(1 << 20);
        let mut buffer = pool.buffer(100_000);
        buffer.extend_from_slice(&[3; 100_000]);
        let address = buffer.as_ptr();
        let payload = buffer.freeze();
        let part = payload.slice(10..20);
        drop(payload);
        assert_eq!(pool.idle_bytes(), 0, "a slice still holds it");
        drop(part);
        assert_eq!(pool.idle_bytes(), 131_072);
        assert_eq!(pool.buffer(90_000).as_ptr(), address);
        assert!(!pool.is_empty());
        pool.trim(Instant::now(), Duration::ZERO);
        assert!(pool.is_empty());
    }

    #[test]
    fn idle_memory_is_bounded_and_freed() {
        let pool = BufferPool::new(300_000);
        let (first, second, third) = (
            pool.buffer(100_000),
            pool.buffer(100_000),
            pool.buffer(100_000),
        );
        drop((first, second, third));
        assert_eq!(pool.idle_bytes(), 262_144, "the third did not fit");
        let (start, idle) = (Instant::now(), Duration::from_secs(5));
        pool.trim(start, idle);
        drop(pool.buffer(100_000));
        pool.trim(start + idle, idle);
        assert_eq!(pool.idle_bytes(), 131_072, "the one used meanwhile stays");
        pool.trim(start + idle + idle, idle);
        assert_eq!(pool.idle_bytes(), 0);
    }

    #[test]
    fn a_far_larger_buffer_is_not_spent_on_a_small_message() {
        let pool = BufferPool::default();
        drop(pool.buffer(4 << 20));
        assert!(pool.buffer(100_000).capacity() < 1 << 20);
    }
}
