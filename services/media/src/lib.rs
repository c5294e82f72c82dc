//! The shop's product pictures: served whole, streamed, replaced.
#![forbid(unsafe_code)]

mod pictures;
mod png;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringway_proto::shop::v1::media_server::{Media as Contract, MediaServer};
use ringway_proto::shop::v1::picture_part::Part;
use ringway_proto::shop::v1::{
    GetPictureRequest, Picture, PictureHead, PicturePart, PreviewsReply, PreviewsRequest,
    UploadReply,
};
use shop_link::{Address, Error};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use pictures::{DRAWS_MAX, Pictures, Stored};

/// Largest upload: what `Get` can still answer in one message of tonic's default limit.
pub const UPLOAD_MAX_BYTES: usize = 4_000_000;
/// Uploads that are taken in at once: each holds what has come of it.
const UPLOADS_MAX: usize = 4;
/// The longest that an upload may take, and may wait for its turn: one that trickles keeps others out no longer.
const UPLOAD_PATIENCE: Duration = Duration::from_secs(30);
/// One message of a download.
const PART_BYTES: usize = 64 << 10;
/// Previews in one call.
const BATCH_MAX: usize = 100;
/// What browsers show and cannot be scripted.
const CONTENT_TYPES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];

/// How the service is started.
#[derive(clap::Parser, Debug)]
#[command(about = "The shop's product pictures: served whole, streamed, replaced.")]
pub struct Args {
    /// Where to listen.
    #[arg(long, env = "SHOP_LISTEN", default_value = "127.0.0.1:50053")]
    pub listen: Address,
    /// By what else it is found.
    #[command(flatten)]
    pub names: shop_link::Names,
    /// How many pictures there are.
    #[arg(long, default_value_t = 1000)]
    pub pictures: u32,
}

/// Serves pictures until `until` is ready.
///
/// # Errors
/// Those of [`shop_link::serve`].
pub async fn serve(args: Args, until: impl Future<Output = ()> + Send) -> Result<(), Error> {
    let server = MediaServer::new(Media::new(args.pictures));
    shop_link::serve(&args.listen, &args.names, server, until).await
}

/// The handler.
#[derive(Clone, Debug)]
pub struct Media {
    pictures: Arc<Pictures>,
    uploading: Arc<Semaphore>,
    drawing: Arc<Semaphore>,
}

impl Media {
    /// Pictures 1 to `count`.
    #[must_use]
    pub fn new(count: u32) -> Self {
        Self {
            pictures: Arc::new(Pictures::new(count)),
            uploading: Arc::new(Semaphore::new(UPLOADS_MAX)),
            drawing: Arc::new(Semaphore::new(DRAWS_MAX)),
        }
    }

    async fn find(&self, picture: u32) -> Result<Stored, Status> {
        if let Some(ready) = self.pictures.ready(picture) {
            return Ok(ready);
        }
        // Kept while it is drawn, also where nobody waits for it any more.
        let turn = Arc::clone(&self.drawing).acquire_owned().await;
        let pictures = Arc::clone(&self.pictures);
        let draw = move || {
            let _turn = turn;
            pictures.draw(picture)
        };
        tokio::task::spawn_blocking(draw)
            .await
            .map_err(|error| Status::internal(format!("drawing the picture failed: {error}")))?
            .ok_or_else(|| missing(picture))
    }

    /// Receives an upload when it has its turn.
    async fn take_in(
        &self,
        parts: &mut Streaming<PicturePart>,
    ) -> Result<(PictureHead, Bytes), Status> {
        let (head, size) = self.admit(parts.message().await?)?;
        let _turn = self.uploading.acquire().await;
        let data = receive(parts, size).await?;
        Ok((head, data))
    }

    fn admit(&self, part: Option<PicturePart>) -> Result<(PictureHead, usize), Status> {
        let Some(Part::Head(head)) = part.and_then(|part| part.part) else {
            return Err(Status::invalid_argument("an upload starts with its head"));
        };
        if !self.pictures.contains(head.picture) {
            return Err(missing(head.picture));
        }
        if !CONTENT_TYPES.contains(&head.content_type.as_str()) {
            return Err(Status::invalid_argument(format!(
                "`{}` is no picture: send one of {}",
                head.content_type,
                CONTENT_TYPES.join(", ")
            )));
        }
        match usize::try_from(head.size_bytes) {
            Ok(size @ 1..=UPLOAD_MAX_BYTES) => Ok((head, size)),
            _ => Err(Status::invalid_argument(format!(
                "{} bytes: a picture has 1 to {UPLOAD_MAX_BYTES}",
                head.size_bytes
            ))),
        }
    }
}

fn missing(picture: u32) -> Status {
    Status::not_found(format!("no picture {picture}"))
}

/// A stream that was cut off can look like one that ended, so the size decides.
async fn receive(
    parts: &mut (impl Stream<Item = Result<PicturePart, Status>> + Unpin),
    size: usize,
) -> Result<Bytes, Status> {
    use tokio_stream::StreamExt;
    let mut data = BytesMut::with_capacity(size);
    while let Some(part) = parts.next().await {
        let Some(Part::Data(piece)) = part?.part else {
            return Err(Status::invalid_argument(
                "an upload has one head, then data",
            ));
        };
        if data.len() + piece.len() > size {
            return Err(Status::invalid_argument(format!(
                "more than the {size} bytes stated"
            )));
        }
        data.extend_from_slice(&piece);
    }
    if data.len() < size {
        return Err(Status::aborted(format!(
            "the upload ended after {} of {size} bytes: send it again",
            data.len()
        )));
    }
    Ok(data.freeze())
}

#[tonic::async_trait]
impl Contract for Media {
    type DownloadStream = Pin<Box<dyn Stream<Item = Result<PicturePart, Status>> + Send>>;

    async fn get(&self, request: Request<GetPictureRequest>) -> Result<Response<Picture>, Status> {
        let picture = request.get_ref().picture;
        let stored = self.find(picture).await?;
        let head = Some(stored.head(picture));
        Ok(Response::new(Picture {
            head,
            data: stored.data,
        }))
    }

    async fn download(
        &self,
        request: Request<GetPictureRequest>,
    ) -> Result<Response<Self::DownloadStream>, Status> {
        let picture = request.get_ref().picture;
        let stored = self.find(picture).await?;
        let head = Part::Head(stored.head(picture));
        let pieces = (0..stored.data.len())
            .step_by(PART_BYTES)
            .map(move |start| {
                let end = stored.data.len().min(start + PART_BYTES);
                Part::Data(stored.data.slice(start..end))
            });
        let parts = std::iter::once(head).chain(pieces);
        let parts = parts.map(|part| Ok(PicturePart { part: Some(part) }));
        Ok(Response::new(Box::pin(tokio_stream::iter(parts))))
    }

    async fn upload(
        &self,
        request: Request<Streaming<PicturePart>>,
    ) -> Result<Response<UploadReply>, Status> {
        let mut parts = request.into_inner();
        let (head, data) = timeout(UPLOAD_PATIENCE, self.take_in(&mut parts))
            .await
            .map_err(|_late| Status::aborted("the upload took too long: send it again"))??;
        let stored = Stored {
            content_type: head.content_type,
            data,
        };
        self.pictures
            .replace(head.picture, stored)
            .map_err(|_full| {
                Status::resource_exhausted("no room for another picture: replace uploaded ones")
            })?;
        Ok(Response::new(UploadReply {
            size_bytes: head.size_bytes,
        }))
    }

    async fn previews(
        &self,
        request: Request<PreviewsRequest>,
    ) -> Result<Response<PreviewsReply>, Status> {
        let pictures = &request.get_ref().pictures;
        if pictures.len() > BATCH_MAX {
            return Err(Status::invalid_argument(format!(
                "at most {BATCH_MAX} previews at a time"
            )));
        }
        Ok(Response::new(PreviewsReply {
            previews: self.pictures.previews(pictures),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_stream::StreamExt;
    use tonic::Code;

    fn data(bytes: &'static [u8]) -> Result<PicturePart, Status> {
        Ok(PicturePart {
            part: Some(Part::Data(Bytes::from_static(bytes))),
        })
    }

    #[tokio::test]
    async fn a_download_is_the_picture_in_pieces() -> Result<(), Status> {
        let media = Media::new(3);
        let ask = || Request::new(GetPictureRequest { picture: 3 });
        let whole = media.get(ask()).await?.into_inner();
        let mut parts = media.download(ask()).await?.into_inner();
        let first = parts
            .next()
            .await
            .and_then(Result::ok)
            .and_then(|part| part.part);
        assert_eq!(first, whole.head.map(Part::Head));
        let mut pieces = Vec::new();
        while let Some(part) = parts.next().await {
            let Some(Part::Data(piece)) = part?.part else {
                panic!("a second head")
            };
            assert!(piece.len() <= PART_BYTES);
            pieces.extend_from_slice(&piece);
        }
        assert_eq!(pieces, whole.data);
        Ok(())
    }

    #[tokio::test]
    async fn an_upload_counts_only_when_its_size_is_right() {
        let receive = async |parts: Vec<Result<PicturePart, Status>>| {
            let received = super::receive(&mut tokio_stream::iter(parts), 4).await;
            received.map_err(|status| status.code())
        };
        assert_eq!(
            receive(vec![data(b"ab"), data(b"cd")]).await,
            Ok(Bytes::from_static(b"abcd"))
        );
        assert_eq!(receive(vec![data(b"ab")]).await, Err(Code::Aborted));
        assert_eq!(
            receive(vec![data(b"abcde")]).await,
            Err(Code::InvalidArgument)
        );
        let failed = Err(Status::unavailable("gone"));
        assert_eq!(
            receive(vec![data(b"abcd"), failed]).await,
            Err(Code::Unavailable)
        );
    }

    #[test]
    fn heads_are_checked_before_data_is_taken() {
        let media = Media::new(3);
        let admit = |picture, content_type: &str, size_bytes| {
            let content_type = content_type.to_owned();
            let head = PictureHead {
                picture,
                content_type,
                size_bytes,
            };
            let part = PicturePart {
                part: Some(Part::Head(head)),
            };
            media
                .admit(Some(part))
                .map(|(_, size)| size)
                .map_err(|status| status.code())
        };
        assert_eq!(admit(3, "image/png", 10), Ok(10));
        assert_eq!(admit(4, "image/png", 10), Err(Code::NotFound));
        assert_eq!(admit(3, "text/html", 10), Err(Code::InvalidArgument));
        assert_eq!(admit(3, "image/png", 0), Err(Code::InvalidArgument));
        assert_eq!(admit(3, "image/png", 5_000_000), Err(Code::InvalidArgument));
        assert_eq!(
            media.admit(None).map_err(|status| status.code()),
            Err(Code::InvalidArgument)
        );
    }
}
