//! JSON Lines with errors that name file, line and field.

use crate::Error;
use serde_json::{Map, Value};
use std::{fs, path::Path};

/// One line.
pub struct Record<'a> {
    path: &'a Path,
    line: usize,
    fields: Map<String, Value>,
}

/// Reads up to `limit` records; empty lines are skipped.
pub fn read(path: &Path, limit: usize) -> Result<Vec<Record<'_>>, Error> {
    let text = fs::read_to_string(path).map_err(Error::read(path))?;
    let filled = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    filled
        .take(limit)
        .map(|(at, line)| parse(path, at + 1, line))
        .collect()
}

fn parse<'a>(path: &'a Path, line: usize, text: &str) -> Result<Record<'a>, Error> {
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Ok(Record { path, line, fields }),
        Ok(_) => Err(Error::Line {
            path: path.into(),
            line,
            why: "not a JSON object".into(),
        }),
        Err(e) => Err(Error::Line {
            path: path.into(),
            line,
            why: format!("malformed JSON: {e}"),
        }),
    }
}

impl Record<'_> {
    /// An error about this line.
    pub fn error(&self, why: impl Into<String>) -> Error {
        Error::Line {
            path: self.path.into(),
            line: self.line,
            why: why.into(),
        }
    }

    /// Its number, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// A field, `None` if it is missing or null.
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    /// A field that has to be a text.
    pub fn text(&self, field: &str) -> Result<String, Error> {
        match self.get(field) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => Err(self.error(format!("field `{field}` is not a text"))),
            None => Err(self.error(format!("field `{field}` is missing"))),
        }
    }

    /// A field that is a list of texts, or a text that holds one in Python's notation; empty if it is missing.
    pub fn texts(&self, field: &str) -> Result<Vec<String>, Error> {
        let wrong = || self.error(format!("field `{field}` is not a list of texts"));
        match self.get(field) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => items
                .iter()
                .map(|item| item.as_str().map(String::from).ok_or_else(wrong))
                .collect(),
            Some(Value::String(text)) => {
                Ok(super::python_list::parse(text).unwrap_or_else(|| vec![text.clone()]))
            }
            Some(_) => Err(wrong()),
        }
    }
}
