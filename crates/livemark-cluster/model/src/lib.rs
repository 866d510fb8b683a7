//! A model of the protocol of `livemark-cluster`, which is explored whole, and mutants of it that must break.
//!
//! ```sh
//! cargo test --release -p livemark-cluster-model      # a minute or two on two cores, 210 MB
//! ```
//!
//! The model is written anew from the protocol: it does not run the crate's code. Two processes own one job after each
//! other. All that they do between two calls is one step. [stateright](https://docs.rs/stateright) tries every order of
//! the steps. A search ends when it has seen everything, and each test compares how many states that were.
//!
//! # What is modeled
//!
//! - **The engine**: a revision, the job's key, leases that end some time after their TTL with their mark and their
//!   session's key in one revision, conditional puts and deletes. It may lie: end a lease early (etcd-io/etcd#15247).
//! - **The network**: requests and answers arrive in any order. Some are lost, given up on their way, or repeated by the
//!   engine's client, each out of a budget. A request that was given up may arrive all the same.
//! - **A process**: `try_mark`, `mark`, `replace`, clear and drop, the retry of unknown outcomes with the same name, the
//!   collector of ghosts, renewals, `is_current`, a lost session and the next one, pauses and death.
//! - **Its mirror**: rows of answers before their events, a watch that lags or breaks, a listing that changes nothing first.
//! - **The reaper**: judges by its mirror, and claims from nobody or exactly the mark that looked stale. Settling.
//! - **The job store**: take and commit, by fence and state.
//! - **Clocks** in ticks, perfect or one tick slow in each TTL.
//!
//! Time is relative, and of revisions only the order counts, so that the states are finite without a bound on either.
//!
//! # What is not modeled
//!
//! Several jobs; the epoch and the token floor; ticks, `max_view_age` and the barrier as calls; `close`; pulses; an engine
//! without room; the store's lost answers. Only the first process pauses, dies or lies out of its lease. Where there is
//! time, faults befall only the first process, and the second one renews always. Time stands still in [`Settings::prompt`]
//! until everybody but the reaper has done what there is to do: settling is about bounded delays. A put of a claim that was
//! sent before its owner's mark, and comes after the owner's eviction, is not refused by settling.
//!
//! # The configurations
//!
//! | [`configurations`] | about | states | depth |
//! |---|---|---:|---:|
//! | `marks` | one fault, a death, a pause, ghosts, the fence | 732,574 | 40 |
//! | `ghosts` | two faults | 102,724 | 36 |
//! | `renewals` | renewals, pauses, belief without a watch | 172,952 | 30 |
//! | `slow_clocks` | the same with slow clocks | 571,437 | 31 |
//! | `reaper` | a reaper with an old mirror, stale marks, a listing | 1,106,057 | 36 |
//! | `settling` | an engine that lies, a session opened anew, a listing | 90,624 | 32 |
//! | `lies` | an engine that lies, without settling: belief breaks, the store holds | 564,205 | 37 |
//! | `siblings` | two monitors of one process, a replaced context | 616,714 | 39 |
//! | `replacing` | a replaced context, another owner, a death | 354,439 | 40 |
//! | `sessions` | sessions lost and opened anew, with time | 974,335 | 41 |
//!
//! # The mutants
//!
//! Each is found in so many steps, which need not be the fewest.
//!
//! | [`Mutant`] | breaks | steps |
//! |---|---|---:|
//! | `NoMargin` | belief ends first | 7 |
//! | `DeadlineFromAnswer` | belief ends first | 11 |
//! | `LateAnswerTaken` | belief ends first | 13 |
//! | `GoneTakenForRenewed` | belief ends first | 10 |
//! | `CreateRevision` | only own marks are removed | 8 |
//! | `CreateRevision` | tokens grow | 7 |
//! | `CreateRevision` | tokens differ | 7 |
//! | `ReplaceRenumbers` | a standing owner is not refused | 9 |
//! | `ReplaceForgets` | the token stays | 8 |
//! | `NameOnly` | the token stays | 16 |
//! | `UnconditionalPut` | taken as seen | 7 |
//! | `UnconditionalPut` | a live owner is not redriven | 6 |
//! | `ClearAnything` | only own marks are removed | 8 |
//! | `NoCollector` | no mark is left for ever | 8 |
//! | `CollectorByEvents` | no mark is left for ever | 8 |
//! | `CollectorTakesAttempts` | only ghosts are collected | 7 |
//! | `NoFence` | no commit after a later owner's take | 11 |
//! | `NoFenceNoState` | one commit | 13 |
//! | `MirrorClearedFirst` | the mirror shows what stands | 6 |
//! | `AnswersAnyTime` | the mirror shows what stands | 8 |
//! | `AnswersAnyTime` | who has heard all believes in no lost mark | 13 |
//! | `TombstoneTooLate` | the mirror shows what stands | 12 |
//! | `ClaimAnyone` | a live owner is not redriven | 6 |
//! | `NoSettle` | an evicted owner is not redriven | 8 |
//! | `NoGraceAfterListing` | an evicted owner is not redriven | 9 |
//! | `OldGuardBelieved` | belief ends first | 12 |
//! | `MirrorClearedFirst` | not `a live owner is not redriven`: the claim's condition is the check | |
//! | `OldSessionUsed` | nothing: the deadline and the mark's own event tell of the loss as well | |
//! | `NoCheck` | nothing: the fence carries safety | |

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
