//! Many threads at once, and many jobs. Each stress records what happened and checks it: nothing here is content with
//! "no crash".

mod races;
mod reapers;
mod scale;
mod snapshots;

#[path = "../support/mod.rs"]
mod support;
