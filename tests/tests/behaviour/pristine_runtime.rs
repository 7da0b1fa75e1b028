//! The runtime is upstream's published source: without the feature `headkv` but for one attribute, with it but for the
//! patches and one module.

use crate::{assemble, source};
use std::{collections::BTreeSet, fs, path::Path};

fn changed(pristine: &Path, assembled: &Path) -> BTreeSet<String> {
    let list = |dir: &Path| {
        source::files(dir)
            .unwrap()
            .into_iter()
            .collect::<BTreeSet<_>>()
    };
    let (before, after) = (list(pristine), list(assembled));
    let differs = |file: &&std::path::PathBuf| {
        fs::read(pristine.join(file)).ok() != fs::read(assembled.join(file)).ok()
    };
    before
        .union(&after)
        .filter(differs)
        .map(|file| file.to_string_lossy().into_owned())
        .collect()
}

#[test]
fn without_the_feature_only_one_line_differs() {
    let (out, here) = (
        tempfile::tempdir().unwrap(),
        headkv_tests::root().join("runtime"),
    );
    let pristine = source::locate().unwrap();
    assemble::assemble(&pristine, &here, out.path(), false).unwrap();
    assert_eq!(
        changed(&pristine, out.path()),
        BTreeSet::from(["lib.rs".to_string()])
    );
    let (before, after) = (
        fs::read_to_string(pristine.join("lib.rs")).unwrap(),
        fs::read_to_string(out.path().join("lib.rs")).unwrap(),
    );
    let (first, rest) = before.split_once('\n').unwrap();
    assert!(first.starts_with("#![deny("), "{first}");
    assert_eq!(rest, after);
}

#[test]
fn with_the_feature_only_patched_files_differ() {
    let (out, here) = (
        tempfile::tempdir().unwrap(),
        headkv_tests::root().join("runtime"),
    );
    let pristine = source::locate().unwrap();
    assemble::assemble(&pristine, &here, out.path(), true).unwrap();
    let mut expected = BTreeSet::from(assemble::MODULES.map(str::to_string));
    let mut lines = 0;
    for patch in fs::read_dir(here.join("patches")).unwrap() {
        let text = fs::read_to_string(patch.unwrap().path()).unwrap();
        expected.extend(
            text.lines()
                .filter_map(|line| line.strip_prefix("--- a/"))
                .map(str::to_string),
        );
        lines += text
            .lines()
            .filter(|l| l.starts_with('+') && !l.starts_with("+++"))
            .count();
    }
    assert_eq!(changed(&pristine, out.path()), expected);
    assert!(
        lines < 300,
        "{lines} added lines: the patches are no longer small"
    );
    // A second run touches nothing, so that builds stay incremental.
    let stamp = |name: &str| {
        fs::metadata(out.path().join(name))
            .unwrap()
            .modified()
            .unwrap()
    };
    let before = stamp("kv_cache/mod.rs");
    assemble::assemble(&pristine, &here, out.path(), true).unwrap();
    assert_eq!(before, stamp("kv_cache/mod.rs"));
}

#[test]
fn a_changed_source_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let src = dir.path().join("src");
    fs::create_dir(&src).unwrap();
    fs::write(src.join("lib.rs"), "// not upstream's").unwrap();
    let error = source::verified(dir.path()).unwrap_err().to_string();
    assert!(
        error.contains("is not the published mistralrs-core-0.8.1"),
        "{error}"
    );
}
