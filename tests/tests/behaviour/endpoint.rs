//! An OpenAI-compatible server in the model's place, with the failures that servers have.

use headkv_eval::{
    Sample, Variant,
    endpoint::{Endpoint, Options},
    row::Model,
    runner,
    sample::{Prompt, Scoring},
    store::{Results, Store},
};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

const ANSWER: &str =
    r#"{"choices": [{"text": "Paris."}], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}"#;

/// A server that treats each prompt by what it says, and counts requests.
fn server() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = requests.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let counter = counter.clone();
            thread::spawn(move || serve(stream, &counter));
        }
    });
    (url, requests)
}

fn serve(mut stream: TcpStream, requests: &AtomicUsize) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (&body["temperature"], &body["max_tokens"]),
        (&0.into(), &8.into())
    );
    let number = requests.fetch_add(1, Ordering::SeqCst);
    let (status, text) = match body["prompt"].as_str().unwrap() {
        "busy" if number == 0 => ("429 Too Many Requests", "{}"),
        "limited" => ("429 Too Many Requests\r\nRetry-After: 3600", "{}"),
        "broken" => ("500 Internal Server Error", "{}"),
        "garbage" => ("200 OK", "<html>"),
        "empty" => ("200 OK", "{}"),
        "refused" => ("400 Bad Request", "{}"),
        _ => ("200 OK", ANSWER),
    };
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    );
}

fn sample(prompt: &str) -> Sample {
    Sample {
        benchmark: "longbench",
        dataset: "hotpotqa".into(),
        id: prompt.into(),
        length: None,
        depth: None,
        bucket: None,
        protocol: "paper".into(),
        prompt: Prompt {
            text: prompt.into(),
            chat: false,
            special: true,
            apart: None,
        },
        min_tokens: 0,
        max_tokens: 8,
        stop: vec![],
        turn: None,
        scoring: Scoring::Values(vec!["Paris".into()]),
    }
}

/// Runs the prompts against a server of their own: answered, failed, reasons, requests.
fn ask(prompts: &[&str]) -> (usize, usize, Vec<String>, usize) {
    let (url, requests) = server();
    let options = Options {
        retries: 2,
        pause: Duration::from_millis(5),
        longest_pause: Duration::from_millis(20),
        ..Options::new(&url, "m")
    };
    let backend = Endpoint::new(options).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let samples: Vec<_> = prompts.iter().map(|prompt| sample(prompt)).collect();
    let model = Model {
        name: "m".into(),
        digest: url,
        backend: "endpoint".into(),
    };
    let stop = AtomicBool::new(false);
    let options = runner::Options {
        shard: Default::default(),
        stop: &stop,
    };
    let mut store = Store::open(dir.path()).unwrap();
    let summary = runner::run(
        &samples,
        &[Variant::new("endpoint")],
        &model,
        &backend,
        &mut store,
        options,
    )
    .unwrap();
    let rows = Results::read(dir.path()).unwrap().rows;
    assert_eq!(rows.len(), prompts.len());
    assert_eq!(
        rows.iter().filter(|row| row.error.is_some()).count(),
        summary.failed
    );
    assert!(
        rows.iter()
            .all(|row| row.error.is_some() || (row.score, row.prompt_tokens) == (1.0, 7))
    );
    (
        summary.done,
        summary.failed,
        summary.reasons,
        requests.load(Ordering::SeqCst),
    )
}

#[test]
fn answers_come_from_the_server() {
    assert_eq!(ask(&["a", "b", "c", "d", "e", "f"]), (6, 0, vec![], 6));
}

#[test]
fn a_busy_server_is_asked_again() {
    assert_eq!(ask(&["busy"]), (1, 0, vec![], 2));
}

#[test]
fn failures_are_rows_and_the_run_goes_on() {
    for (prompt, reason, requests) in [
        ("limited", "429", 3),
        ("broken", "500", 3),
        ("garbage", "not JSON", 3),
        ("empty", "no choice", 3),
        ("refused", "400", 1),
    ] {
        let (done, failed, reasons, asked) = ask(&[prompt, "fine"]);
        assert_eq!((done, failed, asked), (1, 1, requests + 1), "{prompt}");
        assert!(reasons[0].contains(reason), "{reasons:?}");
    }
}

#[test]
fn a_server_that_is_not_there_fails_every_row() {
    let options = Options {
        retries: 1,
        pause: Duration::from_millis(1),
        ..Options::new("http://127.0.0.1:1", "m")
    };
    let backend = Endpoint::new(options).unwrap();
    let prompt = Prompt {
        text: "x".into(),
        chat: false,
        special: true,
        apart: None,
    };
    let job = headkv_eval::Job {
        before: None,
        prompt: &prompt,
        min_tokens: 0,
        max_tokens: 8,
        stop: &[],
    };
    assert!(
        headkv_eval::Backend::complete(&backend, &job)
            .unwrap_err()
            .to_string()
            .contains("127.0.0.1:1")
    );
    assert!(
        Endpoint::new(Options::new("ftp://x", "m"))
            .err()
            .unwrap()
            .to_string()
            .contains("http://")
    );
    let message = Endpoint::new(Options::new("https://me:secret@host/v1", "m"))
        .err()
        .unwrap()
        .to_string();
    assert!(
        message.contains("HEADKV_API_KEY") && !message.contains("secret"),
        "{message}"
    );
}
