//! The incident that this library exists for, replayed.
//!
//! A job's process exits and its monitor stamps `finished_at`; the finalization that follows takes longer than
//! the reaper's grace. The reaper sees the stamp only: it re-ran the finalization of a live job, the second run
//! went red and rolled the deploy back, while the first one merged it.

use std::sync::{Barrier, Mutex};
use std::thread;

use livemark::{DeferReason, Deferral, Finalizer, Mode, Reaper, Registry, Verdict};

use crate::support::{MARKING, finished, policy};

const JOB: u64 = 7;

/// What became of the job, in order.
fn replay(mode: Mode) -> Vec<&'static str> {
    let registry: Registry = Registry::new();
    let reaper = Reaper::new(&registry, policy().with_mode(mode));
    let history = Mutex::new(Vec::new());
    let note = |event| history.lock().unwrap().push(event);
    let (stamped, swept) = (Barrier::new(2), Barrier::new(2));

    thread::scope(|scope| {
        scope.spawn(|| {
            // Before the job is reapable.
            let mark = registry.mark(JOB, Finalizer::new(Some(1), MARKING));
            stamped.wait();
            // The gates: slow, alive, and still running when the reaper sweeps.
            swept.wait();
            note(if mark.is_current() { "merged by its monitor" } else { "merged by a displaced monitor" });
        });
        stamped.wait();
        note(match reaper.sweep().judge(&finished(&JOB)) {
            Verdict::Redrive(_) => "run again and rolled back by the reaper",
            Verdict::Defer(Deferral { reason: DeferReason::Owned, owner: Some(_), .. }) => "deferred by the reaper",
            _ => "left to chance",
        });
        swept.wait();
    });

    // Had the monitor died instead, this is when the reaper would act: the cure does not keep it from its work.
    assert!(matches!(reaper.sweep().judge(&finished(&JOB)), Verdict::Redrive(_)));
    history.into_inner().unwrap()
}

/// One test for both: without the registry it shows the incident, with it the cure.
// Seen to fail with a `Sweep` that opened no reader in `Mode::Honor`: the registry was not asked.
#[test]
fn a_live_finalizer_is_rerun_without_the_registry_and_left_alone_with_it() {
    assert_eq!(replay(Mode::Ignore), ["run again and rolled back by the reaper", "merged by its monitor"]);
    assert_eq!(replay(Mode::Honor), ["deferred by the reaper", "merged by its monitor"]);
}
