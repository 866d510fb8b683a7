//! What a reaper is allowed to do, and when. A policy that exists can work: its builder refuses any other.
//!
//! | file | what it holds |
//! |---|---|
//! | `serde.rs` | a policy in a settings file |
//! | `builder.rs` | [`PolicyBuilder`]: from settings, each given by itself, to a policy |
//! | `policy.rs` | [`Policy`]: the mode, and the limits in force in each stage |
//! | `rules.rs` | [`StageRules`]: what was given for a stage |
//! | `limits.rs` | [`StageLimits`]: what holds in a stage |
//! | `error.rs` | [`PolicyError`]: why settings cannot work |

mod builder;
mod error;
mod limits;
#[expect(clippy::module_inception, reason = "the type that the module is named for")]
mod policy;
mod rules;
#[cfg(feature = "serde")]
mod serde;

pub use self::builder::PolicyBuilder;
pub use self::error::PolicyError;
pub use self::limits::StageLimits;
pub use self::policy::Policy;
pub use self::rules::StageRules;
