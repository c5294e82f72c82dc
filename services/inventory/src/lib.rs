//! The example shop: inventory.
#![forbid(unsafe_code)]
