//! A hub and GitHub on loopback, which can be made to fail.

use headkv_eval::fetch::Sources;
use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

/// What is wrong with the next answer for a file.
pub enum Fault {
    /// Its body ends after so many bytes.
    Cut(usize),
    /// Half of its body comes, and once some of it is in that file, the flag is set.
    Stop(&'static AtomicBool, PathBuf),
    /// It lies at another address, and has that digest.
    Moved(String, String),
    Status(u16),
}

/// A request as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    pub path: String,
    /// The first byte asked for.
    pub from: Option<usize>,
    pub token: Option<String>,
}

#[derive(Default)]
struct State {
    /// Files by the ends of their paths; the length of their bytes and the number of their version are their tag.
    files: HashMap<String, (Vec<u8>, u32)>,
    faults: HashMap<String, Vec<Fault>>,
    asked: Vec<Asked>,
}

/// A hub and GitHub at once.
pub struct Server {
    pub address: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                thread::spawn(move || answer(stream, &shared));
            }
        });
        Self { address, state }
    }

    pub fn put(&self, end: &str, bytes: impl Into<Vec<u8>>) {
        let mut state = self.state.lock().unwrap();
        let version = state.files.get(end).map_or(0, |(_, version)| version + 1);
        state.files.insert(end.into(), (bytes.into(), version));
    }

    /// The next answer for that file is wrong; several faults come one after the other.
    pub fn fault(&self, end: &str, fault: Fault) {
        let mut state = self.state.lock().unwrap();
        state.faults.entry(end.into()).or_default().push(fault);
    }

    /// The bytes of a file.
    pub fn bytes(&self, end: &str) -> Vec<u8> {
        self.state.lock().unwrap().files[end].0.clone()
    }

    /// What was asked since the last call of this.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.state.lock().unwrap().asked)
    }

    pub fn sources(&self) -> Sources {
        let mut sources = Sources::new(&self.address, &self.address).unwrap();
        sources.pause = Duration::from_millis(1);
        sources
    }
}

fn answer(mut stream: TcpStream, state: &Mutex<State>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let Some(Ok(request)) = lines.next() else {
        return;
    };
    let path = request.split(' ').nth(1).unwrap().to_string();
    let (mut from, mut token, mut tag) = (None, None, None);
    let heads = lines.map_while(Result::ok);
    for line in heads.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").unwrap();
        match name.to_lowercase().as_str() {
            "range" => {
                let bytes = value.strip_prefix("bytes=").unwrap();
                from = Some(bytes.strip_suffix('-').unwrap().parse().unwrap());
            }
            "authorization" => token = Some(value.to_string()),
            "if-range" => tag = Some(value.to_string()),
            _ => {}
        }
    }
    let mut state = state.lock().unwrap();
    let asked = Asked {
        path: path.clone(),
        from,
        token,
    };
    state.asked.push(asked);
    let end = state.files.keys().find(|end| path.ends_with(*end)).cloned();
    let Some(end) = end else {
        let _ = stream
            .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
    };
    let faults = state
        .faults
        .get_mut(&end)
        .filter(|faults| !faults.is_empty());
    let fault = faults.map(|faults| faults.remove(0));
    let (bytes, version) = state.files[&end].clone();
    drop(state);
    let now = format!("\"{}-{version}\"", bytes.len());
    // What changed meanwhile comes whole.
    let from = from.filter(|_| tag.as_ref() == Some(&now));
    let start = from.unwrap_or(0);
    let mut head = match &fault {
        Some(Fault::Moved(to, digest)) => format!(
            "HTTP/1.1 302 Found\r\nLocation: {to}\r\nX-Linked-Etag: \"{digest}\"\r\nContent-Length: 0\r\n"
        ),
        Some(Fault::Status(status)) => {
            format!("HTTP/1.1 {status} Sorry\r\nRetry-After: 0\r\nContent-Length: 0\r\n")
        }
        _ if start >= bytes.len() && from.is_some() => format!(
            "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */{}\r\nContent-Length: 0\r\n",
            bytes.len()
        ),
        _ => {
            let status = if from.is_some() {
                "206 Partial Content"
            } else {
                "200 OK"
            };
            format!(
                "HTTP/1.1 {status}\r\nETag: {now}\r\nContent-Length: {}\r\nContent-Range: bytes {start}-{}/{}\r\n",
                bytes.len() - start,
                bytes.len() - 1,
                bytes.len()
            )
        }
    };
    head += "Connection: close\r\n\r\n";
    let _ = stream.write_all(head.as_bytes());
    if !head.contains("Content-Length: 0\r\n") {
        let body = &bytes[start..];
        match fault {
            Some(Fault::Cut(after)) => {
                let _ = stream.write_all(&body[..after.min(body.len())]);
            }
            Some(Fault::Stop(flag, part)) => {
                let (first, second) = body.split_at(body.len() / 2);
                let _ = stream.write_all(first);
                let came = || part.metadata().is_ok_and(|part| part.len() > 0);
                while !came() {
                    thread::sleep(Duration::from_millis(1));
                }
                flag.store(true, Relaxed);
                let _ = stream.write_all(&second[..1]);
            }
            _ => {
                let _ = stream.write_all(body);
            }
        }
    }
}
