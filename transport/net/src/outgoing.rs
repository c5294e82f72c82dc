//! What can be sent: a message, or one that is kept to be sent again.

use std::marker::PhantomData;
use std::sync::Arc;

use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic_prost::{ProstCodec, ProstDecoder};

/// What a call sends.
pub trait Outgoing: Send + Sync + 'static {
    /// The message's type.
    type Message: Message;

    /// The message.
    fn message(&self) -> &Self::Message;
}

impl<M: Message + 'static> Outgoing for M {
    type Message = M;

    fn message(&self) -> &M {
        self
    }
}

/// A message of one's own, or one that somebody keeps for a further attempt.
#[derive(Debug)]
pub enum Kept<M> {
    /// Nobody else has it.
    Own(M),
    /// It may be sent again.
    Shared(Arc<M>),
}

impl<M: Message + 'static> Outgoing for Kept<M> {
    type Message = M;

    fn message(&self) -> &M {
        match self {
            Self::Own(message) => message,
            Self::Shared(message) => message,
        }
    }
}

/// tonic's codec for protobuf, for anything that is [`Outgoing`].
#[derive(Debug)]
pub(crate) struct OutgoingCodec<T, R>(PhantomData<(T, R)>);

impl<T, R> Default for OutgoingCodec<T, R> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, R> Codec for OutgoingCodec<T, R>
where
    T: Outgoing,
    R: Message + Default + 'static,
{
    type Encode = T;
    type Decode = R;
    type Encoder = OutgoingEncoder<T>;
    type Decoder = ProstDecoder<R>;

    fn encoder(&mut self) -> OutgoingEncoder<T> {
        OutgoingEncoder(PhantomData)
    }

    fn decoder(&mut self) -> ProstDecoder<R> {
        ProstCodec::<R, R>::default().decoder()
    }
}

#[derive(Debug)]
pub(crate) struct OutgoingEncoder<T>(PhantomData<T>);

impl<T: Outgoing> Encoder for OutgoingEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        // Fails only where there is no room, and the buffer grows.
        let encoded = item.message().encode(buffer);
        encoded.map_err(|error| Status::internal(error.to_string()))
    }
}
