//! A trace as Jaeger's API tells it, and what must be true of each one of an order. Shared with the
//! test of `deploy/`.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

/// All spans that share a trace id.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) spans: Vec<Span>,
}

#[derive(Debug)]
pub(crate) struct Span {
    pub(crate) id: String,
    pub(crate) parent: Option<String>,
    pub(crate) service: String,
    pub(crate) operation: String,
    /// Microseconds since 1970, as all times here.
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) tags: BTreeMap<String, String>,
    /// The span's events, in the order in which they were recorded.
    pub(crate) steps: Vec<(String, u64)>,
}

impl Trace {
    pub(crate) fn read(trace: &Value) -> Self {
        let spans = trace["spans"].as_array().unwrap();
        let spans = spans.iter().map(|span| Span::read(span, trace)).collect();
        Self { spans }
    }

    /// Whether nothing is under way to Jaeger that another span of it points to or calls for.
    pub(crate) fn is_settled(&self) -> bool {
        let is_there = |id: &str| self.spans.iter().any(|span| span.id == id);
        let parents = self.spans.iter().filter_map(|span| span.parent.as_deref());
        let mut calls = self.spans.iter().filter(|span| span.kind() == "client");
        self.roots().len() == 1
            && parents.into_iter().all(is_there)
            && calls.all(|call| !self.children(call).is_empty())
    }

    fn roots(&self) -> Vec<&Span> {
        let is_root = |span: &&Span| span.parent.is_none();
        self.spans.iter().filter(is_root).collect()
    }

    fn children(&self, of: &Span) -> Vec<&Span> {
        let is_child = |span: &&Span| span.parent.as_deref() == Some(&of.id);
        self.spans.iter().filter(is_child).collect()
    }

    /// Each call, as its two ends tell it.
    fn calls(&self) -> Vec<(&Span, &Span)> {
        let clients = self.spans.iter().filter(|span| span.kind() == "client");
        clients
            .map(|client| match self.children(client)[..] {
                [server] if server.kind() == "server" => (client, server),
                ref others => panic!("{client:#?} has in place of one server span {others:#?}"),
            })
            .collect()
    }

    /// How many calls each service makes to each other one.
    fn edges(&self) -> BTreeMap<(String, String), u64> {
        let mut edges = BTreeMap::new();
        for (client, server) in self.calls() {
            let edge = (client.service.clone(), server.service.clone());
            *edges.entry(edge).or_default() += 1;
        }
        edges
    }
}

impl Span {
    fn read(span: &Value, trace: &Value) -> Self {
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let pairs = |list: &Value| -> BTreeMap<String, String> {
            let pairs = list.as_array().into_iter().flatten();
            pairs
                .map(|pair| (text(&pair["key"]), text(&pair["value"])))
                .collect()
        };
        let references = span["references"].as_array().unwrap();
        let parents: Vec<_> = references
            .iter()
            .filter(|reference| reference["refType"] == "CHILD_OF")
            .inspect(|parent| assert_eq!(parent["traceID"], span["traceID"]))
            .collect();
        assert!(parents.len() <= 1, "{span} has several parents");
        let start = span["startTime"].as_u64().unwrap();
        let logs = span["logs"].as_array().into_iter().flatten();
        let steps = logs.filter_map(|log| {
            let name = pairs(&log["fields"]).remove("event")?;
            Some((name, log["timestamp"].as_u64().unwrap()))
        });
        let process = &trace["processes"][span["processID"].as_str().unwrap()];
        Self {
            id: text(&span["spanID"]),
            parent: parents.first().map(|parent| text(&parent["spanID"])),
            service: text(&process["serviceName"]),
            operation: text(&span["operationName"]),
            start,
            end: start + span["duration"].as_u64().unwrap(),
            tags: pairs(&span["tags"]),
            steps: steps.collect(),
        }
    }

    /// `client`, `server` or `internal`.
    fn kind(&self) -> &str {
        self.tags
            .get("span.kind")
            .map_or("internal", String::as_str)
    }

    fn tag(&self, name: &str) -> &str {
        let tag = self.tags.get(name);
        tag.unwrap_or_else(|| panic!("no {name} in {self:#?}"))
    }

    fn times(&self) -> HashMap<&str, u64> {
        let steps = self.steps.iter();
        steps.map(|(name, at)| (name.as_str(), *at)).collect()
    }
}

/// Who calls whom for one order, and how often.
const CALLS: [(&str, &str, u64); 5] = [
    ("gateway", "orders", 1),
    ("orders", "catalog", 1),
    ("orders", "inventory", 2),
    ("orders", "media", 1),
    ("orders", "payments", 2),
];

/// The same under the names that services have in Jaeger.
pub(crate) fn calls_of_an_order(named: impl Fn(&str) -> String) -> BTreeMap<(String, String), u64> {
    CALLS
        .iter()
        .map(|(from, to, calls)| ((named(from), named(to)), *calls))
        .collect()
}

/// One order: every service in it, each call with both ends, its path and its steps.
pub(crate) fn check_order(order: &Trace, path: &str, named: impl Fn(&str) -> String) {
    let [root] = order.roots()[..] else {
        panic!("not one root: {order:#?}");
    };
    assert_eq!(root.service, named("gateway"));
    assert_eq!(order.edges(), calls_of_an_order(named));
    for (client, server) in order.calls() {
        assert_eq!(client.operation, server.operation);
        for end in [client, server] {
            assert_eq!(end.tag("rpc.system"), "grpc");
            assert_eq!(end.tag("rpc.grpc.status_code"), "0");
            assert!(path.starts_with(end.tag("ringway.path")), "{end:#?}");
            let name = format!("{}/{}", end.tag("rpc.service"), end.tag("rpc.method"));
            assert_eq!(end.operation, name);
        }
        check_steps(client, server);
    }
}

/// What happens in a call, in order, and at which end.
const STEPS: [(&str, &str); 8] = [
    ("client", "encoded"),
    ("client", "published"),
    ("server", "seen"),
    ("server", "handler started"),
    ("server", "handler ended"),
    ("server", "published"),
    ("client", "answer seen"),
    ("client", "decoded"),
];

/// Each step of a call is there, once, and none comes before the one that leads to it.
fn check_steps(client: &Span, server: &Span) {
    let ends = HashMap::from([("client", client.times()), ("server", server.times())]);
    let mut last = client.start;
    for (end, step) in STEPS {
        let at = ends[end].get(step);
        let at = *at.unwrap_or_else(|| panic!("no {step:?} at {end}: {client:#?} {server:#?}"));
        assert!(
            last <= at,
            "{step:?} at {end} is early: {client:#?} {server:#?}"
        );
        last = at;
    }
    assert!(last <= client.end, "{client:#?} ends before its last step");
    assert_eq!((client.steps.len(), server.steps.len()), (4, 4));
}
