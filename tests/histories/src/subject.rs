//! What the histories run on: the registry, or one with a planted bug.

use std::sync::Arc;

use livemark::{Generation, Occupied, Owner, OwnedMarkGuard, Reader, Registry};

use crate::hesitate::{AsChosen, Context, Job};

pub(crate) type Jobs = Registry<Job, Context, AsChosen>;
pub(crate) type Guard = OwnedMarkGuard<Job, Context, AsChosen>;
pub(crate) type Look<'r> = Reader<'r, Job, Context, AsChosen>;

/// What a snapshot has: whether it is of one instant, and the owners in the order of the jobs' ids.
pub(crate) type Copied = (bool, Vec<(Job, Owner<Context>)>);

/// Every operation that histories call. Each is the registry's own, unless a planted bug has another.
pub(crate) trait Subject: Send + Sync {
    fn registry(&self) -> &Arc<Jobs>;

    fn mark(&self, job: Job, value: Context) -> Guard {
        self.registry().mark_owned(job, value)
    }

    fn try_mark(&self, job: Job, value: Context) -> Result<Guard, Occupied<Context>> {
        self.registry().try_mark_owned(job, value)
    }

    /// `clear` of the guard.
    fn release(&self, guard: Guard) -> bool {
        guard.clear()
    }

    fn drop_guard(&self, guard: Guard) {
        drop(guard);
    }

    fn replace(&self, guard: &Guard, value: Context) -> bool {
        guard.replace(value)
    }

    fn is_current(&self, guard: &Guard) -> bool {
        guard.is_current()
    }

    fn clear(&self, job: &Job) -> bool {
        self.registry().clear(job)
    }

    fn clear_generation(&self, job: &Job, generation: Generation) -> bool {
        self.registry().clear_generation(job, generation)
    }

    fn is_active(&self, job: &Job) -> bool {
        self.registry().is_active(job)
    }

    fn owner(&self, job: &Job) -> Option<Owner<Context>> {
        self.registry().owner(job)
    }

    fn reader_is_active(&self, reader: &mut Look<'_>, job: &Job) -> bool {
        reader.is_active(job)
    }

    fn reader_owner(&self, reader: &mut Look<'_>, job: &Job) -> Option<Owner<Context>> {
        reader.owner(job).cloned()
    }

    fn snapshot(&self) -> Copied {
        let snapshot = self.registry().snapshot();
        (snapshot.is_atomic(), snapshot.iter().map(|(job, owner)| (job.copy(), owner.clone())).collect())
    }
}

/// The registry as it is.
impl Subject for Arc<Jobs> {
    fn registry(&self) -> &Arc<Jobs> {
        self
    }
}
