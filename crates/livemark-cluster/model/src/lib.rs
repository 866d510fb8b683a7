//! A model of the protocol of `livemark-cluster`.

pub mod configurations;
mod engine;
mod mirror;
mod model;
mod network;
mod process;
pub mod properties;
mod settings;
mod store;

pub use crate::model::{Action, Protocol, State};
pub use crate::network::Caller;
pub use crate::settings::{Mutant, Role, Settings, Sight, Takes, Watching};
