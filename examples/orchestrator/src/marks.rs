//! Where marks are: in this process, or in an engine that several processes share.

#[cfg(feature = "cluster")]
mod shared;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use livemark::{
    Claim, Finalizer, Generation, MarkGuard, Owner, Policy, Proposed, Reaper, Registry, RegistryStats, RunningJob,
    Verdict,
};
use serde::Serialize;

#[cfg(feature = "cluster")]
pub use self::shared::{Place, Shared, SharedHold};
use crate::error::{Error, Result};
use crate::feed::OwnerSeen;
use crate::store::JobId;

/// Who finalizes which job.
#[derive(Clone)]
pub enum Marks<'a> {
    /// This process's own, which is the only one.
    Own(&'a Registry),
    /// Those of all processes.
    #[cfg(feature = "cluster")]
    Shared(Shared),
}

impl<'a> Marks<'a> {
    /// Marks a job, whoever owns it.
    pub fn mark(&self, job: JobId, context: Finalizer) -> Result<Hold<'a>> {
        match self {
            Self::Own(registry) => Ok(Hold::Own(registry.mark(job, context).into())),
            #[cfg(feature = "cluster")]
            Self::Shared(shared) => shared.mark(job, context).map(Hold::Shared),
        }
    }

    /// Clears exactly this mark. Returns `false` if it is not there.
    pub fn clear(&self, job: JobId, generation: Generation) -> Result<bool> {
        match self {
            Self::Own(registry) => Ok(registry.clear_generation(&job, generation)),
            #[cfg(feature = "cluster")]
            Self::Shared(shared) => shared.clear(job, generation),
        }
    }

    /// Returns who owns a job.
    pub fn owner(&self, job: JobId) -> Option<OwnerSeen> {
        match self {
            Self::Own(registry) => registry.owner(&job).map(|owner| OwnerSeen::from(&owner.value)),
            #[cfg(feature = "cluster")]
            Self::Shared(shared) => shared.registry().owner(&job).map(|owner| OwnerSeen::from(&owner.value)),
        }
    }

    /// Returns `true` if a job has an owner.
    pub fn is_active(&self, job: JobId) -> bool {
        match self {
            Self::Own(registry) => registry.is_active(&job),
            #[cfg(feature = "cluster")]
            Self::Shared(shared) => shared.registry().is_active(&job),
        }
    }

    /// Judges jobs as a dry run, by a reaper of its own.
    pub(crate) fn judge_dry<'j>(&self, policy: Policy, jobs: impl Iterator<Item = RunningJob<'j>>) -> Vec<Dry> {
        const NAME: &str = "preview";
        match self {
            Self::Own(registry) => {
                let reaper = Reaper::new(*registry, policy).named(NAME);
                let mut sweep = reaper.sweep();
                jobs.map(|job| Dry::of(&sweep.judge(&job))).collect()
            }
            #[cfg(feature = "cluster")]
            Self::Shared(shared) => {
                let reaper = shared.dry_reaper(policy).named(NAME);
                let mut sweep = reaper.sweep();
                jobs.map(|job| Dry::of(&sweep.judge(&job))).collect()
            }
        }
    }

    /// Returns `true` if other processes work on the same jobs.
    pub fn are_shared(&self) -> bool {
        !matches!(self, Self::Own(_))
    }

    /// Returns all marks of one instant.
    pub fn seen(&self) -> Seen {
        match self {
            Self::Own(registry) => Seen::of(registry.snapshot().iter().map(|(job, owner)| Marked::own(*job, owner))),
            #[cfg(feature = "cluster")]
            Self::Shared(shared) => shared.seen(),
        }
    }

    /// Returns how old what [`seen`](Self::seen) tells is at most. `None` if it is never old.
    pub fn age(&self) -> Option<Duration> {
        match self {
            Self::Own(_) => None,
            #[cfg(feature = "cluster")]
            Self::Shared(shared) => Some(shared.age()),
        }
    }

    /// Returns how this process's marks were lost, if they were: it is to end then, and begin anew.
    pub fn lost(&self) -> Option<Error> {
        match self {
            Self::Own(_) => None,
            #[cfg(feature = "cluster")]
            Self::Shared(shared) => shared.loss().map(Error::shared("the marks of this process are lost")),
        }
    }

    /// Gives up all marks of this process, at its end.
    pub fn close(&self) -> Result<()> {
        match self {
            Self::Own(_) => Ok(()),
            #[cfg(feature = "cluster")]
            Self::Shared(shared) => shared.close(),
        }
    }

    /// Returns what this process is called, where there are several.
    pub fn process(&self) -> Option<&str> {
        match self {
            Self::Own(_) => None,
            #[cfg(feature = "cluster")]
            Self::Shared(shared) => Some(shared.process()),
        }
    }

    /// Returns the processes that share the marks.
    pub fn processes(&self) -> Vec<Process> {
        match self {
            Self::Own(_) => Vec::new(),
            #[cfg(feature = "cluster")]
            Self::Shared(shared) => shared.processes(),
        }
    }

    /// Returns what the registry counted, which mirrors the marks where they are shared.
    pub fn stats(&self) -> RegistryStats {
        match self {
            Self::Own(registry) => registry.stats(),
            #[cfg(feature = "cluster")]
            Self::Shared(shared) => shared.registry().stats(),
        }
    }
}

/// What a dry run says of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dry {
    /// Within its limits.
    Healthy,
    /// It would be left alone.
    Defer,
    /// Something would be done.
    Would(Proposed),
}

impl Dry {
    fn of<V, M>(verdict: &Verdict<'_, JobId, V, M>) -> Self {
        match verdict {
            Verdict::Defer(_) => Self::Defer,
            Verdict::DryRun(proposed) => Self::Would(*proposed),
            // A dry run has no others.
            Verdict::Healthy | Verdict::Redrive(_) | Verdict::Reap(..) => Self::Healthy,
        }
    }
}

/// A claim on a job: a monitor's own, or the reaper's.
pub enum Hold<'a> {
    /// In this process.
    Own(Claim<'a>),
    /// In the engine.
    #[cfg(feature = "cluster")]
    Shared(SharedHold),
}

impl Hold<'_> {
    /// Says where the work is. Returns `false` if somebody else has the job.
    pub fn replace(&self, context: Finalizer) -> bool {
        match self {
            Self::Own(claim) => claim.replace(context),
            #[cfg(feature = "cluster")]
            Self::Shared(hold) => hold.replace(&context),
        }
    }

    /// Returns `true` while nobody else can have the job by its mark.
    pub fn is_current(&self) -> bool {
        match self {
            Self::Own(claim) => claim.is_current(),
            #[cfg(feature = "cluster")]
            Self::Shared(hold) => hold.is_current(),
        }
    }

    /// Returns `true` if there is a mark. A reaper that honors none has none.
    pub fn is_marked(&self) -> bool {
        match self {
            Self::Own(claim) => claim.guard().is_some(),
            #[cfg(feature = "cluster")]
            Self::Shared(hold) => hold.token().is_some(),
        }
    }

    /// Returns the token by which the store refuses whoever had the job before. A process by itself needs none: its own
    /// marks tell it at once.
    pub fn token(&self) -> Option<u64> {
        match self {
            Self::Own(_) => None,
            #[cfg(feature = "cluster")]
            Self::Shared(hold) => hold.token(),
        }
    }

    /// Returns whom the claim displaced.
    pub fn displaced(&self) -> Option<OwnerSeen> {
        match self {
            Self::Own(claim) => claim.displaced().map(|owner| OwnerSeen::from(&owner.value)),
            #[cfg(feature = "cluster")]
            Self::Shared(hold) => hold.displaced(),
        }
    }

    /// Clears the mark. Returns `true` if it still stood.
    pub fn clear(self) -> bool {
        match self {
            Self::Own(claim) => claim.into_guard().is_some_and(MarkGuard::clear),
            #[cfg(feature = "cluster")]
            Self::Shared(hold) => hold.clear(),
        }
    }
}

/// A process that shares the marks.
#[derive(Clone, Debug, Serialize)]
pub struct Process {
    /// What it is called.
    pub name: String,
    /// How many jobs it owns.
    pub marks: usize,
    /// Whether it is this one.
    pub own: bool,
}

/// All marks of one instant, in the shape that the library gives its snapshots.
#[derive(Debug, Default)]
pub struct Seen(BTreeMap<JobId, Marked>);

/// A mark.
#[derive(Debug, Serialize)]
pub struct Marked {
    job: JobId,
    /// Its generation, or its token.
    pub generation: Generation,
    #[serde(rename = "age_ms", serialize_with = "as_milliseconds")]
    age: Duration,
    /// Who the owner is.
    pub value: Finalizer,
    /// In which process it is, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Arc<str>>,
}

impl Seen {
    fn of(marks: impl Iterator<Item = Marked>) -> Self {
        Self(marks.map(|marked| (marked.job, marked)).collect())
    }

    /// Returns a job's mark.
    pub fn get(&self, job: JobId) -> Option<&Marked> {
        self.0.get(&job)
    }

    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns `true` if there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the age of the oldest.
    pub fn oldest(&self) -> Option<Duration> {
        self.0.values().map(Marked::age).max()
    }
}

impl Marked {
    fn own(job: JobId, owner: &Owner) -> Self {
        Self { job, generation: owner.generation, age: owner.age(), value: owner.value.clone(), process: None }
    }

    /// Returns how old it was.
    pub fn age(&self) -> Duration {
        self.age
    }
}

impl Serialize for Seen {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut object = serializer.serialize_struct("Snapshot", 3)?;
        object.serialize_field("active", &self.len())?;
        object.serialize_field("jobs", &self.0.keys().collect::<Vec<_>>())?;
        object.serialize_field("owners", &self.0.values().collect::<Vec<_>>())?;
        object.end()
    }
}

pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn as_milliseconds<S: serde::Serializer>(age: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(milliseconds(*age))
}
