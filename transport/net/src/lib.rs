//! The network path: tonic over TCP or a Unix socket.
#![forbid(unsafe_code)]
