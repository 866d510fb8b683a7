//! The command line, by the real binary. Every way to refuse: one clear line on stderr, an exit code, nothing written.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::{Place, QUICK, Server, TOKEN, refused};
use orchestrator::store::Database;
use rusqlite::Connection;
use tempfile::TempDir;

fn orchestrator(arguments: &[&str]) -> Output {
    common::orchestrator().args(arguments).output().unwrap()
}

#[track_caller]
fn refuses(arguments: &[&str], reason: &str) {
    refused(&orchestrator(arguments), reason);
}

/// Refuses a database, and leaves the file as it is.
#[track_caller]
fn refuses_database(path: &Path, reason: &str) {
    let before = fs::read(path).unwrap();
    refuses(&["--db", path.to_str().unwrap()], reason);
    assert_eq!(fs::read(path).unwrap(), before);
}

#[track_caller]
fn refuses_config(toml: &str, reason: &str) {
    let directory = TempDir::new().unwrap();
    let (config, db) = (directory.path().join("config.toml"), directory.path().join("jobs.db"));
    fs::write(&config, toml).unwrap();
    refuses(&["--db", db.to_str().unwrap(), "--config", config.to_str().unwrap()], reason);
    assert!(!db.exists(), "the settings are read first");
}

#[test]
fn usage() {
    refuses(&["--no-such-option"], "--no-such-option");
    refuses(&["replay"], "replay");
    refuses(&["--db"], "--db");
    refuses(&["--db", ""], "a value is required for '--db <PATH>'");
}

#[test]
fn help() {
    let output = orchestrator(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("--db <PATH>") && text.contains("--config <PATH>"), "{text}");
}

#[test]
fn missing_directory() {
    let directory = TempDir::new().unwrap();
    let missing = directory.path().join("missing");
    refuses(&["--db", missing.join("jobs.db").to_str().unwrap()], "no such directory");
    assert!(!missing.exists());
}

#[test]
fn directory_for_a_file() {
    let directory = TempDir::new().unwrap();
    refuses(&["--db", directory.path().to_str().unwrap()], "unable to open database file");
}

#[test]
fn not_a_database() {
    let directory = TempDir::new().unwrap();
    for (name, content) in [("short", "text".to_owned()), ("long", "more text\n".repeat(1000))] {
        let path = directory.path().join(name);
        fs::write(&path, content).unwrap();
        refuses_database(&path, "not a database");
    }
}

#[test]
fn database_of_another_program() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("other.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE jobs (id INTEGER PRIMARY KEY);").unwrap();
    refuses_database(&path, "another program");

    // Also if it has no tables yet, but says whose it is.
    let path = directory.path().join("claimed.db");
    Connection::open(&path).unwrap().pragma_update(None, "application_id", 7).unwrap();
    refuses_database(&path, "another program");
}

#[test]
fn schema_of_another_version() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("jobs.db");
    Database::open(&path).unwrap();
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    refuses_database(&path, "another program");
}

#[test]
fn locked_database() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("new.db");
    let holder = Connection::open(&path).unwrap();
    holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
    refuses(&["--db", path.to_str().unwrap()], "locked by another process");

    // One of ours, in WAL mode, is readable then, but not writable.
    let path = directory.path().join("ours.db");
    Database::open(&path).unwrap();
    let holder = Connection::open(&path).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    refuses(&["--db", path.to_str().unwrap()], "locked by another process");
}

#[test]
fn bad_toml() {
    refuses_config("[limits\n", "line 1");
    refuses_config("\n[[gates]]\nname = 5\ncommand = ['true']\n", "line 3");
    refuses_config("[[gates]]\nname = 'a'\ncommand = ['true']\ncolour = 'red'\n", "colour");
    refuses_config("[no_such_section]\n", "no_such_section");
    refuses_config(
        "[limits]\nfinalise_grace = 1\n",
        "line 2: unknown field `finalise_grace`, expected one of `finalize_grace`",
    );
    refuses_config("gates = []\n", "at least one gate");
    refuses_config("[job]\ncommand = []\n", "job: the command is empty");
    refuses_config("[[gates]]\nname = 'a'\ncommand = []\n", "a: the command is empty");
}

#[test]
fn limits_that_cannot_work() {
    let limits = |grace: &str, deadline: &str, sweep: &str| {
        format!("[limits]\nfinalize_grace = {grace}\nhard_deadline = {deadline}\nsweep_every = {sweep}\nprocess = 1\n")
    };
    refuses_config(&limits("-1", "2", "0.1"), "line 2");
    refuses_config(&limits("nan", "2", "0.1"), "line 2");
    refuses_config(&limits("1", "2", "0"), "line 4");
    refuses_config(&limits("2", "1", "0.1"), "limits: ");
    refuses_config(&limits("1", "1", "0.1"), "limits: ");
}

#[test]
fn missing_config() {
    refuses(&["--config", "no/such/file.toml"], "no/such/file.toml: No such file");
}

/// Seen to fail with one code for everything that cannot be done.
#[test]
fn exit_codes_tell_what_cannot_be_done() {
    let place = Place::new(QUICK);
    let code = |arguments: &[&str]| {
        let mut command = common::orchestrator();
        let output = common::outcome(command.current_dir(place.directory.path()).args(arguments));
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, said) = code(&["--no-such-option"]);
    assert_eq!(status, 2, "{said}");
    let (status, said) = code(&["serve", "--config", "no-such-file"]);
    assert_eq!(status, 3, "{said}");
    let (status, said) = code(&["serve", "--db", "settings.toml", "--listen", "127.0.0.1:0"]);
    assert_eq!(status, 4, "{said}");
    let (status, said) = code(&["serve", "--listen", "nowhere"]);
    assert_eq!(status, 5, "{said}");
    let server = place.serve();
    let (status, said) = code(&["serve", "--db", "jobs.db", "--listen", "127.0.0.1:0"]);
    assert_eq!(status, 6, "{said}");
    let (status, said) = code(&["submit", "--url", &server.url(), "--kind", "none", "--token", TOKEN]);
    assert_eq!(status, 8, "{said}");
    let url = server.url();
    drop(server);
    let (status, said) = code(&["queue", "--url", &url]);
    assert_eq!(status, 7, "{said}");
    let codes = String::from_utf8(orchestrator(&["--help"]).stdout).unwrap();
    for told in [
        "2 the command line",
        "3 the settings",
        "4 the job store",
        "5 the address",
        "6 another",
        "7 no service",
        "8 it refuses",
    ] {
        assert!(codes.replace('\n', " ").contains(told), "{told}: {codes}");
    }
}

#[test]
fn version_suggestions_and_completions() {
    let output = orchestrator(&["--version"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), concat!("orchestrator ", env!("CARGO_PKG_VERSION"), "\n"));
    refuses(&["srve"], "unrecognized subcommand 'srve': did you mean serve?");
    refuses(&["serve", "--lisen", "x"], "unexpected argument '--lisen' found: did you mean --listen?");
    refuses(&["completions", "tcsh"], "invalid value 'tcsh' for '<SHELL>'");
    for (shell, check) in [("bash", Some("bash")), ("zsh", None), ("fish", None)] {
        let script = orchestrator(&["completions", shell]).stdout;
        assert!(String::from_utf8_lossy(&script).contains("requeue"), "{shell}");
        if let Some(program) = check {
            let mut parser = Command::new(program).arg("-n").stdin(Stdio::piped()).spawn().unwrap();
            parser.stdin.take().unwrap().write_all(&script).unwrap();
            assert!(parser.wait().unwrap().success(), "{shell} cannot read it");
        }
    }
}

/// Seen to fail with a line on standard error for a reader that has gone.
#[test]
fn a_closed_pipe_ends_quietly() {
    for arguments in [&["--help"][..], &["completions", "bash"], &[]] {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        drop(reader);
        let output = common::orchestrator().args(arguments).stdout(writer).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        assert_eq!(output.status.code(), Some(141));
    }
}

#[test]
fn a_token_in_a_file() {
    let place = Place::new(QUICK);
    fs::write(place.path("token"), format!("{TOKEN}\n")).unwrap();
    let file = place.path("token");
    let server = Server::start(place.command().arg("--token-file").arg(&file));
    let (url, file) = (server.url(), file.to_str().unwrap());
    assert_eq!(orchestrator(&["submit", "--url", &url, "--token-file", file]).stdout, b"1\n");
    refuses(&["submit", "--url", &url, "--token-file", "no/such/file"], "--token-file no/such/file: No such file");
    refuses(&["submit", "--url", &url, "--token-file", file, "--token", "x"], "cannot be used with");
    fs::write(place.path("token"), "\n").unwrap();
    refuses(&["submit", "--url", &url, "--token-file", file], "--token-file: a token is one or more visible ASCII");
}

#[test]
fn who_listens_to_everybody_is_warned() {
    let place = Place::new(QUICK);
    let mut command = place.command();
    let mut server = Server::start(command.args(["--listen", "0.0.0.0:0"]));
    server.signal(rustix::process::Signal::TERM);
    let said = server.ended().1;
    assert!(said.contains("is not for this machine only: whoever reaches it can read everything"), "{said}");
}

// The face of a service.

#[track_caller]
fn prints(arguments: &[&str]) -> String {
    let output = common::orchestrator().args(arguments).env("ORCHESTRATOR_TOKEN", TOKEN).output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert_eq!(output.status.code(), Some(0));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn help_of_the_subcommands() {
    for (subcommand, options) in [
        (
            "serve",
            &["--db", "--config", "--listen", "--token", "--workspaces", "orchestrator.db", "127.0.0.1:7447"][..],
        ),
        ("serve", &["/queue", "/metrics", "/events", "/healthz", "POST /jobs", "PUT /policy", "Bearer"]),
        ("submit", &["--url", "--token", "--kind", "--count"]),
        ("queue", &["--url", "--json"]),
    ] {
        let text = prints(&[subcommand, "--help"]);
        assert!(options.iter().all(|option| text.contains(option)), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(prints(&["--help"]).contains(subcommand));
    }
}

#[test]
fn usage_of_the_subcommands() {
    refuses(&["submit", "--count", "many"], "many");
    refuses(&["submit", "--count", "-1"], "-1");
    refuses(&["submit", "extra"], "extra");
    refuses(&["submit", "--token", "two words"], "visible ASCII");
    refuses(&["queue", "--token", "x"], "--token");
    refuses(&["serve", "now"], "now");
    refuses(&["--db", "x", "serve"], "serve");
}

#[test]
fn submit_and_queue() {
    let place = Place::new(&QUICK.replace("[kinds.held]", "[kinds.a-kind-with-quite-a-long-name]"));
    let server = place.serve();
    let url = server.url();
    assert_eq!(
        prints(&["queue", "--url", &url]),
        "mode honor: 0 queued, 0 running\nended: 0 merged, 0 rolled back, 0 reaped\n"
    );
    assert_eq!(prints(&["submit", "--url", &url]), "1\n");
    server.until_counts("merged", 1);
    assert_eq!(prints(&["submit", "--url", &format!("{url}/"), "--kind", "gated", "--count", "3"]), "2\n3\n4\n");
    assert_eq!(prints(&["submit", "--url", &url, "--kind", "a-kind-with-quite-a-long-name"]), "5\n");
    server.until("all seen", |queue| {
        let gated = queue["running"]["wait"].as_array();
        let deferred = gated.is_some_and(|jobs| jobs.len() == 3 && jobs.iter().all(|job| job["deferred"].is_object()));
        deferred && queue["running"]["process"][0].is_object()
    });

    let text = prints(&["queue", "--url", &url]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..2], ["mode honor: 0 queued, 4 running", "ended: 1 merged, 0 rolled back, 0 reaped"]);
    assert_eq!(lines[3], "   job kind     stage      running finished owner    deferred      next");
    for (line, job) in lines[4..7].iter().zip(2..) {
        assert!(line.starts_with(&format!("{job:>6} gated    wait ")), "{text}");
        assert!(
            line.contains(&format!(" run {job} ")) && line.contains("x owned  ") && line.contains(" reap 5"),
            "{text}"
        );
    }
    assert!(lines[7].starts_with("     5 a-kind-~ process "), "{text}");
    assert!(lines[7].contains(" - -        -             reap "), "{text}");
    assert!(lines.iter().all(|line| line.chars().count() <= 80), "{text}");

    let json: serde_json::Value = serde_json::from_str(&prints(&["queue", "--url", &url, "--json"])).unwrap();
    assert_eq!((&json["counts"]["merged"], &json["active"]), (&1.into(), &3.into()));
    place.go();
}

#[test]
fn what_a_service_refuses() {
    let place = Place::new(QUICK);
    let server = place.serve();
    let url = &server.url();
    refuses(&["submit", "--url", url], "a token is needed");
    refuses(&["submit", "--url", url, "--token", "wrong"], "not the token");
    refuses(&["submit", "--url", url, "--token", TOKEN, "--kind", "none"], "no kind \"none\"");
    refuses(&["submit", "--url", url, "--token", TOKEN, "--count", "101"], "from 1 to 100");
    refuses(&["queue", "--url", &format!("{url}/elsewhere")], "there is nothing here");
    assert_eq!(server.queue()["counts"]["queued"], 0);
    drop(server);
    refuses(&["queue", "--url", url], "onnection refused");
    refuses(&["queue", "--url", "nonsense"], "nonsense: ");
    refuses(&["queue", "--url", "https://127.0.0.1:1"], "https://127.0.0.1:1: ");
    let server = Server::start(&mut place.command());
    refuses(&["submit", "--url", &server.url(), "--token", TOKEN], "no token is set");
}

#[test]
fn who_answers_is_not_an_orchestrator() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    for (answer, reason) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "not an orchestrator's answer"),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello", "status 404"),
        ("nonsense\r\n\r\n", &url),
    ] {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                use std::io::{Read, Write};
                let (mut stream, _) = listener.accept().unwrap();
                assert!(stream.read(&mut [0; 1000]).unwrap() > 0);
                stream.write_all(answer.as_bytes()).unwrap();
            });
            refuses(&["queue", "--url", &url], reason);
        });
    }
}
