//! The paths inside one host and what drives them: rendezvous, shared memory, socket, in-process.
#![forbid(unsafe_code)]
