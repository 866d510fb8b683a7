//! A mode outlives the service, tells who has set it, and can expire.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Place, QUICK, Server, wait_for};
use serde_json::{Value, json};

fn put(server: &Server, body: &Value) -> Value {
    let answer = server.change("PUT", "/policy", &body.to_string());
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn mode(server: &Server) -> String {
    server.queue()["policy"]["mode"].as_str().unwrap().to_owned()
}

fn stop(mut server: Server) -> String {
    server.signal(rustix::process::Signal::TERM);
    server.ended().1
}

/// Seen to fail as it was: the second service honored marks, and nobody was told.
#[test]
fn a_mode_outlives_the_service() {
    let place = Place::new(QUICK);
    let server = place.serve();
    assert_eq!(server.queue()["override"], Value::Null, "nobody has set a mode");
    put(&server, &json!({ "mode": "defer_all", "by": "ann" }));
    assert_eq!(stop(server), "");

    let server = place.serve();
    let queue = server.queue();
    assert_eq!(queue["policy"]["mode"], "defer_all");
    let set = &queue["override"];
    assert_eq!((&set["mode"], &set["by"], &set["until_at_ms"]), (&json!("defer_all"), &json!("ann"), &Value::Null));
    assert!(set["since_at_ms"].as_u64() < queue["now_ms"].as_u64());
    let said = stop(server);
    assert!(said.contains("mode defer_all, set by ann at 20") && said.contains("until it is changed"), "{said}");

    // Killed as well as stopped.
    let server = place.serve();
    put(&server, &json!({ "mode": "honor" }));
    server.kill();
    assert_eq!(mode(&place.serve()), "honor");
}

/// Seen to fail with a clock that never looks.
#[test]
fn an_override_expires() {
    let place = Place::new(QUICK);
    let server = place.serve();
    put(&server, &json!({ "mode": "defer_all", "by": "ann" }));
    let answer = put(&server, &json!({ "mode": "ignore", "for": 0.5, "by": "bob" }));
    let set = &answer["override"];
    assert_eq!((&set["mode"], &set["by"], &set["then"]), (&json!("ignore"), &json!("bob"), &json!("defer_all")));
    assert_eq!(set["until_at_ms"].as_u64().unwrap() - set["since_at_ms"].as_u64().unwrap(), 500);
    // An override of an override does not come to stay after it.
    put(&server, &json!({ "mode": "dry_run", "for": "600ms", "by": "cyd" }));
    assert_eq!(server.queue()["override"]["then"], "defer_all");
    server.until("over", |queue| queue["policy"]["mode"] == "defer_all");
    assert_eq!(server.queue()["override"]["by"], "clock");
    let events = server.get("/history?kind=mode").json()["events"].clone();
    let said: Vec<_> = events
        .as_array()
        .unwrap()
        .iter()
        .map(|event| (event["who"].as_str().unwrap(), event["what"].as_str().unwrap()))
        .collect();
    assert_eq!(said[0], ("clock", "dry_run of cyd has expired: defer_all is in force"));
    assert_eq!(said[1], ("cyd", "sets mode dry_run for 600ms, then defer_all"));
    assert_eq!(said[2].0, "bob");
}

/// Seen to fail with a mode that was kept without its end.
#[test]
fn an_override_expires_also_while_there_is_no_service() {
    let place = Place::new(QUICK);
    let server = place.serve();
    put(&server, &json!({ "mode": "ignore", "for": "300ms", "by": "bob" }));
    server.kill();
    let until = place.count("SELECT mode_until FROM control");
    wait_for("its end", || orchestrator::store::now() > until);
    let server = place.serve();
    assert_eq!(mode(&server), "honor");
    let events = server.get("/history?kind=mode").json()["events"].clone();
    let is_told = |event: &Value| event["what"] == "ignore of bob has expired: honor is in force";
    assert!(events.as_array().unwrap().iter().any(is_told), "{events}");

    // What has not expired goes on to its end.
    put(&server, &json!({ "mode": "defer_all", "for": "1h", "by": "bob" }));
    let set = server.queue()["override"].clone();
    server.kill();
    let server = place.serve();
    assert_eq!(server.queue()["override"], set);
    assert!(stop(server).contains(", then honor"));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let place = Place::new(QUICK);
    let server = place.serve();
    for (body, reason) in [
        (json!({ "for": 60 }), "for is about a mode"),
        (json!({ "mode": "ignore", "for": 0 }), "for must be seconds, or a time like \"15m\""),
        (json!({ "mode": "ignore", "for": -1 }), "for must be seconds"),
        (json!({ "mode": "ignore", "for": 1e300 }), "for must be seconds"),
        (json!({ "mode": "ignore", "for": "31 days" }), "for must be seconds"),
        (json!({ "mode": "ignore", "for": "soon" }), "for must be seconds"),
        (json!({ "mode": "ignore", "for": null }), "for must be seconds"),
        (json!({ "mode": "fast" }), "no mode \"fast\": there is honor, defer_all, dry_run, ignore"),
        (json!({ "mode": null }), "mode cannot be null"),
        (json!({ "mode": "ignore", "by": "x".repeat(65) }), "by must be a name of at most 64 characters"),
        (json!({ "mode": "ignore", "by": "a\nb" }), "by must be a name"),
        (json!({ "mode": "ignore", "untl": 3 }), "no \"untl\": there is mode, for, by, finalize_grace"),
    ] {
        let answer = server.change("PUT", "/policy", &body.to_string());
        assert_eq!(answer.status, 422, "{body}: {answer:?}");
        assert!(answer.json()["error"].as_str().unwrap().contains(reason), "{body}: {answer:?}");
        assert_eq!(mode(&server), "honor", "nothing of it was done");
    }
}

/// A switch works also where nothing can be written, and says so.
#[test]
fn a_mode_that_cannot_be_kept_is_in_force_and_says_so() {
    let place = Place::new(QUICK);
    let server = place.serve();
    place.raw().execute_batch("ALTER TABLE control RENAME TO elsewhere").unwrap();
    let answer = put(&server, &json!({ "mode": "defer_all" }));
    assert_eq!(answer["mode"], "defer_all");
    assert!(answer["warning"].as_str().unwrap().starts_with("in force, but not kept over a restart: "), "{answer}");
    assert_eq!(mode(&server), "defer_all");
}
