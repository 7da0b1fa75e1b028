//! Data sets as the Python package `datasets` saves them: a folder with state.json and Arrow stream files.

use super::place::Place;
use crate::Error;
use arrow::{
    array::{Array, AsArray},
    datatypes::DataType,
    ipc::reader::StreamReader,
    record_batch::RecordBatch,
};
use serde::Deserialize;
use std::{fs, fs::File, io::BufReader, path::Path};

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
    let text = fs::read_to_string(&state).map_err(Error::read(&state))?;
    let state: State = serde_json::from_str(&text)
        .map_err(|e| Error::file(&state, format!("malformed JSON: {e}")))?;
    let mut rows = Vec::new();
    for DataFile { filename } in &state.files {
        let path = dir.join(filename);
        let damaged = |e: arrow::error::ArrowError| {
            Error::file(
                &path,
                format!("not a whole Arrow stream ({e}); save it again"),
            )
        };
        let file = File::open(&path).map_err(Error::read(&path))?;
        let mut line = 0;
        for batch in StreamReader::try_new(BufReader::new(file), None).map_err(damaged)? {
            let batch = batch.map_err(damaged)?;
            for at in 0..batch.num_rows() {
                if rows.len() == limit {
                    return Ok(rows);
                }
                line += 1;
                let place = Place::new(&path, line);
                let mut row = [const { String::new() }; N];
                for (value, column) in row.iter_mut().zip(columns) {
                    *value = text_at(&batch, column, at).map_err(|why| place.error(why))?;
                }
                rows.push((place, row));
            }
        }
    }
    if rows.is_empty() {
        return Err(Error::file(dir, "holds no rows; save it again"));
    }
    Ok(rows)
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
    use arrow::{
        array::StringArray,
        datatypes::{Field, Schema},
        ipc::writer::StreamWriter,
    };
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
