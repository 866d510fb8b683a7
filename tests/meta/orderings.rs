//! The orderings page lists every atomic operation of the library, and every one names its edge where it stands.
//!
//! A processor that keeps more order than it is asked for, and a model checker that takes `SeqCst` for less than it is,
//! both let an ordering be weakened in silence. This does not say that the orderings are right: the page does. It says
//! that none is changed without the page.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Where an operation is, what it is, and the edges that it belongs to.
type Listed = (String, String, String);

/// The operations that the source has. `sync` hands them on to `std` and `loom`, and has its own counter only.
fn in_the_source() -> BTreeSet<Listed> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut listed = BTreeSet::new();
    for path in rust_files(&src) {
        let file = path.strip_prefix(&src).expect("it is below src").display().to_string();
        // The stand-ins for std's atomics under loom take an ordering, and have none of their own.
        if file == "sync/turnstile.rs" {
            continue;
        }
        let text = fs::read_to_string(&path).expect("the source is UTF-8");
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let orderings: Vec<&str> = code
                .split("Ordering::")
                .skip(1)
                .map(|rest| &rest[..rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len())])
                .filter(|name| ["Relaxed", "Acquire", "Release", "AcqRel", "SeqCst"].contains(name))
                .collect();
            if orderings.is_empty() {
                continue;
            }
            let operation = ["compare_exchange", "fetch_add", "fetch_max", "swap", "load", "store", "fence"]
                .into_iter()
                .find(|operation| code.contains(&format!("{operation}(")))
                .unwrap_or_else(|| panic!("{file}:{}: which operation is this? {line}", at + 1));
            // On the line itself, or in the comment above it.
            let comment = lines[..at].iter().rev().take_while(|line| line.trim_start().starts_with("//"));
            let edges: BTreeSet<String> = comment.chain([line]).flat_map(|line| edges_in(line)).collect();
            assert!(!edges.is_empty(), "{file}:{}: names no edge: {line}", at + 1);
            let edges: Vec<String> = edges.into_iter().collect();
            listed.insert((file.clone(), format!("{operation} {}", orderings.join(" ")), edges.join(" ")));
        }
    }
    listed
}

/// Those of the page's table.
fn on_the_page() -> BTreeSet<Listed> {
    let page = include_str!("../../src/docs/orderings.md");
    let (_, table) = page.split_once("| file | operation | edges |\n|---|---|---|\n").expect("the page has the table");
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<String> = row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
        let [file, operation, edges] = &cells[..] else { panic!("not three cells: {row}") };
        (file.clone(), operation.clone(), edges.clone())
    })
    .collect()
}

fn edges_in(line: &str) -> Vec<String> {
    let comment = line.split_once("//").map_or("", |(_, comment)| comment);
    let words = comment.split(|c: char| !c.is_ascii_alphanumeric());
    let is_edge = |word: &&str| word.strip_prefix('E').is_some_and(|number| number.parse::<u8>().is_ok());
    words.filter(is_edge).map(str::to_owned).collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("so can its entries").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

#[test]
fn the_page_lists_every_atomic_operation() {
    let (source, page) = (in_the_source(), on_the_page());
    let only =
        |these: &BTreeSet<Listed>, those: &BTreeSet<Listed>| these.difference(those).cloned().collect::<Vec<_>>();
    assert_eq!((only(&source, &page), only(&page, &source)), (vec![], vec![]), "only in the source, only on the page");
}

#[test]
fn the_page_explains_every_edge() {
    let page = include_str!("../../src/docs/orderings.md");
    for (.., edges) in on_the_page() {
        for edge in edges.split(' ') {
            assert!(page.contains(&format!("**{edge}, ")), "{edge} is not explained");
        }
    }
}
