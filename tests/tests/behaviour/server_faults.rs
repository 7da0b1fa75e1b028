//! Clients that vanish, dawdle, or send nonsense: each gets what it deserves, the others get their answers, and nothing
//! is held afterwards.

use headkv_plugin::Compression;
use headkv_serve::{Options, Server};
use headkv_tests::{http, tiny};
use serde_json::{Value, json};
use std::{
    fs,
    io::Read,
    net::{Shutdown, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

pub fn options() -> Options {
    Options {
        address: "127.0.0.1:0".parse().unwrap(),
        compression: Compression::new("headkv", 32),
        ..Options::new(tiny())
    }
}

pub fn completion(words: usize, max_tokens: usize, stream: bool) -> Value {
    let prompt = "river stone lamp glass ".repeat(words / 4);
    json!({"prompt": prompt, "max_tokens": max_tokens, "stream": stream, "temperature": 0})
}

pub fn short(at: SocketAddr) -> Value {
    http::post(at, "/v1/completions", &completion(40, 6, false))
        .unwrap()
        .json()["choices"][0]["text"]
        .clone()
}

/// Fails unless the server comes to hold nothing.
fn assert_comes_to_rest(server: &Server) {
    let start = Instant::now();
    let busy = || server.held_bytes() + server.reserved().bytes + server.waiting();
    while busy() > 0 {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "held {}, reserved {:?}, waiting {}",
            server.held_bytes(),
            server.reserved(),
            server.waiting()
        );
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn clients_that_vanish_leave_nothing_behind() {
    let server = Server::start(options()).unwrap();
    let at = server.address();
    let expected = short(at);
    let mut clients = Vec::new();
    for i in 0..200 {
        // Some leave while their prompt runs or waits, some after a few tokens.
        let body = completion(300, 600, i % 2 == 0).to_string();
        let stream = http::open(at, "POST", "/v1/completions", "", body.as_bytes()).unwrap();
        clients.push((i, stream));
    }
    let answered = thread::spawn(move || short(at));
    for (i, mut stream) in clients {
        if i % 4 == 0 {
            let mut some = [0; 600];
            let _ = stream.read(&mut some);
        }
        stream.shutdown(Shutdown::Both).unwrap();
    }
    assert_eq!(answered.join().unwrap(), expected);
    assert_comes_to_rest(&server);
    assert_eq!(short(at), expected);
}

/// Bodies that are no request; every one gets a 400 in OpenAI's form, and none an answer.
#[test]
fn nonsense_gets_400() {
    let server = Server::start(options()).unwrap();
    let at = server.address();
    let valid =
        json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}).to_string();
    let mut bodies: Vec<Vec<u8>> = Vec::new();
    // Every beginning of a valid body.
    bodies.extend((0..valid.len()).map(|end| valid.as_bytes()[..end].to_vec()));
    // A valid body with a byte that cannot be there.
    bodies.extend((0..valid.len()).step_by(3).map(|at| {
        let mut body = valid.as_bytes().to_vec();
        body[at] = 0xff;
        body
    }));
    for text in [
        "null",
        "[]",
        "3",
        "\"x\"",
        "{",
        "}",
        "{\"messages\": 5}",
        "nan",
        "\u{feff}{}",
    ] {
        bodies.push(text.into());
    }
    bodies.push("[".repeat(100_000).into());
    bodies.push(format!("{}{}", "{\"a\":".repeat(100_000), "1").into());
    let fields = [
        json!({"messages": [{"role": 1, "content": "x"}]}),
        json!({"messages": [{"role": "user", "content": 5}]}),
        json!({"messages": [{"role": "user", "content": [{"type": "text"}]}]}),
        json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}]}),
        json!({"messages": [{"role": "user", "content": "x"}], "tools": 1}),
        json!({"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "function"}]}),
        json!({"messages": [{"role": "user", "content": "x"}], "grammar": {"type": "regex", "value": "("}}),
        json!({"messages": [{"role": "user", "content": "x"}], "logit_bias": {"x": 1}}),
        json!({"messages": [{"role": "user", "content": "x"}], "max_tokens": 1e99}),
        json!({"messages": [{"role": "user", "content": "x"}], "max_tokens": u64::MAX}),
        json!({"messages": [{"role": "user", "content": "x"}], "n": u64::MAX}),
        json!({"messages": [{"role": "user", "content": "x"}], "top_k": -1}),
        json!({"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "json_schema"}}),
    ];
    bodies.extend(fields.iter().map(|body| body.to_string().into_bytes()));
    assert!(bodies.len() > 100);
    for body in bodies {
        let reply = http::send(at, "POST", "/v1/chat/completions", "", &body).unwrap();
        let shown: String = String::from_utf8_lossy(&body).chars().take(200).collect();
        assert_eq!(reply.status, 400, "{shown}: {}", reply.json());
        assert!(reply.json()["error"]["message"].is_string(), "{shown}");
    }
    let prompts = [
        json!([]),
        json!([[]]),
        json!([1.5]),
        json!([99999]),
        json!({}),
        json!(""),
    ];
    for prompt in prompts {
        let reply = http::post(at, "/v1/completions", &json!({"prompt": prompt})).unwrap();
        assert_eq!(reply.status, 400, "{prompt}");
    }
    assert_comes_to_rest(&server);
}

#[test]
fn bodies_over_the_limit_get_413() {
    let server = Server::start(Options {
        max_body: 1 << 20,
        ..options()
    })
    .unwrap();
    let body = vec![b' '; 50 << 20];
    let reply = http::send(server.address(), "POST", "/v1/completions", "", &body).unwrap();
    assert_eq!(reply.status, 413);
    assert_eq!(reply.json()["error"]["code"], "request_too_large");
    assert!(!short(server.address()).is_null());
}

#[test]
fn a_request_that_never_fits_gets_400_and_a_full_queue_429() {
    let server = Server::start(Options {
        kv_budget: 4 << 20,
        queue: 2,
        ..options()
    })
    .unwrap();
    let at = server.address();
    let mut never = completion(1200, 400, false);
    never["headkv"] = json!({"method": "full"});
    let reply = http::post(at, "/v1/completions", &never).unwrap();
    assert_eq!(
        (reply.status, reply.json()["error"]["code"].as_str()),
        (400, Some("kv_budget_exceeded"))
    );

    let asking: Vec<_> = (0..12)
        .map(|_| {
            thread::spawn(move || {
                http::post(at, "/v1/completions", &completion(400, 300, false)).unwrap()
            })
        })
        .collect();
    let replies: Vec<_> = asking.into_iter().map(|one| one.join().unwrap()).collect();
    let refused: Vec<_> = replies.iter().filter(|reply| reply.status == 429).collect();
    assert!(!refused.is_empty());
    assert!(
        replies
            .iter()
            .all(|reply| [200, 429].contains(&reply.status))
    );
    assert!(replies.iter().any(|reply| reply.status == 200));
    for reply in refused {
        assert!(reply.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    }
    assert_comes_to_rest(&server);
}

/// Who reads slowly or not at all keeps nobody waiting, and nothing but its own answer.
#[test]
fn slow_readers_hold_nobody_up() {
    let server = Server::start(options()).unwrap();
    let at = server.address();
    let expected = short(at);
    let slow: Vec<TcpStream> = (0..16)
        .map(|_| {
            let body = completion(100, 300, true).to_string();
            http::open(at, "POST", "/v1/completions", "", body.as_bytes()).unwrap()
        })
        .collect();
    assert_eq!(short(at), expected);
    assert_comes_to_rest(&server);
    for stream in slow {
        let events = http::read(stream).unwrap().events();
        assert_eq!(events.last().unwrap(), "[DONE]");
    }
}

/// The number that `/metrics` has under a name.
fn metric(at: SocketAddr, name: &str) -> f64 {
    let text = String::from_utf8(http::get(at, "/metrics").unwrap().body).unwrap();
    let line = text.lines().find(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(['{', ' ']))
    });
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
        .unwrap_or_else(|| panic!("no {name} in {text}"))
}

/// A stop text ends the sequence in the engine, and the times are told, before anything of the answer is read.
#[test]
fn what_is_not_read_ends_and_is_measured_all_the_same() {
    let server = Server::start(options()).unwrap();
    let at = server.address();
    let whole = http::post(at, "/v1/completions", &completion(40, 200, false)).unwrap();
    let text = whole.json()["choices"][0]["text"]
        .as_str()
        .unwrap()
        .to_owned();
    let stop: String = text.chars().skip(4).take(3).collect();
    let before = metric(at, "vllm:generation_tokens_total");
    let measured = metric(at, "vllm:e2e_request_latency_seconds_count");
    let mut body = completion(40, 200, true);
    body["stop"] = json!([stop]);
    let body = body.to_string();
    let unread = http::open(at, "POST", "/v1/completions", "", body.as_bytes()).unwrap();
    let start = Instant::now();
    while metric(at, "vllm:e2e_request_latency_seconds_count") == measured {
        assert!(start.elapsed() < Duration::from_secs(60));
        thread::sleep(Duration::from_millis(10));
    }
    assert_comes_to_rest(&server);
    let made = metric(at, "vllm:generation_tokens_total") - before;
    assert!((1.0..100.0).contains(&made), "{made} tokens");
    let events = http::read(unread).unwrap().events();
    assert_eq!(events.last().unwrap(), "[DONE]");
}

/// A model whose output is no number answers with an error, not with text, and the server goes on to say so.
#[test]
fn output_that_is_no_number_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(tiny()).unwrap() {
        let file = entry.unwrap().path();
        fs::copy(&file, dir.path().join(file.file_name().unwrap())).unwrap();
    }
    let file = dir.path().join("model.safetensors");
    let mut tensors = candle_core::safetensors::load(&file, &candle_core::Device::Cpu).unwrap();
    let norm = &tensors["model.norm.weight"];
    let spoiled = norm.ones_like().unwrap().affine(f64::NAN, 0.0).unwrap();
    tensors.insert("model.norm.weight".into(), spoiled);
    candle_core::safetensors::save(&tensors, &file).unwrap();
    let server = Server::start(Options {
        model: dir.path().into(),
        compression: Compression::new("snapkv", 32),
        ..options()
    })
    .unwrap();
    let at = server.address();
    for stream in [false, true, false] {
        let reply = http::post(at, "/v1/completions", &completion(40, 6, stream)).unwrap();
        assert_eq!(reply.status, 500);
        let message = reply.json()["error"]["message"].to_string();
        assert!(message.contains("output is not a number"), "{message}");
    }
    assert_eq!(http::get(at, "/health").unwrap().status, 200);
    assert_comes_to_rest(&server);
}

#[test]
fn keys_are_asked_for() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "# ours\nsecret-1\n").unwrap();
    let server = Server::start(Options {
        api_key_file: Some(file.path().into()),
        ..options()
    })
    .unwrap();
    let at = server.address();
    let body = completion(8, 2, false).to_string();
    let with =
        |more: &str| http::send(at, "POST", "/v1/completions", more, body.as_bytes()).unwrap();
    for wrong in [
        "",
        "authorization: Bearer secret\r\n",
        "authorization: Basic secret-1\r\n",
    ] {
        let reply = with(wrong);
        assert_eq!(
            (reply.status, reply.json()["error"]["code"].as_str()),
            (401, Some("invalid_api_key"))
        );
    }
    assert_eq!(with("authorization: Bearer secret-1\r\n").status, 200);
    assert_eq!(http::get(at, "/v1/models").unwrap().status, 401);
    for open in ["/", "/health", "/ready", "/metrics"] {
        assert_eq!(http::get(at, open).unwrap().status, 200, "{open}");
    }
}

#[test]
fn logs_have_no_prompts_unless_asked_and_a_full_disk_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for log_prompts in [false, true] {
        let file = folder.path().join(format!("{log_prompts}.jsonl"));
        let server = Server::start(Options {
            log: headkv_serve::Log::File(file.clone()),
            log_prompts,
            ..options()
        })
        .unwrap();
        let named = "x-request-id: mine\r\n";
        let body = completion(40, 4, true).to_string();
        let reply = http::send(
            server.address(),
            "POST",
            "/v1/completions",
            named,
            body.as_bytes(),
        );
        assert_eq!(reply.unwrap().status, 200);
        drop(server);
        let start = Instant::now();
        let text = loop {
            let text = fs::read_to_string(&file).unwrap();
            if text.ends_with('\n') || start.elapsed() > Duration::from_secs(20) {
                break text;
            }
            thread::sleep(Duration::from_millis(10));
        };
        let line: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(
            (&line["id"], &line["status"]),
            (&"mine".into(), &200.into())
        );
        assert_eq!(line["completion_tokens"], 4);
        assert_eq!(text.contains("river"), log_prompts);
    }
    let full = std::path::Path::new("/dev/full");
    if full.exists() {
        let server = Server::start(Options {
            log: headkv_serve::Log::File(full.into()),
            ..options()
        })
        .unwrap();
        assert!(!short(server.address()).is_null());
        assert!(!short(server.address()).is_null());
    }
}
