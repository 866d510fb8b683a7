//! The mutants, as `mutants.toml` has them.

use std::error::Error;
use std::fmt;
use std::fs;
use std::path::Path;

use serde::Deserialize;

/// All mutants.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Catalog {
    #[serde(rename = "mutant")]
    pub(crate) mutants: Vec<Mutant>,
}

/// A wrong edit, and who must notice it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mutant {
    /// What it does.
    pub(crate) name: String,
    /// The edges of the orderings page that it weakens.
    #[serde(default)]
    pub(crate) edges: Vec<String>,
    #[serde(rename = "edit")]
    pub(crate) edits: Vec<Edit>,
    /// None if nothing can notice it.
    pub(crate) killed_by: Option<Check>,
    /// Why nothing can, and what covers it instead.
    pub(crate) argued: Option<String>,
}

/// A text that occurs once in its file, and what it becomes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Edit {
    pub(crate) file: String,
    pub(crate) find: String,
    pub(crate) replace: String,
}

/// A test: `loom FILE TEST` or `test BINARY MODULE::TEST`; or all of them, without names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Check {
    pub(crate) suite: Suite,
    pub(crate) of: Option<(String, String)>,
}

/// Where a test is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Suite {
    /// The models, in `loom-tests`.
    Loom,
    /// The library's own, in `tests`.
    Tests,
}

/// What became of a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    Killed,
    Survived,
    /// Not noticed, as is said in writing that it cannot be.
    Argued,
    /// The mutant itself is wrong: it does not apply, does not compile, or is argued and yet noticed.
    Broken,
}

impl Catalog {
    /// Reads the catalog and checks that it says one thing or the other of each mutant.
    pub(crate) fn read(root: &Path) -> Result<Self, Box<dyn Error>> {
        let catalog: Self = toml::from_str(&fs::read_to_string(root.join("tests/mutants/mutants.toml"))?)?;
        for mutant in &catalog.mutants {
            if mutant.killed_by.is_some() == mutant.argued.is_some() {
                return Err(format!("{}: killed by a test, or argued? one of both", mutant.name).into());
            }
        }
        Ok(catalog)
    }
}

impl Mutant {
    /// Returns `true` if it was asked for. All are, where nothing is said.
    pub(crate) fn is_one_of(&self, only: &[String]) -> bool {
        let asked = |words: &String| self.edges.contains(words) || self.name.contains(words.as_str());
        only.is_empty() || only.iter().any(asked)
    }
}

impl Check {
    /// All tests that there are.
    pub(crate) fn everything() -> [Self; 2] {
        [Suite::Loom, Suite::Tests].map(|suite| Self { suite, of: None })
    }
}

impl TryFrom<String> for Check {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let words: Vec<&str> = text.split(' ').collect();
        let (suite, file, name) = match words[..] {
            ["loom", file, name] => (Suite::Loom, file, name),
            ["test", binary, name] if name.contains("::") => (Suite::Tests, binary, name),
            _ => return Err(format!("not `loom FILE TEST` or `test BINARY MODULE::TEST`: {text}")),
        };
        Ok(Self { suite, of: Some((file.to_owned(), name.to_owned())) })
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suite = match self.suite {
            Suite::Loom => "loom",
            Suite::Tests => "test",
        };
        match &self.of {
            Some((file, test)) => write!(f, "{suite} {file} {test}"),
            None => write!(f, "all of {suite}"),
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Killed => "killed",
            Self::Survived => "SURVIVED",
            Self::Argued => "argued",
            Self::Broken => "BROKEN",
        })
    }
}
