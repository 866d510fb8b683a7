//! What the threads of a model work on: a registry, and a participant for each of them.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use crossbeam_epoch::Collector;
use livemark::model::Participant;
use livemark::{OwnedMarkGuard, Registry};
use loom::thread::JoinHandle;

use crate::probe::{ById, Job, Name, Probe};

/// The registry of the models.
pub type Jobs = Registry<Job, Probe, ById>;

/// One execution of a model: made anew for each.
#[derive(Debug)]
pub struct Scene {
    // Dropped in this order. Loom does not know std's `Arc`: the registry must be dropped by the thread that
    // joined all others. loom's own `Arc` would multiply the executions.
    registry: Option<Arc<Jobs>>,
    main: Rc<Participant>,
    /// Those of threads to come. All are registered and pinned before the first `spawn`: doing it inside the threads
    /// multiplies the executions by a thousand and finds nothing of ours.
    waiting: RefCell<Vec<Participant>>,
    /// Those of threads that were joined. Their ends are crossbeam's business as well, and come after all races.
    joined: RefCell<Vec<Participant>>,
    _collector: Collector,
}

/// A spawned thread of the race.
#[must_use = "every thread is joined before the scene ends"]
#[derive(Debug)]
pub struct Racer<T>(JoinHandle<(Participant, T)>);

impl Scene {
    /// With a registry whose slots are made: by a reader, so that the models do not explore that again and again.
    pub(crate) fn new(threads: usize, pins_turn: bool) -> Self {
        let scene = Self::registered(threads, pins_turn);
        scene.main.enter(|| drop(scene.jobs().reader()));
        scene
    }

    /// With a registry that has no slots yet.
    #[must_use]
    pub fn untouched(threads: usize) -> Self {
        Self::registered(threads, false)
    }

    fn registered(threads: usize, pins_turn: bool) -> Self {
        let collector = Collector::new();
        let participant = |_| Participant::new(&collector, pins_turn);
        Self {
            registry: Some(Arc::new(Jobs::with_hasher(ById::default()))),
            main: Rc::new(participant(0)),
            waiting: (0..threads).map(participant).collect::<Vec<_>>().into(),
            joined: RefCell::default(),
            _collector: collector,
        }
    }

    /// The registry.
    ///
    /// # Panics
    ///
    /// After [`drop_registry`](Self::drop_registry).
    #[must_use]
    pub fn jobs(&self) -> &Arc<Jobs> {
        self.registry.as_ref().expect("the registry is gone")
    }

    /// The main thread's participant.
    #[must_use]
    pub fn main(&self) -> &Participant {
        &self.main
    }

    /// Spawns a thread of the race.
    ///
    /// # Panics
    ///
    /// If the model has spawned as many threads as it said.
    pub fn spawn<T: 'static>(&self, thread: impl FnOnce(&Arc<Jobs>, &Participant) -> T + 'static) -> Racer<T> {
        let me = self.waiting.borrow_mut().pop().expect("the model said how many threads it spawns");
        let jobs = Arc::clone(self.jobs());
        Racer(loom::thread::spawn(move || {
            let result = me.enter(|| thread(&jobs, &me));
            (me, result)
        }))
    }

    /// Waits for a thread and gives its result.
    ///
    /// # Panics
    ///
    /// If the thread did: it has said why.
    pub fn join<T>(&self, racer: Racer<T>) -> T {
        let (participant, result) = racer.0.join().expect("the thread ends well");
        self.joined.borrow_mut().push(participant);
        result
    }

    /// Drops the registry, with whatever is marked in it.
    ///
    /// # Panics
    ///
    /// If a thread or a guard still has it.
    pub fn drop_registry(&mut self) {
        let jobs = self.registry.take().expect("the registry is dropped once");
        drop(Arc::into_inner(jobs).expect("nobody else has the registry"));
    }

    /// Runs the main thread of the model, then drops everything.
    pub fn play<T>(mut self, run: impl FnOnce(&mut Self) -> T) -> T {
        let main = Rc::clone(&self.main);
        main.enter(|| run(&mut self))
    }
}

/// A mark in a model, which the main thread or a racer may hold.
pub type Mark = OwnedMarkGuard<Job, Probe>;

/// Marks `job` in the name of `owner`.
pub fn mark(jobs: &Arc<Jobs>, job: u64, owner: Name) -> Mark {
    jobs.mark_owned(job.into(), Probe::new(owner))
}

/// Marks `job` in the name of `owner`, or says who has marked it.
///
/// # Errors
///
/// The name of the owner, if there is one.
pub fn try_mark(jobs: &Arc<Jobs>, job: u64, owner: Name) -> Result<Mark, Name> {
    jobs.try_mark_owned(job.into(), Probe::new(owner)).map_err(|occupied| occupied.owner.value.read())
}

/// The name of the owner of `job`.
#[must_use]
pub fn owner(jobs: &Jobs, job: u64) -> Option<Name> {
    jobs.owner(&job).map(|owner| owner.value.read())
}

/// Frees all that nobody can see: an epoch takes three rounds to pass.
pub fn reclaim(me: &Participant) {
    for _ in 0..3 {
        me.flush();
    }
}
