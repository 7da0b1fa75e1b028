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

/// The program with other arguments than a run's.
fn program(args: &[&std::ffi::OsStr]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_head-scoring"));
    command.args(args);
    command
}

const SCORES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../head_scores/tiny_retrieval.json"
);

/// Whoever reads the results may go away; a full disk is an error, and neither is a panic.
#[cfg(target_os = "linux")]
#[test]
fn stdout_may_be_closed_but_not_full() {
    for args in [&["show", SCORES][..], &["--help"], &["score", "--help"]] {
        let args: Vec<_> = args.iter().map(std::ffi::OsStr::new).collect();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let closed = program(&args).stdout(writer).output().unwrap();
        assert_eq!(closed.status.code(), Some(0), "{}", stderr(&closed));
        assert_eq!(stderr(&closed), "");
        let full = File::options().write(true).open("/dev/full").unwrap();
        let full = program(&args).stdout(full).output().unwrap();
        assert_eq!(full.status.code(), Some(2));
        let message = stderr(&full);
        assert!(
            message.starts_with("error: cannot write stdout: ") && message.lines().count() == 1,
            "{message}"
        );
        let full = File::options().write(true).open("/dev/full").unwrap();
        let silent = program(&args).stderr(full).output().unwrap();
        assert_eq!(silent.status.code(), Some(0));
    }
    // An error that nobody hears is still an error.
    let full = File::options().write(true).open("/dev/full").unwrap();
    let args = ["show", "no/such.json"].map(std::ffi::OsStr::new);
    let unheard = program(&args).stderr(full).output().unwrap();
    assert_eq!(unheard.status.code(), Some(2));
}

#[cfg(unix)]
#[test]
fn arguments_that_are_not_utf8_end_no_run() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join(std::ffi::OsStr::from_bytes(b"s-\xff.json"));
    let grid = ["--lengths", "300", "--depths", "0", "--draws", "1"];
    written(&mut score(&out, &grid), &out);
    // What tells how the file was made is there too.
    let made: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().collect();
    assert_eq!(made.len(), 2, "{made:?}");

    let strange = std::ffi::OsStr::from_bytes(b"\xff");
    for args in [
        &[strange][..],
        &["score".as_ref(), "--kind".as_ref(), strange],
    ] {
        let output = program(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let message = stderr(&output);
        assert!(
            message.starts_with("error: ") && message.lines().count() == 1,
            "{message}"
        );
    }
    let model = ["score".as_ref(), "--model".as_ref(), strange];
    let message = stderr(&program(&model).output().unwrap());
    assert!(message.contains("not UTF-8"), "{message}");
}

#[cfg(unix)]
#[test]
fn files_are_written_through_links_and_devices_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (real, link) = (dir.path().join("real.json"), dir.path().join("link.json"));
    std::os::unix::fs::symlink("real.json", &link).unwrap();
    let convert = |out: &Path| {
        let args = ["convert", SCORES, "--out"].map(std::ffi::OsStr::new);
        program(&args).arg(out).output().unwrap()
    };
    let output = convert(&link);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read(&real).unwrap(), fs::read(SCORES).unwrap());
    let output = convert(Path::new("/dev/null"));
    assert_eq!(output.status.code(), Some(2));
    let message = stderr(&output);
    assert!(
        message.ends_with("cannot write /dev/null: it is a pipe or a device, not a file\n"),
        "{message}"
    );
}

/// What a file says reaches the terminal as text, on one line, and not as commands.
#[test]
fn nothing_in_a_file_commands_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("s.json");
    let show = || {
        let output = program(&["show".as_ref(), file.as_os_str()])
            .output()
            .unwrap();
        assert!(!output.stderr.contains(&0x1b) && !output.stdout.contains(&0x1b));
        output
    };
    let long = "x".repeat(1_000_000);
    for key in ["\\u001b[2J", "a\\nb", &long] {
        fs::write(&file, format!("{{\"{key}\": [1]}}")).unwrap();
        let output = show();
        assert_eq!(output.status.code(), Some(2));
        let message = stderr(&output);
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(message.len() < 3000, "{} bytes", message.len());
    }
    fs::copy(SCORES, &file).unwrap();
    let meta = fs::read_to_string(SCORES.replace(".json", ".meta.json")).unwrap();
    let meta = meta.replace("\"tiny\"", "\"\\u001b]0;tiny\\u0007\"");
    fs::write(dir.path().join("s.meta.json"), meta).unwrap();
    let output = show();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("\\u{1b}]0;tiny\\u{7}"), "{text}");
}

/// Runs that could not end, or whose memory would be their end, are refused before the model is loaded.
#[test]
fn endless_runs_are_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("s.json");
    for (grid, why) in [
        (&["--draws", "1000000000000"][..], "18000000000000 examples"),
        (
            &[
                "--lengths",
                "18446744073709551615",
                "--draws",
                "1",
                "--depths",
                "0",
            ],
            "does not fit the model's context",
        ),
        (
            &["--lengths", "10000000", "--draws", "1", "--depths", "0"],
            "does not fit the model's context",
        ),
        (
            &[
                "--max-tokens",
                "18446744073709551615",
                "--lengths",
                "300",
                "--draws",
                "1",
                "--depths",
                "0",
            ],
            "does not fit the model's context",
        ),
        (&["--depths", "50,50"], "depth 50 is given twice"),
        (&["--depths", "0,-0"], "depth 0 is given twice"),
    ] {
        let output = score(&out, grid).output().unwrap();
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(why), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
