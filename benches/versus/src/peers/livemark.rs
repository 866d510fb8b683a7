//! livemark as a subject: look-ups by `is_active`, batches by a `Reader`.

use std::hint::black_box;
use std::mem;
use std::time::Duration;

use livemark::{Finalizer, MarkGuard, Policy, Reaper, Registry, RunningJob, Verdict};

use crate::jobs::STAGE;
use crate::subject::{Batch, GRACE, Session, Subject, count};

pub struct Livemark(Box<Registry>);

pub struct LivemarkSession<'s> {
    registry: &'s Registry,
    guards: Vec<MarkGuard<'s>>,
    reaper: Reaper<'s>,
}

impl Subject for Livemark {
    const NAME: &'static str = "livemark";
    const BATCH: Batch = Batch::Pin;

    type Session<'s> = LivemarkSession<'s>;

    fn new(room: usize) -> Self {
        Self(Box::new(Registry::with_capacity(room)))
    }

    fn session(&self) -> LivemarkSession<'_> {
        let policy =
            Policy::builder().finalize_grace(GRACE).hard_deadline(Duration::from_secs(3_600)).marking_stage(STAGE);
        let reaper = Reaper::new(&*self.0, policy.build().expect("the deadline is after the grace"));
        LivemarkSession { registry: &self.0, guards: Vec::new(), reaper }
    }

    fn fill(&self, jobs: &[u64], finalizer: &Finalizer) {
        for job in jobs {
            mem::forget(self.0.mark(*job, finalizer.clone()));
        }
    }
}

impl Session for LivemarkSession<'_> {
    #[inline]
    fn is_active(&mut self, job: u64) -> bool {
        self.registry.is_active(&job)
    }

    #[inline]
    fn count_active(&mut self, jobs: &[u64]) -> usize {
        let mut reader = self.registry.reader();
        count(jobs, |job| reader.is_active(job))
    }

    fn deferred(&mut self, running: &[RunningJob<'static>]) -> usize {
        let mut sweep = self.reaper.sweep();
        running.iter().filter(|job| matches!(sweep.judge(job), Verdict::Defer(_))).count()
    }

    fn during_batch<R>(&mut self, job: u64, act: impl FnOnce() -> R) -> R {
        let mut reader = self.registry.reader();
        black_box(reader.is_active(&job));
        let result = act();
        black_box(reader.is_active(&job));
        result
    }

    #[inline]
    fn while_marked(&mut self, job: u64, finalizer: &Finalizer, act: impl FnOnce(&mut Self)) -> bool {
        let guard = self.registry.mark(job, finalizer.clone());
        act(self);
        guard.clear()
    }

    fn take_over(&mut self, jobs: &[u64], finalizer: &Finalizer) {
        self.guards = jobs.iter().map(|job| self.registry.mark(*job, finalizer.clone())).collect();
    }

    #[inline]
    fn hand_over(&mut self, place: usize, _: u64, finalizer: &Finalizer) -> bool {
        self.guards[place].replace(finalizer.clone())
    }

    #[inline]
    fn snapshot(&mut self) -> usize {
        black_box(self.registry.snapshot()).len()
    }
}

impl Drop for LivemarkSession<'_> {
    /// The marks stay, as the peers' do.
    fn drop(&mut self) {
        for guard in self.guards.drain(..) {
            mem::forget(guard);
        }
    }
}
