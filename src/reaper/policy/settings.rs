//! A [`Policy`] in a settings file: its `serde` form.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::{Limits, Policy, PolicyBuilder, PolicyError, StageRules};
use crate::reaper::Mode;

/// Durations are numbers of seconds. What is left out is as in [`PolicyBuilder`]; a limit of `null` counts as left out.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default)]
    mode: Mode,
    finalize_grace: Option<Seconds>,
    lost_grace: Option<Seconds>,
    hard_deadline: Option<Seconds>,
    #[serde(default)]
    no_backstop: bool,
    boot_grace: Option<Seconds>,
    stale_after: Option<Seconds>,
    #[serde(default)]
    stages: Stages,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct StageSettings {
    #[serde(default)]
    marks: bool,
    finalize_grace: Option<Seconds>,
    lost_grace: Option<Seconds>,
    hard_deadline: Option<Seconds>,
    #[serde(default)]
    no_backstop: bool,
    boot_grace: Option<Seconds>,
    stale_after: Option<Seconds>,
}

/// A map, but one that does not lose a stage that is given twice.
#[derive(Default)]
struct Stages(Vec<(Box<str>, StageSettings)>);

#[derive(Clone, Copy)]
struct Seconds(Duration);

/// By the builder, and so with its checks: an error names the settings that contradict each other. Unknown fields are
/// refused.
impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let settings = Settings::deserialize(deserializer)?;
        settings.policy().map_err(D::Error::custom)
    }
}

/// All limits of all stages, also where they are the policy's own or the builder's.
impl Serialize for Policy {
    fn serialize<T: Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("mode", &self.mode)?;
        write_limits(&mut object, &self.undeclared)?;
        object.serialize_entry("stages", &StageMap(&self.stages))?;
        object.end()
    }
}

impl Settings {
    fn policy(self) -> Result<Policy, PolicyError> {
        let everywhere = StageSettings {
            marks: false,
            finalize_grace: self.finalize_grace,
            lost_grace: self.lost_grace,
            hard_deadline: self.hard_deadline,
            no_backstop: self.no_backstop,
            boot_grace: self.boot_grace,
            stale_after: self.stale_after,
        };
        let stages = self.stages.0.into_iter().map(|(stage, rules)| (stage, rules.rules())).collect();
        PolicyBuilder { mode: self.mode, everywhere: everywhere.rules(), stages }.build()
    }
}

impl StageSettings {
    fn rules(self) -> StageRules {
        let duration = |seconds: Option<Seconds>| seconds.map(|seconds| seconds.0);
        StageRules {
            marks: self.marks,
            finalize_grace: duration(self.finalize_grace),
            lost_grace: duration(self.lost_grace),
            hard_deadline: duration(self.hard_deadline),
            no_backstop: self.no_backstop,
            boot_grace: duration(self.boot_grace),
            stale_after: duration(self.stale_after),
        }
    }
}

struct StageMap<'a>(&'a [(Box<str>, Limits)]);

impl Serialize for StageMap<'_> {
    fn serialize<T: Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        serializer.collect_map(self.0.iter().map(|(stage, limits)| (stage, StageLimits(limits))))
    }
}

struct StageLimits<'a>(&'a Limits);

impl Serialize for StageLimits<'_> {
    fn serialize<T: Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("marks", &self.0.marks)?;
        write_limits(&mut object, self.0)?;
        object.end()
    }
}

/// Those that are set: what is left out is read back as such.
fn write_limits<M: SerializeMap>(object: &mut M, limits: &Limits) -> Result<(), M::Error> {
    object.serialize_entry("finalize_grace", &Seconds(limits.finalize_grace))?;
    object.serialize_entry("lost_grace", &Seconds(limits.lost_grace))?;
    match limits.hard_deadline {
        Some(hard_deadline) => object.serialize_entry("hard_deadline", &Seconds(hard_deadline))?,
        None => object.serialize_entry("no_backstop", &true)?,
    }
    for (setting, limit) in [("boot_grace", limits.boot_grace), ("stale_after", limits.stale_after)] {
        if let Some(limit) = limit {
            object.serialize_entry(setting, &Seconds(limit))?;
        }
    }
    Ok(())
}

impl<'de> Deserialize<'de> for Stages {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Stages;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from stages to their rules")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Stages, A::Error> {
                let mut stages = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    stages.push(entry);
                }
                Ok(Stages(stages))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;

        /// Integers by themselves: not all of them are floats as well.
        impl Visitor<'_> for Number {
            type Value = Seconds;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of seconds")
            }

            fn visit_u64<E: Error>(self, seconds: u64) -> Result<Seconds, E> {
                Ok(Seconds(Duration::from_secs(seconds)))
            }

            fn visit_i64<E: Error>(self, seconds: i64) -> Result<Seconds, E> {
                match u64::try_from(seconds) {
                    Ok(seconds) => self.visit_u64(seconds),
                    Err(_) => Err(E::custom(format_args!("{seconds} is no number of seconds: it is negative"))),
                }
            }

            fn visit_f64<E: Error>(self, seconds: f64) -> Result<Seconds, E> {
                Duration::try_from_secs_f64(seconds)
                    .map(Seconds)
                    .map_err(|error| E::custom(format_args!("{seconds} is no number of seconds: {error}")))
            }
        }

        deserializer.deserialize_any(Number)
    }
}

/// Whole seconds as an integer, for people. Others as a float, exact to a nanosecond up to a hundred days.
impl Serialize for Seconds {
    fn serialize<T: Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        match self.0.subsec_nanos() {
            // Of the longest ones no float has the fraction, and the nearest may be too long to be read.
            nanos if nanos == 0 || self.0.as_secs() >> f64::MANTISSA_DIGITS != 0 => {
                serializer.serialize_u64(self.0.as_secs())
            }
            _ => serializer.serialize_f64(self.0.as_secs_f64()),
        }
    }
}
