//! What the replay prints: timelines, and the closing table. Fits 80 columns.

use std::fmt;
use std::io::{self, Write};

use crate::error::{Error, Result};
use crate::replay::Replay;
use crate::store::Note;

/// Something that must be so for a scenario to hold.
#[derive(Clone, Debug)]
pub struct Fact {
    what: &'static str,
    expected: Expected,
    found: u64,
}

#[derive(Clone, Copy, Debug)]
enum Expected {
    Exactly(u64),
    AtLeast(u64),
}

impl Fact {
    /// `found` must be `expected`.
    pub fn exactly(what: &'static str, expected: u64, found: u64) -> Self {
        Self { what, expected: Expected::Exactly(expected), found }
    }

    /// `found` must be `least` or more.
    pub fn at_least(what: &'static str, least: u64, found: u64) -> Self {
        Self { what, expected: Expected::AtLeast(least), found }
    }

    /// Returns `true` if it is so.
    pub fn holds(&self) -> bool {
        match self.expected {
            Expected::Exactly(expected) => self.found == expected,
            Expected::AtLeast(least) => self.found >= least,
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(expected) => f.pad(&expected.to_string()),
            Self::AtLeast(least) => f.pad(&format!(">= {least}")),
        }
    }
}

/// What is replayed, and under which limits.
pub fn opening(out: &mut dyn Write, replay: &Replay<'_>) -> Result<()> {
    let limits = &replay.config.limits;
    let gates: Vec<_> = replay.config.default_kind.gates.iter().map(|gate| gate.name.as_str()).collect();
    written((|| {
        writeln!(out, "The incident, replay {}", replay.number)?;
        writeln!(out, "  gates          {}", gates.join(", "))?;
        writeln!(out, "  finalize grace {:?}", limits.finalize_grace)?;
        writeln!(out, "  hard deadline  {:?}", limits.hard_deadline)?;
        writeln!(out, "  sweep every    {:?}", limits.sweep_every)
    })())
}

/// What happened, in seconds since the first line.
pub fn timeline(out: &mut dyn Write, title: &str, notes: &[Note]) -> Result<()> {
    let start = notes.first().map_or(0, |note| note.at);
    written((|| {
        writeln!(out, "\n{title}")?;
        for Note { at, job, who, what } in notes {
            let at = at.saturating_sub(start);
            write!(out, "{:>4}.{:03}  {who:<8}  ", at / 1000, at % 1000)?;
            match job {
                Some(job) => writeln!(out, "job {job}: {what}")?,
                None => writeln!(out, "{what}")?,
            }
        }
        out.flush()
    })())
}

/// That some scenarios are not played, and what it takes.
pub fn skipped(out: &mut dyn Write) -> Result<()> {
    const HOW: &str = if cfg!(feature = "cluster") {
        "With --cluster ADDRESS they are played on a PostgreSQL."
    } else {
        "A build with --features cluster can play them."
    };
    written((|| {
        writeln!(out, "\nNot played, as they take several processes on one store: (g) a rolling deploy,")?;
        writeln!(out, "(h) processes killed at random, (i) one cut off.\n{HOW}")
    })())
}

/// Expected against found. Whether all facts hold.
pub fn table(out: &mut dyn Write, scenarios: &[(&str, Vec<Fact>)]) -> Result<bool> {
    let wrong = scenarios.iter().flat_map(|(_, facts)| facts).filter(|fact| !fact.holds()).count();
    written((|| {
        writeln!(out, "\n{:<8}  {:<34}  {:>8}  {:>8}  ok", "scenario", "", "expected", "found")?;
        for (key, facts) in scenarios {
            for (line, Fact { what, expected, found }) in facts.iter().enumerate() {
                let key = if line == 0 { format!("({key})") } else { String::new() };
                let ok = if facts[line].holds() { "yes" } else { "NO" };
                writeln!(out, "{key:<8}  {what:<34}  {expected:>8}  {found:>8}  {ok}")?;
            }
        }
        match wrong {
            0 => writeln!(out, "\nAll scenarios hold."),
            _ => writeln!(out, "\n{wrong} of these do NOT hold."),
        }
    })())?;
    Ok(wrong == 0)
}

fn written(result: io::Result<()>) -> Result<()> {
    result.map_err(Error::io("standard output"))
}
