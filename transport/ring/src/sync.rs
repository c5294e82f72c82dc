//! The one switch between std's atomics and loom's: everything that two threads or processes meet
//! on is built from these names, so the loom models run the shipped code.
//!
//! `Arc` is std's on both sides: it only keeps memory alive, and no ordering is taken from it.

#[cfg(not(loom))]
pub(crate) use std::sync::{
    Mutex,
    atomic::{AtomicU32, AtomicU64, Ordering, fence},
};

#[cfg(loom)]
pub(crate) use loom::sync::{
    Mutex,
    atomic::{AtomicU32, AtomicU64, Ordering, fence},
};
