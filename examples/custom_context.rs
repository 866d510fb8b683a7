//! A context of one's own in the mark, with a pulse: who hangs is found out before the hard deadline.
//!
//! ```sh
//! cargo run --example custom_context
//! ```
//!
//! ```text
//! job 1 on host-a: deferred
//! job 2 on host-b: re-driven, by reaper
//! host-b may commit: false
//! ```

use std::thread;
use std::time::Duration;

use livemark::{Policy, PolicyError, Pulse, Reaper, Registry, RunningJob, Verdict};

/// What each mark says of its owner. Cheap to clone: look-ups hand out copies.
#[derive(Clone)]
struct Deployment {
    host: &'static str,
    progress: Pulse,
}

impl Deployment {
    fn on(host: &'static str) -> Self {
        Self { host, progress: Pulse::new() }
    }
}

fn main() -> Result<(), PolicyError> {
    let registry: Registry<u64, Deployment> = Registry::new();
    let policy = Policy::builder()
        .hard_deadline(Duration::from_secs(3600))
        .stale_after(Duration::from_millis(100)) // minutes, in earnest
        .marking_stage("deploy")
        .build()?;
    let reaper = Reaper::with_claim(&registry, policy, |_job| Deployment::on("reaper"))
        .with_pulse(|deployment| Some(&deployment.progress));

    let works = Deployment::on("host-a");
    let _works = registry.mark(1, works.clone());
    let hangs = registry.mark(2, Deployment::on("host-b"));
    thread::sleep(Duration::from_millis(200));
    works.progress.beat(); // a step has succeeded

    let finished = Duration::from_secs(400); // both look dead
    for (id, host) in [(1, "host-a"), (2, "host-b")] {
        let job =
            RunningJob { id, stage: "deploy", running_for: finished, finished_for: Some(finished), lost_for: None };
        match reaper.sweep().judge(&job) {
            Verdict::Defer(_) => println!("job {id} on {host}: deferred"),
            Verdict::Redrive(Some(claim)) => {
                let owner = registry.owner(claim.job()).map_or("nobody", |owner| owner.value.host);
                println!("job {id} on {host}: re-driven, by {owner}");
            }
            other => unreachable!("{other}"),
        }
    }
    println!("host-b may commit: {}", hangs.is_current());
    Ok(())
}

#[test]
fn it_runs() {
    main().expect("the policy can work");
}
