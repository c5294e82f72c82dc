//! A collector that is absent, slow or refuses: no call is later for it, and the end of a process
//! does not wait for it for long.

use std::time::Duration;

use ringway_tests::{Collector, CollectorManner, Shop, free_address};

/// Generous: the machine may be busy. A collector that hangs would add ten seconds.
const AN_ORDER: Duration = Duration::from_secs(2);
/// All services drain and flush at the same time.
const AN_END: Duration = Duration::from_secs(8);

async fn orders_go_through(endpoint: &str) {
    // A queue that is full after two orders.
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "8"),
        ("OTEL_BSP_SCHEDULE_DELAY", "10"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "10"),
    ];
    let shop = Shop::start("shm", &environment).await;
    for _ in 0..20 {
        let took = shop.order("").await;
        assert!(took < AN_ORDER, "{took:?}");
    }
    let took = shop.end();
    assert!(took < AN_END, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_go_through_without_a_collector() {
    orders_go_through(&format!("http://{}", free_address())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_go_through_while_the_collector_hangs() {
    orders_go_through(&Collector::start(CollectorManner::Hangs).endpoint()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_go_through_while_the_collector_refuses() {
    orders_go_through(&Collector::start(CollectorManner::Refuses).endpoint()).await;
}
