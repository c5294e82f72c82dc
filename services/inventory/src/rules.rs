//! What may happen to stock, written once for every place that keeps it.
//!
//! A [`Book`] only reads and writes; each rule reads all it needs before it
//! writes anything, so that a refused operation has changed nothing.

use shop_link::format_order;

/// Lines of one order.
pub(crate) const LINES_MAX: usize = 100;
/// Units of one line.
pub(crate) const QUANTITY_MAX: u32 = 10_000;
/// Held stock goes back when nobody commits it for this long.
pub(crate) const HOLD_S: u64 = 15 * 60;
/// How long an order that is through is remembered, so that a repeated call about
/// it is recognised.
pub(crate) const REMEMBER_S: u64 = 24 * 3600;

/// Product and quantity.
pub(crate) type Line = (u32, u32);

/// Where an order's stock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Set aside; expires after [`HOLD_S`].
    Held,
    /// Sold.
    Committed,
    /// Given back, or never taken.
    Released,
}

/// What is known of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reservation {
    pub(crate) state: State,
    /// Seconds of Unix time.
    pub(crate) since_s: u64,
    /// Sorted by product, each product once.
    pub(crate) lines: Vec<Line>,
}

/// Why stock was not moved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// An order without lines, with too many, or with an impossible quantity.
    #[error("an order has 1 to {LINES_MAX} lines of 1 to {QUANTITY_MAX} units: correct the order")]
    BadLines,
    /// Nobody ever stocked this.
    #[error("no product {0} is stocked: see the list of products")]
    UnknownProduct(u32),
    /// Not enough left.
    #[error("only {available} of product {product} are left: order fewer")]
    SoldOut {
        /// Which product.
        product: u32,
        /// How many could be had.
        available: u32,
    },
    /// The same order came before with other lines.
    #[error("order {} has other lines: use a new order id", format_order(*.0))]
    OtherLines(u64),
    /// The order's stock was given back.
    #[error("order {} was released: use a new order id", format_order(*.0))]
    Released(u64),
    /// Nothing was ever reserved for the order.
    #[error("nothing is reserved for order {}: reserve first", format_order(*.0))]
    UnknownOrder(u64),
    /// More than can be counted.
    #[error("product {0} has no room for that many: restock fewer")]
    TooMany(u32),
}

/// Somewhere stock is kept. `E` is what reading and writing can fail of.
pub(crate) trait Book {
    type Error: From<Refusal>;

    fn available(&self, product: u32) -> Result<Option<u32>, Self::Error>;
    fn set_available(&mut self, product: u32, units: u32) -> Result<(), Self::Error>;
    fn reservation(&self, order: u64) -> Result<Option<Reservation>, Self::Error>;
    fn set_reservation(&mut self, order: u64, reservation: Reservation) -> Result<(), Self::Error>;
    fn forget(&mut self, order: u64) -> Result<(), Self::Error>;
    /// Every reservation that is not younger than `since_s`.
    fn since(&self, since_s: u64) -> Result<Vec<(u64, Reservation)>, Self::Error>;
}

/// Sorted, each product once, everything in bounds.
pub(crate) fn normalise(lines: impl IntoIterator<Item = Line>) -> Result<Vec<Line>, Refusal> {
    let mut sorted: Vec<Line> = lines.into_iter().collect();
    let fits = |&(_, quantity): &Line| (1..=QUANTITY_MAX).contains(&quantity);
    if sorted.is_empty() || sorted.len() > LINES_MAX || !sorted.iter().all(fits) {
        return Err(Refusal::BadLines);
    }
    sorted.sort_unstable();
    sorted.dedup_by(|line, kept| {
        let same = line.0 == kept.0;
        // At most LINES_MAX * QUANTITY_MAX: no overflow.
        kept.1 += if same { line.1 } else { 0 };
        same
    });
    Ok(sorted)
}

/// Holds all lines, or none. `lines` comes from [`normalise`].
pub(crate) fn reserve<B: Book>(
    book: &mut B,
    now_s: u64,
    order: u64,
    lines: Vec<Line>,
) -> Result<(), B::Error> {
    if let Some(known) = book.reservation(order)? {
        return match known.state {
            State::Released => Err(Refusal::Released(order).into()),
            _ if known.lines != lines => Err(Refusal::OtherLines(order).into()),
            _ => Ok(()),
        };
    }
    let mut left = Vec::with_capacity(lines.len());
    for &(product, quantity) in &lines {
        let available = book
            .available(product)?
            .ok_or(Refusal::UnknownProduct(product))?;
        let rest = available.checked_sub(quantity);
        left.push((
            product,
            rest.ok_or(Refusal::SoldOut { product, available })?,
        ));
    }
    for (product, units) in left {
        book.set_available(product, units)?;
    }
    book.set_reservation(
        order,
        Reservation {
            state: State::Held,
            since_s: now_s,
            lines,
        },
    )
}

/// Sells what is held.
pub(crate) fn commit<B: Book>(book: &mut B, order: u64) -> Result<(), B::Error> {
    let known = book
        .reservation(order)?
        .ok_or(Refusal::UnknownOrder(order))?;
    match known.state {
        State::Held => book.set_reservation(
            order,
            Reservation {
                state: State::Committed,
                ..known
            },
        ),
        State::Committed => Ok(()),
        State::Released => Err(Refusal::Released(order).into()),
    }
}

/// Gives back what is held or sold.
pub(crate) fn release<B: Book>(book: &mut B, now_s: u64, order: u64) -> Result<(), B::Error> {
    let known = book.reservation(order)?;
    let lines = match known {
        Some(Reservation {
            state: State::Released,
            ..
        }) => return Ok(()),
        Some(known) => known.lines,
        None => Vec::new(),
    };
    give(book, &lines)?;
    let released = Reservation {
        state: State::Released,
        since_s: now_s,
        lines: Vec::new(),
    };
    book.set_reservation(order, released)
}

/// Takes a delivery in, or nothing of it; new products begin with it.
pub(crate) fn restock<B: Book>(book: &mut B, lines: &[Line]) -> Result<(), B::Error> {
    give(book, lines)
}

/// Releases what was held too long, forgets what was over long ago.
pub(crate) fn sweep<B: Book>(book: &mut B, now_s: u64) -> Result<(), B::Error> {
    for (order, known) in book.since(now_s.saturating_sub(HOLD_S))? {
        if known.state == State::Held {
            release(book, now_s, order)?;
        } else if known.since_s <= now_s.saturating_sub(REMEMBER_S) {
            book.forget(order)?;
        }
    }
    Ok(())
}

/// `lines` may name a product more than once.
fn give<B: Book>(book: &mut B, lines: &[Line]) -> Result<(), B::Error> {
    let mut more = std::collections::BTreeMap::new();
    for &(product, quantity) in lines {
        let units = match more.get(&product) {
            Some(&units) => units,
            None => book.available(product)?.unwrap_or(0),
        };
        let units: u32 = units;
        more.insert(
            product,
            units
                .checked_add(quantity)
                .ok_or(Refusal::TooMany(product))?,
        );
    }
    for (product, units) in more {
        book.set_available(product, units)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_one_product_add_up() {
        assert_eq!(
            normalise([(2, 3), (1, 1), (2, 4)]),
            Ok(vec![(1, 1), (2, 7)])
        );
    }

    #[test]
    fn impossible_lines_are_refused() {
        let many = (0..101).map(|product| (product, 1));
        assert_eq!(normalise([]), Err(Refusal::BadLines));
        assert_eq!(normalise([(1, 0)]), Err(Refusal::BadLines));
        assert_eq!(normalise([(1, QUANTITY_MAX + 1)]), Err(Refusal::BadLines));
        assert_eq!(normalise(many), Err(Refusal::BadLines));
    }
}
