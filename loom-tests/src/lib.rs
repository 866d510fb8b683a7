//! The harness of the models: how a search is run, what its threads work on, and how it is judged.
//!
//! See `README.md` for what is checked and how to write a model.

#[cfg(not(all(crossbeam_loom, crossbeam_sanitize)))]
compile_error!(
    "the models mean something only under the cfgs of loom-tests/.cargo/config.toml: run cargo inside loom-tests/, \
     without RUSTFLAGS in the environment"
);

mod probe;
mod scene;
mod search;

pub use probe::{ById, IdHasher, Job, Name, Probe};
pub use scene::{Jobs, Mark, Racer, Scene, mark, owner, reclaim, try_mark};
pub use search::{Search, explore, model, model_that_frees};
