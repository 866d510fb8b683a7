//! A copy of the sources, in which mutants are applied and tests are run.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::catalog::{Check, Edit, Mutant, Suite};

/// How long a test may take; the slowest, without a mutant, takes a sixth of it.
const PATIENCE: Duration = Duration::from_secs(300);
/// And a whole suite.
const PATIENCE_WITH_ALL: Duration = Duration::from_secs(900);

/// A copy of the sources.
pub(crate) struct Tree {
    root: PathBuf,
}

/// What came of running a test.
pub(crate) enum Outcome {
    Passed,
    /// With the first line of what it said.
    Failed(String),
    /// It did not end in time.
    Hung,
    /// It was not there, or did not compile.
    NotRun(String),
}

impl Tree {
    /// Copies the sources below `target/mutants`. What was built there before is used again.
    pub(crate) fn copied(from: &Path, number: usize) -> io::Result<Self> {
        let root = from.join(format!("target/mutants/{number}"));
        fs::create_dir_all(&root)?;
        for name in
            ["Cargo.toml", "Cargo.lock", "README.md", "src", "tests", "benches", "crates", "examples", "loom-tests"]
        {
            copy(&from.join(name), &root.join(name))?;
        }
        Ok(Self { root })
    }

    /// Runs `inside` with the mutant applied, then takes it back.
    pub(crate) fn with<R>(&self, mutant: &Mutant, inside: impl FnOnce() -> R) -> Result<R, Box<dyn Error>> {
        let mut originals = Vec::new();
        let applied = mutant.edits.iter().try_for_each(|edit| self.apply(edit, &mut originals));
        let result = applied.map(|()| inside());
        // The last edit of a file first, so that it ends as it was.
        for (path, text) in originals.into_iter().rev() {
            fs::write(path, text)?;
        }
        result
    }

    fn apply(&self, edit: &Edit, originals: &mut Vec<(PathBuf, String)>) -> Result<(), Box<dyn Error>> {
        let path = self.root.join(&edit.file);
        let text = fs::read_to_string(&path)?;
        let [before, after] = text.split(&edit.find).collect::<Vec<_>>()[..] else {
            return Err(format!("{} does not have this text once: {}", edit.file, edit.find).into());
        };
        fs::write(&path, format!("{before}{}{after}", edit.replace))?;
        originals.push((path, text));
        Ok(())
    }

    /// Runs a test.
    pub(crate) fn run(&self, check: &Check) -> Outcome {
        let built = self.cargo(check, &["--no-run"], PATIENCE_WITH_ALL);
        match built {
            Ok((true, _)) => {}
            Ok((false, output)) => return Outcome::NotRun(format!("does not compile: {}", first(&output, "error"))),
            Err(why) => return Outcome::NotRun(why),
        }
        match self.cargo(check, &[], PATIENCE) {
            Ok((true, output)) if output.contains("test result: ok. 1 passed") => Outcome::Passed,
            Ok((true, _)) => Outcome::NotRun("there is no such test".to_owned()),
            Ok((false, output)) => Outcome::Failed(what_it_said(&output)),
            Err(_) => Outcome::Hung,
        }
    }

    /// The tests of a whole suite that fail.
    pub(crate) fn noticing(&self, check: &Check) -> Vec<String> {
        match self.cargo(check, &["--no-fail-fast"], PATIENCE_WITH_ALL) {
            Ok((true, _)) => Vec::new(),
            Ok((false, output)) => {
                let failed = output.lines().filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"));
                // Once each: a test that runs in a child is said to have failed by the child as well.
                let failed: BTreeSet<String> = failed.map(str::to_owned).collect();
                // A process that was aborted names no test.
                if failed.is_empty() {
                    vec![format!("{check} ({})", what_it_said(&output))]
                } else {
                    failed.into_iter().collect()
                }
            }
            Err(_) => vec![format!("{check} (does not end)")],
        }
    }

    /// Runs cargo's test command. Returns how it went and what it wrote, or an error if it did not end.
    fn cargo(&self, check: &Check, options: &[&str], patience: Duration) -> Result<(bool, String), String> {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(match check.suite {
            Suite::Loom => self.root.join("loom-tests"),
            Suite::Tests => self.root.clone(),
        });
        // A caller's flags would replace those that the models are built with.
        for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "CARGO_TARGET_DIR"] {
            cargo.env_remove(name);
        }
        cargo.env("CARGO_TERM_COLOR", "never").env("RUST_BACKTRACE", "0");
        // A mutant is one line: most of what is built for it was built for the one before.
        cargo.env("CARGO_INCREMENTAL", "1").env("CARGO_PROFILE_DEV_DEBUG", "0");
        cargo.args(["test", "--locked"]);
        match check.suite {
            Suite::Loom => cargo.arg("--release"),
            // Each build differs from the one before in a few lines, also where a caller builds all anew.
            Suite::Tests => cargo.env("CARGO_INCREMENTAL", "1"),
        };
        match &check.of {
            Some((file, _)) => cargo.args(["--test", file]),
            None => cargo.arg("--tests"),
        };
        cargo.args(options);
        if let Some((_, test)) = &check.of {
            cargo.args(["--", "--exact", test]);
        }
        let log = self.root.join("log");
        let file = fs::File::create(&log).map_err(|error| error.to_string())?;
        let out = file.try_clone().map_err(|error| error.to_string())?;
        let mut running = in_group(&mut cargo)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(file)
            .spawn()
            .map_err(|error| format!("cargo: {error}"))?;
        let started = Instant::now();
        loop {
            if let Some(status) = running.try_wait().map_err(|error| error.to_string())? {
                return Ok((status.success(), read(&log)));
            }
            if started.elapsed() > patience {
                kill_group(&mut running);
                return Err(format!("did not end within {} s", patience.as_secs()));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Tests are children of cargo's: to end them takes a group of their own.
fn in_group(cargo: &mut Command) -> &mut Command {
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(cargo, 0);
    cargo
}

fn kill_group(running: &mut std::process::Child) {
    if cfg!(unix) {
        let _ = Command::new("kill").args(["-9", "--", &format!("-{}", running.id())]).status();
    }
    let _ = running.kill();
    let _ = running.wait();
}

fn read(log: &Path) -> String {
    fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The first line with this word.
fn first<'a>(output: &'a str, word: &str) -> &'a str {
    output.lines().find(|line| line.contains(word)).unwrap_or("no message")
}

/// The line after "panicked at", or the signal.
fn what_it_said(output: &str) -> String {
    let mut lines = output.lines().skip_while(|line| !line.contains("panicked at")).skip(1);
    let said = lines.next().unwrap_or_else(|| {
        let line = first(output, "signal: ");
        line.rfind("(signal: ").and_then(|at| line.get(at..)).unwrap_or(line)
    });
    said.trim().chars().take(90).collect()
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if !from.is_dir() {
        // A file that is as it was is left alone, or all would be built anew.
        return if fs::read(to).ok() == Some(fs::read(from)?) { Ok(()) } else { fs::copy(from, to).map(drop) };
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        if name != "target" {
            copy(&from.join(&name), &to.join(&name))?;
        }
    }
    // What is gone from the sources must be gone from the copy.
    for entry in fs::read_dir(to)? {
        let name = entry?.file_name();
        if name != "target" && !from.join(&name).exists() {
            let gone = to.join(&name);
            if gone.is_dir() { fs::remove_dir_all(gone)? } else { fs::remove_file(gone)? }
        }
    }
    Ok(())
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passes"),
            Self::Failed(said) => f.write_str(said),
            Self::Hung => f.write_str("does not end"),
            Self::NotRun(why) => f.write_str(why),
        }
    }
}
