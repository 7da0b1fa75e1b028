//! Damaged requests to a whole server, with the runtime's own parser and its engine behind it: each is answered or is the
//! client's mistake, and the next client is served.

use headkv_serve::{Options, Server};
use headkv_tests::{damage::damaged, http, tiny};
use serde_json::{Value, json};
use std::fs;

fn server() -> Server {
    Server::start(Options {
        address: "127.0.0.1:0".parse().unwrap(),
        ..Options::new(tiny())
    })
    .unwrap()
}

fn seed() -> Vec<u8> {
    fs::read(headkv_tests::root().join("fuzz/seeds/request_body/whole.json")).unwrap()
}

/// Sends a body that is whole or not: whether it was refused, which it is with a message of one line.
fn refused(server: &Server, body: &[u8]) -> bool {
    let reply = http::send(server.address(), "POST", "/v1/chat/completions", "", body);
    let reply = reply.expect("it still listens");
    let shown = String::from_utf8_lossy(body);
    match reply.status {
        200 => false,
        400 | 404 => {
            let message = &reply.json()["error"]["message"];
            let message = message.as_str().expect("an error has a message");
            assert!(!message.contains(char::is_control), "{shown}: {message}");
            true
        }
        other => panic!("{other} for {shown}: {}", reply.json()),
    }
}

#[test]
fn damaged_requests_are_answered_or_refused() {
    let server = server();
    let whole = seed();
    assert!(!refused(&server, &whole));
    let damages = (0..500).map(|seed| damaged(&whole, seed));
    let count = damages.filter(|body| refused(&server, body)).count();
    assert!((100..500).contains(&count), "{count} refused");
    assert!(!refused(&server, &whole));
}

/// What the server hands on to the runtime's parser, where no fuzzer comes (`fuzz/README.md`): fields that are only its own.
#[test]
fn fields_of_the_runtimes_parser_have_any_value() {
    let server = server();
    let mut whole: Value = serde_json::from_slice(&seed()).unwrap();
    whole["stream"] = json!(false);
    whole["max_tokens"] = json!(2);
    whole.as_object_mut().unwrap().remove("stream_options");
    let fields = [
        "messages",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "presence_penalty",
        "tools",
        "tool_choice",
        "response_format",
        "top_k",
        "grammar",
        "dry_multiplier",
        "dry_allowed_length",
        "dry_sequence_breakers",
        "enable_thinking",
        "reasoning_effort",
        "truncate_sequence",
        "seed",
    ];
    let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
    let wide = "a".repeat(100_000);
    let function = |parameters: Value| json!([{"type": "function", "function": {"name": "f", "parameters": parameters}}]);
    let values = [
        json!(true),
        json!(-1),
        json!(0),
        json!(u64::MAX),
        json!(1e308),
        json!(""),
        json!("\u{0}\n\u{1b}[31m"),
        json!("high"),
        json!([]),
        json!({}),
        json!(["", "\n", wide]),
        json!({"0": 1, "4294967295": -100}),
        json!({"type": "text"}),
        json!({"type": "json_schema", "json_schema": {"name": "s", "schema": {"$ref": "#"}}}),
        json!({"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": 3, "pattern": "("}}}),
        json!({"type": "regex", "value": "(((("}),
        json!({"type": "regex", "value": "(a{1000}){1000}"}),
        json!({"type": "lark", "value": "start: start"}),
        json!({"type": "llguidance", "value": {"grammars": []}}),
        json!({"type": "function", "function": {"name": "f"}}),
        function(json!({"$ref": "#/nowhere"})),
        function(deep.clone()),
        json!([{"role": "user", "content": "b", "tool_calls": [{"id": 3}]}]),
        json!([{"role": "tool", "content": "b", "tool_call_id": "\u{1b}"}]),
        json!([{"role": "user\n", "content": [{"type": "image_url", "image_url": {"url": "/etc/passwd"}}]}]),
        deep,
    ];
    let mut count = 0;
    for field in fields {
        for value in &values {
            let mut body = whole.clone();
            body[field] = value.clone();
            count += usize::from(refused(&server, body.to_string().as_bytes()));
        }
    }
    let tried = fields.len() * values.len();
    assert!((100..tried).contains(&count), "{count} refused");
    assert!(!refused(&server, &seed()));
}
