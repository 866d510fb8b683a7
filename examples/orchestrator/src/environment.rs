//! What jobs and gates find in their environment: what a program needs to run, and nothing of ours.
//!
//! A job's commands are the job's, not the operator's. A gate that found the service's token could switch the reaper off.
//! So the environment is a list of what is let through, not of what is kept back.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};

use serde::Deserialize;

use crate::store::{JobId, RunId};

/// The variable that a client or a service finds its token in.
pub const TOKEN: &str = "ORCHESTRATOR_TOKEN";
/// What begins the names of our own variables. None of them is let through.
const OURS: &str = "ORCHESTRATOR_";
/// What programs expect to find. A name that ends in `*` stands for all that begin so.
const USUAL: [&str; 11] =
    ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TERM", "TMPDIR"];

/// The section `environment` of the settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// Variables of the service that its jobs get as well. A name may end in `*`.
    #[serde(default)]
    pub pass: Vec<String>,
    /// Variables that jobs get with these values.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
}

impl Environment {
    /// Returns all that the commands of this run find in their environment.
    pub fn of(&self, job: JobId, run: RunId) -> Vec<(OsString, OsString)> {
        let passed = env::vars_os().filter(|(name, _)| self.passes(name));
        let set = self.set.iter().map(|(name, value)| (name.into(), value.into()));
        let own =
            [("JOB", job), ("RUN", run)].map(|(what, id)| (format!("{OURS}{what}").into(), id.to_string().into()));
        passed.chain(set).chain(own).collect()
    }

    fn passes(&self, name: &OsStr) -> bool {
        let bytes = name.as_encoded_bytes();
        let named = |pattern: &str| match pattern.strip_suffix('*') {
            Some(beginning) => bytes.starts_with(beginning.as_bytes()),
            None => bytes == pattern.as_bytes(),
        };
        !bytes.starts_with(OURS.as_bytes())
            && (USUAL.into_iter().any(named) || self.pass.iter().any(|pattern| named(pattern)))
    }

    /// Checks the names: ours are not to be given away, nor set.
    pub(crate) fn check(&self) -> Result<(), String> {
        let names = self.pass.iter().map(|name| ("pass", name)).chain(self.set.keys().map(|name| ("set", name)));
        for (key, name) in names {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(format!("environment.{key}: {name:?} is no name of a variable"));
            }
            if name.starts_with(OURS) {
                return Err(format!("environment.{key}: {name} is the orchestrator's own, and not given to jobs"));
            }
        }
        match self.set.iter().find(|(_, value)| value.contains('\0')) {
            Some((name, _)) => Err(format!("environment.set.{name}: a value cannot have a zero byte")),
            None => Ok(()),
        }
    }
}
