//! The example shop: media.
#![forbid(unsafe_code)]
