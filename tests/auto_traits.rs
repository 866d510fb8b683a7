//! Which types move to and are shared between threads. What must *not* is in `compile_fail` examples beside the types.

use std::error::Error;
use std::fmt::Debug;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::rc::Rc;
use std::sync::Arc;

use livemark::{
    Cause, DefaultHashBuilder, DefaultHasher, DeferReason, Deferral, Explanation, Failure, Finalizer, Generation,
    MarkGuard, Mode, Occupied, OwnedMarkGuard, Owner, Policy, PolicyBuilder, PolicyError, Pulse, Reaper, ReaperStats,
    Registry, RegistryStats, RunningJob, Scheduler, Snapshot, StageRules, UnknownMode, Verdict,
};

fn send<T: Send>() {}
fn send_and_sync<T: Send + Sync>() {}
fn is_static<T: 'static>() {}

#[test]
fn the_registry_and_what_it_gives_out_go_to_any_thread() {
    send_and_sync::<Registry>();
    send_and_sync::<Registry<String, Vec<u8>>>();
    send_and_sync::<MarkGuard<'_>>();
    send_and_sync::<OwnedMarkGuard>();
    send_and_sync::<OwnedMarkGuard<String, Arc<str>>>();
    send_and_sync::<Snapshot>();
    send_and_sync::<Owner<Finalizer>>();
    send_and_sync::<Generation>();
    send_and_sync::<OccupiedError<Finalizer>>();
    send_and_sync::<RegistryStats>();
    send_and_sync::<Finalizer>();
    send_and_sync::<Pulse>();
    send_and_sync::<DefaultHashBuilder>();
    send_and_sync::<DefaultHasher>();
}

#[test]
fn the_reaper_and_what_it_gives_out_go_to_any_thread() {
    send_and_sync::<Reaper<'_>>();
    send_and_sync::<Verdict<'_>>();
    send::<Verdict<'static, String, Vec<u8>>>();
    send_and_sync::<Deferral>();
    send_and_sync::<(DeferReason, Cause, Mode, ReaperStats)>();
    send_and_sync::<(Policy, PolicyBuilder, PolicyError, StageRules)>();
    send_and_sync::<RunningJob<'_>>();
    send_and_sync::<Explanation<'_>>();
    send_and_sync::<(Failure<std::io::Error>, UnknownMode)>();
}

#[test]
fn a_reaper_can_be_shared_whatever_its_closures_borrow() {
    let default = Finalizer::new(None, "reaper");
    let registry: Registry = Registry::new();
    let policy = Policy::builder().no_backstop().build().unwrap();
    let reaper = Reaper::with_claim(&registry, policy, |_| default.clone()).with_pulse(|value| value.pulse.as_ref());
    std::thread::scope(|scope| {
        scope.spawn(|| drop(reaper.sweep()));
        drop(reaper.sweep());
    });
    assert_eq!(reaper.stats().sweeps, 2);
}

#[test]
fn a_scheduler_can_be_a_trait_object() {
    fn runs<'r>(reaper: &Reaper<'r>, jobs: &mut dyn Scheduler<'r, Row = u64, Error = String>) {
        let (stop, stopped) = std::sync::mpsc::channel();
        drop(stop);
        reaper.run(std::time::Duration::ZERO, stopped, jobs);
    }
    let _: fn(&Reaper<'static>, &mut dyn Scheduler<'static, Row = u64, Error = String>) = runs;
}

#[test]
fn owned_guards_and_guards_of_a_static_are_static() {
    is_static::<OwnedMarkGuard>();
    is_static::<MarkGuard<'static>>();
    is_static::<Verdict<'static>>();
    is_static::<Snapshot>();
    is_static::<Reaper<'static>>();
}

#[test]
fn a_registry_is_shared_only_if_its_contents_may_be() {
    // Asked without a bound, so that the answer may be no (the inherent constant shadows the trait's).
    trait Shared {
        const YES: bool = false;
    }
    impl<T: ?Sized> Shared for Is<T> {}
    struct Is<T: ?Sized>(std::marker::PhantomData<T>);
    impl<T: ?Sized + Sync> Is<T> {
        const YES: bool = true;
    }
    const { assert!(Is::<Registry<u64, u64>>::YES) }
    const { assert!(!Is::<Registry<Rc<u64>, u64>>::YES) }
    const { assert!(!Is::<Registry<u64, Rc<u64>>>::YES) }
    const { assert!(!Is::<Registry<u64, std::cell::Cell<u64>>>::YES) }
    const { assert!(!Is::<Registry<u64, u64, Rc<DefaultHashBuilder>>>::YES) }
}

#[test]
fn readers_and_sweeps_stay_on_their_thread() {
    trait Moved {
        const YES: bool = false;
    }
    impl<T: ?Sized> Moved for Is<T> {}
    struct Is<T: ?Sized>(std::marker::PhantomData<T>);
    impl<T: ?Sized + Send> Is<T> {
        const YES: bool = true;
    }
    const { assert!(Is::<Reaper<'static>>::YES) }
    const { assert!(!Is::<livemark::Reader<'static>>::YES) }
    const { assert!(!Is::<livemark::Sweep<'static, 'static>>::YES) }
}

#[test]
fn errors_are_errors_and_all_is_debug() {
    fn error<T: Error + Send + Sync + 'static>() {}
    fn debug<T: Debug>() {}
    error::<PolicyError>();
    error::<OccupiedError<Finalizer>>();
    error::<UnknownMode>();
    error::<Failure<String>>();
    debug::<Registry<Rc<u64>, Rc<u64>>>(); // asks nothing of the contents
    debug::<MarkGuard<'_>>();
    debug::<Snapshot>();
    debug::<livemark::Reader<'_>>();
    debug::<Reaper<'_>>();
    debug::<livemark::Sweep<'_, '_>>();
    debug::<Verdict<'_>>();
    debug::<Explanation<'_>>();
    debug::<PolicyBuilder>();
    debug::<RunningJob<'_>>();
}

#[test]
fn a_registry_can_be_used_again_after_a_caught_panic() {
    // Without `AssertUnwindSafe` at the user's.
    fn unwind_safe<T: UnwindSafe + RefUnwindSafe>() {}
    unwind_safe::<Registry>();
    unwind_safe::<MarkGuard<'_>>();
}
