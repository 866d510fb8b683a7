//! Forgets what ended long ago, a little at a time, so that no monitor waits for it.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::time::sleep;

use crate::error::Error;
use crate::output;
use crate::reap::complain;
use crate::serve::Service;
use crate::serve::routes::blocking;
use crate::serve::view::milliseconds;
use crate::store::now;

/// Forgotten in one transaction.
const AT_ONCE: usize = 50;
/// Pause between two of them.
const BETWEEN: Duration = Duration::from_millis(50);
/// How often it is looked for more, at most and at least.
const OFTEN: Duration = Duration::from_millis(200);
const SELDOM: Duration = Duration::from_secs(60);

/// Does so for as long as the service lives, if the settings say how long to keep what has ended.
pub(super) async fn expire(service: &'static Service) {
    let Some(keep) = service.engine.config.limits.keep else { return };
    let look_every = (keep / 10).clamp(OFTEN, SELDOM);
    loop {
        let forgotten = blocking(service, move |service, store| {
            let before = now().saturating_sub(milliseconds(keep));
            let jobs = store.expire(before, AT_ONCE)?;
            let notes = store.expire_notes(before, AT_ONCE)?;
            for job in &jobs {
                let workspaces = service.engine.workspaces;
                for directory in [crate::gates::workspace_path(workspaces, *job), output::directory(workspaces, *job)] {
                    complain(remove(&directory).map_err(Error::io(format!("{}", directory.display()))));
                }
            }
            Ok(jobs.len().max(notes))
        });
        // What cannot be forgotten now can be later.
        let more = forgotten.await.is_ok_and(|forgotten| forgotten == AT_ONCE);
        sleep(if more { BETWEEN } else { look_every }).await;
    }
}

fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
