//! A disk that is full costs time, and no job: what a monitor could not write down is made up for.

#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Place, QUICK, Server, wait_for};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

/// Jobs that a backstop would end long after the test has given up.
fn settings() -> String {
    QUICK.replace("hard_deadline = 60", "hard_deadline = 600\nlost_grace = 0.2")
}

fn healthz(server: &Server) -> (u16, String) {
    let answer = server.get("/healthz");
    (answer.status, answer.body)
}

/// What must hold once there is room again, whatever there was room for before.
fn recovers(place: &Place, server: &Server, jobs: &[u64]) {
    wait_for("health", || healthz(server).0 == 200);
    let all = jobs.len() as u64;
    wait_for("the end of every job", || {
        place.count("SELECT COUNT(*) FROM jobs WHERE state NOT IN ('queued', 'running')") == all
    });
    let queue = server.queue();
    assert_eq!(queue["registry"]["displaced"], 0, "nobody was displaced");
    assert_eq!(
        place.count("SELECT COUNT(*) FROM notes WHERE what LIKE '%displac%'"),
        0,
        "and nobody is said to have been"
    );
    assert_eq!(
        place.count("SELECT COUNT(*) FROM jobs WHERE (SELECT COUNT(*) FROM ledger WHERE job_id = jobs.id) > 1"),
        0
    );
    assert_eq!(place.count("SELECT COUNT(*) FROM runs WHERE ended_at IS NULL"), 0, "every run's end is written down");
    assert_eq!(place.count("SELECT COUNT(*) FROM notes WHERE what LIKE '%backstop%'"), 0);
    let later = server.submit("{}")[0];
    wait_for("another job", || {
        place.count(&format!("SELECT COUNT(*) FROM jobs WHERE id = {later} AND state = 'merged'")) == 1
    });
}

/// A file system of its own, for as long as the test runs.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a Path) -> Option<Self> {
        fs::create_dir(at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(at).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then_some(Self(at))
    }

    fn fill(&self) {
        let mut file = fs::File::create(self.0.join("fill")).unwrap();
        let full = loop {
            if let Err(error) = file.write_all(&[0; 4096]) {
                break error;
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    }

    fn make_room(&self) {
        fs::remove_file(self.0.join("fill")).unwrap();
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

/// Seen to fail as it was: `/healthz` said 200, and the monitors that died left their jobs to the backstop.
#[test]
fn a_full_disk_costs_no_job() {
    let place = Place::new(&settings());
    let path = place.path("disk");
    let Some(disk) = SmallDisk::mount(&path) else {
        // Not by a macro, whose output is kept from whoever reads a log.
        writeln!(io::stderr(), "NOT CHECKED: a full disk (mounting one needs root)").unwrap();
        return;
    };
    let mut command = common::orchestrator();
    command.current_dir(place.directory.path()).args(["serve", "--db", "disk/jobs.db", "--config", "settings.toml"]);
    command.args(["--listen", "127.0.0.1:0", "--workspaces", "disk/work", "--token", common::TOKEN]);
    let server = Server::start(&mut command);
    fs::remove_file(place.path("jobs.db")).ok();
    std::os::unix::fs::symlink("disk/jobs.db", place.db()).unwrap();
    let jobs = server.submit(r#"{"kind":"held","count":4}"#);
    for job in &jobs {
        wait_for("its process", || path.join(format!("work/job-{job}/pid")).exists());
    }
    assert_eq!(healthz(&server).0, 200);

    disk.fill();
    let unwell = || {
        let (status, said) = healthz(&server);
        status == 503 && said.contains("nothing can be written: ")
    };
    wait_for("a health that knows", unwell);
    fs::write(path.join("go"), "").unwrap();
    let unstamped = "SELECT COUNT(*) FROM runs WHERE finished_at IS NULL";
    wait_for("the end of their processes", || {
        jobs.iter().all(|job| {
            let pid = fs::read_to_string(path.join(format!("work/job-{job}/pid"))).unwrap();
            pid.trim()
                .parse()
                .ok()
                .and_then(Pid::from_raw)
                .is_none_or(|pid| rustix::process::test_kill_process(pid).is_err())
        })
    });
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(place.count(unstamped), 4, "nothing could be written down");

    disk.make_room();
    recovers(&place, &server, &jobs);
}

/// A limit on the length of files is a full disk of another kind, which needs no root. Seen to fail as it was: the
/// service was ended by SIGXFSZ.
#[test]
fn a_limit_on_files_costs_no_job() {
    let place = Place::new(&settings());
    let server = place.serve();
    let jobs = server.submit(r#"{"kind":"held","count":4}"#);
    for job in &jobs {
        place.pid_of(*job);
    }
    let pid = Pid::from_child(&server.child);
    let limit = |current| {
        let Rlimit { maximum, .. } = getrlimit(Resource::Fsize);
        prlimit(Some(pid), Resource::Fsize, Rlimit { current, maximum }).unwrap();
    };
    limit(Some(1));
    wait_for("a health that knows", || healthz(&server).0 == 503);
    place.go();
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(place.count("SELECT COUNT(*) FROM runs WHERE finished_at IS NULL"), 4, "nothing could be written down");
    limit(None);
    recovers(&place, &server, &jobs);
}
