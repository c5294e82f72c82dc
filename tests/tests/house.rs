//! The house's rules that no compiler checks: which way crates depend, and who may be `unsafe`.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A crate's directory, and the crates of ours that it may depend on.
const MAY_DEPEND_ON: [(&str, &[&str]); 11] = [
    ("transport/wire", &[]),
    ("transport/ring", &[]),
    ("transport/sys", &[]),
    ("transport/net", &["ringway-wire"]),
    (
        "transport/local",
        &["ringway-ring", "ringway-sys", "ringway-wire"],
    ),
    (
        "transport/ringway",
        &["ringway-local", "ringway-net", "ringway-wire"],
    ),
    ("transport/telemetry", &["ringway"]),
    ("transport/build", &[]),
    ("transport/report", &[]),
    ("proto", &["ringway"]),
    ("examples", &["ringway"]),
];

/// The files that hold `unsafe`; each block in them says why it is sound (clippy sees to it).
const UNSAFE: [&str; 22] = [
    "transport/ring/src/arena/block.rs",
    "transport/ring/src/arena/filling.rs",
    "transport/ring/src/arena/mod.rs",
    "transport/ring/src/consumer.rs",
    "transport/ring/src/copy.rs",
    "transport/ring/src/endpoint.rs",
    "transport/ring/src/fork.rs",
    "transport/ring/src/mapping.rs",
    "transport/ring/src/memory.rs",
    "transport/ring/src/rope.rs",
    "transport/ring/src/tests/refused.rs",
    "transport/sys/src/credentials.rs",
    "transport/sys/src/floor/page.rs",
    "transport/sys/src/floor/queue.rs",
    "transport/sys/src/floor/signal.rs",
    "transport/sys/src/fork.rs",
    "transport/sys/src/pipe.rs",
    "transport/sys/src/process.rs",
    "transport/sys/src/queued.rs",
    "transport/sys/src/thread_account.rs",
    "transport/sys/src/uring/buffers.rs",
    "transport/sys/src/uring/engine.rs",
];

/// The types that people start from, by the files that have them.
const STARTED_FROM: [(&str, &str); 22] = [
    ("transport/build/src/builder.rs", "Builder"),
    ("transport/local/src/config.rs", "LocalConfig"),
    ("transport/local/src/config.rs", "UidPolicy"),
    ("transport/local/src/wait_policy.rs", "WaitPolicy"),
    ("transport/net/src/connect.rs", "NetOptions"),
    ("transport/net/src/listen.rs", "ListenAddress"),
    ("transport/net/src/server.rs", "ServerOptions"),
    ("transport/ringway/src/channel.rs", "Channel"),
    ("transport/ringway/src/child.rs", "Child"),
    (
        "transport/ringway/src/compression/by_message.rs",
        "MessageCompression",
    ),
    ("transport/ringway/src/context.rs", "Context"),
    ("transport/ringway/src/endpoint/mod.rs", "Endpoint"),
    ("transport/ringway/src/endpoint/mod.rs", "LocalPolicy"),
    ("transport/ringway/src/path.rs", "Path"),
    ("transport/ringway/src/pipe.rs", "Pipe"),
    ("transport/ringway/src/retry.rs", "RetryPolicy"),
    ("transport/ringway/src/retry.rs", "WaitForReady"),
    ("transport/ringway/src/server/bound.rs", "BoundServer"),
    ("transport/ringway/src/server/mod.rs", "Server"),
    ("transport/telemetry/src/edge.rs", "Edge"),
    ("transport/telemetry/src/sampling.rs", "Sampler"),
    ("transport/telemetry/src/settings.rs", "Builder"),
];

/// They compile, because they are documentation tests: none of them is `ignore` or `text`.
#[test]
fn types_that_people_start_from_have_an_example() {
    for (file, name) in STARTED_FROM {
        let source = fs::read_to_string(root().join(file)).unwrap();
        let lines: Vec<_> = source.lines().collect();
        let defined = ["struct", "enum"].map(|kind| format!("pub {kind} {name}"));
        let at = lines.iter().position(|line| {
            let after = defined.iter().find_map(|start| line.strip_prefix(start));
            after.is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
        });
        let at = at.unwrap_or_else(|| panic!("{file} has no {name}"));
        let has_example = lines[..at]
            .iter()
            .rev()
            .take_while(|line| line.starts_with("///") || line.starts_with("#["))
            .any(|line| ["/// ```", "/// ```no_run"].contains(line));
        assert!(has_example, "{name} in {file} has no example that compiles");
    }
}

#[test]
fn crates_depend_one_way() {
    for (directory, allowed) in MAY_DEPEND_ON {
        let manifest = fs::read_to_string(root().join(directory).join("Cargo.toml")).unwrap();
        for dependency in dependencies(&manifest) {
            assert!(
                !is_ours(dependency) || allowed.contains(&dependency),
                "{directory} must not depend on {dependency}"
            );
        }
    }
}

#[test]
fn services_know_the_contracts_ringway_and_its_telemetry_alone() {
    let known = ["ringway-proto", "ringway-telemetry"];
    for entry in fs::read_dir(root().join("services")).unwrap() {
        let directory = entry.unwrap().path();
        let manifest = fs::read_to_string(directory.join("Cargo.toml")).unwrap();
        for dependency in dependencies(&manifest) {
            let transport = dependency.starts_with("ringway-") && !known.contains(&dependency);
            // It measures, and draws what it measured.
            let draws = directory.ends_with("demo") && dependency == "ringway-report";
            assert!(
                !transport || draws,
                "{directory:?} must not depend on {dependency}"
            );
        }
    }
}

/// Crates of others that `ringway` may take beyond those of plain tonic, without features and with the default ones.
const MAY_WEIGH: [(&[&str], usize); 2] = [(&["--no-default-features"], 10), (&[], 14)];

/// Builds take time by the crate: a greeter on Ringway is to be built in a quarter more than one on tonic.
#[test]
fn few_crates_come_beyond_those_of_tonic() {
    // It takes tonic with its transport, and tonic-prost.
    let tonics = crates_of("greeter-before", &[]);
    for (features, most) in MAY_WEIGH {
        let all = crates_of("ringway", features);
        let beyond: Vec<_> = all
            .difference(&tonics)
            .filter(|name| !is_ours(name))
            .collect();
        assert!(beyond.len() <= most, "{features:?} adds {beyond:?}");
    }
}

/// What plain tonic leaves to its users, Ringway does too: with which provider of cryptography TLS is done,
/// if at all, and which encodings there are. A program with two providers has to choose before rustls does.
#[test]
fn no_tls_and_no_compression_comes_unasked() {
    let crates = crates_of("ringway", &[]);
    assert!(crates.contains("tonic"), "{crates:?}");
    for unasked in ["rustls", "ring", "aws-lc-rs", "flate2", "zstd"] {
        assert!(!crates.contains(unasked), "{unasked} is forced on users");
    }
}

/// No program but a test may be told to kill itself at a step: the feature comes by dependencies of tests alone, and
/// without debug assertions it is nothing.
#[test]
fn failpoints_are_in_tests_alone() {
    let tree = |edges: &str| {
        let tree = Command::new(env!("CARGO"))
            .current_dir(root())
            .args(["tree", "--offline", "--workspace", "--edges", edges])
            .args(["--prefix", "none", "--format", "{p} {f}"])
            .output()
            .unwrap();
        assert!(tree.status.success(), "{tree:?}");
        String::from_utf8(tree.stdout).unwrap()
    };
    assert!(tree("normal,build,dev").contains("failpoints"));
    let shipped = tree("normal,build");
    let has_any = shipped.lines().find(|line| line.contains("failpoints"));
    assert_eq!(has_any, None);
    let source = fs::read_to_string(root().join("transport/ring/src/failpoint.rs")).unwrap();
    let gate = r#"#[cfg(all(feature = "failpoints", debug_assertions))]"#;
    // The module that does it, and its use.
    assert_eq!(source.matches(gate).count(), 2);
    let (outside, inside) = source.split_once("mod armed {").unwrap();
    assert!(!outside.contains("RINGWAY_FAILPOINT"));
    assert!(inside.contains("RINGWAY_FAILPOINT"));
}

/// Cargo reads the manifests of all members, whichever it builds.
#[test]
fn all_members_of_the_workspace_go_into_the_image() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let (_, members) = manifest.split_once("members = [").unwrap();
    let (members, _) = members.split_once(']').unwrap();
    let sent = fs::read_to_string(root().join(".dockerignore")).unwrap();
    for member in members.split('"').skip(1).step_by(2) {
        let (top, _) = member.split_once('/').unwrap_or((member, ""));
        let exception = format!("!{top}");
        assert!(
            sent.lines().any(|line| line == exception),
            ".dockerignore keeps {member} out"
        );
    }
}

#[test]
fn unsafe_stays_where_it_is_known() {
    let found: BTreeSet<String> = [
        "transport",
        "services",
        "proto",
        "examples",
        "tests/src",
        "tests/tests",
        "tests/fuzz/fuzz_targets",
    ]
    .iter()
    .flat_map(|directory| sources(&root().join(directory)))
    .filter(|file| has_unsafe(&fs::read_to_string(file).unwrap()))
    .map(|file| file.strip_prefix(root()).unwrap().display().to_string())
    .collect();
    assert_eq!(found, UNSAFE.map(str::to_owned).into());
}

#[test]
fn every_other_crate_forbids_unsafe() {
    for directory in ["transport", "services", "proto", "examples", "tests/src"] {
        for file in sources(&root().join(directory)) {
            let is_root = file.ends_with("src/lib.rs") || file.ends_with("src/main.rs");
            let may = ["transport/ring", "transport/sys"]
                .iter()
                .any(|crate_| file.starts_with(root().join(crate_)));
            let forbids = fs::read_to_string(&file)
                .unwrap()
                .contains("#![forbid(unsafe_code)]");
            assert!(
                !is_root || may || forbids,
                "{file:?} lacks forbid(unsafe_code)"
            );
        }
    }
}

/// The lists of `tests/TRUST.md`, and how many rows each has.
const ROWS: [(&str, usize); 4] = [("attack ", 46), ("fault ", 27), ("input ", 20), ("A", 15)];

/// What a peer, a fault or a user may do has a test that proves the answer, or says why it has none.
#[test]
fn every_row_of_trust_has_a_test() {
    let table = fs::read_to_string(root().join("tests/TRUST.md")).unwrap();
    let mut rows = BTreeSet::new();
    for line in table.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [row, _, tests] = cells[..] else {
            panic!("a row has three cells: {line}");
        };
        if row == "row" || row == "---" {
            continue;
        }
        assert!(rows.insert(row), "{row} is there twice");
        if let Some(why) = tests.strip_prefix("open:") {
            assert!(why.len() > 10, "{row} does not say why it is open");
            continue;
        }
        let tests: Vec<_> = tests.split_whitespace().collect();
        assert!(!tests.is_empty(), "{row} has no test");
        for test in tests {
            assert_is_a_test(row, test.trim_matches('`'));
        }
    }
    let expected: BTreeSet<_> = ROWS
        .into_iter()
        .flat_map(|(list, len)| (1..=len).map(move |number| format!("{list}{number}")))
        .collect();
    assert_eq!(rows, expected.iter().map(String::as_str).collect());
}

/// `file::function`, the file as it is found below `tests/tests`, `transport` or the root.
fn assert_is_a_test(row: &str, test: &str) {
    let (file, function) = test.split_once("::").unwrap_or_default();
    let source = ["tests/tests", "transport", "tests", ""]
        .into_iter()
        .find_map(|place| fs::read_to_string(root().join(place).join(format!("{file}.rs"))).ok());
    let source = source.unwrap_or_else(|| panic!("{row}: there is no file for {test}"));
    assert!(
        source.contains(&format!("fn {function}(")),
        "{row}: {file}.rs has no {function}"
    );
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// The crates that a build of `package` needs, its own among them.
fn crates_of(package: &str, features: &[&str]) -> BTreeSet<String> {
    let tree = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["tree", "--offline", "--package", package])
        .args(["--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .args(features)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&tree.stderr);
    assert!(tree.status.success(), "{said}");
    let tree = String::from_utf8(tree.stdout).unwrap();
    let names = tree.lines().filter_map(|line| line.split(' ').next());
    names.map(str::to_owned).collect()
}

fn is_ours(dependency: &str) -> bool {
    dependency.starts_with("ringway") || dependency.starts_with("shop-")
}

/// The names under `[dependencies]`; what tests and build scripts need is free.
fn dependencies(manifest: &str) -> impl Iterator<Item = &str> {
    let (_, section) = manifest
        .split_once("\n[dependencies]\n")
        .unwrap_or_default();
    section
        .lines()
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split(['.', ' ', '=']).next())
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// Whether the keyword stands before what it makes unsafe, outside of comments.
fn has_unsafe(source: &str) -> bool {
    let opens = ["{", "impl ", "fn ", "extern ", "trait "];
    source
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .flat_map(|code| code.split("unsafe ").skip(1))
        .any(|after| opens.iter().any(|open| after.starts_with(open)))
}
