//! Who is let in at the door: old checks of health, and who has the token, whatever others try.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use common::{Place, QUICK, Server, wait_for};

/// Seen to fail where a request had to name a host: the check was told 421.
#[test]
fn an_old_check_of_health_is_answered() {
    let place = Place::new(QUICK);
    let server = place.serve();
    wait_for("the first sweep", || server.get("/healthz").status == 200);
    let answer = server.say("GET /healthz HTTP/1.0\r\n\r\n");
    assert_eq!((answer.status, answer.json()["status"].as_str()), (200, Some("ok")));
    let answer = server.say("HEAD /healthz HTTP/1.0\r\n\r\n");
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    // A browser names the host that it went to, and does not speak HTTP/1.0.
    assert_eq!(server.say("GET /healthz HTTP/1.0\r\nHost: evil.example\r\n\r\n").status, 421);
    assert_eq!(server.say("GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n").status, 421);
}

fn wrong(server: &Server) -> TcpStream {
    let mut stream = server.connect();
    let request = "PUT /policy HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer guess\r\nConnection: close\r\n\
        Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

fn status(stream: &mut TcpStream) -> u16 {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

/// Seen to fail with wrong tokens that are answered at once.
#[test]
fn wrong_tokens_wait_and_the_right_one_does_not() {
    let place = Place::new(QUICK);
    let server = place.serve();
    for _ in 0..8 {
        assert_eq!(status(&mut wrong(&server)), 401);
    }
    let mut guesses: Vec<_> = (0..40).map(|_| wrong(&server)).collect();
    // Some of them are turned away. Then as many wait as may.
    let mut turned_away = 0;
    wait_for("those beyond the number", || {
        guesses.retain_mut(|stream| {
            stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            let mut begin = [0; 12];
            match stream.read(&mut begin) {
                Ok(12) if begin[..].ends_with(b"429".as_slice()) => {
                    turned_away += 1;
                    false
                }
                _ => true,
            }
        });
        turned_away >= 8
    });
    assert_eq!(server.change("PUT", "/policy", "{}").status, 200);
    let unanswered = |stream: &&TcpStream| {
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        stream.peek(&mut [0; 1]).is_err()
    };
    assert!(guesses.iter().filter(unanswered).count() > 0, "wrong ones still wait");
    for mut stream in guesses {
        stream.set_read_timeout(Some(common::LONG)).unwrap();
        assert_eq!(status(&mut stream), 401);
    }
}
