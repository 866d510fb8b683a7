//! Compares livemark's public API with the listing that is kept beside this, so that a change of it is seen in a diff;
//! and requires that all of it is documented and shown in examples.
//!
//! ```sh
//! cargo run --manifest-path tests/api/Cargo.toml              # fails if the API is not the one in public-api.txt,
//!                                                             # or if an item has no example
//! cargo run --manifest-path tests/api/Cargo.toml -- --write   # writes public-api.txt
//! ```
//!
//! The listing is made from rustdoc's JSON, whose format changes with the compiler: one that writes another format than
//! this reads ends this with status 2, which says that nothing was checked.

mod coverage;

use std::error::Error;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

use rustdoc_types::FORMAT_VERSION;

use crate::coverage::Coverage;

/// All of them but `loom`, which is for the models.
const FEATURES: &str = "tracing,serde,metrics";

/// Traits that come by themselves, and of which nobody is to take notice.
const NOT_PROMISED: [&str; 4] = ["::Freeze for", "::UnsafeUnpin for", "UnwindSafe for", "::StructuralPartialEq for"];

/// What was found out.
enum Outcome {
    Holds,
    Fails,
    /// The compiler's format is not the one that this reads.
    NotChecked,
}

fn main() -> ExitCode {
    match run() {
        Ok(Outcome::Holds) => ExitCode::SUCCESS,
        Ok(Outcome::Fails) => ExitCode::FAILURE,
        Ok(Outcome::NotChecked) => ExitCode::from(2),
        Err(error) => {
            eprintln!("api: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<Outcome, Box<dyn Error>> {
    let write = match env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [option] if option == "--write" => true,
        _ => return Err("usage: api [--write]".into()),
    };
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = package.join("../..").canonicalize()?;
    let json = document(&root)?;

    let text = fs::read_to_string(&json)?;
    let format = serde_json::from_str::<serde_json::Value>(&text)?["format_version"].as_u64();
    if format != Some(FORMAT_VERSION.into()) {
        eprintln!(
            "api: NOT CHECKED: this compiler's rustdoc writes JSON of format {format:?}, and this reads {FORMAT_VERSION}"
        );
        return Ok(Outcome::NotChecked);
    }

    let coverage = Coverage::of(&serde_json::from_str(&text)?);
    println!("{coverage}");

    let listing = listing(&json)?;
    let kept = package.join("public-api.txt");
    if write {
        fs::write(&kept, &listing)?;
    }
    let difference = difference(&fs::read_to_string(&kept)?, &listing);
    if !difference.is_empty() {
        eprintln!("api: the public API is not the one of tests/api/public-api.txt:\n{difference}");
        eprintln!("api: if that is meant, run this with `-- --write` and say so in CHANGELOG.md");
    }
    Ok(if difference.is_empty() && coverage.is_complete() { Outcome::Holds } else { Outcome::Fails })
}

/// Has rustdoc describe the library, and says where.
fn document(root: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let target = root.join("target/api");
    let done = Command::new(env!("CARGO"))
        .current_dir(root)
        .args(["rustdoc", "--locked", "--quiet", "--lib", "--features", FEATURES, "--target-dir"])
        .arg(&target)
        .args(["--", "-Zunstable-options", "--output-format", "json"])
        // The format is not stable yet: this is what its users on stable compilers do.
        .env("RUSTC_BOOTSTRAP", "1")
        .status()?;
    if !done.success() {
        return Err("rustdoc failed".into());
    }
    Ok(target.join("doc/livemark.json"))
}

fn listing(json: &Path) -> Result<String, Box<dyn Error>> {
    let api = public_api::Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_derived_impls(false)
        .omit_auto_trait_impls(false)
        .build()?;
    let mut listing = String::new();
    for item in api.items().map(ToString::to_string) {
        if !NOT_PROMISED.iter().any(|noise| item.contains(noise)) {
            writeln!(listing, "{item}")?;
        }
    }
    Ok(listing)
}

/// The lines that only one of them has.
fn difference(kept: &str, found: &str) -> String {
    let lack = |these: &str, mark: char, those: &str| -> Vec<String> {
        let those: Vec<_> = those.lines().collect();
        these.lines().filter(|line| !those.contains(line)).map(|line| format!("{mark} {line}\n")).collect()
    };
    [lack(kept, '-', found), lack(found, '+', kept)].concat().concat()
}

#[cfg(test)]
mod tests {
    use super::difference;

    #[test]
    fn what_went_and_what_came_is_shown() {
        assert_eq!(difference("a\nb\n", "b\na\n"), "");
        assert_eq!(
            difference("pub fn a()\npub fn b()\n", "pub fn a(u8)\npub fn b()\n"),
            "- pub fn a()\n+ pub fn a(u8)\n"
        );
    }
}
