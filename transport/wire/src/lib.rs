//! The protocol core: frames, handshake, call state, flow control, limits. No I/O.
#![forbid(unsafe_code)]
