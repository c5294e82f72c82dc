//! The example shop: gateway.
#![forbid(unsafe_code)]
