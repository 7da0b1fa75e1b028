//! Whatever is not the model's work costs next to nothing.

use headkv_eval::{
    grid::{Grid, Methods, Needle},
    report,
    session::{self, Session},
    store::Results,
};
use std::{sync::atomic::AtomicBool, time::Instant};

/// The most that samples, rows, reports and whatever else the runner does may take of a run.
const MOST: f64 = 0.02;

/// The part of a run's time, from the loaded model to the written report, that is not spent in the model.
fn overhead() -> f64 {
    let dir = tempfile::tempdir().unwrap();
    let grid = Grid {
        models: vec![headkv_tests::tiny()],
        methods: Methods {
            method: vec!["full".into(), "snapkv".into()],
            capacity: vec![32],
            ..Methods::default()
        },
        needle: Some(Needle {
            lengths: vec![2000],
            depths: vec![0.0, 100.0],
            ..Needle::default()
        }),
        ..Grid::default()
    };
    let stop = AtomicBool::new(false);
    let session = Session {
        grid: &grid,
        options: &session::Options::default(),
        out: dir.path(),
        command: "overhead",
        stop: &stop,
    };
    let outcome = session.run().unwrap();
    assert_eq!(outcome.summary.done, 4);
    let started = Instant::now();
    let results = Results::read(dir.path()).unwrap();
    session::write_reports(&results, dir.path(), &report::Options::default()).unwrap();
    let wall = outcome.seconds + started.elapsed().as_secs_f64();
    (wall - outcome.summary.model_seconds) / wall
}

#[test]
fn the_runner_takes_at_most_a_fiftieth_of_a_run() {
    let mut parts = [(); 3].map(|()| overhead());
    parts.sort_by(f64::total_cmp);
    println!("{:.2} % of the run outside the model", 100.0 * parts[1]);
    assert!(parts[1] <= MOST, "{parts:?}");
}
