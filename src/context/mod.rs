//! What a mark says about its owner by default: [`Finalizer`] (`finalizer.rs`), with a [`Pulse`] (`pulse.rs`).

mod finalizer;
mod pulse;

pub use self::finalizer::Finalizer;
pub use self::pulse::Pulse;
