//! The program as it is started and ended: its exit codes, and a SIGTERM under load.

#[path = "../../tests/src/http.rs"]
#[allow(dead_code)]
mod http;

use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

fn completion(words: usize, max_tokens: usize, stream: bool) -> Value {
    let prompt = "river stone lamp glass ".repeat(words / 4);
    json!({"prompt": prompt, "max_tokens": max_tokens, "stream": stream, "temperature": 0})
}

/// The program on that port, 0 for any, once it listens; what else it says is thrown away.
fn started(port: u16) -> (Child, SocketAddr) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_headkv-serve"))
        .args(["--port", &port.to_string()])
        .args(["--access-log", "off", "--drain-seconds", "60"])
        .env("HEADKV_HOME", concat!(env!("CARGO_TARGET_TMPDIR"), "/home"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut greeting = String::new();
    said.read_line(&mut greeting).unwrap();
    thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
    let address = greeting.split("http://").nth(1).expect(&greeting);
    (child, address.split(',').next().unwrap().parse().unwrap())
}

/// After a kill in the middle of answers the same command serves again on the same port, and answers as before.
#[cfg(unix)]
#[test]
fn a_killed_server_starts_again() {
    let answer = |at| {
        let reply = http::post(at, "/v1/completions", &completion(40, 6, false)).unwrap();
        reply.json()["choices"][0]["text"].clone()
    };
    let (mut child, at) = started(0);
    let expected = answer(at);
    assert!(expected.is_string());
    let body = completion(100, 400, true).to_string();
    let mut cut = http::open(at, "POST", "/v1/completions", "", body.as_bytes()).unwrap();
    cut.read_exact(&mut [0]).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let mut rest = Vec::new();
    let _ = cut.read_to_end(&mut rest);
    assert!(!String::from_utf8_lossy(&rest).contains("[DONE]"));
    let (mut child, again) = started(at.port());
    assert_eq!((again, answer(again)), (at, expected));
    child.kill().unwrap();
    child.wait().unwrap();
}

/// SIGTERM under load: what runs is answered, what comes is refused, and the exit code is 0.
#[cfg(unix)]
#[test]
fn sigterm_drains() {
    let (mut child, at) = started(0);
    let running: Vec<_> = (0..8)
        .map(|_| {
            let body = completion(100, 400, true).to_string();
            let mut stream =
                http::open(at, "POST", "/v1/completions", "", body.as_bytes()).unwrap();
            // Its first token is there: it runs.
            let mut one = [0];
            stream.read_exact(&mut one).unwrap();
            thread::spawn(move || {
                let mut rest = String::new();
                stream.read_to_string(&mut rest).unwrap();
                rest
            })
        })
        .collect();
    let id = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .unwrap()
            .success()
    );
    let start = Instant::now();
    let mut refused = false;
    while start.elapsed() < Duration::from_secs(20) && !refused {
        match http::post(at, "/v1/completions", &completion(8, 2, false)) {
            Ok(reply) => refused = reply.status == 503,
            // It has ended already.
            Err(_) => break,
        }
    }
    for one in running {
        assert!(one.join().unwrap().contains("[DONE]"));
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// Colours are for terminals.
#[test]
fn a_log_in_a_file_has_no_colours() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_headkv-serve"))
        .args(["--port", "0", "--access-log", "off"])
        .env("HEADKV_HOME", concat!(env!("CARGO_TARGET_TMPDIR"), "/home"))
        .env("RUST_LOG", "info")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(child.stderr.take().unwrap()).lines();
    let said = said.map(Result::unwrap);
    let log: Vec<_> = said.take_while(|line| !line.contains("http://")).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(log.iter().any(|line| line.contains("INFO")), "{log:?}");
    assert!(!log.concat().contains('\u{1b}'), "{log:?}");
}

#[test]
fn wrong_input_ends_with_2_and_one_line() {
    let cases: [(&[&str], &str); 5] = [
        (&["--model", "/nowhere"], "no such folder, file or model"),
        (&["--method", "magic"], "unknown method"),
        (&["--capacity", "3"], "capacity 3"),
        (
            &["--api-key-file", "/nowhere"],
            "cannot read --api-key-file /nowhere",
        ),
        (&["--scores", "/nowhere.json"], "cannot read /nowhere.json"),
    ];
    for (args, expected) in cases {
        let ended = Command::new(env!("CARGO_BIN_EXE_headkv-serve"))
            .args(["--port", "0"])
            .args(args)
            .env("HEADKV_HOME", concat!(env!("CARGO_TARGET_TMPDIR"), "/home"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(2), "{args:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(expected), "{said}");
    }
}
