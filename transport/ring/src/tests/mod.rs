//! What takes more than one part of the crate: hostile peers, an oracle, and loom's models.

#![allow(clippy::unwrap_used)]

#[cfg(not(loom))]
mod blocks;
#[cfg(not(loom))]
mod exhaustive;
#[cfg(not(loom))]
mod hostile;
#[cfg(loom)]
mod loom;
#[cfg(not(loom))]
mod oracle;
#[cfg(not(loom))]
mod refused;
#[cfg(not(loom))]
mod ring;
