//! The example shop: catalog.
#![forbid(unsafe_code)]
