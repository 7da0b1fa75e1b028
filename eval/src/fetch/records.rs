//! A JSON list of records as JSON Lines, which is what the readers read; JSON Lines are taken too.

use serde::de::{Deserialize, DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::{
    fmt,
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Write},
    path::Path,
};

/// Whether a file holds records, and nothing else.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(from: &Path) -> Result<(), String> {
    let wrong =
        |why: String| format!("what came is no list of records ({why}); nothing is kept of it");
    let open = headkv_files::read::open(from).map_err(|e| e.to_string())?;
    match convert(open, io::sink()) {
        Ok(0) => Err(wrong("it is empty".into())),
        Ok(_) => Ok(()),
        Err(why) => Err(wrong(why.to_string())),
    }
}

/// Writes each record of a file on a line of another.
///
/// # Errors
/// Whatever reading and writing say.
pub(super) fn to_lines(from: &Path, to: &Path) -> io::Result<()> {
    convert(File::open(from)?, File::create(to)?).map(|_| ())
}

/// One record after the other, so that the longest lists need no more memory than their longest record; how many there were.
fn convert(from: impl io::Read, to: impl Write) -> io::Result<u64> {
    let mut from = BufReader::new(from);
    let mut lines = Lines {
        to: BufWriter::new(to),
        count: 0,
    };
    if starts_a_list(&mut from)? {
        let mut json = serde_json::Deserializer::from_reader(from);
        json.deserialize_seq(&mut lines)?;
        json.end()?;
    } else {
        for record in serde_json::Deserializer::from_reader(from).into_iter() {
            lines.add(&record?)?;
        }
    }
    lines.to.flush()?;
    Ok(lines.count)
}

/// Whether the first character that is no space opens a list; spaces before it are taken.
fn starts_a_list(from: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let bytes = from.fill_buf()?;
        let spaces = bytes.iter().take_while(|b| b.is_ascii_whitespace()).count();
        match bytes.get(spaces) {
            Some(first) => return Ok(*first == b'['),
            None if bytes.is_empty() => return Ok(false),
            None => from.consume(spaces),
        }
    }
}

struct Lines<W: Write> {
    to: BufWriter<W>,
    count: u64,
}

impl<W: Write> Lines<W> {
    fn add(&mut self, record: &Map<String, Value>) -> io::Result<()> {
        serde_json::to_writer(&mut self.to, record)?;
        self.count += 1;
        self.to.write_all(b"\n")
    }
}

impl<'de, W: Write> Visitor<'de> for &mut Lines<W> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut records: A) -> Result<(), A::Error> {
        while let Some(record) = records.next_element_seed(Record)? {
            self.add(&record).map_err(serde::de::Error::custom)?;
        }
        Ok(())
    }
}

struct Record;

impl<'de> DeserializeSeed<'de> for Record {
    type Value = Map<String, Value>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        Map::deserialize(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Result<String, String> {
        let mut lines = Vec::new();
        convert(text.as_bytes(), &mut lines).map_err(|e| e.to_string())?;
        Ok(String::from_utf8(lines).unwrap())
    }

    #[test]
    fn lists_and_lines_become_lines() {
        let expected = "{\"b\":1,\"a\":\"x\\ny\"}\n{\"b\":2}\n";
        for text in [
            "  [{\"b\": 1, \"a\": \"x\\ny\"},\n {\"b\": 2}]\n",
            "{\"b\": 1, \"a\": \"x\\ny\"}\n{\"b\": 2}\n",
        ] {
            assert_eq!(lines(text).unwrap(), expected);
        }
        assert_eq!(lines(" ").unwrap(), "");
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["<html>", "[1]", "[{}", "[{}] {}", "3", "{\"a\": 1}, {}"] {
            assert!(lines(text).is_err(), "{text}");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("empty");
        std::fs::write(&path, "[]").unwrap();
        assert!(check(&path).unwrap_err().contains("it is empty"));
    }
}
