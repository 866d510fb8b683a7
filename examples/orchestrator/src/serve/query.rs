//! What follows the `?`: read strictly, so that a misspelled filter does not show everything.

use std::str::FromStr;

use axum::http::{StatusCode, Uri};

use crate::serve::routes::Refusal;

/// The largest number that every program reads from JSON as it was written.
pub(super) const LARGEST: u64 = (1 << 53) - 1;

/// The parameters of a request, each of them known and given once.
#[derive(Debug)]
pub(super) struct Query {
    given: Vec<(String, String)>,
}

impl Query {
    /// Reads the parameters. Any that is not `known` is refused, and any that is given twice.
    pub(super) fn of(uri: &Uri, known: &[&str]) -> Result<Self, Refusal> {
        let mut given: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            if !known.contains(&name.as_ref()) {
                return Err(bad(match known {
                    [] => format!("no parameter {name:?}: there is none here"),
                    _ => format!("no parameter {name:?}: there is {}", known.join(", ")),
                }));
            }
            if given.iter().any(|(other, _)| *other == name) {
                return Err(bad(format!("{name} is given twice")));
            }
            given.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self { given })
    }

    /// Returns what is given, unless it is nothing.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let (_, value) = self.given.iter().find(|(given, _)| given == name)?;
        (!value.is_empty()).then_some(value)
    }

    /// Reads a whole number.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match u64::from_str(text) {
            Ok(number) if number <= LARGEST => Ok(Some(number)),
            _ => Err(bad(format!("{name} must be a whole number, of at most {LARGEST}"))),
        }
    }

    /// Reads a number of things to list.
    pub(super) fn limit(&self, usual: usize, most: usize) -> Result<usize, Refusal> {
        let limit = self.number("limit")?.map_or(Ok(usual), usize::try_from);
        limit
            .ok()
            .filter(|limit| (1..=most).contains(limit))
            .ok_or_else(|| bad(format!("limit must be from 1 to {most}")))
    }

    /// Reads `true` or `false`.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Refusal> {
        match self.text(name) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(_) => Err(bad(format!("{name} must be true or false"))),
        }
    }

    /// Reads one of several words.
    pub(super) fn one_of<T: Copy>(&self, name: &str, words: &[(String, T)]) -> Result<Option<T>, Refusal> {
        self.text(name).map(|text| chosen(name, text, words)).transpose()
    }

    /// Reads some of several words, with commas between them.
    pub(super) fn any_of<T: Copy>(&self, name: &str, words: &[(String, T)]) -> Result<Vec<T>, Refusal> {
        let Some(text) = self.text(name) else { return Ok(Vec::new()) };
        text.split(',').map(|word| chosen(name, word, words)).collect()
    }
}

fn chosen<T: Copy>(name: &str, text: &str, words: &[(String, T)]) -> Result<T, Refusal> {
    let found = words.iter().find(|(word, _)| word == text).map(|(_, value)| *value);
    let known = || words.iter().map(|(word, _)| word.as_str()).collect::<Vec<_>>().join(", ");
    found.ok_or_else(|| bad(format!("no {name} {text:?}: there is {}", known())))
}

fn bad(error: String) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, error)
}
