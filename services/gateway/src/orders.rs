//! `/orders`: placed, asked for, cancelled, followed.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use ringway_proto::shop::v1::{
    Call, CancelOrderRequest, GetOrderRequest, Hop, Order, OrderEvent, OrderStatus,
    PlaceOrderRequest, TrackRequest,
};
use shop_link::unary;
use tokio_stream::StreamExt;
use tonic::{Status, Streaming};

use crate::error::Problem;
use crate::json::{Json, OrderJson, PlaceJson, Raw, read, read_order, status_name};
use crate::shop::Shop;

/// The longest that one request follows an order.
const FOLLOWED_MAX: Duration = Duration::from_secs(600);

/// An order as the answer's body.
pub(crate) struct Answer(Order);

impl axum::response::IntoResponse for Answer {
    fn into_response(self) -> axum::response::Response {
        Json(OrderJson::from(&self.0)).into_response()
    }
}

pub(crate) async fn place(State(shop): State<Shop>, Raw(body): Raw) -> Result<Answer, Problem> {
    let request = PlaceOrderRequest::try_from(read::<PlaceJson<'_>>(&body)?)?;
    let report_hops = request.report_hops;
    let timed = shop
        .orders_peer
        .timed(shop.orders().place(unary(request)))
        .await?;
    let mut order = timed.reply;
    if report_hops {
        let (path, nanoseconds) = (timed.path.into(), timed.nanoseconds);
        order.hops.push(Hop {
            call: Call::OrdersPlace.into(),
            path,
            nanoseconds,
        });
    }
    Ok(Answer(order))
}

pub(crate) async fn get(
    State(shop): State<Shop>,
    Path(order): Path<String>,
) -> Result<Answer, Problem> {
    let order = read_order(&order)?;
    Ok(Answer(
        shop.orders()
            .get(unary(GetOrderRequest { order }))
            .await?
            .into_inner(),
    ))
}

pub(crate) async fn cancel(
    State(shop): State<Shop>,
    Path(order): Path<String>,
) -> Result<Answer, Problem> {
    let order = read_order(&order)?;
    Ok(Answer(
        shop.orders()
            .cancel(unary(CancelOrderRequest { order }))
            .await?
            .into_inner(),
    ))
}

/// The order's status as server-sent events, until it can't change any more.
pub(crate) async fn events(
    State(shop): State<Shop>,
    Path(order): Path<String>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let order = read_order(&order)?;
    let subscribe = tokio_stream::once(TrackRequest {
        order,
        unsubscribe: false,
    });
    // The request's stream stays open: its end would end the subscription's other half.
    let requests = subscribe.chain(tokio_stream::pending());
    let events = shop.orders().track(requests).await?.into_inner();
    Ok(Sse::new(until_final(events)).keep_alive(KeepAlive::default()))
}

/// Follows an order until it can't change any more, or for [`FOLLOWED_MAX`]: browsers come back by themselves.
fn until_final(mut events: Streaming<OrderEvent>) -> impl Stream<Item = Result<Event, Infallible>> {
    let end = tokio::time::Instant::now() + FOLLOWED_MAX;
    async_stream::stream! {
        while let Ok(Some(event)) = tokio::time::timeout_at(end, events.next()).await {
            let last = event.as_ref().map_or(true, is_final);
            yield Ok(as_sse(event));
            if last {
                break;
            }
        }
    }
}

fn is_final(event: &OrderEvent) -> bool {
    matches!(
        event.status(),
        OrderStatus::Rejected | OrderStatus::Cancelled
    )
}

fn as_sse(event: Result<OrderEvent, Status>) -> Event {
    match event {
        Ok(event) => Event::default()
            .event("status")
            .data(status_name(event.status())),
        Err(status) => Event::default()
            .event("error")
            .data(Problem::from(status).message()),
    }
}
