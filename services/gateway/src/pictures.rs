//! Pictures: streamed through in both directions, or whole.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use ringway_proto::shop::v1::picture_part::Part;
use ringway_proto::shop::v1::{GetPictureRequest, PictureHead, PicturePart};
use serde::Serialize;
use shop_link::unary;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use crate::error::Problem;
use crate::json::Json;
use crate::products::read_id;
use crate::shop::Shop;

/// `GET /products/ID/picture`: passed on as it arrives.
pub(crate) async fn download(
    State(shop): State<Shop>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let picture = shop.product(read_id(&id)?).await?.picture;
    let mut parts = shop
        .media()
        .download(GetPictureRequest { picture })
        .await?
        .into_inner();
    let Some(Part::Head(head)) = parts.message().await?.and_then(|part| part.part) else {
        return Err(Problem::internal("media sent a picture without its head"));
    };
    let data = parts.map(|part| match part?.part {
        Some(Part::Data(data)) => Ok(data),
        _ => Err(Status::internal("media sent a second head")),
    });
    respond(&head, Body::from_stream(data))
}

/// `GET /pictures/ID`: in one piece.
pub(crate) async fn get(
    State(shop): State<Shop>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let request = GetPictureRequest {
        picture: read_id(&id)?,
    };
    let picture = shop.media().get(unary(request)).await?.into_inner();
    respond(&picture.head.unwrap_or_default(), Body::from(picture.data))
}

fn respond(head: &PictureHead, body: Body) -> Result<Response, Problem> {
    let content_type = HeaderValue::from_str(&head.content_type)
        .map_err(|_| Problem::internal("media sent an impossible content type"))?;
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(head.size_bytes));
    Ok(response)
}

/// The longest that the next piece of an upload may take to come.
const PIECE_PATIENCE: Duration = Duration::from_secs(10);

#[derive(Serialize)]
struct Uploaded {
    size_bytes: u64,
}

/// `PUT /products/ID/picture`: passed on as it arrives; counts once all is there.
pub(crate) async fn upload(
    State(shop): State<Shop>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let size_bytes = size(&headers)?;
    let content_type = text(&headers, &CONTENT_TYPE).unwrap_or_default().to_owned();
    let picture = shop.product(read_id(&id)?).await?.picture;
    let head = Part::Head(PictureHead {
        picture,
        content_type,
        size_bytes,
    });
    let reply = shop.media().upload(parts(head, body)).await?.into_inner();
    Ok(Json(Uploaded {
        size_bytes: reply.size_bytes,
    })
    .into_response())
}

/// A body that breaks off ends the stream early; media compares with the head.
fn parts(head: Part, body: Body) -> impl Stream<Item = PicturePart> + Send + 'static {
    // One that stalls ends early as well.
    let data = body
        .into_data_stream()
        .timeout(PIECE_PATIENCE)
        .map_while(|piece| piece.ok()?.ok().map(Part::Data));
    tokio_stream::once(head)
        .chain(data)
        .map(|part| PicturePart { part: Some(part) })
}

fn size(headers: &HeaderMap) -> Result<u64, Problem> {
    text(headers, &CONTENT_LENGTH)
        .and_then(|length| length.parse().ok())
        .ok_or_else(|| {
            Problem::bad("send the picture's size as content-length")
                .with_status(StatusCode::LENGTH_REQUIRED)
        })
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
