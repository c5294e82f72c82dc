//! The example shop: orders.
#![forbid(unsafe_code)]
