//! What jobs and gates get of the service: its token never, no descriptor, and of its environment what they need.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::{Place, Server, TOKEN};

/// The job and its gate write down what they find.
const LOOK: &str = "
job.command = ['sh', '-c', 'env > process.env; ls -l /proc/self/fd > process.fd; tr \"\\0\" \"\\n\" < /proc/$PPID/environ > parent.env']
gates = [{ name = 'look', command = ['sh', '-c', 'env > gate.env'] }]
[limits]
finalize_grace = 5
hard_deadline = 60
sweep_every = 0.02
process = 60
[environment]
pass = ['BUILD_*']
set = { GREETING = 'hello' }
";

fn variables(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.split_once('=')).collect()
}

/// Seen to fail with the environment handed on as it was: the token stood in all three files.
#[test]
fn the_token_is_in_no_environment_but_the_services() {
    let place = Place::new(LOOK);
    let mut command = place.command();
    command.env("ORCHESTRATOR_TOKEN", TOKEN).env("BUILD_ID", "17").env("SECRET", "of the operator");
    let server = Server::start(&mut command);
    let job = server.submit("{}")[0];
    server.until_counts("merged", 1);

    let read = |name: &str| fs::read_to_string(place.path(&format!("work/job-{job}/{name}"))).unwrap();
    let (process, gate, supervisor) = (read("process.env"), read("gate.env"), read("parent.env"));
    for found in [&process, &gate, &supervisor] {
        assert!(!found.contains(TOKEN), "{found}");
        let found = variables(found);
        assert_eq!(found.get("SECRET"), None, "nothing is let through that was not named");
        assert_eq!(found["BUILD_ID"], "17", "named in the settings");
        assert_eq!(found["GREETING"], "hello", "set in the settings");
        assert_eq!(found["ORCHESTRATOR_JOB"], job.to_string());
        assert_eq!(found["ORCHESTRATOR_RUN"], "1");
        assert!(found.contains_key("PATH"), "what every program needs");
    }
}

/// Seen to fail with a descriptor of the service that was not closed when a program is executed.
#[test]
#[cfg(target_os = "linux")]
fn no_descriptor_of_the_service_reaches_a_job() {
    let place = Place::new(LOOK);
    let server = place.serve();
    let job = server.submit("{}")[0];
    server.until_counts("merged", 1);
    let listed = fs::read_to_string(place.path(&format!("work/job-{job}/process.fd"))).unwrap();
    let found = listed.lines().filter_map(|line| {
        let (before, target) = line.split_once(" -> ")?;
        Some((before.rsplit_once(' ')?.1.to_owned(), target.to_owned()))
    });
    // What this test was given already is not the service's. And `ls` has the directory open that it lists.
    let is_inherited = |fd: &str, target: &str| {
        fd.parse::<u32>().is_ok_and(|fd| fd > 2)
            && fs::read_link(format!("/proc/self/fd/{fd}")).is_ok_and(|own| own.as_os_str() == target)
    };
    let targets: Vec<_> = found
        .filter(|(fd, target)| !target.starts_with("/proc/") && !is_inherited(fd, target))
        .map(|(_, target)| target)
        .collect();
    assert_eq!(targets.len(), 3, "{listed}");
    assert_eq!(targets[0], "/dev/null", "{listed}");
    assert!(targets[1].ends_with("process.fd"), "{listed}");
    assert!(targets[2].starts_with("pipe:"), "{listed}");
}

#[test]
fn our_own_names_cannot_be_given_away() {
    for (settings, reason) in [
        ("pass = ['ORCHESTRATOR_TOKEN']", "environment.pass: ORCHESTRATOR_TOKEN is the orchestrator's own"),
        ("pass = ['ORCHESTRATOR_*']", "environment.pass: ORCHESTRATOR_* is the orchestrator's own"),
        ("set = { ORCHESTRATOR_JOB = '1' }", "environment.set: ORCHESTRATOR_JOB is the orchestrator's own"),
        ("set = { 'a=b' = '1' }", "no name of a variable"),
        ("set = { A = \"\\u0000\" }", "cannot have a zero byte"),
    ] {
        let place = Place::new(&format!("[environment]\n{settings}"));
        common::refused(&common::outcome(&mut place.command()), reason);
    }
}

/// A pattern that stands for more than our names still lets none of ours through.
#[test]
fn a_pattern_for_all_names_keeps_the_token() {
    let place = Place::new(&LOOK.replace("BUILD_*", "*"));
    let mut command = place.command();
    command.env("ORCHESTRATOR_TOKEN", TOKEN).env("BUILD_ID", "17").env("SECRET", "of the operator");
    let server = Server::start(&mut command);
    let job = server.submit("{}")[0];
    server.until_counts("merged", 1);
    let found = fs::read_to_string(place.path(&format!("work/job-{job}/gate.env"))).unwrap();
    assert!(found.contains("SECRET=of the operator") && !found.contains(TOKEN), "{found}");
}
