//! `headkv-eval fetch` as it is called: the original's head scores from a server on loopback, in the place where a score file is
//! named, and what is refused.

use headkv_plugin::HeadScores;
use headkv_tests::{program, upstream_data};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
};

/// Serves the files of a folder by their names alone; 404 for others.
fn serve(folder: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let Some(Ok(request)) = lines.next() else {
                continue;
            };
            let heads = lines.map_while(Result::ok);
            heads.take_while(|line| !line.is_empty()).for_each(drop);
            let name = request
                .split(' ')
                .nth(1)
                .and_then(|path| path.rsplit('/').next());
            let found = name.and_then(|name| fs::read(folder.join(name)).ok());
            let status = if found.is_some() {
                "200 OK"
            } else {
                "404 Not Found"
            };
            let body = found.unwrap_or_default();
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(&[head.as_bytes(), &body].concat());
        }
    });
    address
}

fn fetch(program: &Path, args: &[&str], address: &str, offline: bool) -> Output {
    Command::new(program)
        .arg("fetch")
        .args(args)
        .env("HF_ENDPOINT", address)
        .env("HEADKV_GITHUB_RAW", address)
        .env("HF_HUB_OFFLINE", if offline { "1" } else { "0" })
        .env_remove("HF_TOKEN")
        .output()
        .unwrap()
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_originals_scores_come_and_are_read() {
    let (Some(eval), Some(folder)) = (program("headkv-eval"), upstream_data("head_score")) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("data");
    let args = ["scores", "--to", to.to_str().unwrap()];
    let output = fetch(&eval, &args, &serve(folder.clone()), false);
    let (paths, messages) = texts(&output);
    assert_eq!(output.status.code(), Some(0), "{messages}");
    assert!(
        messages.contains("4 files are whole, 4 of them fetched now"),
        "{messages}"
    );
    assert_eq!(paths.lines().count(), 4, "{paths}");
    for path in paths.lines().map(Path::new) {
        assert!(path.starts_with(to.join("head_scores")), "{path:?}");
        let theirs = folder.join(path.file_name().unwrap());
        assert_eq!(
            HeadScores::read(path).unwrap(),
            HeadScores::read(&theirs).unwrap()
        );
    }
    // Whole as they are, nobody is asked: there is nobody.
    let output = fetch(&eval, &args, "http://127.0.0.1:1", true);
    assert_eq!(output.status.code(), Some(0), "{:?}", texts(&output));
    assert_eq!(texts(&output).0, paths);
}

#[test]
fn exit_codes_tell_failed_from_wrong() {
    let Some(eval) = program("headkv-eval") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("data");
    let to = to.to_str().unwrap();
    let nothing = serve(dir.path().into());
    let output = fetch(&eval, &["scores", "--to", to], &nothing, false);
    let (paths, messages) = texts(&output);
    assert_eq!(
        (output.status.code(), paths.as_str()),
        (Some(1), ""),
        "{messages}"
    );
    assert!(
        messages.contains("status 404; no such file there, check HEADKV_GITHUB_RAW"),
        "{messages}"
    );
    for (args, address, offline, expected) in [
        (
            &["scores"][..],
            nothing.as_str(),
            true,
            "HF_HUB_OFFLINE is set",
        ),
        (
            &["babilong", "--tasks", "qa0"],
            &nothing,
            false,
            "unknown task `qa0`",
        ),
        (
            &["longbench", "--lengths", "1k"],
            &nothing,
            false,
            "leave them out",
        ),
        (
            &["longbench"],
            "nowhere",
            false,
            "HF_ENDPOINT: `nowhere` is no http:// or https:// address",
        ),
    ] {
        let args = [args, &["--to", to]].concat();
        let output = fetch(&eval, &args, address, offline);
        let (paths, message) = texts(&output);
        assert_eq!(
            (output.status.code(), paths.as_str()),
            (Some(2), ""),
            "{args:?}: {message}"
        );
        assert_eq!(message.trim().lines().count(), 1, "{args:?}: {message}");
        assert!(message.contains(expected), "{args:?}: {message}");
    }
}
