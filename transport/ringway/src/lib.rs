//! RPC stubs whose calls cross memory rings on one host and gRPC between hosts.
#![forbid(unsafe_code)]
