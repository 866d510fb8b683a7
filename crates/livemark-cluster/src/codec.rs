//! How job ids and marks are written in the engine: [`JobKey`], [`Context`], and the value of a mark.

use std::fmt::Write as _;
use std::hash::Hash;
use std::time::Duration;

use livemark::{Finalizer, Pulse};
use serde::{Deserialize, Serialize};

use crate::engine::Lease;

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

/// The value of a mark's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MarkValue {
    pub(crate) lease: u64,
    /// Names this mark among those of its lease, also where its token is not known yet.
    pub(crate) seq: u64,
    /// The revision that took the mark, where the value was written again since.
    pub(crate) taken_at: Option<u64>,
    pub(crate) process: String,
    pub(crate) context: String,
    /// How old the owner's pulse was, in milliseconds, if it gives one that counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pulse: Option<u64>,
}

impl MarkValue {
    pub(crate) fn encode(&self) -> Vec<u8> {
        // Numbers and texts can always be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
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
    /// The numbers of marks with a pulse, and how old each is, in milliseconds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) pulses: Vec<(u64, u64)>,
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

pub(crate) fn milliseconds(age: Duration) -> u64 {
    u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
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
