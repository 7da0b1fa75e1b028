//! Many more requests than there is memory for: each is answered as alone or told to come back, and nothing is left.

use headkv_plugin::Compression;
use headkv_serve::{Options, Server};
use headkv_tests::{http, tiny};
use serde_json::{Value, json};
use std::{thread, time::Duration, time::Instant};

/// Bytes of one token of the embedded model with nothing dropped.
const TOKEN: usize = 8 * 4 * 32 * 2 * 4;

fn body(number: usize) -> Value {
    // 100 to 4,000 tokens, most of them short, as with people.
    let lengths = [
        100, 150, 200, 120, 300, 100, 250, 140, 180, 400, 110, 130, 220, 160, 500, 100, 190, 800,
        120, 4000,
    ];
    let ids: Vec<usize> = (0..lengths[number % 20])
        .map(|i| 300 + (number * 7 + i * 31) % 3000)
        .collect();
    json!({"prompt": ids, "max_tokens": 8 + number % 9, "temperature": 0, "stream": number.is_multiple_of(2)})
}

fn said(reply: &http::Reply) -> String {
    if reply.headers.contains("text/event-stream") {
        let events = reply.events();
        assert_eq!(events.last().unwrap(), "[DONE]");
        let texts = events
            .iter()
            .filter_map(|event| event["choices"][0]["text"].as_str());
        return texts.collect();
    }
    reply.json()["choices"][0]["text"].as_str().unwrap().into()
}

#[test]
fn two_hundred_requests_share_the_memory_of_sixteen() {
    let server = Server::start(Options {
        address: "127.0.0.1:0".parse().unwrap(),
        compression: Compression::new("headkv", 64),
        kv_budget: 16 * 4000 * TOKEN,
        queue: 100,
        ..Options::new(tiny())
    })
    .unwrap();
    let at = server.address();
    let asking: Vec<_> = (0..200)
        .map(|number| {
            thread::spawn(move || http::post(at, "/v1/completions", &body(number)).unwrap())
        })
        .collect();
    let replies: Vec<_> = asking.into_iter().map(|one| one.join().unwrap()).collect();
    let mut answered = 0;
    for (number, reply) in replies.iter().enumerate() {
        match reply.status {
            200 => {
                answered += 1;
                // A sample of them alone; all would take as long again.
                if number % 13 == 6 {
                    let alone = http::post(at, "/v1/completions", &body(number)).unwrap();
                    assert_eq!(said(reply), said(&alone), "request {number}");
                }
            }
            429 => assert!(reply.header("retry-after").is_some()),
            other => panic!("request {number} got {other}: {}", reply.json()),
        }
    }
    assert!(answered >= 100, "{answered} were answered");
    let start = Instant::now();
    while server.held_bytes() + server.reserved().bytes > 0 {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{:?}",
            server.reserved()
        );
        thread::sleep(Duration::from_millis(5));
    }
}
