//! One server per job store: two of them would take each other's monitors for dead.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// A killed server's lock may outlive it by the moment that a child of it needs to become another program.
const PATIENCE: Duration = Duration::from_millis(250);

/// Held while a job store is served.
///
/// A lock of the operating system, on a file beside the database (closing the database's own file a second time would
/// take SQLite's locks with it). The file stays: to remove it would let two in.
#[derive(Debug)]
pub(super) struct ServerLock {
    _file: File,
}

impl ServerLock {
    /// Takes the lock, or says who has it.
    pub(super) fn take(db: &Path) -> Result<Self> {
        if let Some(parent) = db.parent().filter(|parent| !parent.is_dir()) {
            return Err(Error::NoDirectory(parent.to_owned()));
        }
        let path = beside(db, ".lock");
        let doing = || Error::io(format!("{}", path.display()));
        let open = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.map_err(doing())?;
        let started = Instant::now();
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) if started.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(5)),
                Err(Errno::WOULDBLOCK) => {
                    let mut holder = String::new();
                    // The other one may not have got to write it.
                    let holder = file.read_to_string(&mut holder).is_ok_and(|read| read > 0).then_some(holder);
                    return Err(Error::Served { path: db.to_owned(), holder });
                }
                Err(error) => return Err(doing()(error.into())),
            }
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(doing())?;
        write!(file, "{}", process::id()).map_err(doing())?;
        Ok(Self { _file: file })
    }
}

/// `db` with something after its name.
pub(super) fn beside(db: &Path, suffix: &str) -> PathBuf {
    let mut path = db.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}
