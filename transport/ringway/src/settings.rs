//! Settings that come as a whole and one by one, in whatever order.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

type Setting<T> = Arc<dyn Fn(&mut T) + Send + Sync>;

/// A whole of settings, with those on top that were asked for one by one: they hold whether the whole
/// comes before them or after. Of two for one thing the later holds.
#[derive(Clone)]
pub(crate) struct Settings<T> {
    settled: T,
    asked: Vec<Setting<T>>,
}

impl<T> Settings<T> {
    /// Replaces the whole.
    pub(crate) fn replace(&mut self, whole: T) {
        self.settled = whole;
        for setting in &self.asked {
            setting(&mut self.settled);
        }
    }

    /// What holds now.
    pub(crate) fn clone_settled(&self) -> T
    where
        T: Clone,
    {
        self.settled.clone()
    }

    /// Asks for one thing.
    pub(crate) fn ask(&mut self, setting: impl Fn(&mut T) + Send + Sync + 'static) {
        setting(&mut self.settled);
        self.asked.push(Arc::new(setting));
    }
}

impl<T> From<T> for Settings<T> {
    fn from(whole: T) -> Self {
        Self {
            settled: whole,
            asked: Vec::new(),
        }
    }
}

impl<T> Deref for Settings<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.settled
    }
}

impl<T: fmt::Debug> fmt::Debug for Settings<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settled.fmt(formatter)
    }
}

/// Applies setters in every order there is, and hands each outcome over.
#[cfg(all(test, feature = "_tls-any"))]
pub(crate) fn in_every_order<T>(
    setters: &[fn(T) -> T],
    fresh: impl Fn() -> T + Copy,
    check: &mut impl FnMut(T, &[usize]),
) {
    fn go_on<T>(
        setters: &[fn(T) -> T],
        fresh: impl Fn() -> T + Copy,
        order: &mut Vec<usize>,
        check: &mut impl FnMut(T, &[usize]),
    ) {
        if order.len() == setters.len() {
            let set = order
                .iter()
                .fold(fresh(), |set, index| setters[*index](set));
            return check(set, order);
        }
        for index in 0..setters.len() {
            if !order.contains(&index) {
                order.push(index);
                go_on(setters, fresh, order, check);
                order.pop();
            }
        }
    }
    go_on(setters, fresh, &mut Vec::new(), check);
}
