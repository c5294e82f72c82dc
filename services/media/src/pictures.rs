//! The pictures themselves: drawn when first asked for, kept within a budget,
//! replaced by uploads.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use parking_lot::Mutex;
use ringway_proto::shop::v1::PictureHead;

use crate::png;

/// Drawn pictures kept in memory, bytes: ten of the largest.
const DRAWN_MAX_BYTES: usize = 32 << 20;
/// Uploaded pictures kept in memory, bytes.
const UPLOADED_MAX_BYTES: usize = 32 << 20;
/// Pictures that are drawn at once.
pub(crate) const DRAWS_MAX: usize = 4;
/// The largest drawing, bytes.
const DRAWING_MAX_BYTES: usize = 3 << 20;

// All of it at once leaves room for the program and for messages on their way in a container of 128 MiB.
const _: () = assert!(
    DRAWN_MAX_BYTES
        + UPLOADED_MAX_BYTES
        + DRAWS_MAX * DRAWING_MAX_BYTES
        + crate::UPLOADS_MAX * crate::UPLOAD_MAX_BYTES
        < 96 << 20
);
/// Pixels a side of a preview.
const PREVIEW_SIDE: u16 = 4;

/// A picture as it is served; cloning copies no pixels.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) content_type: String,
    pub(crate) data: Bytes,
}

impl Stored {
    fn drawn(data: Bytes) -> Self {
        Self {
            content_type: "image/png".to_owned(),
            data,
        }
    }

    pub(crate) fn head(&self, picture: u32) -> PictureHead {
        PictureHead {
            picture,
            content_type: self.content_type.clone(),
            size_bytes: self.data.len() as u64,
        }
    }
}

/// No room for another upload.
#[derive(Debug)]
pub(crate) struct Full;

/// Pictures 1 to `count`.
#[derive(Debug)]
pub(crate) struct Pictures {
    previews: Vec<Bytes>,
    shelves: Mutex<Shelves>,
}

#[derive(Debug, Default)]
struct Shelves {
    drawn: HashMap<u32, Bytes>,
    /// Oldest first; what `drawn` holds.
    drawn_by_age: VecDeque<u32>,
    drawn_bytes: usize,
    uploaded: HashMap<u32, Stored>,
    uploaded_bytes: usize,
}

impl Pictures {
    pub(crate) fn new(count: u32) -> Self {
        let previews = (1..=count)
            .map(|id| png::draw(id, PREVIEW_SIDE).into())
            .collect();
        Self {
            previews,
            shelves: Mutex::default(),
        }
    }

    pub(crate) fn contains(&self, picture: u32) -> bool {
        self.index(picture).is_some()
    }

    /// Draws if it must, which takes milliseconds: not for a runtime's thread.
    pub(crate) fn draw(&self, picture: u32) -> Option<Stored> {
        self.index(picture)?;
        if let Some(ready) = self.ready(picture) {
            return Some(ready);
        }
        let data = Bytes::from(png::draw(picture, side(picture)));
        self.shelves.lock().keep(picture, data.clone());
        // An upload may have come first, and others may have pushed this one out.
        self.ready(picture).or_else(|| Some(Stored::drawn(data)))
    }

    /// The picture, if it needs no drawing.
    pub(crate) fn ready(&self, picture: u32) -> Option<Stored> {
        let shelves = self.shelves.lock();
        let drawn = || {
            let data = shelves.drawn.get(&picture)?.clone();
            Some(Stored {
                content_type: "image/png".to_owned(),
                data,
            })
        };
        shelves.uploaded.get(&picture).cloned().or_else(drawn)
    }

    /// Empty for a picture that does not exist or was uploaded.
    pub(crate) fn previews(&self, pictures: &[u32]) -> Vec<Bytes> {
        let uploaded = &self.shelves.lock().uploaded;
        let preview = |picture: &u32| {
            let index = self
                .index(*picture)
                .filter(|_| !uploaded.contains_key(picture));
            index.map_or_else(Bytes::new, |index| self.previews[index].clone())
        };
        pictures.iter().map(preview).collect()
    }

    pub(crate) fn replace(&self, picture: u32, stored: Stored) -> Result<(), Full> {
        let mut shelves = self.shelves.lock();
        let before = shelves
            .uploaded
            .get(&picture)
            .map_or(0, |old| old.data.len());
        let after = shelves.uploaded_bytes - before + stored.data.len();
        if after > UPLOADED_MAX_BYTES {
            return Err(Full);
        }
        shelves.uploaded_bytes = after;
        shelves.uploaded.insert(picture, stored);
        Ok(())
    }

    fn index(&self, picture: u32) -> Option<usize> {
        let index = usize::try_from(picture).ok()?.checked_sub(1)?;
        (index < self.previews.len()).then_some(index)
    }
}

impl Shelves {
    fn keep(&mut self, picture: u32, data: Bytes) {
        let added = data.len();
        if self.drawn.insert(picture, data).is_some() {
            return;
        }
        self.drawn_bytes += added;
        self.drawn_by_age.push_back(picture);
        while self.drawn_bytes > DRAWN_MAX_BYTES
            && let Some(oldest) = self.drawn_by_age.pop_front()
        {
            let gone = self.drawn.remove(&oldest);
            self.drawn_bytes -= gone.map_or(0, |data| data.len());
        }
    }
}

/// 150 to 1000 pixels, so 66 KiB to 2.9 MiB.
fn side(picture: u32) -> u16 {
    let dice = picture.wrapping_mul(2_246_822_519) >> 8;
    150 + u16::try_from(dice % 851).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_have_the_sizes_promised_and_stay_within_the_budget() {
        let pictures = Pictures::new(1000);
        for picture in 1..=120 {
            let size = pictures.draw(picture).map_or(0, |stored| stored.data.len());
            assert!((64 << 10..=3 << 20).contains(&size), "{picture}: {size}");
        }
        assert!(pictures.shelves.lock().drawn_bytes <= DRAWN_MAX_BYTES);
        assert!(pictures.draw(1001).is_none() && pictures.draw(0).is_none());
    }

    #[test]
    fn an_upload_takes_the_place_of_picture_and_preview() {
        let pictures = Pictures::new(2);
        let stored = Stored {
            content_type: "image/gif".into(),
            data: Bytes::from_static(b"GIF"),
        };
        assert!(pictures.replace(1, stored.clone()).is_ok());
        assert_eq!(
            pictures.draw(1).map(|stored| stored.data),
            Some(stored.data)
        );
        let previews = pictures.previews(&[1, 2, 3]);
        assert_eq!(
            previews.iter().map(Bytes::is_empty).collect::<Vec<_>>(),
            [true, false, true]
        );
    }

    #[test]
    fn uploads_have_a_budget() {
        let pictures = Pictures::new(2);
        let large = |bytes| Stored {
            content_type: String::new(),
            data: vec![0; bytes].into(),
        };
        assert!(pictures.replace(1, large(UPLOADED_MAX_BYTES)).is_ok());
        assert!(pictures.replace(2, large(1)).is_err());
        assert!(pictures.replace(1, large(1)).is_ok());
        assert!(pictures.replace(2, large(1)).is_ok());
    }
}
