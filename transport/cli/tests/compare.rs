//! `ringway compare` as a person runs it: what it prints and leaves behind, never how fast it is.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

fn compare(temp: &Path, args: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    command
        .arg("compare")
        .args(args.split_whitespace())
        .env("TMPDIR", temp);
    command
}

fn json(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn is_empty(dir: &Path) -> bool {
    dir.read_dir().unwrap().next().is_none()
}

#[test]
fn rows_come_as_the_contract_names_them() {
    let temp = tempfile::tempdir().unwrap();
    let args = "--paths grpc-unix,grpc-tcp --kinds unary,bidi --sizes 64 --in-flight 1,4 \
                --seconds 0.2 --json -";
    let output = compare(temp.path(), args).output().unwrap();
    let report = json(&output);
    assert!(report["machine"]["cpus"].as_u64().unwrap() >= 1);
    assert_eq!(report["config"]["seconds"], 0.2);

    let rows = report["rows"].as_array().unwrap();
    let mut shapes: Vec<_> = rows
        .iter()
        .map(|row| {
            let in_flight = row["in_flight"].as_u64().unwrap();
            let kind = row["kind"].as_str().unwrap();
            (kind, in_flight, row["path"].as_str().unwrap())
        })
        .collect();
    shapes.sort_unstable();
    assert_eq!(
        shapes,
        [
            ("bidi", 1, "grpc-tcp"),
            ("bidi", 1, "grpc-unix"),
            ("bidi", 4, "grpc-tcp"),
            ("bidi", 4, "grpc-unix"),
            ("unary", 1, "grpc-tcp"),
            ("unary", 1, "grpc-unix"),
            ("unary", 4, "grpc-tcp"),
            ("unary", 4, "grpc-unix"),
        ]
    );
    for row in rows {
        assert_eq!(row["size_bytes"], 64);
        assert!(row["rate"].is_null());
        assert!(row["calls"].as_u64().unwrap() > 0);
        let [p50, p99, p999] =
            ["p50_ns", "p99_ns", "p999_ns"].map(|name| row[name].as_u64().unwrap());
        assert!(0 < p50 && p50 <= p99 && p99 <= p999);
        assert!(row["calls_per_s"].as_f64().unwrap() > 0.0);
        assert!(row["cpu_ns_per_call"].as_f64().unwrap() > 0.0);
    }
    let table = String::from_utf8(output.stderr).unwrap();
    assert!(
        table.contains("grpc-tcp") && table.contains("p50"),
        "{table}"
    );
    assert!(is_empty(temp.path()), "sockets were left behind");
}

#[test]
fn streams_of_every_size_are_counted_and_checked() {
    let temp = tempfile::tempdir().unwrap();
    let args = "--paths grpc-unix --kinds server-stream,client-stream --sizes 0,65536,1048577 \
                --in-flight 2 --seconds 0.1 --json -";
    let report = json(&compare(temp.path(), args).output().unwrap());
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 6);
    assert!(rows.iter().all(|row| row["calls"].as_u64().unwrap() > 0));
}

#[test]
fn paced_calls_come_at_their_rate_beside_a_busy_process() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("report.json");
    let args = format!(
        "--paths grpc-tcp --kinds unary --sizes 64 --rate 200 --busy 1 --seconds 1 --json {}",
        file.display()
    );
    let output = compare(temp.path(), &args).output().unwrap();
    assert!(output.status.success());
    let report: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(report["rows"][0]["rate"], 200.0);
    assert_eq!(report["config"]["busy"], 1);
    // Poisson: 200 ± five standard deviations.
    let calls = report["rows"][0]["calls"].as_u64().unwrap();
    assert!((129..=271).contains(&calls), "{calls}");
}

#[test]
fn handlers_work_as_long_as_they_are_asked_to_on_every_path() {
    const PATHS: &str =
        "shm,socket,socket-epoll,pipe,inproc,grpc-unix,grpc-tcp,shm-tonic,shm-blocking";
    let run = |args: &str| {
        let temp = tempfile::tempdir().unwrap();
        let args =
            format!("--paths {PATHS} --sizes 64 --in-flight 2 --seconds 0.2 --json - {args}");
        let output = compare(temp.path(), &args).output().unwrap();
        let report = json(&output);
        let table = String::from_utf8(output.stderr).unwrap();
        assert!(is_empty(temp.path()), "sockets were left behind");
        (report, table)
    };
    let each = |report: &Value, handler_us: u64, handler_sleep_us: u64| {
        assert_eq!(report["config"]["handler_us"], handler_us);
        assert_eq!(report["config"]["handler_sleep_us"], handler_sleep_us);
        let rows = report["rows"].as_array().unwrap().clone();
        assert_eq!(rows.len(), PATHS.split(',').count());
        for row in &rows {
            assert_eq!(row["handler_us"], handler_us, "{row}");
            assert_eq!(row["handler_sleep_us"], handler_sleep_us, "{row}");
            let p50_ns = row["p50_ns"].as_u64().unwrap();
            assert!(p50_ns >= (handler_us + handler_sleep_us) * 1000, "{row}");
        }
        rows
    };

    let (report, table) = run("--kinds unary --handler-us 2000");
    for row in each(&report, 2000, 0) {
        assert!(row["cpu_ns_per_call"].as_f64().unwrap() >= 2e6, "{row}");
    }
    assert!(
        table.contains("handlers that compute for 2.00 ms"),
        "{table}"
    );

    let (report, table) = run("--kinds unary --handler-sleep-us 5000");
    each(&report, 0, 5000);
    assert!(table.contains("handlers that block for 5.00 ms"), "{table}");

    // Streams of every kind; once a message where each waits for the one before.
    let temp = tempfile::tempdir().unwrap();
    let args = "--paths shm,grpc-unix --kinds join,server-stream,client-stream,bidi --sizes 64 \
                --in-flight 1 --seconds 0.2 --json - --handler-us 2000";
    let report = json(&compare(temp.path(), args).output().unwrap());
    for row in report["rows"].as_array().unwrap() {
        assert!(row["calls"].as_u64().unwrap() > 0, "{row}");
        if row["kind"] == "bidi" {
            assert!(row["p50_ns"].as_u64().unwrap() >= 2_000_000, "{row}");
        }
    }
}

#[test]
fn floors_stand_in_rows_of_their_own() {
    let temp = tempfile::tempdir().unwrap();
    let args =
        "--paths grpc-unix --kinds unary --sizes 64 --in-flight 1 --seconds 0.1 --floors --json -";
    let report = json(&compare(temp.path(), args).output().unwrap());
    let rows = report["rows"].as_array().unwrap();
    let paths: Vec<_> = rows
        .iter()
        .map(|row| row["path"].as_str().unwrap())
        .collect();
    assert_eq!(paths[0], "grpc-unix");
    for floor in [
        "spin", "futex", "eventfd", "pipe", "unix", "tcp", "mqueue", "signal",
    ] {
        assert!(
            paths.contains(&format!("floor:{floor}").as_str()),
            "{floor}: {paths:?}"
        );
    }
    assert!(rows.iter().all(|row| row["calls"].as_u64().unwrap() > 0));
}

#[test]
fn what_cannot_be_asked_is_refused_before_anything_starts() {
    let temp = tempfile::tempdir().unwrap();
    let unpaceable = compare(temp.path(), "--rate 10 --kinds client-stream")
        .output()
        .unwrap();
    assert!(!unpaceable.status.success());
    assert!(String::from_utf8_lossy(&unpaceable.stderr).contains("client-stream"));
    let untraceable = compare(temp.path(), "--trace 0.5 --paths grpc-tcp")
        .output()
        .unwrap();
    assert!(!untraceable.status.success());
    assert!(String::from_utf8_lossy(&untraceable.stderr).contains("--trace"));
    let nowhere = compare(temp.path(), "--json /nonexistent/report.json")
        .output()
        .unwrap();
    assert!(!nowhere.status.success());
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("/nonexistent/report.json"));
    assert!(is_empty(temp.path()));
}

#[test]
fn an_interrupted_comparison_cleans_up() {
    let temp = tempfile::tempdir().unwrap();
    let args = "--paths grpc-unix --kinds unary --sizes 64 --in-flight 1 --seconds 60 --busy 1";
    let mut child = compare(temp.path(), args)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while is_empty(temp.path()) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(!child.wait().unwrap().success());
    assert!(is_empty(temp.path()), "sockets were left behind");
}

#[test]
fn every_path_of_ringway_has_its_rows() {
    let temp = tempfile::tempdir().unwrap();
    let args = "--paths shm,socket,socket-epoll,pipe,inproc,shm-tonic,shm-blocking --kinds unary --sizes 64,65536 \
                --in-flight 1 --seconds 0.1 --json -";
    let report = json(&compare(temp.path(), args).output().unwrap());
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 14);
    assert!(rows.iter().all(|row| row["calls"].as_u64().unwrap() > 0));
    assert!(is_empty(temp.path()), "sockets were left behind");
}

#[test]
fn tracing_is_priced_in_pairs_and_its_spans_are_counted() {
    let temp = tempfile::tempdir().unwrap();
    let args = "--paths shm,pipe,inproc,grpc-unix --kinds unary --sizes 64 --in-flight 2 \
                --seconds 0.2 --json - --trace";
    let run = |ratio| compare(temp.path(), args).arg(ratio).output().unwrap();
    for (ratio, asked) in [("1", 1.0), ("0", 0.0)] {
        let output = run(ratio);
        let report = json(&output);
        assert_eq!(report["config"]["trace"], asked);
        let (traced, plain): (Vec<&Value>, Vec<&Value>) = report["rows"]
            .as_array()
            .unwrap()
            .iter()
            .partition(|row| row["path"].as_str().unwrap().ends_with("+trace"));
        assert_eq!((traced.len(), plain.len()), (3, 4));
        assert!(plain.iter().all(|row| row.get("trace").is_none()));
        for row in traced {
            let figure = |name: &str| row[name].as_f64().unwrap();
            assert_eq!((figure("trace"), figure("pairs")), (asked, 4.0));
            let difference = figure("mean_ns_with") - figure("mean_ns_without");
            assert!((figure("extra_ns") - difference).abs() < 1.0, "{row}");
            assert!(figure("extra_ns_error") > 0.0, "{row}");
            let without = figure("calls_per_s_without") * figure("calls_per_s_ratio");
            assert!(
                (without / figure("calls_per_s") - 1.0).abs() < 1e-6,
                "{row}"
            );
            // Both ends tell of each call, of those that warm up, too.
            let (spans, calls) = (figure("spans_sent") + figure("spans_lost"), figure("calls"));
            match ratio {
                "1" => assert!(figure("spans_sent") > 0.0 && spans >= 2.0 * calls, "{row}"),
                _ => assert!(spans == 0.0 && calls > 0.0, "{row}"),
            }
        }
        let table = String::from_utf8(output.stderr).unwrap();
        assert!(table.contains("more a call"), "{table}");
    }
    assert!(is_empty(temp.path()), "sockets were left behind");
}

#[test]
fn an_environment_without_traces_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let output = compare(temp.path(), "--paths shm --trace 0.5")
        .env("OTEL_SDK_DISABLED", "true")
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("OTEL_SDK_DISABLED"));
    assert!(is_empty(temp.path()));
}

#[test]
fn a_page_shows_every_path_and_floor_and_says_how_it_was_made() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("a page.html");
    let output = compare(
        temp.path(),
        "--paths shm,grpc-unix --kinds unary --sizes 64 --in-flight 1,4 --seconds 0.1 --floors --report",
    )
    .arg(&file)
    .output()
    .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let page = std::fs::read_to_string(&file).unwrap();
    for words in [
        "<h1>",
        "Shared memory",
        "gRPC, Unix socket",
        "unary, 64 B, 4 in flight",
        "two processes look at one word",
        "ringway compare --paths shm,grpc-unix --kinds unary",
    ] {
        assert!(page.contains(words), "{words}");
    }
    let curves = page.matches("<path d=").count();
    assert_eq!(
        curves, 4,
        "a distribution for each path and number in flight"
    );
    assert_eq!(page.matches("<div class=\"fall ").count(), 2);
    for step in [
        "encode",
        "on the way",
        "handler",
        "on the way back",
        "decode",
    ] {
        let named = page.matches(&format!("title=\"{step}: ")).count();
        assert_eq!(named, 2, "{step}");
    }
    assert!(page.contains("which tells of no steps"));
    assert!(!page.contains("Not timed in this run"));
}

#[test]
fn a_page_names_the_work_of_its_handlers() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("page.html");
    let output = compare(
        temp.path(),
        "--paths shm --kinds unary --sizes 64 --in-flight 1 --seconds 0.1 --handler-us 500 --report",
    )
    .arg(&file)
    .output()
    .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let page = std::fs::read_to_string(&file).unwrap();
    for words in [
        "unary, 64 B, 1 in flight, handlers that compute for 500 µs",
        "--handler-us 500",
        "title=\"handler: ",
    ] {
        assert!(page.contains(words), "{words}");
    }
}

#[test]
fn a_page_that_cannot_be_written_is_refused_before_anything_starts() {
    let temp = tempfile::tempdir().unwrap();
    let output = compare(temp.path(), "--report /nonexistent/page.html")
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent/page.html"));
    assert!(is_empty(temp.path()));
}
