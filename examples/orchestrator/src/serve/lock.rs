//! One server per job store: two of them would take each other's monitors for dead.
//!
//! What is locked is what is opened. A store has as many names as there are links to it, so its name says little: the
//! database file itself is locked, and a lock file beside its canonical name tells who has it. Both locks are the
//! operating system's and end with the process, however that ends.
//!
//! While the service runs, it looks whether the names still lead to what it has locked. Who deletes the lock file lets
//! nobody in. Who replaces the database has the service end: its rows would go where nobody sees them.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// A killed server's lock may outlive it by the moment that a child of it needs to become another program.
const PATIENCE: Duration = Duration::from_millis(250);
/// How often the service looks whether its store is still its own.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Held while a job store is served.
#[derive(Debug)]
pub(super) struct ServerLock {
    db: PathBuf,
    /// Opened before SQLite opens it, and never closed: closing any descriptor of a file ends the locks that SQLite has
    /// on it in this process.
    database: File,
    /// Says who has the lock. The file stays at the end: to remove it would let two in.
    lock_file: File,
}

impl ServerLock {
    /// Takes the lock, or says who has it. Returns it with the canonical name of the store, by which to open it.
    pub(super) fn take(db: &Path) -> Result<(Self, PathBuf)> {
        let db = canonical(db)?;
        let (lock_file, holder) = open_lock_file(&db)?;
        let served = || Error::Served { path: db.clone(), holder: holder.clone() };
        lock(&lock_file, &db)?.ok_or_else(served)?;
        let database = open_database(&db)?;
        // SQLite keeps its journals beside the name it was given. Under two names they would tear the file.
        let found = metadata(&database, &db)?;
        if found.is_file() && found.nlink() > 1 {
            return Err(Error::Linked { path: db, names: found.nlink() });
        }
        #[cfg(target_os = "linux")]
        lock(&database, &db)?.ok_or_else(served)?;
        let mut lock = Self { db: db.clone(), database, lock_file };
        lock.sign()?;
        Ok((lock, db))
    }

    /// Looks whether the names still lead to what is locked.
    pub(super) fn check(&mut self) -> Result<()> {
        let opened = metadata(&self.database, &self.db)?;
        let is_ours = fs::metadata(&self.db).is_ok_and(|found| is_same(&found, &opened));
        if !is_ours {
            return Err(Error::Replaced(self.db.clone()));
        }
        let path = lock_path(&self.db);
        let signed = metadata(&self.lock_file, &path)?;
        if fs::metadata(&path).is_ok_and(|found| is_same(&found, &signed)) {
            return Ok(());
        }
        // Deleted or replaced: sign anew, before somebody else does.
        let (lock_file, holder) = open_lock_file(&self.db)?;
        if lock(&lock_file, &self.db)?.is_none() {
            return Err(Error::Served { path: self.db.clone(), holder });
        }
        self.lock_file = lock_file;
        self.sign()
    }

    /// Writes down who has the lock.
    fn sign(&mut self) -> Result<()> {
        let sign = |mut file: &File| {
            file.set_len(0)?;
            file.rewind()?;
            write!(file, "{}", process::id())
        };
        sign(&self.lock_file).map_err(doing(&lock_path(&self.db)))
    }
}

/// Returns the one name of a file that is there, or is to be made.
pub(super) fn canonical(db: &Path) -> Result<PathBuf> {
    match fs::canonicalize(db) {
        Ok(path) => Ok(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let absolute = std::path::absolute(db).map_err(doing(db))?;
            let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
                return Err(Error::NoDirectory(absolute));
            };
            if fs::symlink_metadata(&absolute).is_ok() {
                // A link to nothing: SQLite would make what it points to, under another name than is locked.
                return Err(doing(db)(error));
            }
            let parent = fs::canonicalize(parent).map_err(|_| Error::NoDirectory(parent.to_owned()))?;
            if !parent.is_dir() {
                return Err(Error::NoDirectory(parent));
            }
            Ok(parent.join(name))
        }
        Err(error) => Err(doing(db)(error)),
    }
}

fn open_lock_file(db: &Path) -> Result<(File, Option<String>)> {
    let path = lock_path(db);
    let open = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = open.map_err(doing(&path))?;
    let mut holder = String::new();
    // The one that has it may not have got to write it.
    let holder = file.read_to_string(&mut holder).is_ok_and(|read| read > 0).then_some(holder);
    Ok((file, holder))
}

fn open_database(db: &Path) -> Result<File> {
    // An empty file is as good as none to SQLite. What may only be read is refused by SQLite, which says it better.
    let opened = match File::open(db) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => File::create_new(db),
        opened => opened,
    };
    opened.map_err(doing(db))
}

/// Locks a file; `None` if another process has it.
fn lock(file: &File, db: &Path) -> Result<Option<()>> {
    let started = Instant::now();
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(())),
            Err(Errno::WOULDBLOCK) if started.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(5)),
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(doing(db)(error.into())),
        }
    }
}

fn metadata(file: &File, path: &Path) -> Result<Metadata> {
    file.metadata().map_err(doing(path))
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

fn lock_path(db: &Path) -> PathBuf {
    beside(db, ".lock")
}

fn doing(path: &Path) -> impl FnOnce(io::Error) -> Error {
    Error::io(format!("{}", path.display()))
}

/// `db` with something after its name.
pub(super) fn beside(db: &Path, suffix: &str) -> PathBuf {
    let mut path = db.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}
