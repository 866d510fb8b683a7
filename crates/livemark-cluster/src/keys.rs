//! What lies where in the engine: the names of keys, and the epoch.

use crate::codec::JobKey;
use crate::engine::{Lease, Listing, Row};
use crate::error::OpenError;

/// The key of the epoch, in the engine's namespace.
pub(crate) const EPOCH: &str = "epoch";
/// The greatest epoch: job stores have tokens as signed numbers of 64 bits, and 48 of these are the engine's revision.
pub(crate) const LAST_EPOCH: u64 = 0x7fff;
/// The key that says which job store the namespace is for.
pub(crate) const STORE: &str = "store";
/// What the keys of marks begin with.
pub(crate) const MARKS: &str = "m/";
/// What the keys of sessions begin with.
pub(crate) const SESSIONS: &str = "s/";
/// What the keys begin with that barriers write.
pub(crate) const TICKS: &str = "t/";

pub(crate) fn mark_key<K: JobKey>(job: &K) -> String {
    format!("{MARKS}{}", job.encode())
}

pub(crate) fn session_key(lease: Lease) -> String {
    format!("{SESSIONS}{}", lease.0)
}

pub(crate) fn tick_key(lease: Lease) -> String {
    format!("{TICKS}{}", lease.0)
}

/// The epoch in a listing. It is 0 until somebody has bumped it.
pub(crate) fn epoch_of(listing: &Listing) -> Result<u64, OpenError> {
    epoch_in(find(listing, EPOCH))
}

pub(crate) fn find<'l>(listing: &'l Listing, wanted: &str) -> Option<&'l Row> {
    listing.rows.iter().find(|(key, _)| key == wanted).map(|(_, row)| row)
}

/// The epoch in its row.
pub(crate) fn epoch_in(row: Option<&Row>) -> Result<u64, OpenError> {
    let Some(row) = row else { return Ok(0) };
    let text = std::str::from_utf8(&row.value).ok();
    let epoch = text.and_then(|text| text.trim().parse().ok());
    epoch.filter(|epoch| *epoch <= LAST_EPOCH).ok_or(OpenError::Epoch)
}
