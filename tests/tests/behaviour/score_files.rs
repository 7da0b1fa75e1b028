//! Score files of either side work in both: the original's files load, show their top heads, and survive conversion.

use head_scoring::{ScoreFile, show::Shown};
use headkv_plugin::HeadScores;
use headkv_tests::upstream_data;
use std::{fs, path::PathBuf};

fn originals() -> Vec<PathBuf> {
    let Some(folder) = upstream_data("head_score") else {
        return Vec::new();
    };
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    files
}

#[test]
fn the_originals_files_show_their_top_heads() {
    let top: Vec<String> = originals()
        .iter()
        .map(|file| {
            let report = Shown::read(file).unwrap().report(3);
            let name = file.file_name().unwrap().to_string_lossy();
            let lines: Vec<&str> = report.lines().collect();
            let shape = lines[0].rsplit(": ").next().unwrap();
            let table = lines.iter().skip_while(|line| !line.starts_with("rank"));
            let heads: Vec<&str> = table
                .skip(1)
                .take(3)
                .map(|l| l.split_whitespace().nth(1).unwrap())
                .collect();
            format!("{name}: {shape}; {}", heads.join(" "))
        })
        .collect();
    if !top.is_empty() {
        insta::assert_snapshot!(top.join("\n"), @"
        Meta-Llama-3-8B-Instruct_retrieval_heads.json: 32 layers x 32 heads, 107 examples a head; 15-30 16-20 27-7
        Meta-Llama-3-8B-Instruct_retrieval_reasoning_heads.json: 32 layers x 32 heads, 74 examples a head; 15-30 8-11 16-1
        Mistral-7B-Instruct-v0.2_retrieval_heads.json: 32 layers x 32 heads, 148 examples a head; 18-0 18-2 12-7
        Mistral-7B-Instruct-v0.2_retrieval_reasoning_heads.json: 32 layers x 32 heads, 76 examples a head; 18-0 7-18 19-9
        ");
    }
}

#[test]
fn conversion_keeps_every_score() {
    let dir = tempfile::tempdir().unwrap();
    let converted = dir.path().join("converted.json");
    for file in originals() {
        let before = ScoreFile::read(&file).unwrap();
        before.write(&converted).unwrap();
        assert_eq!(ScoreFile::read(&converted).unwrap(), before);
        assert_eq!(
            HeadScores::read(&converted).unwrap(),
            HeadScores::read(&file).unwrap()
        );
    }
}

#[test]
fn the_projects_own_files_are_complete() {
    let folder = headkv_tests::root().join("head_scores");
    let mut files = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.ends_with(".json") || name.ends_with(".meta.json") {
            continue;
        }
        let shown = Shown::read(&path).unwrap();
        let meta = shown
            .meta
            .unwrap_or_else(|| panic!("{name} has no meta file"));
        assert_eq!(
            name,
            format!("{}_{}.json", meta.settings.model, meta.settings.kind)
        );
        assert_eq!(shown.examples, (meta.counted, meta.counted));
        assert!(
            meta.counted * 2 > meta.total,
            "{name}: most examples are answered"
        );
        assert!(meta.command.starts_with("head-scoring score --model "));
        // Other readers may tell it from 0; nothing but the sign of an empty sum is in it.
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains("-0.0"), "{name} holds -0.0");
        assert_eq!(
            text,
            ScoreFile::read(&path).unwrap().to_json(),
            "{name} is not as `convert` writes it"
        );
        files += 1;
    }
    assert!(files >= 3, "{files} score files");
}

#[test]
fn shuffled_scores_go_to_other_heads_as_whole_lists() {
    let file = headkv_tests::root().join("head_scores/tiny_retrieval.json");
    let real = ScoreFile::read(&file).unwrap();
    let shuffled = real.clone().shuffled(1);
    assert_eq!(shuffled, real.clone().shuffled(1));
    assert!(shuffled != real && shuffled != real.clone().shuffled(2));
    let sorted = |file: &ScoreFile| {
        let mut means = file.means().unwrap().values().to_vec();
        means.sort_by(f64::total_cmp);
        means
    };
    assert_eq!(sorted(&shuffled), sorted(&real));
}

#[test]
fn a_methods_name_can_say_which_scores_are_meant() {
    let files = |method: &str, head_choice: &[&str]| {
        let grid = headkv_eval::grid::Methods {
            method: vec![method.into()],
            capacity: vec![32],
            head_choice: head_choice.iter().map(|kind| kind.to_string()).collect(),
            ..Default::default()
        };
        let variants = headkv_eval::engine::variants(&grid, &headkv_tests::tiny());
        let names = variants.unwrap().into_iter();
        names.map(|v| v.scores_name().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(files("headkv", &[]), ["tiny_retrieval"]);
    assert_eq!(files("ReasonKV", &[]), ["tiny_reasoning"]);
    assert_eq!(files("ReasonKV", &["copy"]), ["tiny_retrieval"]);
    assert_eq!(
        files("headkv", &["reason", "enhanced"]),
        ["tiny_reasoning", "tiny_enhanced"]
    );
}
