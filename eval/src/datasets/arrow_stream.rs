//! Data sets as the Python package `datasets` saves them: a folder with state.json and Arrow stream files.

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

/// The text columns of up to `limit` rows, in the order asked for.
pub fn read<const N: usize>(
    dir: &Path,
    columns: [&str; N],
    limit: usize,
) -> Result<Vec<[String; N]>, Error> {
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
        for batch in StreamReader::try_new(BufReader::new(file), None).map_err(damaged)? {
            let batch = batch.map_err(damaged)?;
            for at in 0..batch.num_rows() {
                if rows.len() == limit {
                    return Ok(rows);
                }
                let mut row = [const { String::new() }; N];
                for (value, column) in row.iter_mut().zip(columns) {
                    *value = text_at(&batch, column, at).map_err(|why| Error::Line {
                        path: path.clone(),
                        line: rows.len() + 1,
                        why,
                    })?;
                }
                rows.push(row);
            }
        }
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

    fn save(dir: &Path) {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Utf8, true)]));
        let values = StringArray::from(vec![Some("one"), Some("two"), None]);
        let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(values)]).unwrap();
        let mut writer =
            StreamWriter::try_new(File::create(dir.join("x.arrow")).unwrap(), &schema).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        fs::write(
            dir.join("state.json"),
            r#"{"_data_files": [{"filename": "x.arrow"}]}"#,
        )
        .unwrap();
    }

    #[test]
    fn rows_come_in_order_up_to_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path());
        assert_eq!(
            read(dir.path(), ["a"], 2).unwrap(),
            [["one".to_string()], ["two".into()]]
        );
    }

    #[test]
    fn bad_columns_and_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path());
        let message = |columns| read(dir.path(), columns, 9).unwrap_err().to_string();
        assert!(message(["a"]).ends_with("x.arrow, line 3: field `a` is null"));
        assert!(message(["b"]).ends_with("line 1: field `b` is missing"));
        fs::write(dir.path().join("x.arrow"), "no").unwrap();
        assert!(message(["a"]).contains("not a whole Arrow stream"));
    }
}
