//! Registries with a planted bug each: mistakes that users of a registry make, or that one could have.
//!
//! Where a bug needs two steps, it hesitates between them: there are few cores to be interrupted on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{mem, thread};

use livemark::{Occupied, Owner};

use crate::hesitate::{Context, Job};
use crate::subject::{Copied, Guard, Jobs, Subject};

/// Makes the subject of a new registry.
pub(crate) type Make = fn(Arc<Jobs>) -> Arc<dyn Subject>;

/// The name and the maker of every subject: first the registry as it is.
pub(crate) const SUBJECTS: [(&str, Make); 8] = [
    ("registry", |registry| Arc::new(registry)),
    ("claim-in-two-steps", |registry| Arc::new(ClaimInTwoSteps(registry))),
    ("late-release", |registry| Arc::new(LateRelease(registry))),
    ("torn-snapshot", |registry| Arc::new(TornSnapshot(registry))),
    ("replace-in-two-steps", |registry| Arc::new(ReplaceInTwoSteps(registry, AtomicU64::new(NOBODY)))),
    ("stale-look", |registry| Arc::new(StaleLook(registry, AtomicU64::new(NOBODY)))),
    ("clear-by-look", |registry| Arc::new(ClearByLook(registry))),
    ("current-by-job", |registry| Arc::new(CurrentByJob(registry))),
];

const NOBODY: u64 = u64::MAX;

/// The maker of this name.
pub(crate) fn named(name: &str) -> Option<Make> {
    SUBJECTS.into_iter().find(|(other, _)| *other == name).map(|(_, make)| make)
}

/// `try_mark` looks, and then marks.
struct ClaimInTwoSteps(Arc<Jobs>);

impl Subject for ClaimInTwoSteps {
    fn registry(&self) -> &Arc<Jobs> {
        &self.0
    }

    fn try_mark(&self, job: Job, value: Context) -> Result<Guard, Occupied<Context>> {
        if let Some(owner) = self.0.owner(&job) {
            return Err(Occupied { owner, value });
        }
        thread::yield_now();
        Ok(self.0.mark_owned(job, value))
    }
}

/// A guard clears its job, whoever has it by then.
struct LateRelease(Arc<Jobs>);

impl Subject for LateRelease {
    fn registry(&self) -> &Arc<Jobs> {
        &self.0
    }

    fn release(&self, guard: Guard) -> bool {
        let cleared = self.0.clear(guard.job());
        mem::forget(guard);
        cleared
    }

    fn drop_guard(&self, guard: Guard) {
        self.release(guard);
    }
}

/// A snapshot looks each job up, and says that it is of one instant.
struct TornSnapshot(Arc<Jobs>);

impl Subject for TornSnapshot {
    fn registry(&self) -> &Arc<Jobs> {
        &self.0
    }

    fn snapshot(&self) -> Copied {
        let snapshot = self.0.snapshot();
        let look = |job: &Job| {
            thread::yield_now();
            self.0.owner(job).map(|owner| (job.copy(), owner))
        };
        (true, snapshot.iter().filter_map(|(job, _)| look(job)).collect())
    }
}

/// `replace` clears and marks: between the two the job looks unowned. (The generation stays, as it is to.)
struct ReplaceInTwoSteps(Arc<Jobs>, AtomicU64);

impl Subject for ReplaceInTwoSteps {
    fn registry(&self) -> &Arc<Jobs> {
        &self.0
    }

    fn replace(&self, guard: &Guard, value: Context) -> bool {
        self.1.store(guard.job().id, Ordering::SeqCst);
        thread::yield_now();
        let replaced = guard.replace(value);
        self.1.store(NOBODY, Ordering::SeqCst);
        replaced
    }

    fn is_active(&self, job: &Job) -> bool {
        self.1.load(Ordering::SeqCst) != job.id && self.0.is_active(job)
    }

    fn owner(&self, job: &Job) -> Option<Owner<Context>> {
        self.0.owner(job).filter(|_| self.1.load(Ordering::SeqCst) != job.id)
    }
}

/// `is_active` answers what the look before it saw, if that was of the same job.
struct StaleLook(Arc<Jobs>, AtomicU64);

impl Subject for StaleLook {
    fn registry(&self) -> &Arc<Jobs> {
        &self.0
    }

    fn is_active(&self, job: &Job) -> bool {
        let active = self.0.is_active(job);
        let before = self.1.swap(job.id << 1 | u64::from(active), Ordering::SeqCst);
        if before >> 1 == job.id { before & 1 == 1 } else { active }
    }
}

/// `clear` says what a look saw before it cleared.
struct ClearByLook(Arc<Jobs>);

impl Subject for ClearByLook {
    fn registry(&self) -> &Arc<Jobs> {
        &self.0
    }

    fn clear(&self, job: &Job) -> bool {
        let active = self.0.is_active(job);
        thread::yield_now();
        self.0.clear(job);
        active
    }
}

/// A displaced owner takes the newer owner's mark for its own.
struct CurrentByJob(Arc<Jobs>);

impl Subject for CurrentByJob {
    fn registry(&self) -> &Arc<Jobs> {
        &self.0
    }

    fn is_current(&self, guard: &Guard) -> bool {
        self.0.is_active(guard.job())
    }
}
