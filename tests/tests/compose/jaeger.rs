//! What a person sees of a stack in its Jaeger, by Jaeger's API.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::load::{eventually, page};
use crate::stack::{SERVICES, Stack};
use crate::trace::{Trace, calls_of_an_order, check_order};

/// More than any test makes, so that no answer is cut.
const TRACES_MAX: usize = 5_000;

fn ask(stack: &Stack, question: &str) -> Value {
    let api = stack.published("jaeger", 16686);
    serde_json::from_str(&page(&api, question)).unwrap()
}

/// The orders that went by `path` (`ringway.path`), as one searches for them.
pub(crate) fn traces(stack: &Stack, path: &str) -> Vec<Trace> {
    let tags = format!("%7B%22ringway.path%22%3A%22{path}%22%7D");
    let question =
        format!("/api/traces?service=gateway&limit={TRACES_MAX}&lookback=1h&tags={tags}");
    let answer = ask(stack, &question);
    let found = answer["data"].as_array().unwrap();
    found.iter().map(Trace::read).collect()
}

/// That so many orders went by `path`, each one whole trace.
pub(crate) fn check_orders(stack: &Stack, path: &str, orders: usize) {
    if !stack.has_jaeger() {
        return;
    }
    eventually("all spans are in Jaeger", || {
        let traces = traces(stack, path);
        traces.len() == orders && traces.iter().all(Trace::is_settled)
    });
    for order in traces(stack, path) {
        check_order(&order, path, str::to_owned);
    }
}

/// That each service is known, and who calls whom.
pub(crate) fn check_graph(stack: &Stack) {
    if !stack.has_jaeger() {
        return;
    }
    let known = ask(stack, "/api/services");
    let known = known["data"].as_array().unwrap().iter();
    // It may know itself, too.
    let known: BTreeSet<_> = known
        .map(|name| name.as_str().unwrap())
        .filter(|name| !name.starts_with("jaeger"))
        .collect();
    assert_eq!(known, BTreeSet::from(SERVICES));

    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let question = format!(
        "/api/dependencies?endTs={}&lookback=3600000",
        now.as_millis()
    );
    let graph = ask(stack, &question);
    let name = |edge: &Value, end: &str| edge[end].as_str().unwrap().to_owned();
    let seen: BTreeSet<_> = graph["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|edge| (name(edge, "parent"), name(edge, "child")))
        .collect();
    assert_eq!(seen, calls_of_an_order(str::to_owned).into_keys().collect());
}
