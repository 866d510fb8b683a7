//! The `serde` shapes of snapshots and owners, for dashboards and APIs. A policy's shape is in `reaper/policy/serde.rs`.

use serde::ser::{Serialize, SerializeStruct, Serializer};

use crate::context::{Finalizer, Pulse};
use crate::owner::Owner;
use crate::registry::Snapshot;

/// Writes `{"active": n, "jobs": [ids], "owners": [{"job": .., "generation": .., "age_ms": .., "value": ..}, ..]}`, each
/// list sorted by job.
impl<K: Serialize, V: Serialize> Serialize for Snapshot<K, V> {
    fn serialize<T: Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        let mut object = serializer.serialize_struct("Snapshot", 3)?;
        object.serialize_field("active", &self.len())?;
        object.serialize_field("jobs", &Each(|| self.iter().map(|(job, _)| job)))?;
        object.serialize_field("owners", &Each(|| self.iter().map(|(job, owner)| Entry { job, owner })))?;
        object.end()
    }
}

/// Writes the items of an iterator as a list.
struct Each<F>(F);

impl<F, I> Serialize for Each<F>
where
    F: Fn() -> I,
    I: Iterator<Item: Serialize>,
{
    fn serialize<T: Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        serializer.collect_seq(self.0())
    }
}

struct Entry<'a, K, V> {
    job: &'a K,
    owner: &'a Owner<V>,
}

impl<K: Serialize, V: Serialize> Serialize for Entry<'_, K, V> {
    fn serialize<T: Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        let mut object = serializer.serialize_struct("Owner", 4)?;
        object.serialize_field("job", self.job)?;
        fields_of_owner(&mut object, self.owner)?;
        object.end()
    }
}

/// Writes `{"generation": .., "age_ms": .., "value": ..}`, with the age at that moment.
impl<V: Serialize> Serialize for Owner<V> {
    fn serialize<T: Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        let mut object = serializer.serialize_struct("Owner", 3)?;
        fields_of_owner(&mut object, self)?;
        object.end()
    }
}

fn fields_of_owner<O: SerializeStruct, V: Serialize>(object: &mut O, owner: &Owner<V>) -> Result<(), O::Error> {
    object.serialize_field("generation", &owner.generation)?;
    object.serialize_field("age_ms", &milliseconds(owner.age()))?;
    object.serialize_field("value", &owner.value)
}

/// Writes `{"run_id": .., "stage": .., "pulse_age_ms": ..}`.
impl Serialize for Finalizer {
    fn serialize<T: Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        let mut object = serializer.serialize_struct("Finalizer", 3)?;
        object.serialize_field("run_id", &self.run_id)?;
        object.serialize_field("stage", &*self.stage)?;
        object.serialize_field("pulse_age_ms", &self.pulse.as_ref().map(|pulse| milliseconds(pulse.age())))?;
        object.end()
    }
}

/// Writes the pulse's age in milliseconds.
impl Serialize for Pulse {
    fn serialize<T: Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        serializer.serialize_u64(milliseconds(self.age()))
    }
}

fn milliseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
