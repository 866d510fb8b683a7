//! A context of one's own in the mark, with a pulse: who hangs is found out before the hard deadline.
//!
//! ```sh
//! cargo run --example custom_context
//! ```
//!
//! ```text
//! job 1 on host-a: deferred
//! job 2 on host-b: redriven by the reaper, who displaced host-b
//! host-b may commit: false
//! ```

use std::thread;
use std::time::Duration;

use livemark::{Policy, PolicyError, Pulse, Reaper, Registry, RunningJob, Verdict};

/// What each mark says of its owner. Cheap to clone: look-ups hand out copies.
#[derive(Clone)]
struct Deployment {
    host: &'static str,
    progress: Option<Pulse>,
}

fn main() -> Result<(), PolicyError> {
    let registry: Registry<u64, Deployment> = Registry::new();
    let policy = Policy::builder()
        .hard_deadline(Duration::from_secs(3600))
        .stale_after(Duration::from_millis(100)) // minutes, in earnest
        .marking_stage("deploy")
        .build()?;
    // The reaper's own claims have no pulse: the worker that takes one over puts its own context in.
    let reaper = Reaper::with_claim(&registry, policy, |_job| Deployment { host: "reaper", progress: None })
        .with_pulse(|deployment| deployment.progress.as_ref());

    let progress = Pulse::new();
    let _works = registry.mark(1, Deployment { host: "host-a", progress: Some(progress.clone()) });
    let hangs = registry.mark(2, Deployment { host: "host-b", progress: Some(Pulse::new()) });
    thread::sleep(Duration::from_millis(200));
    progress.beat(); // a step has succeeded

    let finished = Duration::from_secs(400); // both look dead
    for (id, host) in [(1, "host-a"), (2, "host-b")] {
        let job = RunningJob::new(&id, "deploy", finished).finished_for(finished);
        match reaper.sweep().judge(&job) {
            Verdict::Defer(_) => println!("job {id} on {host}: deferred"),
            Verdict::Redrive(claim) => {
                let owner = registry.owner(&id).map_or("nobody", |owner| owner.value.host);
                let displaced = claim.displaced().map_or("nobody", |owner| owner.value.host);
                println!("job {id} on {host}: redriven by the {owner}, who displaced {displaced}");
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
