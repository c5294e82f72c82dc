//! Follows gRPC's framing through a body that passes, without keeping its messages.

use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt;
use tonic::body::Body;

use crate::bridge::PREFIX_BYTES;

/// What passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// A message begins.
    Begin { compressed: bool },
    /// So many of its bytes.
    Bytes(usize),
    /// It ends.
    End,
}

/// `body`, of which `note` is told as it passes.
pub(crate) fn followed(body: Body, mut note: impl FnMut(Part) + Send + 'static) -> Body {
    let mut framing = Framing::default();
    Body::new(body.inspect_frame(move |frame: &Frame<Bytes>| {
        if let Some(data) = frame.data_ref() {
            framing.pass(data, &mut note);
        }
    }))
}

/// Where in gRPC's framing a body is. Nothing that a peer sends can be wrong here: it is followed.
#[derive(Debug, Default)]
struct Framing {
    prefix: [u8; PREFIX_BYTES],
    /// Bytes of the prefix that have come.
    begun: usize,
    /// Bytes of the message that are to come.
    left: usize,
}

impl Framing {
    fn pass(&mut self, mut data: &[u8], mut note: impl FnMut(Part)) {
        while !data.is_empty() {
            let (part, rest) = data.split_at(self.missing().min(data.len()));
            data = rest;
            if self.begun < PREFIX_BYTES {
                self.prefix[self.begun..][..part.len()].copy_from_slice(part);
                self.begun += part.len();
                if self.begun == PREFIX_BYTES {
                    let [flag, length @ ..] = self.prefix;
                    self.left = u32::from_be_bytes(length) as usize;
                    note(Part::Begin {
                        compressed: flag == 1,
                    });
                }
            } else {
                self.left -= part.len();
                note(Part::Bytes(part.len()));
            }
            if self.begun == PREFIX_BYTES && self.left == 0 {
                self.begun = 0;
                note(Part::End);
            }
        }
    }

    /// How many bytes belong together from here on.
    fn missing(&self) -> usize {
        match PREFIX_BYTES - self.begun {
            0 => self.left,
            of_prefix => of_prefix,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::framed;

    #[test]
    fn messages_are_followed_however_they_are_cut() {
        let messages: [(&[u8], bool); 4] = [
            (b"one", true),
            (b"", false),
            (&[7; 300], true),
            (b"last", false),
        ];
        let body: Vec<u8> = messages
            .iter()
            .flat_map(|(bytes, compressed)| framed(bytes, *compressed))
            .collect();
        for size in 1..=body.len() {
            let mut framing = Framing::default();
            // Of each message: its flag, its bytes, whether it has ended.
            let mut came: Vec<(bool, usize, bool)> = Vec::new();
            for data in body.chunks(size) {
                framing.pass(data, |part| match (part, came.last_mut()) {
                    (Part::Begin { compressed }, _) => came.push((compressed, 0, false)),
                    (Part::Bytes(bytes), Some(message)) => message.1 += bytes,
                    (Part::End, Some(message)) => message.2 = true,
                    (part, None) => panic!("{part:?} of no message"),
                });
            }
            let whole = messages.map(|(bytes, compressed)| (compressed, bytes.len(), true));
            assert_eq!(came, whole, "{size}");
        }
    }
}
