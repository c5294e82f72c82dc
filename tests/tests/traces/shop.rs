//! An order of the shop, as processes, over each path: what a collector sees of it.

use clap::{FromArgMatches, Subcommand};
use ringway::trace::TraceContext;
use ringway_tests::{Collector, CollectorManner, Shop, Span, eventually, service_arguments};
use shop_demo::Service;

use crate::{a_trace, one};

/// What `orders` calls for an order, and which service answers.
const CALLS: [(&str, &str); 6] = [
    ("shop.v1.Catalog/Get", "catalog"),
    ("shop.v1.Inventory/Reserve", "inventory"),
    ("shop.v1.Payments/Authorize", "payments"),
    ("shop.v1.Media/Previews", "media"),
    ("shop.v1.Inventory/Commit", "inventory"),
    ("shop.v1.Payments/Capture", "payments"),
];

/// The edge's span, and two for each call.
const SPANS: usize = 1 + 2 * (1 + CALLS.len());

/// Is one of the services, if this process was started for it.
pub(crate) fn service_process() {
    let Some(arguments) = service_arguments() else {
        return;
    };
    let command = Service::augment_subcommands(clap::Command::new("shop").no_binary_name(true));
    let matches = command.get_matches_from(arguments);
    let service = Service::from_arg_matches(&matches).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let code = runtime.block_on(async { service.run(ringway::terminated()).await });
    assert_eq!(code, std::process::ExitCode::SUCCESS);
}

fn environment<'a>(endpoint: &'a str, ratio: &'a str) -> [(&'a str, &'a str); 4] {
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", ratio),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ]
}

/// The server's span of a call that `caller` made, which are both checked.
fn callee<'a>(spans: &'a [Span], caller: &Span, name: &str, service: &str, path: &str) -> &'a Span {
    let client = one(spans, |span| span.is_client() && span.name() == name);
    let server = one(spans, |span| span.is_server() && span.name() == name);
    assert!(
        client.is_child_of(caller) && server.is_child_of(client),
        "{name}: {spans:#?}"
    );
    assert_eq!(
        (&*client.service, &*server.service),
        (&*caller.service, service)
    );
    for span in [client, server] {
        assert_eq!(span.attribute("ringway.path").unwrap(), path);
        assert_eq!(span.attribute("rpc.grpc.status_code").unwrap(), "0");
    }
    let times = [
        client.times().0,
        client.at("encoded"),
        client.at("published"),
        server.at("seen"),
        server.at("handler started"),
        server.at("handler ended"),
        server.at("published"),
        client.at("decoded"),
        client.times().1,
    ];
    assert!(times.is_sorted(), "{name}: {times:?}");
    assert!(client.at("published") <= client.at("answer seen"));
    assert!(client.at("answer seen") <= client.at("decoded"));
    server
}

async fn an_order_over(scheme: &str) {
    let collector = Collector::start(CollectorManner::Keeps);
    let endpoint = collector.endpoint();
    let shop = Shop::start(scheme, &environment(&endpoint, "1")).await;
    shop.order("").await;
    // One that goes through at once, in a trace that began elsewhere.
    let trace = a_trace(TraceContext::SAMPLED);
    shop.order(&format!("traceparent: {trace}\r\n")).await;
    shop.order("traceparent: 00-nonsense-01\r\n").await;
    shop.end();
    is_measured(&collector, scheme);

    let spans = collector.spans_of(&trace.trace_id());
    assert_eq!(spans.len(), SPANS, "{spans:#?}");
    let edge = one(&spans, |span| span.name() == "POST /orders");
    assert!(edge.is_child_of_context(&trace));
    assert_eq!(
        (
            &*edge.service,
            edge.attribute("http.response.status_code").as_deref()
        ),
        ("gateway", Some("200"))
    );
    let orders = callee(&spans, edge, "shop.v1.Orders/Place", "orders", scheme);
    for (name, service) in CALLS {
        callee(&spans, orders, name, service, scheme);
    }
    // Whatever else came belongs to a trace that began at the edge, and is as whole.
    let all = collector.spans();
    let roots: Vec<_> = all.iter().filter(|span| span.is_root()).collect();
    assert!(roots.len() >= 2);
    assert!(
        roots.iter().all(|root| root.name() == "POST /orders"),
        "{roots:#?}"
    );
    let last = roots.iter().max_by_key(|root| root.times().0).unwrap();
    assert_eq!(collector.spans_of(last.trace_id()).len(), SPANS);
}

/// Both ends of each call of an order have told how long it took, under their service's name.
fn is_measured(collector: &Collector, path: &str) {
    for (name, service) in CALLS {
        let (rpc_service, method) = name.split_once('/').unwrap();
        for (metric, told_by) in [
            ("rpc.client.duration", "orders"),
            ("rpc.server.duration", service),
        ] {
            let of_call = [
                ("service.name", told_by),
                ("rpc.service", rpc_service),
                ("rpc.method", method),
                ("rpc.grpc.status_code", "0"),
                ("ringway.path", path),
            ];
            let calls = collector.metric(metric, &of_call);
            assert!(calls >= Some(1), "{metric} {of_call:?}: {calls:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_over_shared_memory() {
    an_order_over("shm").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_over_sockets() {
    an_order_over("socket").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_over_grpc() {
    an_order_over("grpc").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_ratio_0_nothing_is_sent() {
    let collector = Collector::start(CollectorManner::Keeps);
    let endpoint = collector.endpoint();
    let shop = Shop::start("shm", &environment(&endpoint, "0")).await;
    shop.order("").await;
    shop.order("").await;
    // Whoever asks for it has it recorded: the parent decides.
    let trace = a_trace(TraceContext::SAMPLED);
    shop.order(&format!("traceparent: {trace}\r\n")).await;
    eventually("the recorded order came", || {
        collector.spans_of(&trace.trace_id()).len() == SPANS
    })
    .await;
    shop.end();
    assert_eq!(collector.spans().len(), SPANS);
}
