//! The server with a client that no one here wrote, and what its answers say.

use async_openai::{
    Client,
    config::OpenAIConfig,
    error::OpenAIError,
    types::{
        chat::{
            ChatCompletionRequestUserMessageArgs, CreateChatCompletionRequest,
            CreateChatCompletionRequestArgs,
        },
        completions::CreateCompletionRequestArgs,
    },
};
use futures::StreamExt;
use headkv_engine::{Attention, Engine, LoadOptions, Request};
use headkv_plugin::Compression;
use headkv_serve::{Options, Server};
use headkv_tests::{http, root, tiny};
use serde_json::{Value, json};
use std::{io::Write, process::Command, sync::LazyLock};
use tokio::runtime::Runtime;

/// One server for all tests of this file.
static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start(options()).unwrap());

fn options() -> Options {
    Options {
        address: "127.0.0.1:0".parse().unwrap(),
        compression: Compression::new("headkv", 32),
        ..Options::new(tiny())
    }
}

fn client() -> Client<OpenAIConfig> {
    let base = format!("http://{}/v1", SERVER.address());
    Client::with_config(OpenAIConfig::new().with_api_base(base).with_api_key("none"))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    Runtime::new().unwrap().block_on(future)
}

fn chat(content: &str) -> CreateChatCompletionRequest {
    let message = ChatCompletionRequestUserMessageArgs::default()
        .content(content)
        .build()
        .unwrap();
    CreateChatCompletionRequestArgs::default()
        .model("tiny")
        .messages([message.into()])
        .max_completion_tokens(16u32)
        .temperature(0.0)
        .build()
        .unwrap()
}

fn ask(path: &str, body: Value) -> http::Reply {
    http::post(SERVER.address(), path, &body).unwrap()
}

/// A text with a fact in it, longer than what is kept.
fn long(words: usize) -> String {
    let filler = "The library is quiet in the afternoon and the river is near. ".repeat(words / 12);
    format!(
        "{filler}The best thing to do in London is climb the clock tower. What is the best thing to do in London?"
    )
}

/// The models that are listed are those that can be asked.
#[test]
fn models_are_listed() {
    let models = block_on(client().models().list()).unwrap();
    assert_eq!(models.data.len(), 1);
    let model = block_on(client().models().retrieve(&models.data[0].id)).unwrap();
    assert_eq!(model.id, "tiny");
}

#[test]
fn a_conversation_is_answered_whole_and_in_pieces() {
    let whole = block_on(client().chat().create(chat("Who are you?"))).unwrap();
    let choice = &whole.choices[0];
    let text = choice.message.content.clone().unwrap();
    assert!(!text.is_empty());
    let usage = whole.usage.unwrap();
    assert_eq!(
        usage.total_tokens,
        usage.prompt_tokens + usage.completion_tokens
    );

    let mut pieces = String::new();
    block_on(async {
        let mut stream = client()
            .chat()
            .create_stream(chat("Who are you?"))
            .await
            .unwrap();
        let mut reason = None;
        while let Some(chunk) = stream.next().await {
            for choice in chunk.unwrap().choices {
                pieces += &choice.delta.content.unwrap_or_default();
                reason = reason.or(choice.finish_reason);
            }
        }
        assert!(reason.is_some());
    });
    assert_eq!(pieces, text);
}

#[test]
fn a_text_is_continued() {
    let request = CreateCompletionRequestArgs::default()
        .model("tiny")
        .prompt(long(60))
        .max_tokens(12u32)
        .temperature(0.0)
        .build()
        .unwrap();
    let answer = block_on(client().completions().create(request)).unwrap();
    assert!(!answer.choices[0].text.is_empty());
    assert_eq!(answer.object, "text_completion");
}

/// What the server says greedily is what the engine says, with and without compression, alone and together.
#[test]
fn greedy_answers_are_the_engines() {
    let compression = Compression {
        scores: Some(root().join("head_scores/tiny_retrieval.json").into()),
        ..Compression::new("headkv", 32)
    };
    let engine = Engine::load(
        LoadOptions::new(tiny()),
        Attention::Compressed(compression.clone()),
    )
    .unwrap();
    let texts: Vec<String> = (1..5).map(|n| long(n * 120)).collect();
    for own in [
        None,
        Some(Compression::new("full", 32)),
        Some(Compression::new("snapkv", 48)),
    ] {
        let requests: Vec<Request> = texts
            .iter()
            .map(|text| Request {
                compression: own.clone(),
                ..Request::new(engine.encode(text).unwrap(), 20)
            })
            .collect();
        let expected = engine.generate(&requests).unwrap();
        let mut body = json!({"prompt": texts, "max_tokens": 20, "temperature": 0});
        if let Some(own) = &own {
            body["headkv"] = json!({"method": own.method, "capacity": own.capacity});
        }
        let answer = ask("/v1/completions", body).json();
        for (choice, expected) in answer["choices"].as_array().unwrap().iter().zip(&expected) {
            assert_eq!(choice["text"], expected.text.as_str());
        }
        let usage = &answer["usage"];
        let tokens: usize = expected.iter().map(|one| one.tokens.len()).sum();
        assert_eq!(usage["completion_tokens"], tokens);
        let bytes: usize = expected.iter().map(|one| one.kv_bytes).sum();
        assert_eq!(usage["headkv"]["kv_bytes"], bytes);
    }
}

#[test]
fn usage_says_what_was_kept() {
    let body =
        |own: Value| json!({"prompt": long(600), "max_tokens": 4, "temperature": 0, "headkv": own});
    let kept = ask("/v1/completions", body(json!({}))).json()["usage"].clone();
    let full = ask("/v1/completions", body(json!({"method": "full"}))).json()["usage"].clone();
    assert_eq!(kept["headkv"]["kept_tokens"], 32.0);
    assert_eq!(
        full["headkv"]["kept_tokens"],
        full["prompt_tokens"].as_f64().unwrap()
    );
    assert_eq!(kept["headkv"]["full_bytes"], full["headkv"]["full_bytes"]);
    let bytes = |usage: &Value| usage["headkv"]["kv_bytes"].as_u64().unwrap();
    assert!(bytes(&kept) * 8 < bytes(&full), "{kept} {full}");
}

#[test]
fn streams_end_with_the_usage_if_asked() {
    let body = json!({
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
        "max_tokens": 5, "temperature": 0, "n": 2, "stream": true,
        "stream_options": {"include_usage": true}, "unknown_field": {"is": "ignored"},
    });
    let reply = ask("/v1/chat/completions", body);
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    let events = reply.events();
    let (done, usage) = (&events[events.len() - 1], &events[events.len() - 2]);
    assert_eq!(done, "[DONE]");
    assert_eq!(usage["choices"], json!([]));
    let completion = usage["usage"]["completion_tokens"].as_u64().unwrap();
    assert!((2..=10).contains(&completion), "{usage}");
    let said = |choice: u64| -> String {
        let choices = events.iter().filter_map(|event| event["choices"].get(0));
        let of = choices.filter(|one| one["index"] == choice);
        of.filter_map(|one| one["delta"]["content"].as_str())
            .collect()
    };
    assert_eq!(said(0), said(1));
}

#[test]
fn stop_texts_end_answers_and_are_not_in_them() {
    let body =
        |stop: Value| json!({"prompt": long(60), "max_tokens": 24, "temperature": 0, "stop": stop});
    let whole = ask("/v1/completions", body(Value::Null)).json();
    let text = whole["choices"][0]["text"].as_str().unwrap().to_string();
    let stop: String = text.chars().skip(8).take(5).collect();
    let cut = ask("/v1/completions", body(json!(["nowhere", stop]))).json();
    assert_eq!(cut["choices"][0]["text"], text.split(&stop).next().unwrap());
    assert_eq!(cut["choices"][0]["finish_reason"], "stop");
}

/// A seed says the same again, alone and beside others; another seed and another choice say something else.
#[test]
fn a_seed_says_the_same_again() {
    let ask = |more: Value| {
        let mut body = json!({"prompt": "The river is near", "max_tokens": 40, "temperature": 1});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        ask("/v1/completions", body).json()
    };
    let text = |answer: &Value, choice: usize| {
        let text = answer["choices"][choice]["text"].as_str();
        text.unwrap_or_else(|| panic!("{answer}")).to_owned()
    };
    let alone = text(&ask(json!({"seed": 7})), 0);
    std::thread::scope(|scope| {
        let others: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| text(&ask(json!({})), 0)))
            .collect();
        let both = ask(json!({"seed": 7, "n": 2}));
        assert_eq!(text(&both, 0), alone);
        assert_ne!(text(&both, 1), alone);
        let others: Vec<_> = others.into_iter().map(|one| one.join().unwrap()).collect();
        assert!(others.iter().any(|other| *other != alone));
    });
    // Upstream's own way of sampling, which penalties need, draws with it as well.
    let penalty = json!({"seed": 7, "presence_penalty": 0.5});
    assert_eq!(text(&ask(penalty.clone()), 0), text(&ask(penalty), 0));
    assert_ne!(text(&ask(json!({"seed": -7})), 0), alone);
}

#[test]
fn a_schema_is_followed() {
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["yes"],
        // So small a model would write blanks for ever.
        "x-guidance": {"whitespace_flexible": false},
        "properties": {"yes": {"type": "boolean"}},
    });
    let formats = [
        json!({"type": "json_schema", "json_schema": {"name": "answer", "strict": true, "schema": schema}}),
        json!({"type": "text"}),
    ];
    for format in formats {
        let body = json!({
            "messages": [{"role": "user", "content": "Is it?"}], "temperature": 0, "max_tokens": 40,
            "response_format": format,
        });
        let answer = ask("/v1/chat/completions", body).json();
        let content = answer["choices"][0]["message"]["content"].as_str().unwrap();
        if format["type"] == "json_schema" {
            let said: Value = serde_json::from_str(content).unwrap();
            assert!(said["yes"].is_boolean(), "{said}");
        }
    }
}

/// The embedded model calls no tools; a grammar makes it write a call, which is then read as one.
#[test]
fn tool_calls_are_read() {
    let call = r#"<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>"#;
    let pattern = call.replace('{', r"\{").replace('}', r"\}");
    let body = |stream: bool| {
        json!({
            "messages": [{"role": "user", "content": "What is the weather in Rome?"}],
            "temperature": 0, "max_tokens": 120, "stream": stream,
            "grammar": {"type": "regex", "value": pattern},
            "tools": [{"type": "function", "function": {
                "name": "weather", "description": "The weather",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
            }}],
        })
    };
    let answer = ask("/v1/chat/completions", body(false)).json();
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls", "{answer}");
    let function = &choice["message"]["tool_calls"][0]["function"];
    assert_eq!(function["name"], "weather");
    let arguments: Value = serde_json::from_str(function["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(arguments, json!({"city": "Rome"}));
    let events = ask("/v1/chat/completions", body(true)).events();
    let called = events.iter().any(|event| {
        event["choices"][0]["delta"]["tool_calls"][0]["function"]["name"] == "weather"
    });
    assert!(called, "{events:?}");
}

#[test]
fn texts_become_tokens_and_back() {
    let tokens = ask("/tokenize", json!({"prompt": "The river is near."})).json();
    assert_eq!(tokens["count"], tokens["tokens"].as_array().unwrap().len());
    let text = ask("/detokenize", json!({"tokens": tokens["tokens"]})).json();
    assert_eq!(text["prompt"], "The river is near.");
    let body = |prompt: &Value| json!({"prompt": prompt, "max_tokens": 6, "temperature": 0});
    let by_text = ask("/v1/completions", body(&json!("The river is near."))).json();
    let by_ids = ask("/v1/completions", body(&tokens["tokens"])).json();
    assert_eq!(by_text["choices"], by_ids["choices"]);
}

/// Errors have the right status and OpenAI's form; the client reads them as such.
#[test]
fn errors_have_their_status() {
    let user = json!([{"role": "user", "content": "Hi"}]);
    let cases = [
        (
            json!({"model": "gpt-4", "messages": user}),
            404,
            "model_not_found",
            "model",
        ),
        (
            json!({"messages": user, "temperature": -1}),
            400,
            "invalid_value",
            "temperature",
        ),
        (
            json!({"messages": user, "max_tokens": -5}),
            400,
            "invalid_value",
            "max_tokens",
        ),
        (
            json!({"messages": user, "n": 1000}),
            400,
            "invalid_value",
            "n",
        ),
        (
            json!({"messages": user, "max_tokens": 17000}),
            400,
            "context_length_exceeded",
            "messages",
        ),
        (
            json!({"messages": user, "headkv": {"capacity": 1}}),
            400,
            "invalid_value",
            "headkv",
        ),
        (
            json!({"messages": user, "headkv": {"scores": "/etc/passwd"}}),
            400,
            "invalid_value",
            "headkv",
        ),
        (
            json!({"messages": user, "headkv": {"method": "magic"}}),
            400,
            "invalid_value",
            "headkv",
        ),
        (json!({"messages": []}), 400, "invalid_value", "messages"),
    ];
    for (mut body, status, code, param) in cases {
        for stream in [false, true] {
            body["stream"] = stream.into();
            let reply = ask("/v1/chat/completions", body.clone());
            let error = &reply.json()["error"];
            assert_eq!(reply.status, status, "{body} {error}");
            assert_eq!(
                (&error["code"], &error["param"]),
                (&code.into(), &param.into()),
                "{body}"
            );
            assert!(error["message"].is_string() && error["type"].is_string());
        }
    }
    let mut other = chat("Hi");
    other.model = "other".into();
    match block_on(client().chat().create(other)) {
        Err(OpenAIError::ApiError(error)) => {
            assert_eq!(error.status_code.as_u16(), 404);
            assert_eq!(error.api_error.code.as_deref(), Some("model_not_found"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_prompt_is_what_is_too_long() {
    let reply = ask("/v1/completions", json!({"prompt": "a ".repeat(17000)}));
    assert_eq!(
        (reply.status, reply.json()["error"]["code"].as_str()),
        (400, Some("context_length_exceeded"))
    );
}

#[test]
fn every_answer_has_its_name() {
    let at = SERVER.address();
    let named = http::send(at, "GET", "/v1/models", "x-request-id: mine-7\r\n", b"").unwrap();
    assert_eq!(named.header("x-request-id"), Some("mine-7"));
    let other = http::get(at, "/nowhere").unwrap();
    assert_eq!(
        (other.status, other.header("x-request-id").map(str::len)),
        (404, Some(36))
    );
    assert_eq!(http::get(at, "/v1/completions").unwrap().status, 405);
}

#[test]
fn metrics_have_vllms_names() {
    ask(
        "/v1/completions",
        json!({"prompt": long(60), "max_tokens": 4}),
    );
    let text = String::from_utf8(http::get(SERVER.address(), "/metrics").unwrap().body).unwrap();
    let names = [
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        "vllm:prompt_tokens_total",
        "vllm:generation_tokens_total",
        "vllm:time_to_first_token_seconds_bucket",
        "vllm:inter_token_latency_seconds_bucket",
        "vllm:e2e_request_latency_seconds_bucket",
        "vllm:request_queue_time_seconds_bucket",
        "vllm:request_success_total",
        "headkv_kv_bytes_held",
        "headkv_kv_bytes_full",
        "headkv_kept_tokens_total",
        "headkv_compression_seconds_bucket",
    ];
    for name in names {
        let line = text.lines().find(|line| line.starts_with(name));
        assert!(
            line.is_some_and(|line| line.contains(r#"model_name="tiny""#)),
            "{name}"
        );
    }
}

/// Probabilities are the model's: those of the best tokens, which greedy decoding takes, and what it would take next.
#[test]
fn log_probabilities_are_the_models() {
    let engine = Engine::load(LoadOptions::new(tiny()), Attention::Upstream).unwrap();
    let request = Request {
        keep_logits: true,
        ..Request::new(engine.encode("The river is near.").unwrap(), 6)
    };
    let expected = engine.generate(&[request]).unwrap().remove(0);
    let own = json!({"method": "full"});
    let text = ask(
        "/v1/completions",
        json!({"prompt": "The river is near.", "max_tokens": 6, "temperature": 0, "logprobs": 2, "headkv": own}),
    );
    let text = text.json()["choices"][0]["logprobs"].clone();
    for (at, logits) in expected.logits.iter().enumerate() {
        let mut sorted: Vec<f64> = logits.iter().map(|x| f64::from(*x)).collect();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let whole = sorted.iter().map(|x| x.exp()).sum::<f64>().ln();
        let said = text["token_logprobs"][at].as_f64().unwrap();
        assert!((said - (sorted[0] - whole)).abs() < 1e-3, "{at}: {said}");
        let top = text["top_logprobs"][at].as_object().unwrap();
        assert!(
            top.len() == 2
                && top
                    .values()
                    .any(|p| (p.as_f64().unwrap() - (sorted[1] - whole)).abs() < 1e-3)
        );
    }
    let body = json!({
        "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 6, "logprobs": true,
        "top_logprobs": 3, "stream": true, "temperature": 1.0,
    });
    let events = ask("/v1/chat/completions", body).events();
    let tokens = events
        .iter()
        .filter_map(|event| event["choices"][0]["logprobs"]["content"].as_array());
    let tokens: Vec<&Value> = tokens.flatten().collect();
    assert!(!tokens.is_empty());
    for token in tokens {
        assert!(token["logprob"].as_f64().unwrap() <= 0.0);
        assert_eq!(token["top_logprobs"].as_array().unwrap().len(), 3);
    }
}

/// The page needs nothing from elsewhere, and says so to the browser.
#[test]
fn the_page_is_one_file() {
    let reply = http::get(SERVER.address(), "/").unwrap();
    let page = String::from_utf8(reply.body.clone()).unwrap();
    assert_eq!(
        reply.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let policy = reply.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("connect-src 'self'"));
    for elsewhere in ["http:", "https:", "//cdn", "src=", "@import", "url("] {
        assert!(!page.contains(elsewhere), "the page has {elsewhere}");
    }
}

/// In a browser, the page shows the model and compares a compressed answer with a full one.
#[test]
fn the_page_lives() {
    let profile = tempfile::tempdir().unwrap();
    let page = format!("http://{}/#try", SERVER.address());
    // The page's own clock runs ahead while it waits: minutes of it are seconds.
    let shown = Command::new("chromium")
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(["--virtual-time-budget=600000", "--dump-dom", &page])
        .output();
    let Ok(shown) = shown else {
        let _ = writeln!(std::io::stderr(), "SKIPPED: chromium is not installed");
        return;
    };
    let page = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(page.contains(r#"<h1 id="model">tiny</h1>"#), "{page}");
    assert!(page.contains("32 tokens per head on average") && page.contains("layer 7"));
    assert_eq!(page.matches("of keys and values, ").count(), 2, "{page}");
}
