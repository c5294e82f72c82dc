//! The same rules, over memory and over disk.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::rules::{HOLD_S, REMEMBER_S};

/// Each kind of ledger, with what keeps its files alive.
fn ledgers() -> Vec<(Arc<Ledger>, Option<TempDir>)> {
    let directory = TempDir::new().unwrap();
    let (disk, new) = Ledger::on_disk(directory.path()).unwrap();
    assert!(new);
    vec![
        (Arc::new(Ledger::in_memory()), None),
        (Arc::new(disk), Some(directory)),
    ]
}

fn reserve(order: u64, lines: &[Line]) -> Action {
    Action::Reserve {
        order,
        lines: rules::normalise(lines.to_vec()).unwrap(),
    }
}

fn restock(lines: &[Line]) -> Action {
    Action::Restock {
        lines: lines.to_vec(),
    }
}

fn left(ledger: &Ledger, product: u32) -> u32 {
    ledger.levels(&[product]).unwrap()[0].unwrap()
}

#[tokio::test]
async fn all_lines_are_held_or_none() {
    for (ledger, _files) in ledgers() {
        ledger.apply(restock(&[(1, 5), (2, 1)])).await.unwrap();
        let refused = ledger.apply(reserve(1, &[(1, 3), (2, 2)])).await;
        assert_eq!(
            refused,
            Err(Refusal::SoldOut {
                product: 2,
                available: 1
            }
            .into())
        );
        assert_eq!((left(&ledger, 1), left(&ledger, 2)), (5, 1));
        ledger.apply(reserve(1, &[(1, 3), (2, 1)])).await.unwrap();
        assert_eq!((left(&ledger, 1), left(&ledger, 2)), (2, 0));
    }
}

#[tokio::test]
async fn every_call_may_come_twice() {
    for (ledger, _files) in ledgers() {
        ledger.apply(restock(&[(1, 10)])).await.unwrap();
        for action in [reserve(1, &[(1, 4)]), Action::Commit { order: 1 }] {
            for _ in 0..2 {
                ledger.apply(action.clone()).await.unwrap();
                assert_eq!(left(&ledger, 1), 6);
            }
        }
        ledger.apply(reserve(1, &[(1, 4)])).await.unwrap();
        assert_eq!(
            ledger.apply(reserve(1, &[(1, 5)])).await,
            Err(Refusal::OtherLines(1).into())
        );
        for _ in 0..2 {
            ledger.apply(Action::Release { order: 1 }).await.unwrap();
            assert_eq!(left(&ledger, 1), 10);
        }
        assert_eq!(
            ledger.apply(reserve(1, &[(1, 4)])).await,
            Err(Refusal::Released(1).into())
        );
    }
}

#[tokio::test]
async fn a_release_that_overtakes_its_reservation_wins() {
    for (ledger, _files) in ledgers() {
        ledger.apply(restock(&[(1, 10)])).await.unwrap();
        ledger.apply(Action::Release { order: 1 }).await.unwrap();
        assert_eq!(
            ledger.apply(reserve(1, &[(1, 4)])).await,
            Err(Refusal::Released(1).into())
        );
        let commit = ledger.apply(Action::Commit { order: 2 }).await;
        assert_eq!(commit, Err(Refusal::UnknownOrder(2).into()));
        assert_eq!(left(&ledger, 1), 10);
    }
}

#[tokio::test]
async fn a_hold_expires_and_a_sale_does_not() {
    for (ledger, _files) in ledgers() {
        ledger.apply_at(0, restock(&[(1, 10)])).await.unwrap();
        ledger.apply_at(0, reserve(1, &[(1, 4)])).await.unwrap();
        ledger.apply_at(0, reserve(2, &[(1, 5)])).await.unwrap();
        ledger
            .apply_at(0, Action::Commit { order: 2 })
            .await
            .unwrap();
        ledger
            .apply_at(HOLD_S - 1, reserve(3, &[(1, 1)]))
            .await
            .unwrap();
        ledger.apply_at(HOLD_S, Action::Sweep).await.unwrap();
        assert_eq!(left(&ledger, 1), 4);
        let late = ledger.apply_at(HOLD_S, Action::Commit { order: 1 }).await;
        assert_eq!(late, Err(Refusal::Released(1).into()));
        ledger.apply_at(REMEMBER_S, Action::Sweep).await.unwrap();
        let forgotten = ledger.apply(Action::Commit { order: 2 }).await;
        assert_eq!(forgotten, Err(Refusal::UnknownOrder(2).into()));
    }
}

#[tokio::test]
async fn a_delivery_that_does_not_fit_changes_nothing() {
    for (ledger, _files) in ledgers() {
        ledger.apply(restock(&[(1, u32::MAX - 1)])).await.unwrap();
        let refused = ledger.apply(restock(&[(2, 1), (1, 1), (1, 1)])).await;
        assert_eq!(refused, Err(Refusal::TooMany(1).into()));
        assert_eq!(ledger.levels(&[1, 2]).unwrap(), [Some(u32::MAX - 1), None]);
    }
}

#[tokio::test]
async fn what_was_answered_survives_a_restart() {
    let directory = TempDir::new().unwrap();
    let (ledger, _new) = Ledger::on_disk(directory.path()).unwrap();
    ledger.apply(restock(&[(1, 10)])).await.unwrap();
    ledger.apply(reserve(1, &[(1, 4)])).await.unwrap();
    ledger.apply(Action::Commit { order: 1 }).await.unwrap();
    drop(ledger);
    let (ledger, new) = Ledger::on_disk(directory.path()).unwrap();
    assert!(!new);
    assert_eq!(left(&ledger, 1), 6);
    ledger.apply(Action::Release { order: 1 }).await.unwrap();
    assert_eq!(left(&ledger, 1), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_oversold_however_many_order_at_once() {
    const STOCK: u32 = 500;
    for (ledger, _files) in ledgers() {
        ledger
            .apply(restock(&[(1, STOCK), (2, STOCK)]))
            .await
            .unwrap();
        let buyers: Vec<_> = (1..=400_u32)
            .map(|buyer| {
                let ledger = Arc::clone(&ledger);
                tokio::spawn(async move {
                    let lines = [(1, 1 + buyer % 3), (2, 1 + buyer % 2)];
                    let order = u64::from(buyer);
                    let held = ledger.apply(reserve(order, &lines)).await.is_ok();
                    if held && buyer % 5 == 0 {
                        ledger.apply(Action::Release { order }).await.unwrap();
                        return (0, 0);
                    }
                    if held {
                        (lines[0].1, lines[1].1)
                    } else {
                        (0, 0)
                    }
                })
            })
            .collect();
        let mut sold = (0, 0);
        for buyer in buyers {
            let (first, second) = buyer.await.unwrap();
            sold = (sold.0 + first, sold.1 + second);
        }
        assert_eq!(left(&ledger, 1) + sold.0, STOCK);
        assert_eq!(left(&ledger, 2) + sold.1, STOCK);
        assert!(sold.1 > 0);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Reserve(u64, Vec<Line>),
    Commit(u64),
    Release(u64),
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    let lines = proptest::collection::vec((1..4_u32, 1..6_u32), 1..4);
    prop_oneof![
        4 => (1..8_u64, lines).prop_map(|(order, lines)| Step::Reserve(order, lines)),
        2 => (1..8_u64).prop_map(Step::Commit),
        2 => (1..8_u64).prop_map(Step::Release),
        1 => Just(Step::Sweep),
    ]
}

/// What is out of the shelves, by order, kept the simplest way possible.
fn follow(taken: &mut HashMap<u64, Vec<Line>>, step: &Step, accepted: bool) {
    match step {
        Step::Reserve(order, lines) if accepted => {
            taken.insert(*order, rules::normalise(lines.clone()).unwrap());
        }
        Step::Release(order) => {
            taken.remove(order);
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Stock is conserved, and memory and disk answer alike.
    #[test]
    fn stock_is_neither_lost_nor_made(steps in proptest::collection::vec(step(), 1..40)) {
        const STOCK: u32 = 20;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let ledgers = ledgers();
        let apply = |ledger: &Ledger, action| runtime.block_on(ledger.apply_at(1, action));
        for (ledger, _files) in &ledgers {
            apply(ledger, restock(&[(1, STOCK), (2, STOCK), (3, STOCK)])).unwrap();
        }
        let mut taken = HashMap::new();
        for step in steps {
            let action = match &step {
                Step::Reserve(order, lines) => reserve(*order, lines),
                Step::Commit(order) => Action::Commit { order: *order },
                Step::Release(order) => Action::Release { order: *order },
                Step::Sweep => Action::Sweep,
            };
            let memory = apply(&ledgers[0].0, action.clone());
            prop_assert_eq!(&apply(&ledgers[1].0, action), &memory);
            follow(&mut taken, &step, memory.is_ok());
            for product in 1..=3 {
                let out: u32 = taken
                    .values()
                    .flatten()
                    .filter(|(line, _)| *line == product)
                    .map(|(_, quantity)| quantity)
                    .sum();
                prop_assert_eq!(left(&ledgers[0].0, product) + out, STOCK);
                prop_assert_eq!(left(&ledgers[1].0, product) + out, STOCK);
            }
        }
    }
}
