//! Which types move to and are shared between threads. What must *not* is in `compile_fail` examples beside the types,
//! and in constants here, each beside a twin that may.

use std::cell::Cell;
use std::error::Error;
use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use livemark::{
    AsyncJobStore, Cause, Claim, DefaultHashBuilder, DefaultHasher, DeferReason, Deferral, Explanation, Finalizer,
    Generation, JobStore, MarkGuard, Mode, OccupiedError, Outcome, OwnedMarkGuard, Owner, ParseModeError, Policy,
    PolicyBuilder, PolicyError, Proposed, Pulse, Reader, Reaper, ReaperHandle, ReaperStats, ReclaimStats, Registry,
    RegistryHandle, RegistryStats, RunError, RunningJob, Snapshot, SnapshotIter, StageLimits, StageRules, StopToken,
    Sweep, SweepReport, Verdict,
};

fn send_and_sync<T: Send + Sync>() {}
fn is_static<T: 'static>() {}

/// Says if a type has a trait, asked without a bound, so that the answer may be no: the inherent constant shadows the
/// trait's.
macro_rules! whether {
    ($($name:ident: $bound:path;)*) => {
        $(
            #[allow(dead_code, reason = "where nothing that was asked has it not")]
            trait $name {
                const YES: bool = false;
            }
            impl<T: ?Sized> $name for is::$name<T> {}
            impl<T: ?Sized + $bound> is::$name<T> {
                pub(crate) const YES: bool = true;
            }
        )*
        mod is {
            #![allow(dead_code, reason = "they are only named")]
            $(pub(crate) struct $name<T: ?Sized>(std::marker::PhantomData<T>);)*
        }
    };
}

whether! {
    Moved: Send;
    Shared: Sync;
    Copied: Copy;
    Cloned: Clone;
}

#[test]
fn the_registry_and_what_it_gives_out_go_to_any_thread() {
    send_and_sync::<Registry>();
    send_and_sync::<Registry<String, Vec<u8>>>();
    send_and_sync::<RegistryHandle<'_>>();
    send_and_sync::<RegistryHandle<'static, String, Vec<u8>>>();
    send_and_sync::<MarkGuard<'_>>();
    send_and_sync::<OwnedMarkGuard>();
    send_and_sync::<OwnedMarkGuard<String, Arc<str>>>();
    send_and_sync::<Snapshot>();
    send_and_sync::<SnapshotIter<'_, u64, Finalizer>>();
    send_and_sync::<Owner<Finalizer>>();
    send_and_sync::<Generation>();
    send_and_sync::<OccupiedError<Finalizer>>();
    send_and_sync::<(RegistryStats, ReclaimStats)>();
    send_and_sync::<Finalizer>();
    send_and_sync::<Pulse>();
    send_and_sync::<DefaultHashBuilder>();
    send_and_sync::<DefaultHasher>();
}

#[test]
fn the_reaper_and_what_it_gives_out_go_to_any_thread() {
    send_and_sync::<Reaper<'_>>();
    send_and_sync::<Reaper<'static, String, Vec<u8>>>();
    send_and_sync::<ReaperHandle>();
    send_and_sync::<Verdict<'_>>();
    send_and_sync::<Verdict<'static, String, Vec<u8>>>();
    send_and_sync::<Claim<'_>>();
    send_and_sync::<Claim<'static, String, Vec<u8>>>();
    send_and_sync::<Deferral>();
    send_and_sync::<(DeferReason, Cause, Proposed, Mode, Outcome, ReaperStats, SweepReport)>();
    send_and_sync::<(Policy, PolicyBuilder, PolicyError, StageRules, StageLimits)>();
    send_and_sync::<RunningJob<'_>>();
    send_and_sync::<Explanation<'_>>();
    send_and_sync::<StopToken>();
    send_and_sync::<(RunError<u64, std::io::Error>, ParseModeError)>();
}

#[test]
fn a_reaper_can_be_shared_whatever_its_closures_borrow() {
    let default = Finalizer::new(None, "reaper");
    let registry: Registry = Registry::new();
    let policy = Policy::builder().no_backstop().marking_stage("merge").build().unwrap();
    let reaper = Reaper::with_claim(&registry, policy, |_| default.clone()).with_pulse(|value| value.pulse.as_ref());
    std::thread::scope(|scope| {
        scope.spawn(|| drop(reaper.sweep()));
        drop(reaper.sweep());
    });
    assert_eq!(reaper.stats().sweeps, 2);
}

#[test]
fn a_job_store_can_be_a_trait_object() {
    type Rows = Vec<Result<u64, String>>;
    type AnyStore<'r, 's> = dyn JobStore<'r, Row = u64, Error = String, Rows = Rows> + 's;
    fn runs<'r>(reaper: &Reaper<'r>, jobs: &mut AnyStore<'r, '_>) -> SweepReport {
        let stop = StopToken::new();
        stop.stop();
        reaper.run(Duration::ZERO, &stop, jobs);
        reaper.run_once(jobs)
    }
    let _: fn(&Reaper<'static>, &mut AnyStore<'static, '_>) -> SweepReport = runs;
}

#[test]
fn a_turn_that_is_awaited_goes_to_any_thread() {
    fn send<T: Send>(_: T) {}
    fn whatever_the_store<J: AsyncJobStore>(reaper: &Reaper<'static>, store: &mut J) {
        send(reaper.run_once_async(store));
    }
    fn of_other_jobs<J: AsyncJobStore<String, Vec<u8>>>(reaper: &Reaper<'static, String, Vec<u8>>, store: &mut J) {
        send(reaper.run_once_async(store));
    }
    struct Nothing;
    impl<K: Clone + Send + Sync + 'static, V: Send + Sync + 'static> AsyncJobStore<K, V> for Nothing {
        type Row = K;
        type Error = String;
        type Rows = Vec<Result<K, String>>;
        async fn list(&mut self) -> Result<Self::Rows, String> {
            Ok(vec![])
        }
        fn job<'a>(&self, row: &'a K) -> RunningJob<'a, K> {
            RunningJob::new(row, "merge", Duration::ZERO)
        }
        async fn redrive(&mut self, _: K, _: Claim<'static, K, V>) -> Result<Outcome, String> {
            Ok(Outcome::Refused)
        }
        async fn reap(&mut self, _: K, _: Cause, _: Claim<'static, K, V>) -> Result<Outcome, String> {
            Ok(Outcome::Refused)
        }
    }
    let _ = (whatever_the_store::<Nothing>, of_other_jobs::<Nothing>);
}

#[test]
fn what_keeps_its_registry_or_needs_none_is_static() {
    is_static::<OwnedMarkGuard>();
    is_static::<MarkGuard<'static>>();
    is_static::<RegistryHandle<'static>>();
    is_static::<Claim<'static>>();
    is_static::<Verdict<'static>>();
    is_static::<Snapshot>();
    is_static::<Reaper<'static>>();
    is_static::<ReaperHandle>();
    is_static::<(StopToken, SweepReport, RunError<u64, String>)>();
}

/// What lives long goes where something is wanted that lives less long, and never the other way.
#[test]
fn guards_and_claims_are_covariant_in_their_lifetime() {
    fn guard<'r, 's: 'r>(guard: MarkGuard<'s>) -> MarkGuard<'r> {
        guard
    }
    fn claim<'r, 's: 'r>(claim: Claim<'s, String, Vec<u8>>) -> Claim<'r, String, Vec<u8>> {
        claim
    }
    fn verdict<'r, 's: 'r>(verdict: Verdict<'s>) -> Verdict<'r> {
        verdict
    }
    fn handle<'r, 's: 'r>(handle: RegistryHandle<'s>) -> RegistryHandle<'r> {
        handle
    }
    fn job<'r, 's: 'r>(job: RunningJob<'s>) -> RunningJob<'r> {
        job
    }
    static STATIC: Registry = Registry::new();
    let registry: Registry = Registry::new();
    // A list of both, whose type is the shorter one.
    let owned = Arc::new(Registry::new()).mark_owned(7, Finalizer::new(None, "merge"));
    let guards: [MarkGuard<'_>; 3] =
        [guard(STATIC.mark(7, Finalizer::new(None, "merge"))), owned, registry.mark(7, Finalizer::new(None, "merge"))];
    assert!(guards.iter().all(MarkGuard::is_current));
    let _ = (claim, verdict, handle, job);
}

#[test]
fn a_registry_is_shared_only_if_its_contents_may_be() {
    const { assert!(is::Shared::<Registry<u64, u64>>::YES) }
    const { assert!(!is::Shared::<Registry<Rc<u64>, u64>>::YES) }
    const { assert!(!is::Shared::<Registry<u64, Rc<u64>>>::YES) }
    const { assert!(!is::Shared::<Registry<u64, Cell<u64>>>::YES) }
    const { assert!(!is::Shared::<Registry<u64, u64, Rc<DefaultHashBuilder>>>::YES) }
}

/// A guard clears on the thread that drops it, and a handle marks there.
#[test]
fn guards_claims_and_handles_go_only_where_the_contents_may() {
    const { assert!(is::Moved::<MarkGuard<'static, u64, u64>>::YES && is::Shared::<MarkGuard<'static, u64, u64>>::YES) }
    const { assert!(!is::Moved::<MarkGuard<'static, Rc<u64>, u64>>::YES) }
    const { assert!(!is::Moved::<MarkGuard<'static, u64, Rc<u64>>>::YES) }
    const { assert!(!is::Shared::<MarkGuard<'static, Cell<u64>, u64>>::YES) }
    const { assert!(!is::Moved::<MarkGuard<'static, u64, Cell<u64>>>::YES) }
    const { assert!(is::Moved::<Claim<'static, u64, u64>>::YES && is::Shared::<Claim<'static, u64, u64>>::YES) }
    const { assert!(!is::Moved::<Claim<'static, Rc<u64>, u64>>::YES) }
    const { assert!(!is::Moved::<Claim<'static, u64, Rc<u64>>>::YES) }
    const { assert!(!is::Moved::<Verdict<'static, u64, Rc<u64>>>::YES) }
    const { assert!(is::Moved::<RegistryHandle<'static, u64, u64>>::YES) }
    const { assert!(!is::Moved::<RegistryHandle<'static, u64, Rc<u64>>>::YES) }
    const { assert!(!is::Moved::<RegistryHandle<'static, u64, u64, Rc<DefaultHashBuilder>>>::YES) }
    // A handle of a reaper has nothing of them.
    const { assert!(is::Moved::<ReaperHandle>::YES) }
}

#[test]
fn readers_stay_on_their_thread_and_sweeps_pin_nothing() {
    const { assert!(is::Moved::<Reaper<'static>>::YES) }
    const { assert!(!is::Moved::<Reader<'static>>::YES) }
    const { assert!(is::Moved::<Sweep<'static, 'static>>::YES) }
}

/// Whoever could copy a claim could act on it twice.
#[test]
fn what_owns_a_job_is_not_copied() {
    const { assert!(!is::Cloned::<MarkGuard<'static>>::YES) }
    const { assert!(!is::Cloned::<Claim<'static>>::YES) }
    const { assert!(!is::Cloned::<Verdict<'static>>::YES) }
    const { assert!(is::Cloned::<RegistryHandle<'static>>::YES && is::Cloned::<ReaperHandle>::YES) }
    const { assert!(is::Cloned::<StopToken>::YES && is::Cloned::<Deferral>::YES) }
    // A job is lent, whatever its id is.
    const { assert!(is::Copied::<RunningJob<'static, String>>::YES) }
    const { assert!(is::Copied::<Explanation<'static>>::YES && is::Copied::<Proposed>::YES) }
    const { assert!(is::Copied::<SweepReport>::YES && is::Copied::<StageLimits>::YES) }
}

#[test]
fn errors_are_errors_and_all_is_debug() {
    fn error<T: Error + Send + Sync + 'static>() {}
    fn debug<T: Debug>() {}
    fn display<T: Display>() {}
    fn compared<T: Copy + Eq + Hash + Debug>() {}
    error::<PolicyError>();
    error::<OccupiedError<Finalizer>>();
    error::<ParseModeError>();
    error::<RunError<u64, std::io::Error>>();
    display::<RunError<Rc<u64>, &str>>(); // whatever the id, and for an error that is only text
    debug::<RunError<u64, String>>();
    debug::<Registry<Rc<u64>, Rc<u64>>>(); // asks nothing of the contents
    debug::<RegistryHandle<'_, Rc<u64>, Rc<u64>>>();
    debug::<MarkGuard<'_>>();
    debug::<MarkGuard<'_, u64, Rc<u64>>>();
    debug::<Claim<'_>>();
    debug::<Snapshot>();
    debug::<SnapshotIter<'_, u64, Finalizer>>();
    debug::<Reader<'_>>();
    debug::<Reaper<'_>>();
    debug::<ReaperHandle>();
    debug::<Sweep<'_, '_>>();
    debug::<(Verdict<'_>, StopToken, SweepReport)>();
    debug::<Explanation<'_>>();
    debug::<PolicyBuilder>();
    debug::<RunningJob<'_>>();
    display::<Verdict<'_, Rc<u64>, Rc<u64>>>();
    display::<Explanation<'_>>();
    compared::<Cause>();
    compared::<DeferReason>();
    compared::<Proposed>();
    compared::<Mode>();
    compared::<Outcome>();
}

#[test]
fn a_registry_can_be_used_again_after_a_caught_panic() {
    // Without `AssertUnwindSafe` at the user's.
    fn unwind_safe<T: UnwindSafe + RefUnwindSafe>() {}
    unwind_safe::<Registry>();
    unwind_safe::<MarkGuard<'_>>();
    unwind_safe::<RegistryHandle<'_>>();
    unwind_safe::<Claim<'_>>();
    unwind_safe::<StopToken>();
    unwind_safe::<ReaperHandle>();
}
