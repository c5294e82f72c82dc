//! Generates Ringway's stubs from .proto files, without protoc.
#![forbid(unsafe_code)]
