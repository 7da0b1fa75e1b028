//! Damaged requests to a whole server, with the runtime's own parser and its engine behind it: each is answered or is the
//! client's mistake, and the next client is served.

use headkv_serve::{Options, Server};
use headkv_tests::{damage::damaged, http, tiny};
use serde_json::Value;
use std::fs;

#[test]
fn damaged_requests_are_answered_or_refused() {
    let server = Server::start(Options {
        address: "127.0.0.1:0".parse().unwrap(),
        ..Options::new(tiny())
    })
    .unwrap();
    let at = server.address();
    let folder = headkv_tests::root().join("fuzz/seeds/request_body");
    let whole = fs::read(folder.join("whole.json")).unwrap();
    let ask = |body: &[u8]| {
        http::send(at, "POST", "/v1/chat/completions", "", body).expect("it still listens")
    };
    assert_eq!(ask(&whole).status, 200);
    let mut refused = 0;
    for seed in 0..500 {
        let body = damaged(&whole, seed);
        let reply = ask(&body);
        let shown = String::from_utf8_lossy(&body);
        match reply.status {
            200 => {}
            400 | 404 => {
                let message = &reply.json()["error"]["message"];
                let message = message.as_str().expect("an error has a message");
                assert!(!message.contains(char::is_control), "{shown}: {message}");
                refused += 1;
            }
            other => panic!("{other} for {shown}: {}", reply.json()),
        }
    }
    assert!((100..500).contains(&refused), "{refused} refused");
    assert_ne!(ask(&whole).events(), Vec::<Value>::new());
}
