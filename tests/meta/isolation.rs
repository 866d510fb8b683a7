//! Each test of `isolated` runs in a process of its own: one that did not would share the parent's with others.

use std::fs;
use std::path::Path;

#[test]
fn each_isolated_test_starts_a_child_before_all_else() {
    const STARTS: [&str; 4] = [
        "isolated!();",
        "if ran_in_a_child_that_is_stopped() {",
        "if let Some(mut child) = child() {",
        "if let Ok(allocation) = env::var(FAILS) {", // and a child for each allocation
    ];
    let mut tests = 0;
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/isolated")).expect("it is there") {
        let path = entry.expect("it can be read").path();
        let text = fs::read_to_string(&path).expect("it is UTF-8");
        let mut lines = text.lines().map(str::trim);
        while lines.any(|line| line == "#[test]") {
            let test = lines.find(|line| line.starts_with("fn ")).expect("a test is a function");
            let first = lines.next().expect("it has a body");
            assert!(STARTS.contains(&first), "{}: {test} {first}", path.display());
            tests += 1;
        }
    }
    assert!(tests >= 70, "only {tests} were found");
}
