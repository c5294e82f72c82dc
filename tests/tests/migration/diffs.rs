//! The diffs that MIGRATING.md shows are the real ones, and short.

use std::path::Path;
use std::process::Command;

/// Lines that an application of the size of a real one may change.
const MAY_CHANGE: usize = 40;

/// Checks `MIGRATING.diff` in `directory` of `tests/migration`, and returns how many lines it changes.
fn changed(directory: &str) -> usize {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let found = Command::new("diff")
        .args(["-ru", "before", "after"])
        .current_dir(&directory)
        .output()
        .unwrap();
    let found = String::from_utf8(found.stdout).unwrap();
    // File times stand behind a tab.
    let found: Vec<&str> = found
        .lines()
        .map(|line| {
            if is_file(line) {
                line.split('\t').next().unwrap()
            } else {
                line
            }
        })
        .collect();
    let kept = std::fs::read_to_string(directory.join("MIGRATING.diff")).unwrap();
    assert_eq!(found, kept.lines().collect::<Vec<_>>());
    let changed = |line: &&&str| line.starts_with(['-', '+']) && !is_file(line);
    found.iter().filter(changed).count()
}

/// Tells if a diff's line names a file.
fn is_file(line: &str) -> bool {
    line.starts_with("--- ") || line.starts_with("+++ ")
}

#[test]
fn the_greeter_s_diff_is_the_real_one() {
    assert!(changed("migration") > 0);
}

#[test]
fn an_application_moves_by_few_lines() {
    let changed = changed("migration/tickets");
    assert!(changed > 0 && changed < MAY_CHANGE, "{changed} lines");
}
