//! What a session tells through `tracing`, where the feature is on.

use std::fmt::Display;

macro_rules! event {
    ($level:ident, $($arg:tt)*) => {
        #[cfg(feature = "tracing")]
        tracing::event!(tracing::Level::$level, $($arg)*);
    };
}

pub(crate) fn opened(lease: impl Display, process: &str) {
    event!(INFO, %lease, process, "session opened");
    let _ = (lease, process);
}

pub(crate) fn lost(lease: impl Display, how: impl Display) {
    event!(WARN, %lease, %how, "session lost");
    let _ = (lease, how);
}

pub(crate) fn suspect(lease: impl Display) {
    event!(WARN, %lease, "session suspect: neither renewed nor heard of in time");
    let _ = lease;
}

pub(crate) fn held_again(lease: impl Display) {
    event!(INFO, %lease, "session held again");
    let _ = lease;
}

pub(crate) fn displaced(key: &str, token: impl Display) {
    event!(WARN, key, %token, "displaced: another owner has the job");
    let _ = (key, token);
}

pub(crate) fn ghost(key: &str) {
    event!(INFO, key, "removed a mark that was given up, and arrived all the same");
    let _ = key;
}

pub(crate) fn failed(what: &str, error: impl Display) {
    event!(WARN, what, %error, "failed, and is tried again");
    let _ = (what, error);
}

pub(crate) fn failed_again(what: &str, error: impl Display) {
    event!(DEBUG, what, %error, "failed again, and is tried again");
    let _ = (what, error);
}

pub(crate) fn relisted(why: &str) {
    event!(INFO, why, "all marks listed anew");
    let _ = why;
}

pub(crate) fn differences(count: usize) {
    event!(WARN, count, "the mirror differed from the engine: its watch has lost something");
    let _ = count;
}
