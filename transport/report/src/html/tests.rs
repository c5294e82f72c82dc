//! Pages as a browser gets them.

use hdrhistogram::Histogram;

use crate::{Event, Group, Idle, Page, Row, Span, SpanKind, Trace, Unit};

fn row(path: &str, p50_ns: u64) -> Row {
    let mut latency_ns = Histogram::new(3).unwrap();
    for share in 50..=150 {
        latency_ns.record(p50_ns * share / 100).unwrap();
    }
    Row {
        path: path.to_owned(),
        latency_ns,
        per_s: Some(1e9 / crate::page::float(p50_ns)),
        cpu_ns: Some(2.0 * crate::page::float(p50_ns)),
    }
}

fn group(in_flight: usize, rows: Vec<Row>) -> Group {
    Group {
        unit: Unit::Call,
        kind: "unary".to_owned(),
        size_bytes: Some(64),
        in_flight,
        rate: None,
        handler: None,
        rows,
    }
}

fn page(groups: Vec<Group>) -> Page {
    Page {
        program: "ringway compare".to_owned(),
        command: ["ringway", "compare", "--report", "a b.html"]
            .map(str::to_owned)
            .into(),
        machine: vec![("kernel".to_owned(), "Linux 6.18".to_owned())],
        groups,
        ..Page::default()
    }
}

fn three_paths() -> Page {
    page(vec![
        group(
            1,
            vec![
                row("shm", 2_000),
                row("socket", 8_000),
                row("grpc-unix", 76_000),
            ],
        ),
        group(64, vec![row("shm", 1_500), row("grpc-unix", 20_000)]),
    ])
}

fn span(id: u8, parent: Option<u8>, kind: SpanKind, times_ns: [u64; 2]) -> Span {
    Span {
        trace_id: [1; 16],
        span_id: [id; 8],
        parent: parent.map(|parent| [parent; 8]),
        service: format!("service{id}"),
        name: "shop.v1.Orders/Place".to_owned(),
        kind,
        start_ns: times_ns[0],
        end_ns: times_ns[1],
        events: Vec::new(),
        attributes: Vec::new(),
    }
}

#[test]
fn a_page_refers_to_nothing_outside_of_itself() {
    let html = three_paths().html();
    for reference in [
        "src=", "href=", "url(", "@import", "<script", "<link", "http:", "https:",
    ] {
        assert!(!html.contains(reference), "{reference}");
    }
    assert!(html.contains("default-src 'none'"));
}

#[test]
fn each_path_has_its_figures_and_the_first_words_the_ratio() {
    let html = three_paths().html();
    assert!(
        html.contains("<h1>Shared memory: 38× faster than gRPC, 38× less CPU</h1>"),
        "{html}"
    );
    for words in [
        "Shared memory",
        "Unix socket, io_uring",
        "gRPC, Unix socket",
    ] {
        assert!(html.contains(words), "{words}");
    }
    for figure in ["2.00 µs", "8.00 µs", "76.0 µs", "666,667", "50,000"] {
        assert!(html.contains(figure), "{figure}");
    }
    assert!(html.contains("ringway compare --report 'a b.html'"));
    assert!(html.contains("Linux 6.18"));
}

#[test]
fn one_path_alone_is_a_page_without_a_comparison() {
    for path in [
        "shm",
        "grpc-tcp",
        "inproc",
        "shm+metadata",
        "carrier-pigeon",
    ] {
        let html = page(vec![group(1, vec![row(path, 1_750)])]).html();
        assert!(html.contains("1.75 µs"), "{path}");
        assert!(!html.contains("faster than"), "{path}");
        is_well_formed(&html);
    }
}

#[test]
fn pages_with_little_or_nothing_to_show_are_whole() {
    let untimed = Row {
        latency_ns: Histogram::new(3).unwrap(),
        ..row("shm", 1)
    };
    let uncounted = Row {
        per_s: None,
        cpu_ns: None,
        ..row("shm", 1000)
    };
    let paced = Group {
        rate: Some(1000.0),
        ..group(1, vec![row("shm", 1000), row("grpc-unix", 9000)])
    };
    let stream = Group {
        unit: Unit::Message,
        ..group(8, vec![row("shm", 100)])
    };
    for groups in [
        vec![],
        vec![group(1, vec![])],
        vec![group(1, vec![untimed.clone()])],
        vec![group(1, vec![untimed, row("grpc-tcp", 5)])],
        vec![group(1, vec![uncounted])],
        vec![paced],
        vec![stream],
    ] {
        let page = page(groups);
        let html = page.html();
        is_well_formed(&html);
        assert!(!html.contains("NaN") && !html.contains("inf%"));
        assert!(html.contains("Not timed in this run"));
    }
}

#[test]
fn floors_and_idle_connections_are_shown_where_they_were_measured() {
    let mut page = three_paths();
    page.floors = vec![row("spin", 300), row("futex", 30_000)];
    page.idle = vec![Idle {
        path: "shm".to_owned(),
        connections: 100,
        cpu_ns_per_s: 1e6,
        bytes_per_connection: 73_728.0,
    }];
    let html = page.html();
    assert!(!html.contains("Not timed in this run"));
    assert!(html.contains("300 ns") && html.contains("two processes look at one word"));
    assert!(html.contains("72.0 KiB") && html.contains("1.00 ms"));
    let at = |label: &str| {
        html.find(&format!("<span class=\"label\">{label}"))
            .unwrap()
    };
    let floors = html.find("id=\"floors\"").unwrap();
    let in_floors = |label: &str| {
        html[floors..]
            .find(&format!("<span class=\"label\">{label}"))
            .unwrap()
    };
    assert!(
        in_floors("spin") < in_floors("Shared memory")
            && in_floors("Shared memory") < in_floors("futex")
    );
    assert!(at("Shared memory") < floors);
}

#[test]
fn text_is_never_markup() {
    let evil = "<script>alert('x')</script>&\"";
    let mut page = three_paths();
    page.program = evil.to_owned();
    page.command = vec![evil.to_owned()];
    page.machine = vec![(evil.to_owned(), evil.to_owned())];
    page.warning = Some(evil.to_owned());
    page.groups[0].kind = evil.to_owned();
    page.groups[0].rows[0].path = evil.to_owned();
    page.floors = vec![row(evil, 5)];
    let mut span = span(1, None, SpanKind::Client, [0, 100]);
    (span.service, span.name) = (evil.to_owned(), evil.to_owned());
    span.attributes = vec![("ringway.path".to_owned(), evil.to_owned())];
    page.traces = vec![Trace {
        path: evil.to_owned(),
        spans: vec![span],
    }];
    let html = page.html();
    assert!(!html.contains("<script"));
    is_well_formed(&html);
}

#[test]
fn a_waterfall_has_its_rows_in_the_order_of_the_clock() {
    let mut page = three_paths();
    let mut place = span(1, None, SpanKind::Client, [1_000, 101_000]);
    place.events = vec![Event {
        name: "encoded".to_owned(),
        at_ns: 3_000,
    }];
    let spans = vec![
        span(4, Some(2), SpanKind::Client, [60_000, 80_000]),
        span(3, Some(2), SpanKind::Client, [20_000, 50_000]),
        span(2, Some(1), SpanKind::Server, [11_000, 91_000]),
        place,
    ];
    page.traces = vec![Trace {
        path: "shm".to_owned(),
        spans,
    }];
    let html = page.html();
    is_well_formed(&html);
    let at = |service: &str| html.find(&format!(">{service}<")).unwrap();
    assert!(at("service2") < at("service3") && at("service3") < at("service4"));
    assert!(html.contains("title=\"encode: 2.00 µs\""));
    assert!(html.contains("title=\"handler: 80.0 µs\""));
    assert!(html.contains("left:19.00%;width:30.00%"));
}

/// Each element that is opened is closed, and none twice has the same attribute.
fn is_well_formed(html: &str) {
    let body = html.split_once("</head>").unwrap().1;
    let body = body.strip_suffix("</html>").unwrap();
    let mut open = Vec::new();
    for tag in body
        .split('<')
        .skip(1)
        .map(|tag| tag.split('>').next().unwrap())
    {
        let name = tag.split_whitespace().next().unwrap();
        match name.strip_prefix('/') {
            Some(closed) => assert_eq!(open.pop(), Some(closed)),
            None => open.push(name),
        }
        assert!(tag.matches(" class=").count() <= 1, "{tag}");
    }
    assert_eq!(open, [""; 0]);
}
