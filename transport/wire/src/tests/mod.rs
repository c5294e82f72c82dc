//! Simulated peers in simulated time, and properties of the codecs.

mod calls;
mod cancel;
mod codec;
mod exhaustive;
mod flow;
mod handshake;
mod headers;
mod hostile;
mod limited;
mod pair;
mod random;
mod time;
