//! Holds the promises of the pages: the README is one screen and a few minutes, links lead somewhere, and code on
//! a page stands in a program that is compiled.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Words of the README, with its code.
const README_WORDS: usize = 1_000;
/// Lines within which it shows a server and a client.
const FIRST_LINES: usize = 60;
/// Lines of code of either, beside what they use.
const PROGRAM_LINES: usize = 12;
/// Words of a page of `docs`: one sitting of some ten minutes.
const PAGE_WORDS: usize = 2_500;

#[test]
fn the_readme_is_short() {
    let readme = read("README.md");
    let words = readme.split_whitespace().count();
    assert!(words < README_WORDS, "{words} words");
}

#[test]
fn the_readme_begins_with_a_server_and_a_client() {
    let readme = read("README.md");
    let first: Vec<_> = readme.lines().take(FIRST_LINES).collect();
    let first = first.join("\n");
    for path in ["src/bin/server.rs", "src/bin/client.rs"] {
        let (_, after) = first.split_once(&format!("`{path}`:")).expect(path);
        let (_, fenced) = after.split_once("```rust\n").expect(path);
        let (code, _) = fenced.split_once("```").expect("its end");
        let lines = code
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with("use "));
        assert!(lines.count() <= PROGRAM_LINES, "{path} is long:\n{code}");
    }
}

#[test]
fn each_page_is_one_sitting() {
    for page in pages().iter().filter(|page| page.starts_with("docs")) {
        let words = read(page).split_whitespace().count();
        assert!(words < PAGE_WORDS, "{} has {words} words", page.display());
    }
}

#[test]
fn links_lead_to_files_and_headings_that_are_there() {
    let mut lost = Vec::new();
    for page in pages() {
        let text = without_code(&read(&page));
        for target in links(&text) {
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = match file {
                "" => root().join(&page),
                file => root().join(page.parent().unwrap()).join(file),
            };
            let leads = match anchor {
                "" => file.exists(),
                anchor => fs::read_to_string(&file)
                    .is_ok_and(|text| anchors(&without_code(&text)).contains(anchor)),
            };
            if !leads {
                lost.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(lost.is_empty(), "{lost:#?}");
}

#[test]
fn every_page_of_docs_is_linked_from_the_readme() {
    let readme = read("README.md");
    for page in pages().iter().filter(|page| page.starts_with("docs")) {
        assert!(
            links(&readme).any(|target| Path::new(target) == page),
            "{} is linked from nowhere",
            page.display()
        );
    }
}

/// A page shows no Rust of its own: its lines stand, one after the other, in a source or in a documentation
/// test. The README's are compiled by this crate.
#[test]
fn rust_on_the_pages_is_compiled_somewhere() {
    let compiled: Vec<_> = [
        "examples",
        "transport/ringway/src",
        "transport/telemetry/src",
    ]
    .iter()
    .flat_map(|directory| sources(&root().join(directory)))
    .map(|file| stripped(&fs::read_to_string(file).unwrap()))
    .collect();
    let mut lost = Vec::new();
    for page in pages() {
        if page == Path::new("README.md") {
            continue;
        }
        for block in rust_blocks(&read(&page)) {
            let wanted = stripped(block);
            let stands = compiled.iter().any(|source| {
                source
                    .windows(wanted.len())
                    .any(|lines| lines == wanted.as_slice())
            });
            if !stands {
                lost.push(format!("{}:\n{block}", page.display()));
            }
        }
    }
    assert!(lost.is_empty(), "{}", lost.join("\n"));
}

/// All pages for people, by their paths from the root.
fn pages() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for directory in [".", "docs", "deploy"] {
        for entry in fs::read_dir(root().join(directory)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let name = path.file_name().unwrap();
                found.push(match directory {
                    "." => name.into(),
                    directory => Path::new(directory).join(name),
                });
            }
        }
    }
    found
}

fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](")
        .skip(1)
        .filter_map(|after| Some(after.split_once(')')?.0))
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    text.lines()
        .filter_map(|line| line.strip_prefix('#'))
        .map(|heading| heading.trim_start_matches('#').trim().to_lowercase())
        .map(|heading| {
            heading
                .chars()
                .filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter))
                .map(|letter| if letter == ' ' { '-' } else { letter })
                .collect::<String>()
        })
        .map(|anchor| {
            let times = seen.entry(anchor.clone()).or_default();
            *times += 1;
            match *times {
                1 => anchor,
                times => format!("{anchor}-{}", times - 1),
            }
        })
        .collect()
}

/// A page without its blocks of code, in which `](` and `#` mean other things.
fn without_code(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

fn rust_blocks(text: &str) -> impl Iterator<Item = &str> {
    text.split("```")
        .skip(1)
        .step_by(2)
        .filter_map(|block| block.strip_prefix("rust\n"))
}

/// Lines without indentation, without what makes them a doc comment, and without empty ones.
fn stripped(text: &str) -> Vec<String> {
    text.lines()
        .map(|line| line.trim().trim_start_matches(['/', '!']).trim())
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
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

fn read(page: impl AsRef<Path>) -> String {
    fs::read_to_string(root().join(page)).unwrap()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap()
        .to_owned()
}
