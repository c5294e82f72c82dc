//! Following orders: a subscription each way.

use std::collections::HashSet;
use std::sync::Arc;

use ringway_proto::shop::v1::{OrderEvent, TrackRequest};
use tokio::sync::broadcast::error::RecvError;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use crate::place::Desk;

/// Orders that one caller follows.
const SUBSCRIPTIONS_MAX: usize = 1000;

enum Next {
    Request(Option<Result<TrackRequest, Status>>),
    Event(Result<OrderEvent, RecvError>),
}

/// The status of each order subscribed to, at once and whenever it changes;
/// ends when the caller follows none and can't ask for more.
pub(crate) fn follow(
    desk: Arc<Desk>,
    mut requests: impl Stream<Item = Result<TrackRequest, Status>> + Send + Unpin + 'static,
) -> impl Stream<Item = Result<OrderEvent, Status>> + Send {
    // Before any status is looked up, so that no change falls in between.
    let mut events = desk.book.events();
    let mut followed = HashSet::new();
    let mut asking = true;
    async_stream::try_stream! {
        while asking || !followed.is_empty() {
            let next = tokio::select! {
                request = requests.next(), if asking => Next::Request(request),
                event = events.recv() => Next::Event(event),
            };
            match next {
                Next::Request(None) => asking = false,
                Next::Request(Some(request)) => {
                    let TrackRequest { order, unsubscribe } = request?;
                    if unsubscribe {
                        followed.remove(&order);
                        continue;
                    }
                    admit(&mut followed, order)?;
                    if let Some(event) = current(&desk, order) {
                        yield event;
                    }
                }
                Next::Event(Ok(event)) if followed.contains(&event.order) => yield event,
                Next::Event(Ok(_)) => {}
                Next::Event(Err(RecvError::Lagged(_))) => {
                    for &order in &followed {
                        if let Some(event) = current(&desk, order) {
                            yield event;
                        }
                    }
                }
                Next::Event(Err(RecvError::Closed)) => break,
            }
        }
    }
}

fn admit(followed: &mut HashSet<u64>, order: u64) -> Result<(), Status> {
    if followed.len() == SUBSCRIPTIONS_MAX && !followed.contains(&order) {
        return Err(Status::resource_exhausted(format!(
            "at most {SUBSCRIPTIONS_MAX} orders can be followed at once: unsubscribe from some"
        )));
    }
    followed.insert(order);
    Ok(())
}

fn current(desk: &Desk, order: u64) -> Option<OrderEvent> {
    let status = desk.book.status(order)?;
    Some(OrderEvent {
        order,
        status: status.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Args;
    use crate::services::Services;
    use clap::Parser;
    use ringway_proto::shop::v1::{Order, OrderStatus};
    use std::pin::pin;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;

    fn desk() -> Arc<Desk> {
        let services = Services::connect_lazy(&Args::parse_from(["orders"]));
        Arc::new(Desk::new(
            services.unwrap_or_else(|error| panic!("{error}")),
        ))
    }

    fn confirmed(order: u64) -> Order {
        Order {
            order,
            status: OrderStatus::Confirmed.into(),
            ..Order::default()
        }
    }

    fn event(order: u64, status: OrderStatus) -> OrderEvent {
        OrderEvent {
            order,
            status: status.into(),
        }
    }

    #[tokio::test]
    async fn only_what_was_subscribed_to_is_heard_of()
    -> Result<(), mpsc::error::SendError<Result<TrackRequest, Status>>> {
        let desk = desk();
        desk.book.confirm(confirmed(1));
        let (ask, asked) = mpsc::channel(4);
        let mut heard = pin!(follow(Arc::clone(&desk), ReceiverStream::new(asked)));
        let mut hear = async || heard.next().await.and_then(Result::ok);

        ask.send(Ok(TrackRequest {
            order: 1,
            unsubscribe: false,
        }))
        .await?;
        assert_eq!(hear().await, Some(event(1, OrderStatus::Confirmed)));
        desk.book.confirm(confirmed(2));
        assert!(desk.book.cancel(1).is_ok());
        assert_eq!(hear().await, Some(event(1, OrderStatus::Cancelled)));

        ask.send(Ok(TrackRequest {
            order: 1,
            unsubscribe: true,
        }))
        .await?;
        drop(ask);
        assert_eq!(hear().await, None);
        Ok(())
    }

    #[tokio::test]
    async fn an_order_can_be_followed_before_it_is_placed_and_by_nobody_in_excess() {
        let mut followed: HashSet<u64> = (1..=1000).collect();
        assert!(admit(&mut followed, 5).is_ok());
        assert!(admit(&mut followed, 1001).is_err());
        assert_eq!(current(&desk(), 5), None);
    }
}
