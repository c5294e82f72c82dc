//! Placing an order: a saga over four services.
//!
//! | step | calls, at the same time |
//! | --- | --- |
//! | what does it cost, is it there | `catalog.Get`, `inventory.Reserve` |
//! | can it be paid, what to show | `payments.Authorize`, `media.Previews` |
//! | it is certain | `inventory.Commit`, `payments.Capture` |
//!
//! With the caller's own that makes seven calls. A step that fails, and a caller
//! that goes away in the middle, give back what the steps before took. The calls
//! that give back can be repeated and may overtake those that they undo.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ringway_proto::shop::v1::{
    Hop, Line, Order, OrderLine, OrderStatus, PlaceOrderRequest, Product,
};
use shop_link::{OrderIds, SameTrace, format_order};
use tonic::Status;

use crate::book::Book;
use crate::services::Services;

/// Lines of one order: what `catalog` and `media` take in one call.
const LINES_MAX: usize = 100;
/// Units of one line, as `inventory` has it.
const QUANTITY_MAX: u32 = 10_000;
/// How often giving back is tried, the pause doubling from [`UNDO_PAUSE`].
const UNDO_TRIES: u32 = 8;
const UNDO_PAUSE: Duration = Duration::from_millis(100);
/// How long a rejected caller waits to hear that everything was given back.
const UNDO_PATIENCE: Duration = Duration::from_secs(1);

/// What placing orders needs.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) services: Services,
    pub(crate) book: Book,
    ids: OrderIds,
}

impl Desk {
    pub(crate) fn new(services: Services) -> Self {
        Self {
            services,
            book: Book::new(),
            ids: OrderIds::new(),
        }
    }

    pub(crate) async fn place(
        self: &Arc<Self>,
        request: PlaceOrderRequest,
    ) -> Result<Order, Status> {
        check(&request.lines)?;
        let order = if request.order == 0 {
            self.ids.next()
        } else {
            request.order
        };
        if let Some(outcome) = self.book.begin(order, &request.lines) {
            return outcome;
        }
        let report_hops = request.report_hops;
        let undo = Undo {
            desk: Some(Arc::clone(self)),
            order,
            trace: SameTrace::here(),
        };
        match self.attempt(order, request).await {
            Ok((mut placed, hops)) => {
                undo.keep();
                self.book.confirm(placed.clone());
                if report_hops {
                    placed.hops.extend(hops);
                }
                Ok(placed)
            }
            Err(status) => {
                undo.run().await;
                self.book.reject(order, &status);
                Err(status)
            }
        }
    }

    async fn attempt(
        &self,
        order: u64,
        request: PlaceOrderRequest,
    ) -> Result<(Order, impl Iterator<Item = Hop> + use<>), Status> {
        let PlaceOrderRequest { lines, card, .. } = request;
        let ids = lines.iter().map(|line| line.product).collect();
        let (products, reserved) = tokio::join!(
            self.services.products(ids),
            self.services.reserve(order, lines.clone()),
        );
        let ((products, priced), ((), reserved)) = (products?, reserved?);
        if products.len() != lines.len() {
            return Err(Status::internal("catalog answered for other products"));
        }

        let pictures = products.iter().map(|product| product.picture).collect();
        let mut placed = total(order, &lines, products);
        let (authorized, previews) = tokio::join!(
            self.services.authorize(order, placed.total_cents, card),
            self.services.previews(pictures),
        );
        let ((), authorized) = authorized?;
        let previewed = illustrate(&mut placed, previews);

        let (committed, captured) =
            tokio::join!(self.services.commit(order), self.services.capture(order));
        let (((), committed), ((), captured)) = (committed?, captured?);
        let hops = [priced, reserved, authorized].into_iter().chain(previewed);
        Ok((placed, hops.chain([committed, captured])))
    }
}

fn check(lines: &[Line]) -> Result<(), Status> {
    let fits = |line: &Line| (1..=QUANTITY_MAX).contains(&line.quantity);
    if lines.is_empty() || lines.len() > LINES_MAX || !lines.iter().all(fits) {
        return Err(Status::invalid_argument(format!(
            "an order has 1 to {LINES_MAX} lines of 1 to {QUANTITY_MAX} units: correct the order"
        )));
    }
    Ok(())
}

/// The order as it will be confirmed, without previews.
fn total(order: u64, lines: &[Line], products: Vec<Product>) -> Order {
    // At most LINES_MAX * QUANTITY_MAX * 2^32: no overflow.
    let times = |line: &Line, each: u32| u64::from(line.quantity) * u64::from(each);
    let both = || lines.iter().zip(&products);
    let total_cents = both()
        .map(|(line, product)| times(line, product.price_cents))
        .sum();
    let weight_grams = both()
        .map(|(line, product)| times(line, product.weight_grams))
        .sum();
    let line = |(line, product): (&Line, Product)| OrderLine {
        product: line.product,
        quantity: line.quantity,
        name: product.name,
        price_cents: product.price_cents,
        preview: Bytes::new(),
    };
    Order {
        order,
        status: OrderStatus::Confirmed.into(),
        total_cents,
        weight_grams,
        lines: lines.iter().zip(products).map(line).collect(),
        hops: Vec::new(),
    }
}

/// An order goes through without pictures, too.
fn illustrate(placed: &mut Order, previews: Result<(Vec<Bytes>, Hop), Status>) -> Option<Hop> {
    let (previews, hop) = previews.ok()?;
    for (line, preview) in placed.lines.iter_mut().zip(previews) {
        line.preview = preview;
    }
    Some(hop)
}

/// Gives back what an order took, unless it is told to keep it; also when the
/// caller has gone and the future that places the order is dropped.
struct Undo {
    desk: Option<Arc<Desk>>,
    order: u64,
    trace: SameTrace,
}

impl Undo {
    fn keep(mut self) {
        self.desk = None;
    }

    async fn run(mut self) {
        if let Some(desk) = self.desk.take() {
            let undone = tokio::spawn(self.trace.scope(undo(desk, self.order)));
            let _ = tokio::time::timeout(UNDO_PATIENCE, undone).await;
        }
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if let Some(desk) = self.desk.take() {
            let order = self.order;
            tokio::spawn(self.trace.scope(async move {
                undo(Arc::clone(&desk), order).await;
                desk.book.reject(
                    order,
                    &Status::cancelled("the caller went away: order again"),
                );
            }));
        }
    }
}

async fn undo(desk: Arc<Desk>, order: u64) {
    let mut pause = UNDO_PAUSE;
    for _ in 0..UNDO_TRIES {
        let Err(status) = desk.services.give_back(order).await else {
            return;
        };
        tracing::warn!(
            "order {} is not given back yet: {status}",
            format_order(order)
        );
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    tracing::error!(
        "order {} was never given back: do it by hand",
        format_order(order)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_count_every_unit() {
        let lines = [
            Line {
                product: 1,
                quantity: 2,
            },
            Line {
                product: 2,
                quantity: 1,
            },
        ];
        let product = |price_cents, weight_grams| Product {
            price_cents,
            weight_grams,
            ..Product::default()
        };
        let order = total(1, &lines, vec![product(100, 10), product(u32::MAX, 1)]);
        assert_eq!(order.total_cents, 200 + u64::from(u32::MAX));
        assert_eq!(order.weight_grams, 21);
    }

    #[test]
    fn impossible_orders_are_refused_before_anybody_is_called() {
        let line = |quantity| Line {
            product: 1,
            quantity,
        };
        assert!(check(&[]).is_err());
        assert!(check(&[line(0)]).is_err());
        assert!(check(&[line(QUANTITY_MAX + 1)]).is_err());
        assert!(check(&vec![line(1); LINES_MAX + 1]).is_err());
        assert!(check(&vec![line(1); LINES_MAX]).is_ok());
    }
}
