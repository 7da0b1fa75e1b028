//! A server through the binary: TLS, its key, labels of rows, and a server that stays busy.

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    path::Path,
    process::{Command, Output},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

const ANSWER: &str =
    r#"{"choices": [{"text": "eat"}], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}"#;

/// Says nothing for a minute.
const SILENT: &str = "silent";
/// Sends a byte now and then.
const DRIPPING: &str = "dripping";
/// Answers with the key that it was sent.
const ECHO: &str = "echo";

/// A server that answers every request the same way, and the `Authorization` of each request.
struct Server {
    port: u16,
    keys: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Serves HTTP, or HTTPS with that configuration.
    fn start(reply: &'static str, tls: Option<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let keys = Arc::new(Mutex::new(Vec::new()));
        let (seen, tls) = (keys.clone(), tls.map(Arc::new));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, tls) = (seen.clone(), tls.clone());
                thread::spawn(move || match tls {
                    None => serve(stream, reply, &seen),
                    Some(tls) => {
                        let connection = ServerConnection::new(tls).unwrap();
                        serve(StreamOwned::new(connection, stream), reply, &seen);
                    }
                });
            }
        });
        Self { port, keys }
    }
}

fn serve(stream: impl Read + Write, reply: &str, keys: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream);
    let (mut length, mut key) = (0, String::new());
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.parse().unwrap();
            }
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => key = value.into(),
            Some(_) => {}
            None if line == "\r\n" => break,
            None => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    keys.lock().unwrap().push(key.clone());
    let stream = reader.get_mut();
    match reply {
        SILENT => thread::sleep(Duration::from_secs(60)),
        DRIPPING => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
            while stream.write_all(b" ").and_then(|()| stream.flush()).is_ok() {
                thread::sleep(Duration::from_millis(100));
            }
        }
        ECHO => {
            let answer = serde_json::json!({"choices": [{"text": format!("I was sent {key}")}]});
            let answer = answer.to_string();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}",
                answer.len()
            );
        }
        reply => {
            let _ = stream.write_all(reply.as_bytes());
        }
    }
    let _ = stream.flush();
}

fn ok() -> &'static str {
    let reply = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{ANSWER}",
        ANSWER.len()
    );
    reply.leak()
}

/// Asks for two needles.
fn ask(url: &str, out: &Path, more: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_headkv-eval"))
        .args(["needle", "--lengths", "300", "--depths", "0,100"])
        .args(["--needles", "san-francisco"])
        .args(["--endpoint", url, "--out", out.to_str().unwrap()])
        .args(more)
        .env_remove("HEADKV_API_KEY")
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

fn code(output: &Output) -> Option<i32> {
    eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    output.status.code()
}

fn rows(out: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(out.join("rows.jsonl")).unwrap();
    let rows = text.lines().map(serde_json::from_str);
    rows.collect::<Result<_, _>>().unwrap()
}

#[test]
fn https_and_a_key_that_stays_secret() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
    let authority = dir.path().join("authority.pem");
    fs::write(&authority, made.cert.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = made.signing_key.serialize_der();
    let tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.try_into().unwrap())
        .unwrap();
    let server = Server::start(ok(), Some(tls));
    let url = format!("https://localhost:{}/v1", server.port);
    let out = dir.path().join("out");
    let trusted = ("SSL_CERT_FILE", authority.to_str().unwrap());
    let secret = ("HEADKV_API_KEY", "sk-very-secret");
    assert_eq!(code(&ask(&url, &out, &[], &[trusted, secret])), Some(0));
    assert_eq!(*server.keys.lock().unwrap(), ["Bearer sk-very-secret"; 2]);
    for file in fs::read_dir(&out).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        assert!(!text.contains("sk-very-secret"), "{text}");
    }
    let untrusted = ask(&url, &dir.path().join("x"), &["--retries", "0"], &[]);
    assert_eq!(code(&untrusted), Some(2), "its certificate is unknown");
}

#[test]
fn flags_label_the_rows_of_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(ok(), None);
    let url = format!("http://localhost:{}", server.port);
    for flags in [
        &[][..],
        &["--method", "snapkv", "--capacity", "64"],
        &["--method", "ReasonKV", "--capacity", "64", "--beta", "2"],
        &["--method", "theirs", "--capacity", "64", "--window", "16"],
    ] {
        assert_eq!(code(&ask(&url, dir.path(), flags, &[])), Some(0));
    }
    let labels: Vec<_> = rows(dir.path())
        .iter()
        .step_by(2)
        .map(|row| {
            let label = ["method", "capacity", "beta", "settings"].map(|field| row[field].clone());
            serde_json::Value::from(label.to_vec()).to_string()
        })
        .collect();
    assert_eq!(
        labels,
        [
            r#"["endpoint",null,null,null]"#,
            r#"["snapkv",64,null,null]"#,
            r#"["headkv",64,2.0,null]"#,
            r#"["theirs",64,null,{"window":16}]"#,
        ]
    );
    let two = ["--method", "snapkv", "--capacity", "64,128"];
    let refused = ask(&url, &dir.path().join("x"), &two, &[]);
    assert_eq!(code(&refused), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--capacity has 2 values"));
}

#[test]
fn a_server_that_stays_busy_fails_rows_and_the_exit_code_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let busy = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let server = Server::start(busy, None);
    let url = format!("http://localhost:{}", server.port);
    let output = ask(&url, dir.path(), &["--retries", "1"], &[]);
    assert_eq!(code(&output), Some(1));
    assert_eq!(server.keys.lock().unwrap().len(), 4, "two tries each");
    let rows = rows(dir.path());
    let failed = |row: &serde_json::Value| row["error"].as_str().is_some_and(|e| e.contains("429"));
    assert!(rows.len() == 2 && rows.iter().all(failed), "{rows:?}");
}

#[test]
fn a_redirect_is_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    for status in ["301", "302", "303", "307"] {
        let page = format!(
            "HTTP/1.1 {status} Moved\r\nLocation: /page\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{ANSWER}",
            ANSWER.len()
        );
        let server = Server::start(page.leak(), None);
        let url = format!("http://localhost:{}", server.port);
        let output = ask(&url, &dir.path().join(status), &[], &[]);
        assert_eq!(code(&output), Some(1));
        assert_eq!(server.keys.lock().unwrap().len(), 2, "asked once a prompt");
        let rows = rows(&dir.path().join(status));
        let named = |row: &serde_json::Value| {
            row["error"]
                .as_str()
                .is_some_and(|e| e.contains("a redirect to /page"))
        };
        assert!(rows.iter().all(named), "{rows:?}");
    }
}

#[test]
fn a_server_that_repeats_the_key_does_not_get_it_into_files() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(ECHO, None);
    let url = format!("http://localhost:{}", server.port);
    let secret = ("HEADKV_API_KEY", "sk-very-secret");
    assert_eq!(code(&ask(&url, dir.path(), &[], &[secret])), Some(0));
    assert_eq!(rows(dir.path())[0]["answer"], "I was sent Bearer (key)");
    for file in fs::read_dir(dir.path()).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        assert!(!text.contains("sk-very-secret"), "{text}");
    }
}

#[test]
fn silent_and_dripping_servers_have_a_time_limit() {
    let dir = tempfile::tempdir().unwrap();
    for server in [SILENT, DRIPPING] {
        let started = Server::start(server, None);
        let url = format!("http://localhost:{}", started.port);
        let limit = ["--timeout", "1", "--retries", "0"];
        let out = dir.path().join(server);
        assert_eq!(code(&ask(&url, &out, &limit, &[])), Some(1));
        let failed =
            |row: &serde_json::Value| row["error"].as_str().is_some_and(|e| e.contains("timeout"));
        assert!(rows(&out).iter().all(failed), "{:?}", rows(&out));
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_wait_for_a_silent_server() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(SILENT, None);
    let url = format!("http://localhost:{}", server.port);
    let mut child = Command::new(env!("CARGO_BIN_EXE_headkv-eval"))
        .args(["needle", "--lengths=300", "--draws=1", "--endpoint", &url])
        .args(["--out", dir.path().to_str().unwrap()])
        .env_remove("HEADKV_API_KEY")
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while server.keys.lock().unwrap().is_empty() {
        thread::sleep(Duration::from_millis(5));
    }
    let id = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &id])
            .status()
            .unwrap()
            .success()
    );
    // The server is silent for a minute, and the time limit is ten: only the signal ends this.
    let ended = child.wait().unwrap();
    assert_eq!(ended.code(), Some(1));
    assert!(
        rows(dir.path()).is_empty(),
        "what was not answered did not fail"
    );
}

#[test]
fn a_dead_server_ends_the_run_and_averages_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    for url in [
        &format!("http://127.0.0.1:{port}"),
        "http://no.such.host.invalid",
    ] {
        let output = ask(url, dir.path(), &["--retries", "0"], &[]);
        assert_eq!(code(&output), Some(2), "{url}");
        assert!(output.stdout.is_empty() && !dir.path().join("report.html").exists());
        assert!(String::from_utf8_lossy(&output.stderr).contains("check --endpoint"));
    }
}

#[cfg(unix)]
#[test]
fn few_descriptors_fail_rows_and_not_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(ok(), None);
    let program = env!("CARGO_BIN_EXE_headkv-eval");
    for descriptors in [5, 6, 7, 12] {
        let asks = format!(
            "ulimit -n {descriptors}; exec {program} needle --lengths 300 --draws 4 --retries 1 --concurrency 500 \
             --endpoint http://localhost:{} --out {}",
            server.port,
            dir.path().join(descriptors.to_string()).display()
        );
        let output = Command::new("sh").args(["-c", &asks]).output().unwrap();
        let ended = code(&output);
        assert!(matches!(ended, Some(0..=2)), "{ended:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("panicked"), "{descriptors}: {said}");
    }
}

/// Whoever may start few threads only; root may start any number, and becomes somebody else here.
#[cfg(target_os = "linux")]
#[test]
fn few_processes_fail_rows_and_not_the_program() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let program = env!("CARGO_BIN_EXE_headkv-eval");
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny");
    let other = "setpriv --reuid 54321 --regid 54321 --clear-groups";
    let run = |script: &str| {
        let home = dir.path().join("home");
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).env("HEADKV_HOME", home);
        shell.output().unwrap()
    };
    let able = run(&format!(
        "{other} {program} methods && test -r {tiny}/config.json"
    ));
    if !able.status.success() {
        eprintln!("SKIPPED: this user cannot become another one that may run {program}");
        return;
    }
    let server = Server::start(ok(), None);
    for processes in [3, 12, 20, 40] {
        let output = run(&format!(
            "ulimit -u {processes}; exec {other} {program} needle --model {tiny} --lengths 300 --draws 10 --retries 0 \
             --concurrency 500 --endpoint http://localhost:{} --out {}",
            server.port,
            dir.path().join(processes.to_string()).display()
        ));
        let ended = code(&output);
        assert!(matches!(ended, Some(0..=2)), "{ended:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("panicked"), "{processes}: {said}");
    }
}
