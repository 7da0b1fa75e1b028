//! Connections that do not come to say what they want.

use crate::server_faults::{completion, options, short};
use headkv_serve::{Options, Server};
use headkv_tests::http;
use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

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
        let long = http::post(at, "/v1/completions", &completion(100, 400, false)).unwrap();
        (long.status, short(at))
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
    assert!(!short(server.address()).is_null());
    let start = Instant::now();
    drop(server);
    assert!(start.elapsed() < Duration::from_secs(60));
}
