//! Models by their names on a hub: fetched once, found again, refused with the reason; the hub is one on loopback.

use headkv_engine::{
    Attention, Engine, LoadOptions, ModelFiles, Request,
    hub::{Hub, Name},
};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A hub with the embedded model under two names, one of them closed, and a repository without weights.
struct Loopback {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Loopback {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let notes = asked.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let notes = notes.clone();
                thread::spawn(move || answer(stream.unwrap(), &notes));
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn files(repository: &str) -> Vec<PathBuf> {
    if repository == "org/empty" {
        return vec!["README.md".into(), "model.Q4.gguf".into()];
    }
    let folder = fs::read_dir(headkv_tests::tiny()).unwrap();
    let mut files: Vec<PathBuf> = folder.map(|e| e.unwrap().file_name().into()).collect();
    files.push("pytorch_model.bin".into());
    files
}

/// One request, one answer, as the hub's own addresses are: `/api/models/ORG/NAME/...` and `/ORG/NAME/resolve/main/FILE`.
fn answer(mut stream: TcpStream, asked: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let request = lines.next().unwrap().unwrap();
    let (mut range, mut allowed) = (None, false);
    for line in lines
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
    {
        let line = line.to_lowercase();
        allowed |= line == "authorization: bearer secret";
        if let Some(bytes) = line.strip_prefix("range: bytes=") {
            let (from, to) = bytes.split_once('-').unwrap();
            range = Some((from.parse::<usize>().unwrap(), to.parse::<usize>().ok()));
        }
    }
    let path = request.split(' ').nth(1).unwrap().to_string();
    asked.lock().unwrap().push(path.clone());
    let mut send = |status: &str, headers: String, body: &[u8]| {
        let head = format!(
            "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
            body.len()
        );
        let _ = stream.write_all(&[head.as_bytes(), body].concat());
    };
    if path.contains("/closed") && !allowed {
        return send("401 Unauthorized", String::new(), b"");
    }
    if let Some(repository) = path.strip_prefix("/api/models/") {
        let repository = repository.split("/revision/").next().unwrap();
        if repository == "org/none" {
            return send("404 Not Found", String::new(), b"");
        }
        let siblings: Vec<_> = files(repository)
            .iter()
            .map(|file| serde_json::json!({ "rfilename": file }))
            .collect();
        let info = serde_json::json!({ "siblings": siblings, "sha": COMMIT });
        return send("200 OK", String::new(), info.to_string().as_bytes());
    }
    let file = path.rsplit('/').next().unwrap();
    let Ok(bytes) = fs::read(headkv_tests::tiny().join(file)) else {
        return send("404 Not Found", String::new(), b"");
    };
    let (from, to) = range.unwrap_or((0, None));
    let to = to.unwrap_or(usize::MAX).min(bytes.len() - 1);
    let headers = format!(
        "x-repo-commit: {COMMIT}\r\netag: \"{file}\"\r\naccept-ranges: bytes\r\n\
         content-range: bytes {from}-{to}/{}\r\n",
        bytes.len()
    );
    send("206 Partial Content", headers, &bytes[from..=to]);
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

#[test]
fn a_model_is_fetched_once_and_answers() {
    let (server, cache) = (Loopback::start(), tempfile::tempdir().unwrap());
    let hub = Hub::new(&server.address, cache.path());
    let folder = hub.fetch(&name("org/tiny")).unwrap();
    assert!(server.asked() > 0);
    assert!(!folder.join("pytorch_model.bin").exists());
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        let (ours, theirs) = (folder.join(file), headkv_tests::tiny().join(file));
        assert_eq!(fs::read(ours).unwrap(), fs::read(theirs).unwrap(), "{file}");
    }
    assert_eq!(ModelFiles::open(&folder).unwrap().name(), "tiny");
    let engine = Engine::load(LoadOptions::new(&folder), Attention::Upstream).unwrap();
    let prompt = engine.encode("Once upon a time").unwrap();
    assert_eq!(
        engine.generate(&[Request::new(prompt, 3)]).unwrap().len(),
        1
    );

    let before = server.asked();
    assert_eq!(hub.fetch(&name("org/tiny")).unwrap(), folder);
    assert_eq!(hub.offline().fetch(&name("org/tiny")).unwrap(), folder);
    assert_eq!(server.asked(), before, "the second time it is in the cache");
}

#[test]
fn a_fetch_that_was_cut_goes_on() {
    let (server, cache) = (Loopback::start(), tempfile::tempdir().unwrap());
    let hub = Hub::new(&server.address, cache.path());
    let folder = hub.fetch(&name("org/tiny")).unwrap();
    // As if the program had ended before its last file.
    fs::remove_file(folder.join("config.json")).unwrap();
    let before = server.asked();
    assert_eq!(hub.fetch(&name("org/tiny")).unwrap(), folder);
    let asked = server.asked.lock().unwrap()[before..].to_vec();
    assert!(
        !asked.iter().any(|path| path.ends_with("model.safetensors")),
        "{asked:?}"
    );
}

#[test]
fn refusals_say_what_to_do() {
    let (server, cache) = (Loopback::start(), tempfile::tempdir().unwrap());
    let hub = || Hub::new(&server.address, cache.path());
    for (model, expected) in [
        ("org/none", "check its name on the hub"),
        ("org/closed", "set HF_TOKEN"),
        ("org/empty", "org/empty:model.Q4.gguf"),
        ("org/tiny:other.gguf", "other.gguf"),
    ] {
        let message = hub().fetch(&name(model)).unwrap_err().to_string();
        assert!(
            message.contains(expected) && !message.contains('\n'),
            "{message}"
        );
    }
    let message = hub()
        .offline()
        .fetch(&name("org/tiny"))
        .unwrap_err()
        .to_string();
    assert!(message.contains("HF_HUB_OFFLINE"), "{message}");
    assert!(message.contains("hf download org/tiny"), "{message}");
    let nobody = Hub::new("http://127.0.0.1:1", cache.path());
    let message = nobody.fetch(&name("org/tiny")).unwrap_err().to_string();
    assert!(message.contains("check the network"), "{message}");
}

#[test]
fn a_typo_in_a_path_stays_here() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("models");
    fs::create_dir(&path).unwrap();
    let message = ModelFiles::open(Path::new("src/tyni"))
        .unwrap_err()
        .to_string();
    assert!(message.contains("no such folder"), "{message}");
}
