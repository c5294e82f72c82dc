//! Pictures drawn from a number: PNG with stored (uncompressed) data, so that
//! the size is known beforehand and drawing costs little more than a copy.
//!
//! Source: PNG (W3C, third edition), zlib (RFC 1950), deflate (RFC 1951).

const SIGNATURE: [u8; 8] = *b"\x89PNG\r\n\x1a\n";
/// Longest stored block of deflate.
const BLOCK_BYTES: usize = 65_535;

/// A square RGB picture of `side` pixels; the same `seed` draws the same motif at
/// every size.
pub(crate) fn draw(seed: u32, side: u16) -> Vec<u8> {
    let pixels = paint(seed, side);
    let mut png = Vec::with_capacity(pixels.len() + pixels.len() / 1024 + 128);
    png.extend_from_slice(&SIGNATURE);
    chunk(&mut png, *b"IHDR", |data| {
        for edge in [side, side] {
            data.extend_from_slice(&u32::from(edge).to_be_bytes());
        }
        // 8 bits a channel, RGB, the only compression, filter and no interlace.
        data.extend_from_slice(&[8, 2, 0, 0, 0]);
    });
    chunk(&mut png, *b"IDAT", |data| store(data, &pixels));
    chunk(&mut png, *b"IEND", |_| {});
    png
}

/// Rows of RGB, each behind its filter byte (none).
fn paint(seed: u32, side: u16) -> Vec<u8> {
    let [red, green, blue, _] = seed.wrapping_mul(2_654_435_761).to_be_bytes();
    let edge = usize::from(side);
    let shade = |position: usize| {
        let scaled = position * 255 / edge.max(1);
        u8::try_from(scaled).unwrap_or(u8::MAX)
    };
    let mut rows = Vec::with_capacity(edge * (1 + 3 * edge));
    for y in 0..edge {
        rows.push(0);
        let down = shade(y);
        for x in 0..edge {
            let across = shade(x);
            rows.extend_from_slice(&[
                red.wrapping_add(across),
                green.wrapping_add(down),
                blue ^ (across & down),
            ]);
        }
    }
    rows
}

fn chunk(png: &mut Vec<u8>, kind: [u8; 4], fill: impl FnOnce(&mut Vec<u8>)) {
    let length_at = png.len();
    png.extend_from_slice(&[0; 4]);
    png.extend_from_slice(&kind);
    fill(png);
    let length = u32::try_from(png.len() - length_at - 8).unwrap_or(u32::MAX);
    png[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
    let crc = crc32fast::hash(&png[length_at + 4..]);
    png.extend_from_slice(&crc.to_be_bytes());
}

/// A zlib stream of stored blocks.
fn store(out: &mut Vec<u8>, data: &[u8]) {
    out.extend_from_slice(&[0x78, 0x01]);
    let blocks = data.chunks(BLOCK_BYTES);
    let last = blocks.len().saturating_sub(1);
    for (index, block) in blocks.enumerate() {
        let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
        out.push(u8::from(index == last));
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(block);
    }
    out.extend_from_slice(&adler32(data).to_be_bytes());
}

fn adler32(data: &[u8]) -> u32 {
    // 5552 is the most bytes whose sums fit 32 bits before the remainder is taken.
    let (mut a, mut b) = (1_u32, 0_u32);
    for part in data.chunks(5552) {
        for &byte in part {
            a += u32::from(byte);
            b += a;
        }
        a %= 65_521;
        b %= 65_521;
    }
    (b << 16) | a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adler_of_the_well_known_word() {
        assert_eq!(adler32(b"Wikipedia"), 0x11E6_0398);
    }

    #[test]
    fn a_picture_has_the_size_that_its_pixels_make() {
        let png = draw(7, 200);
        let pixels = 200 * (1 + 600);
        // Signature, three chunks of 12 around 13 + zlib + 0 bytes, two blocks.
        assert_eq!(png.len(), 8 + 12 + 13 + 12 + (2 + 2 * 5 + pixels + 4) + 12);
        assert_eq!(&png[..8], &SIGNATURE);
        assert_eq!(png, draw(7, 200));
        assert_ne!(png, draw(8, 200));
    }
}
