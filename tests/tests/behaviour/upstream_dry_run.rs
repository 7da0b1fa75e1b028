//! `scripts/upstream-dry-run.sh`: the published source takes every hunk, and of another one those that fail are named.
#![cfg(unix)]

use crate::source;
use std::{fs, path::Path, process::Command};

/// The exit code and what was printed; none where `patch` is missing.
fn dry_run(krate: &Path) -> Option<(i32, String)> {
    if Command::new("patch").arg("--version").output().is_err() {
        headkv_tests::skipped("patch is not installed");
        return None;
    }
    let script = headkv_tests::root().join("scripts/upstream-dry-run.sh");
    let output = Command::new(script).arg(krate).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    Some((output.status.code().unwrap(), said.into_owned()))
}

#[test]
fn the_published_source_takes_every_hunk() {
    let pristine = source::locate().unwrap();
    let Some((code, said)) = dry_run(pristine.parent().unwrap()) else {
        return;
    };
    assert_eq!(code, 0, "{said}");
    assert!(
        said.ends_with("patches: 0 failures, 0 hunks moved\n"),
        "{said}"
    );
}

#[test]
fn hunks_that_fail_or_move_are_named() {
    let pristine = source::locate().unwrap();
    let dir = tempfile::tempdir().unwrap();
    for file in source::files(&pristine).unwrap() {
        let to = dir.path().join("src").join(&file);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::write(to, fs::read(pristine.join(file)).unwrap()).unwrap();
    }
    let edit = |name: &str, change: &dyn Fn(String) -> String| {
        let path = dir.path().join("src").join(name);
        fs::write(&path, change(fs::read_to_string(&path).unwrap())).unwrap();
    };
    edit("attention/mod.rs", &|text| {
        text.replace("sdpa_params: &SdpaParams,", "params: &SdpaParams,")
    });
    edit("layers.rs", &|text| format!("// one line more\n{text}"));
    fs::remove_file(dir.path().join("src/models/gemma2.rs")).unwrap();
    fs::write(dir.path().join("src/linear_hook.rs"), "").unwrap();
    let Some((code, said)) = dry_run(dir.path()) else {
        return;
    };
    assert_eq!(code, 1, "{said}");
    for expected in [
        "FAILED  01-attention.patch: src/attention/mod.rs, hunk #1",
        "moved   08-rotary.patch: src/layers.rs, hunk #1",
        "FAILED  13-windows.patch: upstream has no file of that name",
        "FAILED  src/linear_hook.rs is upstream's too",
        "patches: 3 failures",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let (code, said) = dry_run(Path::new("/nowhere")).unwrap();
    assert_eq!(
        (code, said.contains("holds no src/lib.rs")),
        (2, true),
        "{said}"
    );
}
