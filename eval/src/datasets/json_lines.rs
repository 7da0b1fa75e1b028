//! JSON Lines with errors that name file, line and field.

use super::place::Place;
use crate::Error;
use serde_json::{Map, Value};
use std::path::Path;

/// One line.
pub struct Record {
    /// Where it stands.
    pub place: Place,
    fields: Map<String, Value>,
}

/// Reads up to `limit` records; empty lines are skipped.
///
/// # Errors
/// A file that cannot be read or holds no record, and malformed lines.
pub fn read(path: &Path, limit: usize) -> Result<Vec<Record>, Error> {
    let text = headkv_files::read::text(path)?;
    let mut filled = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .peekable();
    if filled.peek().is_none() {
        return Err(Error::file(path, "holds no records; download it again"));
    }
    filled
        .take(limit)
        .map(|(at, line)| parse(Place::new(path, at + 1), line))
        .collect()
}

fn parse(place: Place, text: &str) -> Result<Record, Error> {
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Ok(Record { place, fields }),
        Ok(_) => Err(place.error("not a JSON object")),
        Err(e) => Err(place.error(format!("malformed JSON: {e}"))),
    }
}

impl Record {
    /// A field, `None` if it is missing or null.
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    /// A field that has to be a text.
    pub fn text(&self, field: &str) -> Result<String, Error> {
        match self.get(field) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => Err(self.place.error(format!("field `{field}` is not a text"))),
            None => Err(self.place.error(format!("field `{field}` is missing"))),
        }
    }

    /// A field that is a list of texts, or a text that holds one in Python's notation; empty if it is missing.
    pub fn texts(&self, field: &str) -> Result<Vec<String>, Error> {
        let wrong = || {
            self.place
                .error(format!("field `{field}` is not a list of texts"))
        };
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
