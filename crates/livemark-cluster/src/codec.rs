//! How job ids and marks are written in the engine: [`JobKey`], [`Context`], and the value of a mark.

use std::fmt::Write as _;
use std::hash::Hash;
use std::time::Duration;

use livemark::{Finalizer, Pulse};
use serde::{Deserialize, Serialize};

use crate::engine::{Lease, Revision};
use crate::guard::Token;

/// A job id that can be written in a key and read again, by every version of a program alike.
pub trait JobKey: Clone + Eq + Hash + Send + Sync + 'static {
    /// Writes the id.
    fn encode(&self) -> String;

    /// Reads what [`encode`](Self::encode) wrote, and nothing else.
    fn decode(text: &str) -> Option<Self>;
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl JobKey for $number {
            fn encode(&self) -> String {
                self.to_string()
            }

            fn decode(text: &str) -> Option<Self> {
                // One id has one key: no sign, no zeros in front.
                text.parse().ok().filter(|number: &Self| number.to_string() == text)
            }
        }
    )*};
}

numbers!(u32, u64, u128, i32, i64);

impl JobKey for String {
    fn encode(&self) -> String {
        self.clone()
    }

    fn decode(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

/// As UUIDs have them, in hexadecimal digits.
impl JobKey for [u8; 16] {
    fn encode(&self) -> String {
        self.iter().fold(String::with_capacity(32), |mut text, byte| {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    fn decode(text: &str) -> Option<Self> {
        let number = u128::from_str_radix(text, 16).ok()?;
        let id = number.to_be_bytes();
        (id.encode() == text).then_some(id)
    }
}

/// What a mark says of its owner, which other processes read.
pub trait Context: Clone + Send + Sync + 'static {
    /// Writes the context.
    fn encode(&self) -> String;

    /// Reads what [`encode`](Self::encode) wrote, also by another version of the program.
    fn decode(text: &str) -> Option<Self>;

    /// Returns the pulse of the owner's work, if it gives one. Its age travels with each tick of the session, and not in
    /// what [`encode`](Self::encode) writes.
    fn pulse(&self) -> Option<&Pulse> {
        None
    }
}

#[derive(Serialize, Deserialize)]
struct WrittenFinalizer {
    run: Option<u64>,
    stage: String,
}

/// The run, the stage and the pulse.
impl Context for Finalizer {
    fn encode(&self) -> String {
        let written = WrittenFinalizer { run: self.run_id, stage: self.stage.to_string() };
        // A number and a text can always be written.
        serde_json::to_string(&written).unwrap_or_default()
    }

    fn decode(text: &str) -> Option<Self> {
        let WrittenFinalizer { run, stage } = serde_json::from_str(text).ok()?;
        Some(Self::new(run, stage))
    }

    fn pulse(&self) -> Option<&Pulse> {
        self.pulse.as_ref()
    }
}

impl Context for String {
    fn encode(&self) -> String {
        self.clone()
    }

    fn decode(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

/// What a session tells of a mark's pulse.
///
/// The age alone does not tell a pulse that has been beaten from a message that came sooner than the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u64)", into = "(u64, u64)")]
pub(crate) struct Beat {
    /// How old the latest beat was when it was told of, in milliseconds.
    pub(crate) age: u64,
    /// When it was, in milliseconds on a time line of the session's own. A later beat has a greater number.
    pub(crate) at: u64,
}

impl From<(u64, u64)> for Beat {
    fn from((age, at): (u64, u64)) -> Self {
        Self { age, at }
    }
}

impl From<Beat> for (u64, u64) {
    fn from(Beat { age, at }: Beat) -> Self {
        (age, at)
    }
}

/// The value of a mark's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MarkValue {
    /// The epoch of its token.
    #[serde(default)]
    pub(crate) epoch: u64,
    pub(crate) lease: u64,
    /// Names this mark among those of its lease, also where its token is not known yet.
    pub(crate) seq: u64,
    /// The revision that took the mark, where the value was written again since.
    pub(crate) taken_at: Option<u64>,
    pub(crate) process: String,
    pub(crate) context: String,
    /// The owner's pulse, if it gives one that counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pulse: Option<Beat>,
}

impl MarkValue {
    pub(crate) fn encode(&self) -> Vec<u8> {
        // Numbers and texts can always be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// The token of a mark whose key was written then.
    pub(crate) fn token(&self, written_at: Revision) -> Token {
        Token::new(self.epoch, self.taken_at.unwrap_or(written_at))
    }

    /// Whether it is this mark of this lease.
    pub(crate) fn is(&self, lease: Lease, seq: u64) -> bool {
        (self.lease, self.seq) == (lease.0, seq)
    }
}

/// The value of a session's key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionValue {
    pub(crate) process: String,
    /// When it was sent, in nanoseconds by the clock of its process: whoever reads its own knows how old the news are.
    #[serde(default)]
    pub(crate) sent: u64,
    /// The numbers of marks with a pulse, and what is told of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) pulses: Vec<(u64, Beat)>,
}

impl SessionValue {
    pub(crate) fn encode(&self) -> Vec<u8> {
        // Numbers and texts can always be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

/// The value that a barrier writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Barrier {
    pub(crate) number: u64,
    /// When it was sent, as in [`SessionValue`].
    pub(crate) sent: u64,
}

impl Barrier {
    pub(crate) fn encode(self) -> Vec<u8> {
        // Numbers can always be written.
        serde_json::to_vec(&self).unwrap_or_default()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen to fail with ids that have two keys: `7` and `07`.
    #[test]
    fn an_id_has_one_key() {
        assert_eq!(
            (u64::decode("7"), u64::decode("07"), u64::decode("+7"), u64::decode("x")),
            (Some(7), None, None, None)
        );
        let id = 0x0123_4567_89ab_cdef_0000_0000_0000_0001_u128.to_be_bytes();
        assert_eq!(id.encode(), "0123456789abcdef0000000000000001");
        assert_eq!(<[u8; 16]>::decode(&id.encode()), Some(id));
        assert_eq!((<[u8; 16]>::decode("1"), <[u8; 16]>::decode("0123456789ABCDEF0000000000000001")), (None, None));
    }

    #[test]
    fn a_context_is_read_as_it_was_written() {
        let written = Finalizer::new(Some(42), "mer\"ge").encode();
        let read = Finalizer::decode(&written).map(|finalizer| (finalizer.run_id, finalizer.stage.to_string()));
        assert_eq!(read, Some((Some(42), "mer\"ge".to_owned())));
        assert!(Finalizer::decode("something else").is_none());
        // Of a later version there may be more.
        assert!(Finalizer::decode(r#"{"run":null,"stage":"x","host":"a"}"#).is_some());
    }
}
