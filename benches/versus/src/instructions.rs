//! How many instructions an operation takes: the same on each run, where times are not.

use std::env;
use std::error::Error;
use std::process::Command;
use std::sync::Arc;

use crate::jobs::Jobs;
use crate::workloads::{Group, OPERATIONS, subjects};

const OWNED: usize = 64;
/// What an operation takes is what more of them take: starting and filling are in both.
const FEW: usize = 32 * 1_024;
const MORE: usize = 64 * 1_024;

/// Counts the instructions of each operation of each subject, with valgrind.
pub fn print() -> Result<(), Box<dyn Error>> {
    println!("instructions per operation, {OWNED} owned jobs");
    print!("{:20}", "");
    OPERATIONS.iter().for_each(|operation| print!(" {operation:>14}"));
    println!();
    for subject in subjects(Group::Reads, &Arc::new(Jobs::new(OWNED, 0))) {
        print!("{:20}", subject.name());
        for operation in OPERATIONS {
            let [few, more] = [FEW, MORE].map(|times| count(subject.name(), operation, times));
            print!(" {:>14.1}", (more? - few?) as f64 / (MORE - FEW) as f64);
        }
        println!();
    }
    Ok(())
}

/// The instructions of a process that does no more than [`repeat`].
fn count(subject: &str, operation: &str, times: usize) -> Result<i64, Box<dyn Error>> {
    let counted = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe()?)
        .args(["--repeat", subject, operation, &times.to_string()])
        .output()
        .map_err(|error| format!("valgrind, which must be installed: {error}"))?;
    let said = String::from_utf8_lossy(&counted.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected :")).map(|(_, count)| count.trim());
    match collected {
        Some(count) if counted.status.success() => Ok(count.parse()?),
        _ => Err(format!("valgrind: {said}").into()),
    }
}

/// Does an operation of a subject so many times.
pub fn repeat(subject: &str, operation: &str, times: usize) -> Result<(), Box<dyn Error>> {
    let mut subjects = subjects(Group::Reads, &Arc::new(Jobs::new(OWNED, 0)));
    let subject = subjects.iter_mut().find(|each| each.name() == subject).ok_or("no subject is called so")?;
    subject.repeat(operation, times);
    Ok(())
}
