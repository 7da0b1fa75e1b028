//! The next turn of a conversation is read on from the last one, and its answer is a fresh server's.

use headkv_plugin::{Compression, hook::Reuse, prefix::BLOCK};
use headkv_serve::{Options, Server};
use headkv_tests::{http, tiny};
use serde_json::{Value, json};

fn server(prefix_bytes: usize) -> Server {
    let options = Options {
        address: "127.0.0.1:0".parse().unwrap(),
        compression: Compression::new("full", 32),
        prefix_bytes,
        ..Options::new(tiny())
    };
    Server::start(options).unwrap()
}

fn ask(server: &Server, messages: &[Value]) -> Value {
    let body = json!({"messages": messages, "max_tokens": 12, "temperature": 0});
    let reply = http::post(server.address(), "/v1/chat/completions", &body).unwrap();
    assert_eq!(reply.status, 200, "{}", reply.json());
    reply.json()
}

fn cached(answer: &Value) -> u64 {
    let details = &answer["usage"]["prompt_tokens_details"];
    details["cached_tokens"].as_u64().unwrap()
}

fn metric(server: &Server, name: &str) -> f64 {
    let text = String::from_utf8(http::get(server.address(), "/metrics").unwrap().body).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn what_stands_before_a_question_is_compressed_once() {
    let server = |reuse, prefix_bytes| {
        let options = Options {
            address: "127.0.0.1:0".parse().unwrap(),
            compression: Compression::new("snapkv", 64),
            prefix_bytes,
            reuse,
            ..Options::new(tiny())
        };
        Server::start(options).unwrap()
    };
    let (once, fresh) = (server(Reuse::Compressed, 64 << 20), server(Reuse::Exact, 0));
    let ask = |server: &Server, path, body: &Value| {
        let reply = http::post(server.address(), path, body).unwrap();
        (reply.status, reply.json())
    };
    let text = headkv_haystack::text::generate(4, 6_000);
    let chat = |question: &str| {
        json!({
            "messages": [{"role": "system", "content": text}, {"role": "user", "content": question}],
            "max_tokens": 12, "temperature": 0, "headkv": {"question_apart": true},
        })
    };
    let mut document = 0;
    for (at, question) in ["Who was there?", "How did it end, and why?", "Where?"]
        .into_iter()
        .enumerate()
    {
        let [(status, answer), (_, expected)] =
            [&once, &fresh].map(|server| ask(server, "/v1/chat/completions", &chat(question)));
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["choices"], expected["choices"], "question {at}");
        assert_eq!(answer["usage"]["headkv"], expected["usage"]["headkv"]);
        let prompt = answer["usage"]["prompt_tokens"].as_u64().unwrap();
        match at {
            0 => assert_eq!(cached(&answer), 0),
            _ => assert!(prompt - cached(&answer) < 40, "{prompt}: {answer}"),
        }
        // What is remembered is what was kept of the text, whatever was asked.
        let held = once.prefix_bytes();
        assert!(held > 0 && (at == 0 || held == document));
        document = held;
    }
    // A question alone has nothing before it, and a text no last message.
    let alone = json!({
        "messages": [{"role": "user", "content": "Who?"}], "headkv": {"question_apart": true},
    });
    let text = json!({"prompt": "Who?", "headkv": {"question_apart": true}});
    for (path, body) in [("/v1/chat/completions", alone), ("/v1/completions", text)] {
        let (status, answer) = ask(&once, path, &body);
        assert_eq!(
            (status, &answer["error"]["param"]),
            (400, &json!("headkv")),
            "{answer}"
        );
    }
}

#[test]
fn the_next_turn_does_not_run_the_last_one_again() {
    let (remembering, fresh) = (server(64 << 20), server(0));
    let text = headkv_haystack::text::generate(4, 6_000);
    let mut messages = vec![json!({"role": "user", "content": format!("{text} What is told?")})];
    let mut reused = 0;
    for (turn, question) in ["Who was there?", "How did it end?", "Why?"]
        .iter()
        .enumerate()
    {
        let (answer, expected) = (ask(&remembering, &messages), ask(&fresh, &messages));
        assert_eq!(answer["choices"], expected["choices"], "turn {turn}");
        assert_eq!(cached(&expected), 0);
        let prompt = answer["usage"]["prompt_tokens"].as_u64().unwrap();
        if turn == 0 {
            assert_eq!(cached(&answer), 0);
        } else {
            // What is short of a block, the last answer and the question.
            let ran = (prompt - cached(&answer)) as usize;
            assert!(
                ran < 2 * BLOCK + 32,
                "turn {turn}: {ran} of {prompt} tokens ran"
            );
        }
        reused += cached(&answer);
        messages.push(answer["choices"][0]["message"].clone());
        messages.push(json!({"role": "user", "content": question}));
    }
    assert_eq!(
        metric(&remembering, "vllm:prefix_cache_hits_total"),
        reused as f64
    );
    assert_eq!(metric(&remembering, "headkv_prefix_hits_total"), 2.0);
    let held = metric(&remembering, "headkv_prefix_bytes_held");
    assert_eq!(held, remembering.prefix_bytes() as f64);
    assert!(held > 0.0 && held <= metric(&remembering, "headkv_prefix_bytes_budget"));
    assert_eq!(metric(&fresh, "headkv_prefix_bytes_held"), 0.0);
}

#[test]
fn answers_to_one_text_at_once_are_those_of_each_alone() {
    let (remembering, fresh) = (server(64 << 20), server(0));
    let text = headkv_haystack::text::generate(8, 6_000);
    let about = |question: &str| json!([{"role": "user", "content": format!("{text} {question}")}]);
    ask(&remembering, about("What is told?").as_array().unwrap());
    let questions = [
        "Who was there?",
        "How did it end?",
        "Where is the river?",
        "Why?",
    ];
    std::thread::scope(|scope| {
        for question in questions {
            let (remembering, fresh) = (&remembering, &fresh);
            let messages = about(question);
            scope.spawn(move || {
                let answer = ask(remembering, messages.as_array().unwrap());
                let expected = ask(fresh, messages.as_array().unwrap());
                assert_eq!(answer["choices"], expected["choices"], "{question}");
                assert!(cached(&answer) > 1000, "{question}: {}", answer["usage"]);
            });
        }
    });
    // The text once, and at most two blocks of each question.
    let block = BLOCK * 8 * 4 * 32 * 2 * size_of::<f32>();
    let most = (text.len() / 2).div_ceil(BLOCK) + 2 * questions.len();
    assert!(remembering.prefix_bytes() <= most * block);
}
