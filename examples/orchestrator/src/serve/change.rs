//! What is different between two states, for those who watch: a queue of 200 jobs is 120 KB, and of a job that only
//! grew older there is nothing to tell.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::store::{Happened, JobId};

/// An instant that is told again has moved by no more than this, unless it is another one: two clocks are read for it,
/// one after the other.
const SAME_INSTANT: u64 = 50;

/// Told of the jobs themselves, or only where the whole state is.
const NOT_SET: [&str; 6] = ["active", "deferrals", "jobs", "now_ms", "owners", "running"];

/// What has been told.
#[derive(Debug, Default)]
pub(super) struct Told {
    running: BTreeMap<JobId, Value>,
    /// All the rest, by its name.
    rest: Map<String, Value>,
}

impl Told {
    /// Takes up a state, and returns what of it was not told yet.
    ///
    /// A job is told of, whole, if it is new or if anything but its ages is another one. The instants from which the
    /// ages are counted are told with it.
    pub(super) fn update(&mut self, state: &Value, happened: &[Happened]) -> Value {
        let mut now = BTreeMap::new();
        for job in state["running"].as_object().into_iter().flat_map(Map::values).filter_map(Value::as_array).flatten()
        {
            let Some(id) = job["job"].as_u64() else { continue };
            now.insert(id, job);
        }
        let gone: Vec<_> = self.running.keys().filter(|job| !now.contains_key(job)).copied().collect();
        self.running.retain(|job, _| now.contains_key(job));
        let mut running = Vec::new();
        for (id, job) in now {
            if self.running.get(&id).is_some_and(|told| is_same("", told, job)) {
                continue;
            }
            self.running.insert(id, job.clone());
            running.push(job);
        }

        let mut set = Map::new();
        for (name, value) in state.as_object().into_iter().flatten() {
            if NOT_SET.contains(&name.as_str()) || self.rest.get(name) == Some(value) {
                continue;
            }
            self.rest.insert(name.clone(), value.clone());
            set.insert(name.clone(), value.clone());
        }
        let now_ms = &state["now_ms"];
        json!({ "now_ms": now_ms, "set": set, "running": running, "gone": gone, "happened": happened })
    }
}

/// Whether two values say the same of a job, apart from ages, which go on by themselves, and from texts that tell them.
fn is_same(name: &str, told: &Value, now: &Value) -> bool {
    match (told, now) {
        (Value::Object(told), Value::Object(now)) => {
            let goes_on = |key: &str| match key {
                // Each sweep judges, whether or not it says something else.
                "at_ms" => name == "verdict",
                "text" | "times" => true,
                _ => key.ends_with("_ms") && !key.ends_with("_at_ms"),
            };
            told.len() == now.len()
                && told
                    .iter()
                    .all(|(key, told)| goes_on(key) || now.get(key).is_some_and(|now| is_same(key, told, now)))
        }
        (Value::Number(told), Value::Number(now)) if name.ends_with("at_ms") => match (told.as_u64(), now.as_u64()) {
            (Some(told), Some(now)) => told.abs_diff(now) <= SAME_INSTANT,
            _ => told == now,
        },
        _ => told == now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(job: Value) -> Value {
        let Value::Object(mut state) = json!({ "now_ms": 1000, "paused": false, "owners": [7], "running": {} }) else {
            unreachable!("it is an object")
        };
        let stage = job["stage"].as_str().unwrap_or_default().to_owned();
        state.insert("running".into(), json!({ stage: [job] }));
        state.into()
    }

    fn job(change: impl FnOnce(&mut Value)) -> Value {
        let mut job = json!({
            "job": 7, "stage": "test", "running_ms": 10, "started_at_ms": 990,
            "owner": { "generation": 3, "age_ms": 5, "since_at_ms": 995, "pulse_at_ms": null },
            "verdict": { "what": "healthy", "at_ms": 990, "text": "10 ms" },
            "next": { "what": "reap, backstop", "in_ms": 500, "at_ms": 1500 },
        });
        change(&mut job);
        job
    }

    /// Seen to fail with a comparison that takes ages, texts, or instants of two clocks for news.
    #[test]
    fn a_job_that_only_grew_older_is_not_told_again() {
        let mut told = Told::default();
        let first = told.update(&state(job(|_| ())), &[]);
        assert_eq!(first["running"].as_array().map(Vec::len), Some(1));
        assert_eq!(first["set"], json!({ "paused": false }), "owners are told with their jobs");
        let older = job(|job| {
            job["running_ms"] = 260.into();
            job["owner"]["age_ms"] = 255.into();
            job["owner"]["since_at_ms"] = 997.into();
            job["verdict"] = json!({ "what": "healthy", "at_ms": 1240, "text": "260 ms" });
            job["next"]["in_ms"] = 250.into();
            job["next"]["at_ms"] = 1502.into();
        });
        let second = told.update(&state(older), &[]);
        assert_eq!((&second["running"], &second["set"], &second["gone"]), (&json!([]), &json!({}), &json!([])));
    }

    /// Seen to fail with a comparison that looks at the upper level of a job only.
    #[test]
    fn a_job_that_is_different_is_told_whole() {
        let different: [fn(&mut Value); 6] = [
            |job| job["stage"] = "commit".into(),
            |job| job["owner"]["generation"] = 4.into(),
            |job| job["owner"] = Value::Null,
            |job| job["owner"]["pulse_at_ms"] = 1200.into(),
            |job| job["verdict"]["what"] = "defer".into(),
            |job| job["next"]["at_ms"] = 1551.into(),
        ];
        for change in different {
            let mut told = Told::default();
            told.update(&state(job(|_| ())), &[]);
            let other = job(change);
            let second = told.update(&state(other.clone()), &[]);
            assert_eq!(second["running"], json!([other]));
        }
    }

    /// An instant that creeps is told before it is wrong by more than two clocks can be. Seen to fail with a comparison
    /// with the state before, instead of with what was told.
    #[test]
    fn what_creeps_is_told_in_time() {
        let mut told = Told::default();
        let mut sent = 0;
        for step in 0..10 {
            let crept = job(|job| job["next"]["at_ms"] = (1500 + 20 * step).into());
            sent += told.update(&state(crept), &[])["running"].as_array().map_or(0, Vec::len);
        }
        assert_eq!(sent, 4);
    }

    #[test]
    fn a_job_that_ended_is_gone_once() {
        let mut told = Told::default();
        told.update(&state(job(|_| ())), &[]);
        let empty = json!({ "now_ms": 1000, "running": {} });
        assert_eq!(told.update(&empty, &[])["gone"], json!([7]));
        assert_eq!(told.update(&empty, &[])["gone"], json!([]));
    }
}
