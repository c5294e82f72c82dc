//! What became of the latest orders.

use parking_lot::Mutex;
use ringway_proto::shop::v1::{Line, Order, OrderEvent, OrderStatus};
use shop_link::{Recent, format_order};
use tokio::sync::broadcast;
use tonic::{Code, Status};

/// Orders that are remembered.
const REMEMBERED: usize = 65_536;
/// Changes that a follower may be behind before it is told all anew.
const EVENTS_MAX: usize = 1024;

/// The orders, and who follows them.
#[derive(Debug)]
pub(crate) struct Book {
    orders: Mutex<Recent<Entry>>,
    events: broadcast::Sender<OrderEvent>,
}

#[derive(Debug)]
enum Entry {
    Pending,
    Placed(Order),
    Rejected { code: Code, message: String },
}

impl Entry {
    fn status(&self) -> OrderStatus {
        match self {
            Self::Pending => OrderStatus::Pending,
            Self::Placed(order) => order.status(),
            Self::Rejected { .. } => OrderStatus::Rejected,
        }
    }
}

impl Book {
    pub(crate) fn new() -> Self {
        let (events, _) = broadcast::channel(EVENTS_MAX);
        Self {
            orders: Mutex::new(Recent::new(REMEMBERED)),
            events,
        }
    }

    /// The caller is to place the order if this is `None`; else it was placed
    /// before, with this outcome.
    pub(crate) fn begin(&self, order: u64, lines: &[Line]) -> Option<Result<Order, Status>> {
        let mut orders = self.orders.lock();
        let outcome = match orders.get_mut(order) {
            None => {
                orders.insert(order, Entry::Pending);
                drop(orders);
                self.publish(order, OrderStatus::Pending);
                return None;
            }
            Some(Entry::Placed(placed)) if !same_lines(placed, lines) => {
                Err(Status::already_exists(format!(
                    "order {} has other lines: use a new order id",
                    format_order(order)
                )))
            }
            Some(Entry::Placed(placed)) => Ok(placed.clone()),
            Some(Entry::Pending) => Err(busy(order)),
            Some(Entry::Rejected { code, message }) => Err(Status::new(*code, message.clone())),
        };
        Some(outcome)
    }

    pub(crate) fn confirm(&self, placed: Order) {
        let order = placed.order;
        self.orders.lock().insert(order, Entry::Placed(placed));
        self.publish(order, OrderStatus::Confirmed);
    }

    pub(crate) fn reject(&self, order: u64, reason: &Status) {
        let entry = Entry::Rejected {
            code: reason.code(),
            message: reason.message().to_owned(),
        };
        self.orders.lock().insert(order, entry);
        self.publish(order, OrderStatus::Rejected);
    }

    /// Marks a confirmed order as cancelled.
    pub(crate) fn cancel(&self, order: u64) -> Result<Order, Status> {
        let mut orders = self.orders.lock();
        let Some(Entry::Placed(placed)) = orders.get_mut(order) else {
            return Err(unknown(order));
        };
        placed.set_status(OrderStatus::Cancelled);
        let cancelled = placed.clone();
        drop(orders);
        self.publish(order, OrderStatus::Cancelled);
        Ok(cancelled)
    }

    pub(crate) fn get(&self, order: u64) -> Result<Order, Status> {
        let mut orders = self.orders.lock();
        let entry = orders.get_mut(order).ok_or_else(|| unknown(order))?;
        Ok(match entry {
            Entry::Placed(placed) => placed.clone(),
            other => Order {
                order,
                status: other.status().into(),
                ..Order::default()
            },
        })
    }

    pub(crate) fn status(&self, order: u64) -> Option<OrderStatus> {
        self.orders
            .lock()
            .get_mut(order)
            .map(|entry| entry.status())
    }

    pub(crate) fn events(&self) -> broadcast::Receiver<OrderEvent> {
        self.events.subscribe()
    }

    fn publish(&self, order: u64, status: OrderStatus) {
        // Nobody follows: nobody to tell.
        let _ = self.events.send(OrderEvent {
            order,
            status: status.into(),
        });
    }
}

fn same_lines(placed: &Order, lines: &[Line]) -> bool {
    let known = placed
        .lines
        .iter()
        .map(|line| (line.product, line.quantity));
    known.eq(lines.iter().map(|line| (line.product, line.quantity)))
}

fn unknown(order: u64) -> Status {
    Status::not_found(format!("no order {} is known", format_order(order)))
}

pub(crate) fn busy(order: u64) -> Status {
    Status::aborted(format!(
        "order {} is being placed: ask for it in a moment",
        format_order(order)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_proto::shop::v1::OrderLine;

    fn placed(order: u64) -> Order {
        let line = OrderLine {
            product: 1,
            quantity: 2,
            ..OrderLine::default()
        };
        Order {
            order,
            status: OrderStatus::Confirmed.into(),
            lines: vec![line],
            ..Order::default()
        }
    }

    const LINES: [Line; 1] = [Line {
        product: 1,
        quantity: 2,
    }];

    #[test]
    fn an_order_is_placed_once() {
        let book = Book::new();
        let again = |lines: &[Line]| {
            let outcome = book.begin(1, lines)?;
            Some(
                outcome
                    .map(|order| order.order)
                    .map_err(|status| status.code()),
            )
        };
        assert_eq!(again(&LINES), None);
        assert_eq!(again(&LINES), Some(Err(Code::Aborted)));
        book.confirm(placed(1));
        assert_eq!(again(&LINES), Some(Ok(1)));
        assert_eq!(again(&[]), Some(Err(Code::AlreadyExists)));
    }

    #[test]
    fn a_rejection_is_final_and_keeps_its_reason() {
        let book = Book::new();
        assert!(book.begin(1, &LINES).is_none());
        book.reject(1, &Status::failed_precondition("sold out"));
        let again = book.begin(1, &LINES).and_then(Result::err);
        assert_eq!(
            again.map(|status| status.message().to_owned()).as_deref(),
            Some("sold out")
        );
        assert_eq!(book.status(1), Some(OrderStatus::Rejected));
        assert!(book.cancel(1).is_err());
    }

    #[tokio::test]
    async fn followers_hear_of_every_change() {
        let book = Book::new();
        let mut events = book.events();
        assert!(book.begin(1, &LINES).is_none());
        book.confirm(placed(1));
        assert!(book.cancel(1).is_ok());
        for status in [
            OrderStatus::Pending,
            OrderStatus::Confirmed,
            OrderStatus::Cancelled,
        ] {
            let event = OrderEvent {
                order: 1,
                status: status.into(),
            };
            assert_eq!(events.recv().await, Ok(event));
        }
    }
}
