//! A session that is told to stop does not even load the next model.

use headkv_eval::{
    grid::{Grid, Methods, Needle},
    session::{Options, Session},
};
use std::{fs, path::Path, sync::atomic::AtomicBool};

#[test]
fn no_model_is_loaded_after_a_stop() {
    let dir = tempfile::tempdir().unwrap();
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tiny");
    // Loading a model would find out that these scores do not fit it.
    let scores = dir.path().join("scores.json");
    fs::write(&scores, r#"{"0-0": [1], "0-1": [2]}"#).unwrap();
    let grid = Grid {
        models: vec![tiny.clone(), tiny],
        methods: Methods {
            method: vec!["headkv".into()],
            scores: vec![scores],
            ..Methods::default()
        },
        needle: Some(Needle::default()),
        ..Grid::default()
    };
    let out = dir.path().join("out");
    let run = |stop: bool| {
        Session {
            grid: &grid,
            options: &Options::default(),
            out: &out,
            command: "test",
            stop: &AtomicBool::new(stop),
        }
        .run()
    };
    assert!(run(false).unwrap_err().to_string().contains("8 x 8"));
    let outcome = run(true).unwrap();
    assert!(outcome.summary.stopped && !outcome.started() && !outcome.complete());
    assert!(!out.exists());
}
