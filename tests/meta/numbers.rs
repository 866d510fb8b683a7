//! The numbers of mutants and of models that the pages give, compared with the mutants and the models that there are.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const TESTING: &str = include_str!("../../src/docs/testing.md");
const MODELS: &str = include_str!("../../loom-tests/README.md");

// ---- Mutants ----

/// How many mutants are killed and how many are argued. Those that weaken two edges count for both.
#[derive(Debug, Default, PartialEq, Eq)]
struct Fates {
    killed: usize,
    argued: usize,
}

/// Returns the fates of all mutants, and of those of each edge. Mutants of no edge are `none`.
fn fates(catalog: &str) -> (Fates, BTreeMap<String, Fates>) {
    let catalog: toml::Table = catalog.parse().expect("the catalog is TOML");
    let mutants = catalog["mutant"].as_array().expect("it lists mutants");
    let (mut all, mut by_edge) = (Fates::default(), BTreeMap::<String, Fates>::new());
    for mutant in mutants {
        let count = |fates: &mut Fates| {
            *(if mutant.get("argued").is_some() { &mut fates.argued } else { &mut fates.killed }) += 1;
        };
        count(&mut all);
        let edges = mutant.get("edges").and_then(toml::Value::as_array).filter(|edges| !edges.is_empty());
        match edges {
            None => count(by_edge.entry("none".to_owned()).or_default()),
            Some(edges) => {
                for edge in edges {
                    count(by_edge.entry(edge.as_str().expect("an edge is text").to_owned()).or_default());
                }
            }
        }
    }
    (all, by_edge)
}

fn mutants() -> (Fates, BTreeMap<String, Fates>) {
    fates(&read(&root().join("tests/mutants/mutants.toml")))
}

/// Returns the rows of a table, by its line of headings.
fn table(page: &str, headings: &str) -> Vec<Vec<String>> {
    let (_, rest) = page.split_once(headings).unwrap_or_else(|| panic!("no table {headings}"));
    let rows = rest.trim_start().lines().skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

#[test]
fn the_page_counts_the_mutants() {
    let (all, _) = mutants();
    let total = all.killed + all.argued;
    let (killed, argued) = (all.killed, all.argued);
    for said in [
        format!("applies {total} wrong edits"),
        format!("Of the {total}, {killed} are killed and {argued} are argued in writing"),
    ] {
        assert!(TESTING.contains(&said), "testing.md does not say: {said}");
    }
    let said = format!("makes {total} such mistakes again");
    assert!(MODELS.contains(&said), "loom-tests/README.md does not say: {said}");
}

#[test]
fn the_page_counts_the_mutants_of_each_edge() {
    let rows = table(TESTING, "| edge | killed | argued | |");
    let number = |cell: &String| if cell.is_empty() { 0 } else { cell.parse().expect("a number") };
    let on_the_page: BTreeMap<_, _> = rows
        .iter()
        .map(|row| {
            let edge = row[0].split(' ').next().expect("a row begins with its edge");
            (edge.to_owned(), Fates { killed: number(&row[1]), argued: number(&row[2]) })
        })
        .collect();
    assert_eq!(on_the_page, mutants().1);
}

/// Returns how many mutants of an edge nothing notices but the comparison of the orderings with their page.
fn only_reminded(edge: &str) -> usize {
    let catalog: toml::Table = read(&root().join("tests/mutants/mutants.toml")).parse().expect("the catalog is TOML");
    let mutants = catalog["mutant"].as_array().expect("it lists mutants");
    let text = |mutant: &toml::Value, key: &str| mutant.get(key).map(ToString::to_string).unwrap_or_default();
    let is_reminder = |mutant: &&toml::Value| text(mutant, "killed_by").contains("orderings::");
    mutants.iter().filter(is_reminder).filter(|mutant| text(mutant, "edges").contains(&format!("\"{edge}\""))).count()
}

#[test]
fn the_page_says_which_mutants_a_reminder_kills() {
    let words = ["None", "One", "Two", "Three"];
    let (e5, e3) = (words[only_reminded("E5")], words[only_reminded("E3")].to_lowercase());
    let said = format!("{e5} of E5's and {e3} of E3's are killed only by the test that compares");
    assert!(TESTING.contains(&said), "testing.md does not say: {said}");
}

// ---- Models ----

/// How many models a file has, and how many of them do not explore every order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Models {
    all: usize,
    bounded: usize,
}

/// Counts the models of each file, but for the tests of the harness itself.
fn models() -> BTreeMap<String, Models> {
    let mut models = BTreeMap::new();
    for entry in fs::read_dir(root().join("loom-tests/tests")).expect("the models can be listed") {
        let path = entry.expect("so can each file").path();
        let name = path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
        let is_model = path.is_file() && name != "self_check" && name != "known_bad";
        if is_model {
            let source = read(&path);
            let count = |what| source.matches(what).count();
            models.insert(name, Models { all: count("#[test]\n"), bounded: count("Search::Preemptions(") });
        }
    }
    models
}

#[test]
fn the_page_counts_the_models() {
    let models = models();
    let all: usize = models.values().map(|file| file.all).sum();
    let bounded: usize = models.values().map(|file| file.bounded).sum();
    let said = format!("{bounded} of {all} models bound the preemptions");
    assert!(TESTING.contains(&said), "testing.md does not say: {said}");
}

#[test]
fn the_models_page_has_a_row_for_each_model() {
    let mut on_the_page = BTreeMap::<String, Models>::new();
    let mut file = String::new();
    for row in table(MODELS, "| file | model | edges | executions | s |") {
        if !row[0].is_empty() {
            file = row[0].replace('`', "");
        }
        if file != "self_check" && file != "known_bad" {
            let models = on_the_page.entry(file.clone()).or_default();
            models.all += 1;
            models.bounded += usize::from(row[1].ends_with(" preemptions)"));
        }
    }
    assert_eq!(on_the_page, models());
}

// ---- Files ----

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

// ---- The counts count ----

#[test]
fn mutants_are_counted() {
    let catalog = "[[mutant]]\nedges = ['E1', 'E2']\nkilled_by = ''\n[[mutant]]\nedges = ['E2']\nargued = ''\n[[mutant]]\nkilled_by = ''\n";
    let (all, by_edge) = fates(catalog);
    assert_eq!(all, Fates { killed: 2, argued: 1 });
    let expected = [("E1", 1, 0), ("E2", 1, 1), ("none", 1, 0)];
    let expected = expected.map(|(edge, killed, argued)| (edge.to_owned(), Fates { killed, argued }));
    assert_eq!(by_edge, BTreeMap::from(expected));
}

#[test]
fn rows_are_found() {
    assert_eq!(table("a\n| h |\n|---|\n| 1 | x |\n| 2 | |\n\n| 3 |\n", "| h |"), [["1", "x"], ["2", ""]]);
}
