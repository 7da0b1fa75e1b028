//! Data sets as the Python package `datasets` saves them: a folder with state.json and Arrow stream files.

use super::place::Place;
use crate::{Error, guard};
use arrow_array::{Array, RecordBatch, cast::AsArray};
use arrow_ipc::reader::StreamReader;
use arrow_schema::DataType;
use headkv_files::read as files;
use serde::Deserialize;
use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::Path,
};

#[derive(Deserialize)]
struct State {
    #[serde(rename = "_data_files")]
    files: Vec<DataFile>,
}

#[derive(Deserialize)]
struct DataFile {
    filename: String,
}

/// The text columns of up to `limit` rows, in the order asked for, with each row's place. Rows are counted in each file.
///
/// # Errors
/// A folder that cannot be read or holds no rows; damaged files; columns that are missing or hold no text.
pub fn read<const N: usize>(
    dir: &Path,
    columns: [&str; N],
    limit: usize,
) -> Result<Vec<(Place, [String; N])>, Error> {
    let state = dir.join("state.json");
    let text = files::text(&state)?;
    let state: State = serde_json::from_str(&text)
        .map_err(|e| Error::file(&state, format!("malformed JSON: {e}")))?;
    let mut rows = Vec::new();
    for DataFile { filename } in &state.files {
        if rows.len() >= limit {
            break;
        }
        let path = dir.join(filename);
        let found = stream(&path, || open(&path), columns, limit - rows.len());
        rows.extend(found?);
    }
    if rows.is_empty() {
        return Err(Error::file(dir, "holds no rows; save it again"));
    }
    Ok(rows)
}

fn open(path: &Path) -> io::Result<File> {
    files::regular(path)?;
    File::open(path)
}

/// The same of one stream, which lies in that file; it is read twice, first to see whether it is whole.
///
/// # Errors
/// As [`read`].
pub fn stream<const N: usize, S: Read + Seek>(
    path: &Path,
    open: impl Fn() -> io::Result<S>,
    columns: [&str; N],
    limit: usize,
) -> Result<Vec<(Place, [String; N])>, Error> {
    if let Err(why) = open().and_then(messages_fit) {
        return Err(match why.kind() {
            io::ErrorKind::InvalidData => damaged(path, &why),
            _ => Error::read(path)(why),
        });
    }
    let again = open().map_err(Error::read(path))?;
    // The reader takes a stream for what it says, and panics where that cannot be.
    let found = guard::quietly(|| batches(path, again, columns, limit));
    found.map_err(|why| damaged(path, &why))?
}

fn damaged(path: &Path, why: &dyn std::fmt::Display) -> Error {
    let why = headkv_files::terminal::one_line(&why.to_string());
    Error::file(
        path,
        format!("not a whole Arrow stream ({why}); save it again"),
    )
}

fn batches<const N: usize>(
    path: &Path,
    from: impl Read,
    columns: [&str; N],
    limit: usize,
) -> Result<Vec<(Place, [String; N])>, Error> {
    let reader = StreamReader::try_new(BufReader::new(from), None);
    let mut rows = Vec::new();
    for batch in reader.map_err(|e| damaged(path, &e))? {
        let batch = batch.map_err(|e| damaged(path, &e))?;
        for at in 0..batch.num_rows() {
            if rows.len() == limit {
                return Ok(rows);
            }
            let place = Place::new(path, rows.len() + 1);
            let mut row = [const { String::new() }; N];
            for (value, column) in row.iter_mut().zip(columns) {
                *value = text_at(&batch, column, at).map_err(|why| place.error(why))?;
            }
            rows.push((place, row));
        }
    }
    Ok(rows)
}

/// Checks that every message's header and body lie inside the file, before a reader takes memory for them.
fn messages_fit(mut from: impl Read + Seek) -> io::Result<()> {
    let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut left = from.seek(SeekFrom::End(0))?;
    from.rewind()?;
    let mut from = BufReader::new(from);
    loop {
        let length = match word(&mut left, &mut from)? {
            Some(CONTINUES) => word(&mut left, &mut from)?,
            other => other,
        };
        let length = match length {
            None | Some(0) => return Ok(()),
            Some(length) => u64::from(length),
        };
        if length > left {
            return Err(wrong(format!(
                "a header of {length} bytes where {left} are left"
            )));
        }
        let mut header = vec![0; length as usize];
        from.read_exact(&mut header)?;
        left -= length;
        let message = arrow_ipc::root_as_message(&header).map_err(|e| wrong(e.to_string()))?;
        let body = u64::try_from(message.bodyLength()).unwrap_or(u64::MAX);
        if body > left {
            return Err(wrong(format!(
                "a body of {body} bytes where {left} are left"
            )));
        }
        if let Some(batch) = message.header_as_record_batch() {
            rows_fit(&batch, body).map_err(wrong)?;
        }
        let dictionary = message.header_as_dictionary_batch();
        if let Some(batch) = dictionary.and_then(|dictionary| dictionary.data()) {
            rows_fit(&batch, body).map_err(wrong)?;
        }
        from.seek_relative(body as i64)?;
        left -= body;
    }
}

/// The next four bytes, if so many are left.
fn word(left: &mut u64, from: &mut impl Read) -> io::Result<Option<u32>> {
    let mut bytes = [0; 4];
    if *left < 4 {
        return Ok(None);
    }
    from.read_exact(&mut bytes)?;
    *left -= 4;
    Ok(Some(u32::from_le_bytes(bytes)))
}

/// What a message begins with, before its header's length.
const CONTINUES: u32 = u32::MAX;

/// Checks a batch's counts and places against the bytes that it has.
fn rows_fit(batch: &arrow_ipc::RecordBatch, body: u64) -> Result<(), String> {
    if batch.compression().is_some() {
        return Err("it is compressed, which is not read here".into());
    }
    // Every text of a row has an offset of four bytes or more.
    let most = body / 4;
    let count = |rows: i64| u64::try_from(rows).is_ok_and(|rows| rows <= most);
    let nodes = batch.nodes().into_iter().flatten();
    if !count(batch.length()) || !nodes.clone().all(|node| count(node.length())) {
        return Err(format!("more rows than {body} bytes can hold"));
    }
    for buffer in batch.buffers().into_iter().flatten() {
        let end = buffer.offset().checked_add(buffer.length());
        let end = end.and_then(|end| u64::try_from(end).ok());
        if buffer.offset() < 0 || buffer.length() < 0 || end.is_none_or(|end| end > body) {
            return Err("a column that ends behind its batch".into());
        }
    }
    Ok(())
}

fn text_at(batch: &RecordBatch, column: &str, at: usize) -> Result<String, String> {
    let values = batch
        .column_by_name(column)
        .ok_or_else(|| format!("field `{column}` is missing"))?;
    if values.is_null(at) {
        return Err(format!("field `{column}` is null"));
    }
    match values.data_type() {
        DataType::Utf8 => Ok(values.as_string::<i32>().value(at).into()),
        DataType::LargeUtf8 => Ok(values.as_string::<i64>().value(at).into()),
        other => Err(format!("field `{column}` is {other}, not text")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::StringArray;
    use arrow_ipc::writer::StreamWriter;
    use arrow_schema::{Field, Schema};
    use std::fs;
    use std::sync::Arc;

    /// Saves one column `a`, in as many files as there are lists.
    fn save(dir: &Path, files: &[&[Option<&str>]]) {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Utf8, true)]));
        let mut state = Vec::new();
        for (at, values) in files.iter().enumerate() {
            let name = format!("{at}.arrow");
            let values = Arc::new(StringArray::from(values.to_vec()));
            let batch = RecordBatch::try_new(schema.clone(), vec![values]).unwrap();
            let file = File::create(dir.join(&name)).unwrap();
            let mut writer = StreamWriter::try_new(file, &schema).unwrap();
            writer.write(&batch).unwrap();
            writer.finish().unwrap();
            state.push(serde_json::json!({ "filename": name }));
        }
        let state = serde_json::json!({ "_data_files": state });
        fs::write(dir.join("state.json"), state.to_string()).unwrap();
    }

    #[test]
    fn rows_come_in_order_up_to_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), &[&[Some("one")], &[Some("two"), None]]);
        let rows = read(dir.path(), ["a"], 2).unwrap();
        let texts: Vec<_> = rows.iter().map(|(_, [text])| text.as_str()).collect();
        assert_eq!(texts, ["one", "two"]);
    }

    #[test]
    fn bad_columns_and_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), &[&[Some("one"); 5], &[Some("two"), None]]);
        let message = |columns| read(dir.path(), columns, 9).unwrap_err().to_string();
        assert!(message(["a"]).ends_with("1.arrow, line 2: field `a` is null"));
        assert!(message(["b"]).ends_with("0.arrow, line 1: field `b` is missing"));
        fs::write(dir.path().join("0.arrow"), "no").unwrap();
        assert!(message(["a"]).contains("not a whole Arrow stream"));
    }

    #[test]
    fn no_rows_are_an_error() {
        let dir = tempfile::tempdir().unwrap();
        for files in [&[][..], &[&[][..]]] {
            save(dir.path(), files);
            let message = read(dir.path(), ["a"], 9).unwrap_err().to_string();
            assert!(message.ends_with("holds no rows; save it again"));
        }
    }
}
