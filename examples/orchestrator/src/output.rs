//! What jobs and gates print: kept, and bounded.
//!
//! A command prints into a pipe that its supervisor reads. The beginning goes to a file as it comes. Of the rest, the
//! last part is kept in memory, and the file's second half is written anew from it now and then. So a gate that prints
//! gigabytes costs a bounded file and a bounded buffer, is never held up, and can be read while it runs.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::store::{JobId, RunId};

/// Kept of the beginning, and as much again of the end.
const HALF: usize = 32 << 10;
/// The most that a file holds: both halves, and a line between them.
pub const LIMIT: u64 = (2 * HALF + 128) as u64;
/// How often the end is written while the command prints.
const AGAIN: Duration = Duration::from_millis(250);

/// Whose output it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The process of the job itself, in this run.
    Process(RunId),
    /// A gate, by the number of its row.
    Task(u64),
}

/// Returns the directory that holds the output of a job.
pub fn directory(workspaces: &Path, job: JobId) -> PathBuf {
    // Beside the workspaces: a job may clean its own.
    workspaces.join("output").join(format!("job-{job}"))
}

/// Returns the file that keeps the output.
pub fn file(workspaces: &Path, job: JobId, source: Source) -> PathBuf {
    directory(workspaces, job).join(match source {
        Source::Process(run) => format!("run-{run}"),
        Source::Task(task) => format!("task-{task}"),
    })
}

/// The output of one command, on its way to a file.
pub(crate) struct Kept {
    /// None if it cannot be written: the command runs all the same.
    file: Option<File>,
    /// Bytes of the beginning that are in the file.
    begun: usize,
    /// The latest bytes after the beginning.
    end: VecDeque<u8>,
    /// How many came after the beginning.
    after: u64,
    written: Instant,
}

impl Kept {
    pub(crate) fn to(path: &Path) -> Self {
        let open = || {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            File::create(path)
        };
        Self { file: open().ok(), begun: 0, end: VecDeque::new(), after: 0, written: Instant::now() }
    }

    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        // The beginning goes to the file at once.
        let (beginning, rest) = bytes.split_at(bytes.len().min(HALF - self.begun));
        if !beginning.is_empty() {
            self.write(beginning, self.begun);
            self.begun += beginning.len();
            bytes = rest;
        }
        if bytes.is_empty() {
            return;
        }
        // The rest pushes the oldest bytes out.
        self.after = self.after.saturating_add(bytes.len() as u64);
        let latest = &bytes[bytes.len().saturating_sub(HALF)..];
        let over = (self.end.len() + latest.len()).saturating_sub(HALF);
        self.end.drain(..over);
        self.end.extend(latest);
        if self.written.elapsed() > AGAIN {
            self.flush();
        }
    }

    /// Writes the end behind the beginning.
    pub(crate) fn flush(&mut self) {
        self.written = Instant::now();
        if self.end.is_empty() {
            return;
        }
        let left_out = self.after - self.end.len() as u64;
        let mut behind = match left_out {
            0 => Vec::new(),
            _ => format!("\n[{left_out} bytes left out]\n").into_bytes(),
        };
        behind.extend(&self.end);
        self.write(&behind, self.begun);
        if let Some(file) = &self.file {
            // The line between may have been longer before.
            let _ = file.set_len((self.begun + behind.len()) as u64);
        }
    }

    /// Output that the disk has no room for is lost, and the command goes on.
    fn write(&self, bytes: &[u8], at: usize) {
        if let Some(file) = &self.file {
            let _ = file.write_all_at(bytes, at as u64);
        }
    }
}

/// Reads what was kept. `None` if nothing was.
pub fn read(workspaces: &Path, job: JobId, source: Source) -> io::Result<Option<Vec<u8>>> {
    match fs::read(file(workspaces, job, source)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
