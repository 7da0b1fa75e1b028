//! Requests per second of the server under several methods at one KV budget, in turns, and its memory over many requests.
//!
//! ```sh
//! # requests, prompt, answer, full caches that fit into the budget, methods, rounds, tokens that all prompts begin with
//! cargo run --release --locked --example serve_load -- 100 2000 128 4 full,headkv,upstream 3 0
//! cargo run --release --locked --example serve_load -- soak 5000
//! ```
//!
//! `upstream` is the runtime's own cache and scheduler behind the server's gate, without our hook, and without HTTP.

use futures::executor::block_on;
use headkv_engine::{Attention, Engine, LoadOptions, Request};
use headkv_plugin::Compression;
use headkv_serve::{
    Options, Server,
    admission::{Admission, Limits, Need},
};
use headkv_tests::{http, tiny};
use serde_json::json;
use std::{
    env, fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

/// Bytes of one token of the embedded model with nothing dropped.
const TOKEN: usize = 8 * 4 * 32 * 2 * 4;
const CAPACITY: usize = 64;
/// Requests that may wait: all of them.
const QUEUE: usize = 10_000;

fn server(method: &str, kv_budget: usize) -> Server {
    Server::start(Options {
        address: "127.0.0.1:0".parse().unwrap(),
        compression: Compression::new(method, CAPACITY),
        kv_budget,
        queue: QUEUE,
        ..Options::new(tiny())
    })
    .unwrap()
}

/// A prompt's token ids; the first `shared` of them are those of all prompts.
fn ids(number: usize, prompt: usize, shared: usize) -> Vec<u32> {
    let id = |i: usize| {
        let own = if i < shared { 0 } else { number * 7 };
        300 + (own + i * 31) as u32 % 3000
    };
    (0..prompt).map(id).collect()
}

/// Asks the server for a completion, and returns the tokens of its answer.
fn complete(server: &Server, prompt: Vec<u32>, answer: usize) -> usize {
    let body = json!({"prompt": prompt, "max_tokens": answer, "temperature": 0});
    let reply = http::post(server.address(), "/v1/completions", &body).unwrap();
    assert_eq!(reply.status, 200, "{}", reply.json());
    let tokens = reply.json()["usage"]["completion_tokens"].as_u64();
    tokens.unwrap() as usize
}

/// What answers a prompt with up to so many tokens, and says how many these were.
type Answering = Box<dyn Fn(Vec<u32>, usize) -> usize + Send + Sync>;

fn answering(method: &str, sequences: usize, tokens: usize) -> Answering {
    if method != "upstream" {
        let server = server(method, sequences * tokens * TOKEN);
        return Box::new(move |prompt, answer| complete(&server, prompt, answer));
    }
    let options = LoadOptions {
        max_batch: Options::new(tiny()).max_seqs,
        ..LoadOptions::new(tiny())
    };
    let engine = Engine::load(options, Attention::Upstream).unwrap();
    let need = move |sequences| Need {
        bytes: sequences * tokens * TOKEN,
        sequences,
    };
    let gate = Admission::new(Limits {
        all: need(sequences),
        request_bytes: need(1).bytes,
        queue: QUEUE,
    });
    Box::new(move |prompt, answer| {
        let _room = block_on(gate.admit(need(1))).unwrap();
        let answers = engine.generate(&[Request::new(prompt, answer)]).unwrap();
        answers[0].tokens.len()
    })
}

/// Asks `requests` times from as many clients as may wait, and returns tokens generated and the sorted latencies.
fn ask(
    requests: usize,
    clients: usize,
    answer: impl Fn(usize) -> usize + Send + Sync + 'static,
) -> (usize, Vec<f64>) {
    let next = Arc::new(AtomicUsize::new(0));
    let answer = Arc::new(answer);
    let asking: Vec<_> = (0..clients)
        .map(|_| {
            let (next, answer) = (next.clone(), answer.clone());
            thread::spawn(move || {
                let (mut tokens, mut seconds) = (0, Vec::new());
                loop {
                    let number = next.fetch_add(1, Relaxed);
                    if number >= requests {
                        return (tokens, seconds);
                    }
                    let start = Instant::now();
                    tokens += answer(number);
                    seconds.push(start.elapsed().as_secs_f64());
                }
            })
        })
        .collect();
    let (mut tokens, mut seconds) = (0, Vec::new());
    for one in asking {
        let (more, times) = one.join().unwrap();
        tokens += more;
        seconds.extend(times);
    }
    seconds.sort_by(f64::total_cmp);
    (tokens, seconds)
}

fn compare(
    requests: usize,
    prompt: usize,
    answer: usize,
    sequences: usize,
    methods: &str,
    rounds: usize,
    shared: usize,
) {
    println!("| round | method | requests/s | answer tok/s | p50 s | p99 s |");
    println!("| ----- | ------ | ---------: | -----------: | ----: | ----: |");
    for round in 1..=rounds {
        for method in methods.split(',') {
            let tokens = prompt + answer.next_multiple_of(32);
            let answering = Arc::new(answering(method, sequences, tokens));
            if shared > 0 {
                // Somebody has asked before.
                answering(ids(requests, prompt, shared), 1);
            }
            let start = Instant::now();
            let asked = answering.clone();
            let (tokens, seconds) = ask(requests, requests.min(64), move |n| {
                asked(ids(n, prompt, shared), answer)
            });
            let took = start.elapsed().as_secs_f64();
            let at = |share: f64| seconds[(share * (seconds.len() - 1) as f64) as usize];
            println!(
                "| {round} | {method} | {:.2} | {:.0} | {:.2} | {:.2} |",
                requests as f64 / took,
                tokens as f64 / took,
                at(0.5),
                at(0.99)
            );
        }
    }
}

fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0)
}

fn soak(requests: usize) {
    let server = Arc::new(server("headkv", 1 << 30));
    println!("| requests | resident MiB | held bytes |");
    println!("| -------: | -----------: | ---------: |");
    let step = (requests / 10).max(1);
    for done in (step..=requests).step_by(step) {
        let asked = server.clone();
        ask(step, 32, move |n| {
            complete(&asked, ids(done + n, 50 + n * 37 % 400, 0), 4 + n % 13)
        });
        thread::sleep(Duration::from_millis(200));
        println!(
            "| {done} | {:.1} | {} |",
            resident() as f64 / 1024.0,
            server.held_bytes()
        );
    }
}

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let number =
        |at: usize, default: usize| args.get(at).and_then(|a| a.parse().ok()).unwrap_or(default);
    if args.first().is_some_and(|first| first == "soak") {
        return soak(number(1, 5000));
    }
    let methods = args.get(4).map_or("full,headkv", String::as_str);
    compare(
        number(0, 100),
        number(1, 2000),
        number(2, 128),
        number(3, 4),
        methods,
        number(5, 3),
        number(6, 0),
    );
}
