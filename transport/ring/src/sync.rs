//! The one switch between std's atomics and loom's: everything that two threads or processes meet
//! on is built from these names, so the loom models run the shipped code.
//!
//! `Arc` is std's on both sides: it only keeps memory alive, and no ordering is taken from it.

#[cfg(not(loom))]
pub(crate) use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence},
};

#[cfg(loom)]
pub(crate) use loom::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence},
};

/// Stands between two sequentially consistent accesses whose single order another thread relies on. Compiles to
/// nothing but under loom, which takes such accesses for acquires and releases.
#[inline]
pub(crate) fn between_seq_cst() {
    #[cfg(loom)]
    fence(Ordering::SeqCst);
}
