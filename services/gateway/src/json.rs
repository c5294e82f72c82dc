//! The shapes that the edge reads and writes.

use std::fmt;
use std::time::Duration;

use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ringway_proto::shop::v1::{
    Call, Hop, Line, Order, OrderLine, OrderStatus, PlaceOrderRequest, Product,
};
use serde::{Deserialize, Serialize, Serializer};
use shop_link::path_name;
use tokio::time::timeout;

use crate::error::Problem;

/// The longest that a body of JSON may take to come: it is 1 MiB at most.
const BODY_PATIENCE: Duration = Duration::from_secs(10);

/// A body of JSON.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => {
                let mut response = Response::new(body.into());
                let json = HeaderValue::from_static("application/json");
                response.headers_mut().insert(CONTENT_TYPE, json);
                response
            }
            Err(_) => Problem::internal("the answer can't be written as JSON").into_response(),
        }
    }
}

/// A body within the limit, whose refusal is JSON as well.
pub(crate) struct Raw(pub(crate) Bytes);

impl<S: Send + Sync> FromRequest<S> for Raw {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let body = timeout(BODY_PATIENCE, Bytes::from_request(request, state)).await;
        let body = body.map_err(|_late| {
            Problem::bad("the body did not come in time: send it again")
                .with_status(StatusCode::REQUEST_TIMEOUT)
        })?;
        body.map(Self).map_err(|rejection| {
            Problem::bad(rejection.body_text()).with_status(rejection.status())
        })
    }
}

/// Reads a body, saying what is wrong with one that can't be read.
pub(crate) fn read<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, Problem> {
    serde_json::from_slice(body)
        .map_err(|error| Problem::bad(format!("the body is not the JSON expected: {error}")))
}

/// A product and how many of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LineJson {
    product: u32,
    quantity: u32,
}

impl From<LineJson> for Line {
    fn from(LineJson { product, quantity }: LineJson) -> Self {
        Self { product, quantity }
    }
}

/// The body of `POST /orders`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlaceJson<'a> {
    /// 16 hexadecimal digits of the caller's own; chosen by the shop if absent.
    #[serde(default, borrow)]
    order: Option<&'a str>,
    lines: Vec<LineJson>,
    card: String,
    #[serde(default)]
    report_hops: bool,
}

impl TryFrom<PlaceJson<'_>> for PlaceOrderRequest {
    type Error = Problem;

    fn try_from(json: PlaceJson<'_>) -> Result<Self, Problem> {
        let order = json.order.map_or(Ok(0), read_order)?;
        let lines = json.lines.into_iter().map(Line::from).collect();
        Ok(Self {
            order,
            lines,
            card: json.card,
            report_hops: json.report_hops,
        })
    }
}

/// An order's id out of a path or a body.
pub(crate) fn read_order(text: &str) -> Result<u64, Problem> {
    shop_link::parse_order(text).ok_or(Problem::bad(
        "an order's id has 16 hexadecimal digits, not all 0",
    ))
}

#[derive(Serialize)]
pub(crate) struct OrderJson<'a> {
    #[serde(serialize_with = "as_text")]
    order: OrderId,
    status: &'static str,
    total_cents: u64,
    weight_grams: u64,
    #[serde(serialize_with = "each_line")]
    lines: &'a [OrderLine],
    #[serde(serialize_with = "each_hop", skip_serializing_if = "<[Hop]>::is_empty")]
    hops: &'a [Hop],
}

impl<'a> From<&'a Order> for OrderJson<'a> {
    fn from(order: &'a Order) -> Self {
        Self {
            order: OrderId(order.order),
            status: status_name(order.status()),
            total_cents: order.total_cents,
            weight_grams: order.weight_grams,
            lines: &order.lines,
            hops: &order.hops,
        }
    }
}

#[derive(Serialize)]
struct OrderLineJson<'a> {
    product: u32,
    quantity: u32,
    name: &'a str,
    price_cents: u32,
    #[serde(serialize_with = "as_text", skip_serializing_if = "DataUri::is_empty")]
    preview: DataUri<'a>,
}

#[derive(Serialize)]
struct HopJson {
    service: &'static str,
    method: &'static str,
    path: &'static str,
    nanoseconds: u64,
}

/// One product of a list.
#[derive(Serialize)]
pub(crate) struct ProductJson<'a> {
    id: u32,
    sku: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    price_cents: u32,
    weight_grams: u32,
    #[serde(serialize_with = "as_text")]
    picture: PictureUrl,
    /// Only for a product that was asked for by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    available: Option<u32>,
}

impl<'a> ProductJson<'a> {
    pub(crate) fn new(product: &'a Product, available: Option<u32>) -> Self {
        Self {
            id: product.id,
            sku: &product.sku,
            name: &product.name,
            description: &product.description,
            price_cents: product.price_cents,
            weight_grams: product.weight_grams,
            picture: PictureUrl(product.id),
            available,
        }
    }
}

/// Status as users read it.
pub(crate) fn status_name(status: OrderStatus) -> &'static str {
    match status {
        OrderStatus::Unspecified => "unknown",
        OrderStatus::Pending => "pending",
        OrderStatus::Confirmed => "confirmed",
        OrderStatus::Rejected => "rejected",
        OrderStatus::Cancelled => "cancelled",
    }
}

/// Service and method.
fn call_names(call: Call) -> (&'static str, &'static str) {
    match call {
        Call::Unspecified => ("unknown", "unknown"),
        Call::OrdersPlace => ("orders", "Place"),
        Call::CatalogGet => ("catalog", "Get"),
        Call::InventoryReserve => ("inventory", "Reserve"),
        Call::InventoryCommit => ("inventory", "Commit"),
        Call::PaymentsAuthorize => ("payments", "Authorize"),
        Call::PaymentsCapture => ("payments", "Capture"),
        Call::MediaPreviews => ("media", "Previews"),
    }
}

struct OrderId(u64);

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

struct PictureUrl(u32);

impl fmt::Display for PictureUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/products/{}/picture", self.0)
    }
}

struct DataUri<'a>(&'a [u8]);

impl DataUri<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for DataUri<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "data:image/png;base64,{}",
            Base64Display::new(self.0, &STANDARD)
        )
    }
}

fn as_text<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn each_line<S: Serializer>(lines: &[OrderLine], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(lines.iter().map(|line| OrderLineJson {
        product: line.product,
        quantity: line.quantity,
        name: &line.name,
        price_cents: line.price_cents,
        preview: DataUri(&line.preview),
    }))
}

fn each_hop<S: Serializer>(hops: &[Hop], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(hops.iter().map(|hop| {
        let (service, method) = call_names(hop.call());
        HopJson {
            service,
            method,
            path: path_name(hop.path()),
            nanoseconds: hop.nanoseconds,
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_proto::shop::v1::Path;

    #[test]
    fn an_order_reads_well() -> Result<(), serde_json::Error> {
        let line = OrderLine {
            product: 7,
            quantity: 2,
            name: "Little Lamp".into(),
            price_cents: 999,
            preview: Bytes::from_static(b"png"),
        };
        let hop = Hop {
            call: Call::CatalogGet.into(),
            path: Path::GrpcTcp.into(),
            nanoseconds: 1500,
        };
        let order = Order {
            order: 255,
            status: OrderStatus::Confirmed.into(),
            total_cents: 1998,
            weight_grams: 10,
            lines: vec![line],
            hops: vec![hop],
        };
        assert_eq!(
            serde_json::to_string(&OrderJson::from(&order))?,
            concat!(
                r#"{"order":"00000000000000ff","status":"confirmed","total_cents":1998,"#,
                r#""weight_grams":10,"lines":[{"product":7,"quantity":2,"name":"Little Lamp","#,
                r#""price_cents":999,"preview":"data:image/png;base64,cG5n"}],"#,
                r#""hops":[{"service":"catalog","method":"Get","path":"grpc-tcp","nanoseconds":1500}]}"#
            )
        );
        Ok(())
    }

    #[test]
    fn a_body_that_is_wrong_is_explained() {
        for body in [
            "",
            "{}",
            r#"{"lines":[],"card":"x","color":1}"#,
            r#"{"lines":[{}],"card":""}"#,
        ] {
            assert!(read::<PlaceJson<'_>>(body.as_bytes()).is_err(), "{body}");
        }
        let order = r#"{"order":"12","lines":[],"card":"x"}"#;
        let read = read::<PlaceJson<'_>>(order.as_bytes()).and_then(PlaceOrderRequest::try_from);
        assert!(read.is_err());
    }
}
