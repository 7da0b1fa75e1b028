//! Requests per second of the server under several methods at one KV budget, in turns, and its memory over many requests.
//!
//! ```sh
//! cargo run --release --locked --example serve_load -- 100 2000 128 4 full,headkv 3   # requests, prompt, answer, ...
//! cargo run --release --locked --example serve_load -- soak 5000
//! ```

use headkv_plugin::Compression;
use headkv_serve::{Options, Server};
use headkv_tests::{http, tiny};
use serde_json::{Value, json};
use std::{
    env, fs,
    net::SocketAddr,
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

fn server(method: &str, kv_budget: usize) -> Server {
    Server::start(Options {
        address: "127.0.0.1:0".parse().unwrap(),
        compression: Compression::new(method, CAPACITY),
        kv_budget,
        queue: 10_000,
        ..Options::new(tiny())
    })
    .unwrap()
}

fn body(number: usize, prompt: usize, answer: usize) -> Value {
    let ids: Vec<usize> = (0..prompt)
        .map(|i| 300 + (number * 7 + i * 31) % 3000)
        .collect();
    json!({"prompt": ids, "max_tokens": answer, "temperature": 0})
}

/// Asks `requests` times from as many clients as may wait, and returns tokens generated and the sorted latencies.
fn ask(
    at: SocketAddr,
    requests: usize,
    clients: usize,
    body: impl Fn(usize) -> Value + Send + Sync + 'static,
) -> (u64, Vec<f64>) {
    let next = Arc::new(AtomicUsize::new(0));
    let body = Arc::new(body);
    let asking: Vec<_> = (0..clients)
        .map(|_| {
            let (next, body) = (next.clone(), body.clone());
            thread::spawn(move || {
                let (mut tokens, mut seconds) = (0, Vec::new());
                loop {
                    let number = next.fetch_add(1, Relaxed);
                    if number >= requests {
                        return (tokens, seconds);
                    }
                    let start = Instant::now();
                    let reply = http::post(at, "/v1/completions", &body(number)).unwrap();
                    assert_eq!(reply.status, 200, "{}", reply.json());
                    seconds.push(start.elapsed().as_secs_f64());
                    tokens += reply.json()["usage"]["completion_tokens"].as_u64().unwrap();
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
) {
    println!("| round | method | requests/s | answer tok/s | p50 s | p99 s |");
    println!("| ----- | ------ | ---------: | -----------: | ----: | ----: |");
    for round in 1..=rounds {
        for method in methods.split(',') {
            let server = server(
                method,
                sequences * (prompt + answer.next_multiple_of(32)) * TOKEN,
            );
            let start = Instant::now();
            let (tokens, seconds) = ask(server.address(), requests, requests.min(64), move |n| {
                body(n, prompt, answer)
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
    let server = server("headkv", 1 << 30);
    println!("| requests | resident MiB | held bytes |");
    println!("| -------: | -----------: | ---------: |");
    let step = (requests / 10).max(1);
    for done in (step..=requests).step_by(step) {
        ask(server.address(), step, 32, move |n| {
            body(done + n, 50 + n * 37 % 400, 4 + n % 13)
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
    );
}
