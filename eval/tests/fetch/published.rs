//! Data in the forms in which it is published.

use crate::server::Server;
use std::io::{Cursor, Write};
use zip::{ZipWriter, write::SimpleFileOptions};

/// Where LongBench's archive lies.
pub const ZIP: &str = "/datasets/THUDM/LongBench/resolve/main/data.zip";

pub fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in files {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(text.as_bytes()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A record of LongBench.
pub fn record(answer: &str) -> String {
    let context = "Some text. ".repeat(400);
    let record = serde_json::json!({
        "input": "What?", "context": context, "answers": [answer], "length": 800, "all_classes": null, "_id": "1"
    });
    format!("{record}\n")
}

/// A server with LongBench.
pub fn with_longbench() -> Server {
    let server = Server::start();
    server.put(
        "LongBench/config/dataset2prompt.json",
        r#"{"hotpotqa": "{context} {input}", "qasper": "{input}"}"#,
    );
    server.put(
        "LongBench/config/dataset2maxlen.json",
        r#"{"hotpotqa": 32, "qasper": 8}"#,
    );
    let files = [
        ("data/", ""),
        ("data/hotpotqa.jsonl", &*record("here")),
        ("data/qasper.jsonl", &*record("there")),
        ("data/qasper_e.jsonl", &*record("there")),
    ];
    server.put(ZIP, archive(&files));
    server
}

/// A server with babilong, as its authors have it: lists of records, and prompts as Python source.
pub fn with_babilong() -> Server {
    let server = Server::start();
    let source = "X = 1\n\nDEFAULT_PROMPTS = {\n    'qa1': {\n        'instruction':\n            'Read '\n            'this.',\n        \
                  'examples': 'An example\\n',\n        'post_prompt': 'Say where.'\n    },\n    'qa2': {'instruction': 'a', \
                  'examples': 'b', 'post_prompt': 'c'},\n}\n";
    server.put("babilong/prompts.py", source);
    for length in ["0k", "1k"] {
        for task in ["qa1", "qa2"] {
            let records = serde_json::json!([
                {"input": format!("It is {length}.\nMary is in the garden."), "question": "Where is Mary?", "target": "garden"},
                {"input": "Bill is in the office.", "question": "Where is Bill?", "target": "office"},
            ]);
            server.put(&format!("/data/{task}/{length}.json"), records.to_string());
        }
    }
    server
}
