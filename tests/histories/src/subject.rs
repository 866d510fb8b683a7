//! What the histories run on: the registry, or one with a planted bug.

use std::sync::Arc;

use livemark::{OwnedMarkGuard, Reader, Registry};

use crate::call::{Answer, Generation, JOBS, Owners, Value};
use crate::hesitate::{AsChosen, Job, hesitate};

pub(crate) type Jobs = Registry<Job, Value, AsChosen>;
pub(crate) type Guard = OwnedMarkGuard<Job, Value>;

/// A mistake that users of a registry make, or that one could have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    /// `try_mark` looks, and then marks.
    ClaimInTwoSteps,
    /// A guard clears its job, whoever has it by then.
    LateRelease,
    /// A snapshot looks each job up, and says that it is of one instant.
    TornSnapshot,
    /// `replace` clears and marks, which leaves an instant between.
    ReplaceInTwoSteps,
    /// `is_active` answers by a look that was taken before the call.
    StaleLook,
}

/// A registry, and what is wrong with it.
pub(crate) struct Subject {
    pub(crate) registry: Arc<Jobs>,
    pub(crate) bug: Bug,
}

impl Subject {
    pub(crate) fn mark(&self, job: &Job, value: Value) -> (Answer, Option<Guard>) {
        let guard = self.registry.mark_owned(job.clone(), value);
        (Answer::Marked(guard.generation().get()), Some(guard))
    }

    pub(crate) fn try_mark(&self, job: &Job, value: Value) -> (Answer, Option<Guard>) {
        if self.bug == Bug::ClaimInTwoSteps {
            if let Some(owner) = self.registry.owner(job) {
                return (Answer::Refused(owner.generation.get(), owner.value), None);
            }
            hesitate();
            return self.mark(job, value);
        }
        match self.registry.try_mark_owned(job.clone(), value) {
            Ok(guard) => (Answer::Marked(guard.generation().get()), Some(guard)),
            Err(occupied) => {
                assert_eq!(occupied.value, value, "a refusal gives the value back");
                (Answer::Refused(occupied.owner.generation.get(), occupied.owner.value), None)
            }
        }
    }

    pub(crate) fn release(&self, guard: Guard) -> Answer {
        if self.bug == Bug::LateRelease {
            let cleared = self.registry.clear(guard.job());
            std::mem::forget(guard);
            return Answer::Said(cleared);
        }
        Answer::Said(guard.clear())
    }

    pub(crate) fn drop_guard(&self, guard: Guard) -> Answer {
        if self.bug == Bug::LateRelease {
            self.release(guard);
        } else {
            drop(guard);
        }
        Answer::Nothing
    }

    pub(crate) fn replace(&self, guard: &mut Guard, value: Value) -> Answer {
        if self.bug == Bug::ReplaceInTwoSteps {
            if !guard.is_current() {
                return Answer::Said(false);
            }
            let job = guard.job().clone();
            let replaced = self.registry.clear_generation(&job, guard.generation());
            hesitate();
            // With a generation of its own: the instant between is not all that is wrong with it.
            *guard = self.registry.mark_owned(job, value);
            return Answer::Said(replaced);
        }
        Answer::Said(guard.replace(value))
    }

    /// `before`: what a look before the call saw.
    pub(crate) fn is_active(&self, job: &Job, before: bool) -> Answer {
        Answer::Said(if self.bug == Bug::StaleLook { before } else { self.registry.is_active(job) })
    }

    pub(crate) fn owner(&self, job: &Job) -> Answer {
        Answer::Owner(self.registry.owner(job).map(|owner| (owner.generation.get(), owner.value)))
    }

    pub(crate) fn snapshot(&self, jobs: &[Job; JOBS], others: usize) -> Answer {
        if self.bug == Bug::TornSnapshot {
            let look = |job| {
                hesitate();
                self.registry.owner(job).map(|owner| (owner.generation.get(), owner.value))
            };
            return Answer::Snapshot(jobs.each_ref().map(look), others);
        }
        let snapshot = self.registry.snapshot();
        if !snapshot.is_atomic() {
            return Answer::Torn;
        }
        let owners: Owners =
            jobs.each_ref().map(|job| snapshot.get(job).map(|owner| (owner.generation.get(), owner.value)));
        let mine = owners.iter().flatten().count();
        Answer::Snapshot(owners, snapshot.len() - mine)
    }
}

/// What a reader says of a job: the same as the registry.
pub(crate) fn read(reader: &mut Reader<'_, Job, Value, AsChosen>, job: &Job) -> Option<(Generation, Value)> {
    reader.owner(job).map(|owner| (owner.generation.get(), owner.value))
}
