//! Connections that do not come to say what they want.

use headkv_plugin::Compression;
use headkv_serve::{Options, Server};
use headkv_tests::{http, tiny};
use serde_json::{Value, json};
use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

fn options() -> Options {
    Options {
        address: "127.0.0.1:0".parse().unwrap(),
        compression: Compression::new("headkv", 32),
        ..Options::new(tiny())
    }
}

fn ask(at: SocketAddr, tokens: usize) -> (u16, Value) {
    let body = json!({"prompt": "river stone lamp glass", "max_tokens": tokens, "temperature": 0});
    let reply = http::post(at, "/v1/completions", &body).unwrap();
    (reply.status, reply.json()["choices"][0]["text"].clone())
}

/// Headers that do not end, however slowly they go on, and connections without any are closed after the limit; answers
/// may take longer.
#[test]
fn slow_headers_are_closed() {
    let limit = Duration::from_millis(300);
    let server = Server::start(Options {
        headers: limit,
        ..options()
    })
    .unwrap();
    let at = server.address();
    let start = Instant::now();
    let [mut slow, mut silent] = [(); 2].map(|()| {
        let stream = TcpStream::connect(at).unwrap();
        let patience = Duration::from_millis(20);
        stream.set_read_timeout(Some(patience)).unwrap();
        stream
    });
    slow.write_all(b"POST /v1/completions HTTP/1.1\r\ncontent-len")
        .unwrap();
    let others = thread::spawn(move || {
        let (status, _) = ask(at, 400);
        (status, ask(at, 6).1)
    });
    let closed = |stream: &mut TcpStream| match stream.read(&mut [0; 64]) {
        Ok(read) => read == 0,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    };
    while !closed(&mut slow) {
        assert!(start.elapsed() < Duration::from_secs(20));
        // Refused once the other end is closed.
        let _ = slow.write_all(b"g");
    }
    assert!(start.elapsed() >= limit);
    while !closed(&mut silent) {
        assert!(start.elapsed() < Duration::from_secs(20));
    }
    let (status, text) = others.join().unwrap();
    assert_eq!((status, text.is_null()), (200, false));
}

#[test]
fn a_connection_that_says_nothing_stops_nothing() {
    let server = Server::start(options()).unwrap();
    let mut silent: Vec<TcpStream> = (0..50)
        .map(|_| TcpStream::connect(server.address()).unwrap())
        .collect();
    for stream in silent.iter_mut().take(25) {
        stream
            .write_all(b"POST /v1/completions HTTP/1.1\r\ncontent-len")
            .unwrap();
    }
    assert!(!ask(server.address(), 6).1.is_null());
    let start = Instant::now();
    drop(server);
    assert!(start.elapsed() < Duration::from_secs(60));
}
