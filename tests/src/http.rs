//! The least HTTP that can be spoken, so that tests can break it: one request per connection.

use serde_json::Value;
use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// What came back.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The header lines in lower case.
    pub headers: String,
    /// The body, its chunks put together.
    pub body: Vec<u8>,
}

impl Reply {
    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The events of a stream, up to `[DONE]`; those that are no JSON are strings.
    pub fn events(&self) -> Vec<Value> {
        let text = String::from_utf8_lossy(&self.body).into_owned();
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        data.map(|data| serde_json::from_str(data).unwrap_or_else(|_| data.into()))
            .collect()
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.headers.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Sends a request and does not read the answer.
pub fn open(
    at: SocketAddr,
    method: &str,
    path: &str,
    more: &str,
    body: &[u8],
) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(at)?;
    stream.set_read_timeout(Some(Duration::from_secs(300)))?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\ncontent-length: {length}\r\n{more}\r\n"
    );
    stream.write_all(&[head.as_bytes(), body].concat())?;
    Ok(stream)
}

/// Sends a request and reads the answer.
pub fn send(
    at: SocketAddr,
    method: &str,
    path: &str,
    more: &str,
    body: &[u8],
) -> io::Result<Reply> {
    read(open(at, method, path, more, body)?)
}

/// Posts JSON.
pub fn post(at: SocketAddr, path: &str, body: &Value) -> io::Result<Reply> {
    let kind = "content-type: application/json\r\n";
    send(at, "POST", path, kind, body.to_string().as_bytes())
}

/// Gets a path.
pub fn get(at: SocketAddr, path: &str) -> io::Result<Reply> {
    send(at, "GET", path, "", b"")
}

/// Reads an answer to its end.
pub fn read(mut stream: TcpStream) -> io::Result<Reply> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.ok_or_else(|| io::Error::other("no answer"))?;
    let headers = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let status = headers
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let body = bytes.split_off(end + 4);
    let body = if headers.contains("transfer-encoding: chunked") {
        joined(&body)
    } else {
        body
    };
    Ok(Reply {
        status: status.ok_or_else(|| io::Error::other("no status"))?,
        headers,
        body,
    })
}

fn joined(mut chunks: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = chunks.windows(2).position(|two| two == b"\r\n") {
        let length = String::from_utf8_lossy(&chunks[..end]).into_owned();
        let length = usize::from_str_radix(length.trim(), 16).unwrap_or(0);
        if length == 0 || chunks.len() < end + 2 + length {
            break;
        }
        body.extend_from_slice(&chunks[end + 2..end + 2 + length]);
        chunks = chunks.get(end + 4 + length..).unwrap_or_default();
    }
    body
}
