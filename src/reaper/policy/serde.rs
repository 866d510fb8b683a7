//! A [`Policy`] in a settings file: its `serde` form.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Unexpected, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::builder::PolicyBuilder;
use super::limits::StageLimits;
use super::policy::Policy;
use super::rules::StageRules;
use crate::reaper::mode::Mode;

/// The keys of [`Settings`], those of its aliases included: in a flattened field these are all that serde hands over.
const SETTINGS: &[&str] = &[
    "mode",
    "finalize_grace",
    "lost_grace",
    "hard_deadline",
    "no_backstop",
    "max_redrives",
    "boot_grace",
    "stale_after",
    "marking_stage",
    "marking_stages",
    "no_marking_stages",
    "stages",
    "stage",
];

/// The settings of a policy as a file has them. A setting that is left out is as in [`PolicyBuilder`].
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
    max_redrives: Option<Redrives>,
    boot_grace: Option<Seconds>,
    stale_after: Option<Seconds>,
    #[serde(default, deserialize_with = "some_name")]
    marking_stage: Option<Box<str>>,
    #[serde(default)]
    marking_stages: Vec<Box<str>>,
    #[serde(default)]
    no_marking_stages: bool,
    #[serde(default, alias = "stage")]
    stages: Stages,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct StageSettings {
    #[serde(default, alias = "marks")]
    marking: bool,
    finalize_grace: Option<Seconds>,
    lost_grace: Option<Seconds>,
    hard_deadline: Option<Seconds>,
    #[serde(default)]
    no_backstop: bool,
    max_redrives: Option<Redrives>,
    boot_grace: Option<Seconds>,
    stale_after: Option<Seconds>,
}

/// A map from stages to their rules. It does not lose a stage that is given twice.
#[derive(Default)]
struct Stages(Vec<(Box<str>, StageRules)>);

struct Rules(StageRules);

#[derive(Clone, Copy)]
struct Seconds(Duration);

struct Redrives(u32);

/// Reads a policy through its builder, with the builder's checks. An error names the settings that contradict each other.
impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // As a struct, so that a flattened field takes what it knows and leaves the rest to `deny_unknown_fields`.
        let settings: Settings =
            deserializer.deserialize_struct("Policy", SETTINGS, Map::of("the settings of a policy"))?;
        settings.into_builder().build().map_err(D::Error::custom)
    }
}

/// Writes all limits in force in all stages, also those that are inherited or defaults.
impl Serialize for Policy {
    fn serialize<T: Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("mode", &self.mode)?;
        write_limits(&mut object, &self.defaults, self.defaults.stale_after)?;
        if self.marking_stages().next().is_none() {
            object.serialize_entry("no_marking_stages", &true)?;
        }
        object.serialize_entry("stages", &StageMap(self))?;
        object.end()
    }
}

impl Settings {
    fn into_builder(self) -> PolicyBuilder {
        let limits = StageSettings {
            marking: false,
            finalize_grace: self.finalize_grace,
            lost_grace: self.lost_grace,
            hard_deadline: self.hard_deadline,
            no_backstop: self.no_backstop,
            max_redrives: self.max_redrives,
            boot_grace: self.boot_grace,
            stale_after: self.stale_after,
        };
        let builder = PolicyBuilder::with_rules(limits.into_rules()).mode(self.mode);
        let builder = if self.no_marking_stages { builder.no_marking_stages() } else { builder };
        let builder = builder.marking_stages(self.marking_stage).marking_stages(self.marking_stages);
        self.stages.0.into_iter().fold(builder, |builder, (stage, rules)| builder.stage(stage, rules))
    }
}

impl StageSettings {
    fn into_rules(self) -> StageRules {
        let duration = |seconds: Option<Seconds>| seconds.map(|seconds| seconds.0);
        StageRules {
            marking: self.marking,
            finalize_grace: duration(self.finalize_grace),
            lost_grace: duration(self.lost_grace),
            hard_deadline: duration(self.hard_deadline),
            no_backstop: self.no_backstop,
            max_redrives: self.max_redrives.map(|redrives| redrives.0),
            boot_grace: duration(self.boot_grace),
            stale_after: duration(self.stale_after),
        }
    }
}

struct StageMap<'a>(&'a Policy);

impl Serialize for StageMap<'_> {
    fn serialize<T: Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        let inherited = self.0.stale_after();
        serializer.collect_map(self.0.stages().map(|(stage, limits)| (stage, WrittenLimits { limits, inherited })))
    }
}

struct WrittenLimits<'a> {
    limits: &'a StageLimits,
    /// The policy's `stale_after`.
    inherited: Option<Duration>,
}

impl Serialize for WrittenLimits<'_> {
    fn serialize<T: Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        let Self { limits, inherited } = *self;
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("marking", &limits.marking)?;
        // An inherited `stale_after` may be above the deadline where nobody marks. A stage's own may not, so leave it out.
        let stale_after = limits.stale_after.filter(|_| limits.marking || limits.stale_after != inherited);
        write_limits(&mut object, limits, stale_after)?;
        object.end()
    }
}

/// Writes the limits that are set. A limit that is left out is read back as left out.
fn write_limits<M: SerializeMap>(
    object: &mut M,
    limits: &StageLimits,
    stale_after: Option<Duration>,
) -> Result<(), M::Error> {
    object.serialize_entry("finalize_grace", &Seconds(limits.finalize_grace))?;
    object.serialize_entry("lost_grace", &Seconds(limits.lost_grace))?;
    match limits.hard_deadline {
        Some(hard_deadline) => object.serialize_entry("hard_deadline", &Seconds(hard_deadline))?,
        None => object.serialize_entry("no_backstop", &true)?,
    }
    object.serialize_entry("max_redrives", &limits.max_redrives)?;
    for (setting, limit) in [("boot_grace", limits.boot_grace), ("stale_after", stale_after)] {
        if let Some(limit) = limit {
            object.serialize_entry(setting, &Seconds(limit))?;
        }
    }
    Ok(())
}

/// Reads a `T` from a map only. A derived struct also takes a list, whose values mean what their places say.
struct Map<T> {
    expected: &'static str,
    read: PhantomData<T>,
}

impl<T> Map<T> {
    fn of(expected: &'static str) -> Self {
        Self { expected, read: PhantomData }
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Map<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a map: {}", self.expected)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

impl<'de> Deserialize<'de> for Rules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let settings: StageSettings = deserializer.deserialize_map(Map::of("the rules of a stage"))?;
        Ok(Self(settings.into_rules()))
    }
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
                while let Some((stage, Rules(rules))) = map.next_entry()? {
                    stages.push((stage, rules));
                }
                Ok(Stages(stages))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

/// Reads a name that is given. `null` names nothing.
fn some_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<str>>, D::Error> {
    Box::<str>::deserialize(deserializer).map(Some)
}

/// A number as the format has it. Integers stay integers, because not all of them are floats as well.
enum Number {
    Whole(u64),
    Negative(i128),
    /// Beyond 64 bits.
    Huge,
    Float(f64),
    Duration(Duration),
}

/// Reads a number, whatever form the format gives it. Asked for a float, some formats would refuse an integer (CBOR), and
/// others would round it.
fn number<'de, D: Deserializer<'de>>(deserializer: D, expected: &'static str) -> Result<Number, D::Error> {
    deserializer.deserialize_any(NumberVisitor { expected })
}

struct NumberVisitor {
    expected: &'static str,
}

impl<'de> Visitor<'de> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Number, E> {
        Ok(Number::Whole(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Number, E> {
        self.visit_i128(number.into())
    }

    fn visit_u128<E: Error>(self, number: u128) -> Result<Number, E> {
        Ok(u64::try_from(number).map_or(Number::Huge, Number::Whole))
    }

    fn visit_i128<E: Error>(self, number: i128) -> Result<Number, E> {
        match u128::try_from(number) {
            Ok(number) => self.visit_u128(number),
            Err(_) => Ok(Number::Negative(number)),
        }
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Number, E> {
        Ok(Number::Float(number))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Number, A::Error> {
        let number = Parts::deserialize(MapAccessDeserializer::new(map)).ok().and_then(Parts::number);
        number.ok_or_else(|| A::Error::invalid_type(Unexpected::Map, &self))
    }
}

/// A number in the form of a map.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts {
    /// The text of a number, by the feature `arbitrary_precision` of `serde_json`, which any crate of a build turns on
    /// for all. The key is private to `serde_json`.
    #[serde(rename = "$serde_json::private::Number", default, deserialize_with = "some_name")]
    text: Option<Box<str>>,
    /// A duration as `serde` has it.
    secs: Option<u64>,
    nanos: Option<u32>,
}

impl Parts {
    fn number(self) -> Option<Number> {
        match (self.text, self.secs, self.nanos) {
            (Some(text), None, None) => match text.parse() {
                Ok(whole) => Some(Number::Whole(whole)),
                Err(_) => text.parse().ok().map(Number::Float),
            },
            (None, Some(secs), Some(nanos)) if nanos < 1_000_000_000 => {
                Some(Number::Duration(Duration::new(secs, nanos)))
            }
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let refused = |number: &dyn fmt::Display, why: &dyn fmt::Display| {
            D::Error::custom(format_args!("{number} is no number of seconds: {why}"))
        };
        match number(deserializer, "a number of seconds")? {
            Number::Whole(seconds) => Ok(Self(Duration::from_secs(seconds))),
            Number::Negative(seconds) => Err(refused(&seconds, &"it is negative")),
            Number::Huge => Err(refused(&"an integer of more than 64 bits", &"it is too long")),
            Number::Float(seconds) => {
                Duration::try_from_secs_f64(seconds).map(Self).map_err(|error| refused(&seconds, &error))
            }
            Number::Duration(duration) => Ok(Self(duration)),
        }
    }
}

impl<'de> Deserialize<'de> for Redrives {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let refused = |number: &dyn fmt::Display, why: &str| {
            D::Error::custom(format_args!("{number} is no number of redrives: {why}"))
        };
        match number(deserializer, "a number of redrives")? {
            Number::Whole(redrives) => {
                u32::try_from(redrives).map(Self).map_err(|_| refused(&redrives, "it has more than 32 bits"))
            }
            Number::Negative(redrives) => Err(refused(&redrives, "it is negative")),
            Number::Huge => Err(refused(&"an integer of more than 64 bits", "it has more than 32 bits")),
            Number::Float(redrives) => Err(refused(&redrives, "it is no integer")),
            Number::Duration(_) => Err(D::Error::invalid_type(Unexpected::Map, &"a number of redrives")),
        }
    }
}

/// Writes whole seconds as an integer, for people. Other durations are a float up to twelve days. Longer ones are a map
/// of the parts, because not every parser reads the float's nanoseconds as they were.
impl Serialize for Seconds {
    fn serialize<T: Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        match (self.0.as_secs(), self.0.subsec_nanos()) {
            (secs, 0) => serializer.serialize_u64(secs),
            (secs, _) if secs < 1 << 20 => serializer.serialize_f64(self.0.as_secs_f64()),
            _ => self.0.serialize(serializer),
        }
    }
}
