//! How a search is run and judged: [`explore`] and [`model`].

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::scene::Scene;

/// How far a search goes.
#[derive(Clone, Copy, Debug)]
pub enum Search {
    /// Every order of the threads' steps.
    Exhaustive,
    /// Every order with at most this many preemptions, for models whose every order takes too long.
    Preemptions(usize),
}

/// Runs `execution` in every order that `search` asks for, and checks that what it returns over all of them is
/// exactly `expected`: an outcome too many is a bug of the map, one too few a hole in the search.
///
/// # Panics
///
/// If loom or the execution finds anything wrong, or if the outcomes differ.
pub fn explore<O>(
    name: &str,
    search: Search,
    expected: impl IntoIterator<Item = O>,
    execution: impl Fn() -> O + Send + Sync + 'static,
) where
    O: Ord + Debug + Send + 'static,
{
    let mut builder = loom::model::Builder::new();
    // Loom ends a search that has run too long, or too often, as a success: so it may run as long as it takes, and
    // ends because it has seen everything. The environment must not change that.
    builder.max_duration = None;
    builder.max_permutations = None;
    builder.checkpoint_file = None;
    builder.max_branches = 2_000; // of one execution: loom fails beyond it
    builder.preemption_bound = match search {
        Search::Exhaustive => None,
        Search::Preemptions(bound) => Some(bound),
    };

    let seen = Arc::new(Mutex::new((BTreeSet::new(), 0_u64)));
    let started = Instant::now();
    builder.check({
        let seen = Arc::clone(&seen);
        move || {
            let outcome = execution();
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.0.insert(outcome);
            seen.1 += 1;
        }
    });
    let seconds = started.elapsed().as_secs_f64();
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    let (outcomes, executions) = (&seen.0, seen.1);
    report(&format!("{name:<44} {executions:>9} executions {seconds:>7.2} s   {search}", search = described(search)));
    assert_eq!(*outcomes, expected.into_iter().collect(), "{name}: seen, and expected");
}

/// [`explore`], of threads that race for the jobs of a registry. `threads` are spawned besides the main one.
///
/// # Panics
///
/// Panics where [`explore`] does.
pub fn model<O>(
    name: &str,
    threads: usize,
    search: Search,
    expected: impl IntoIterator<Item = O>,
    execution: impl Fn(&mut Scene) -> O + Send + Sync + 'static,
) where
    O: Ord + Debug + Send + 'static,
{
    explore(name, search, expected, move || Scene::new(threads, false).play(&execution));
}

/// [`model`], of threads that free what another might still read: every order of the pins is explored as well.
///
/// # Panics
///
/// Panics where [`explore`] does.
pub fn model_that_frees<O>(
    name: &str,
    threads: usize,
    search: Search,
    expected: impl IntoIterator<Item = O>,
    execution: impl Fn(&mut Scene) -> O + Send + Sync + 'static,
) where
    O: Ord + Debug + Send + 'static,
{
    explore(name, search, expected, move || Scene::new(threads, true).play(&execution));
}

fn described(search: Search) -> String {
    match search {
        Search::Exhaustive => "every order".to_owned(),
        Search::Preemptions(bound) => format!("up to {bound} preemptions"),
    }
}

/// Past libtest's capture, so that the log of a plain `cargo test` has it.
fn report(line: &str) {
    // One write, as tests run side by side. A log that cannot be written is no reason to fail.
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}
