//! A policy in a settings file, put in force while the reaper runs. A file that cannot work changes nothing.
//!
//! ```sh
//! cargo run --example hot_swap --features serde
//! ```
//!
//! ```text
//! defer_all: job 7 is deferred: defer all
//! honor: job 7 is deferred: owned
//! refused: hard_deadline (60s) must be longer than finalize_grace (300s)
//! honor: job 7 is deferred: owned
//! dry_run: job 7 is deferred: owned
//! ignore: job 7 is redriven
//! ```

use std::error::Error;
use std::path::Path;
use std::time::Duration;
use std::{env, fs, process};

use livemark::{Finalizer, Mode, Policy, Reaper, Registry, RunningJob, Verdict};

static FINALIZING: Registry = Registry::new();

/// On SIGHUP, when the file changes, or before each sweep: it is small.
fn reload(reaper: &Reaper<'_>, file: &Path) -> Result<(), Box<dyn Error>> {
    let policy: Policy = toml::from_str(&fs::read_to_string(file)?)?; // with all the checks of the builder
    reaper.set_policy(policy); // from the next sweep on
    Ok(())
}

/// What the reaper says of a job that looks dead and is owned.
fn judge(reaper: &Reaper<'_>) {
    let past = Duration::from_secs(400);
    let job = RunningJob::new(&7, "gates", past).finished_for(past);
    let verdict = match reaper.sweep().judge(&job) {
        Verdict::Healthy => "healthy".to_owned(),
        Verdict::Defer(deferral) => format!("deferred: {}", deferral.reason),
        Verdict::Redrive(_claim) => "redriven".to_owned(),
        Verdict::Reap(cause, _claim) => format!("reaped: {cause}"),
        Verdict::DryRun(proposed) => format!("left alone, and would be: {proposed}"),
    };
    println!("{}: job 7 is {verdict}", reaper.policy().mode());
}

fn main() -> Result<(), Box<dyn Error>> {
    let file = env::temp_dir().join(format!("livemark-hot-swap-{}.toml", process::id()));
    let settings = |mode, deadline| {
        format!("mode = '{mode}'\nhard_deadline = {deadline}\n[stages]\ngates = {{ marking = true }}\n")
    };
    let _monitor = FINALIZING.mark(7, Finalizer::new(Some(42), "gates"));

    fs::write(&file, settings("defer_all", 3600))?;
    let reaper = Reaper::new(&FINALIZING, toml::from_str(&fs::read_to_string(&file)?)?);
    judge(&reaper);

    fs::write(&file, settings("honor", 3600))?;
    reload(&reaper, &file)?;
    judge(&reaper);

    fs::write(&file, settings("ignore", 60))?;
    let refused = reload(&reaper, &file).expect_err("the backstop would act within the grace").to_string();
    println!("refused: {}", refused.split(':').next().unwrap_or_default().trim());
    judge(&reaper);

    // Operators need no file. Their handle outlives the reaper, and knows nothing of its types.
    let operator = reaper.handle();
    for mode in [Mode::DryRun, Mode::Ignore] {
        operator.set_mode(mode); // loses no other change of the policy
        judge(&reaper);
    }
    Ok(fs::remove_file(&file)?)
}

#[test]
fn it_runs() {
    main().expect("it goes to the end");
}
