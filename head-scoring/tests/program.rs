//! The program as it is run: other threads and batches change no byte, and neither does Ctrl-C.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

/// `head-scoring score` on the embedded model.
fn score(out: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_head-scoring"));
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny");
    command.args(["score", "--model", tiny, "--kind", "enhanced", "--out"]);
    command.arg(out).args(more);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The bytes of the score file that a command writes.
fn written(command: &mut Command, out: &Path) -> Vec<u8> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    fs::read(out).unwrap()
}

#[test]
fn threads_and_batches_change_no_byte() {
    let dir = tempfile::tempdir().unwrap();
    let run = |threads: &str, batch: &str| {
        let out = dir.path().join(format!("{threads}-{batch}.json"));
        let grid = [
            "--lengths",
            "400,1300",
            "--depths",
            "0,50,100",
            "--draws",
            "3",
        ];
        let mut command = score(&out, &grid);
        command.env("RAYON_NUM_THREADS", threads);
        written(command.args(["--batch", batch]), &out)
    };
    let one = run("1", "1");
    assert!(one.len() > 1000);
    for (threads, batch) in [("2", "1"), ("1", "3"), ("2", "3")] {
        assert!(
            run(threads, batch) == one,
            "{threads} threads and batches of {batch} give other scores"
        );
    }
}

#[test]
fn two_runs_do_not_write_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let (out, part) = (dir.path().join("s.json"), dir.path().join("s.json.part"));
    let grid = ["--lengths", "300", "--depths", "0", "--draws", "1"];
    // What another run does.
    let other = File::create(&part).unwrap();
    other.lock().unwrap();
    let output = score(&out, &grid).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let message = stderr(&output);
    assert!(
        message.contains("s.json.part is being written by another run"),
        "{message}"
    );
    assert!(!out.exists());
    assert_eq!(fs::read(&part).unwrap(), b"");
    drop(other);
    written(&mut score(&out, &grid), &out);
    assert!(!part.exists());
}

/// Waits until that many lines are in a file.
fn wait_for_lines(file: &Path, lines: usize) {
    let begun = Instant::now();
    while fs::read_to_string(file).unwrap_or_default().lines().count() < lines {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "no {lines} lines"
        );
        thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(unix)]
fn interrupt(child: &Child) {
    let sent = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves_and_a_rerun_ends_with_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let grid = ["--lengths", "1000", "--draws", "4"];
    let (whole, torn) = (dir.path().join("whole.json"), dir.path().join("torn.json"));
    let part = dir.path().join("torn.json.part");
    let whole = written(&mut score(&whole, &grid), &whole);

    let child = score(&torn, &grid).spawn().unwrap();
    wait_for_lines(&part, 3);
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    let last = message.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("error: stopped after ")
            && last.ends_with(" of 24 examples; the same command goes on from there"),
        "{message}"
    );
    assert!(!torn.exists());
    let kept = fs::read_to_string(&part).unwrap();
    assert!(kept.lines().count() < 25, "it was stopped too late");

    let mut rerun = score(&torn, &grid).spawn().unwrap();
    // Nothing that was done is done again: what is there stays and grows.
    wait_for_lines(&part, kept.lines().count() + 1);
    assert!(fs::read_to_string(&part).unwrap().starts_with(&kept));
    assert!(rerun.wait().unwrap().success());
    assert!(
        fs::read(&torn).unwrap() == whole,
        "other scores than in one run"
    );
    assert!(!part.exists());
}

#[cfg(unix)]
#[test]
fn a_second_ctrl_c_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("s.json");
    // One example, which takes seconds.
    let grid = ["--lengths", "8000", "--depths", "0", "--draws", "1"];
    let mut child = score(&out, &grid).spawn().unwrap();
    wait_for_lines(&dir.path().join("s.json.part"), 1);
    interrupt(&child);
    let said = BufReader::new(child.stderr.take().unwrap()).lines();
    let said = said.map(Result::unwrap).find(|line| !line.is_empty());
    assert_eq!(
        said.as_deref(),
        Some("stopping after this example; press Ctrl-C again to stop at once")
    );
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!out.exists());
}
