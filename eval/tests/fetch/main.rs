//! Official data from a server on loopback: fetched whole, on from where it was cut, repaired, refused, and read.

mod published;
mod server;

use headkv_eval::{
    datasets::{Target, babilong, longbench},
    fetch::{Options, Outcome, Sources, What, run},
    protocol::Protocol,
};
use published::{ZIP, archive, record, with_babilong, with_longbench};
use server::{Fault, Server};
use std::{
    fs::{self, File},
    path::Path,
    sync::atomic::AtomicBool,
};
use tokenizers::Tokenizer;

fn options(what: What, to: &Path) -> Options {
    Options {
        what,
        to: to.into(),
        tasks: Vec::new(),
        lengths: Vec::new(),
    }
}

static GO: AtomicBool = AtomicBool::new(false);

fn fetch(options: &Options, sources: &Sources) -> Outcome {
    run(options, sources, &GO).unwrap()
}

/// What was fetched, which has to be all.
fn all(options: &Options, sources: &Sources) -> Outcome {
    let outcome = fetch(options, sources);
    assert!(outcome.complete(), "{outcome:?}");
    outcome
}

fn babilong_options(to: &Path) -> Options {
    let names = |names: [&str; 2]| names.map(String::from).to_vec();
    Options {
        tasks: names(["qa1", "qa2"]),
        lengths: names(["0k", "1k"]),
        ..options(What::Babilong, to)
    }
}

fn with_target<T>(read: impl FnOnce(&Target) -> T) -> T {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny/tokenizer.json");
    let tokenizer = Tokenizer::from_file(file).unwrap();
    read(&Target {
        model: "tiny",
        tokenizer: &tokenizer,
        chat: None,
        context: 8192,
    })
}

/// Whether `sha256sum`, where there is one, finds that many files whole.
fn sums_are_readable(folder: &Path, count: usize) {
    let sums = fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
    assert_eq!(sums.lines().count(), count, "{sums}");
    let mut command = std::process::Command::new("sha256sum");
    if let Ok(output) = command
        .args(["-c", "SHA256SUMS"])
        .current_dir(folder)
        .output()
    {
        assert!(output.status.success(), "{output:?}");
    }
}

/// The files of a folder that are not whole.
fn leftovers(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.into_string().unwrap());
    names
        .filter(|name| {
            [".part", ".tag", ".came"]
                .iter()
                .any(|end| name.ends_with(end))
        })
        .collect()
}

#[test]
fn longbench_is_fetched_unpacked_and_read() {
    let (server, dir) = (with_longbench(), tempfile::tempdir().unwrap());
    let (asked, sources) = (options(What::Longbench, dir.path()), server.sources());
    let outcome = all(&asked, &sources);
    let folder = dir.path().join("longbench");
    let names: Vec<_> = outcome
        .paths
        .iter()
        .map(|path| path.strip_prefix(&folder).unwrap())
        .collect();
    let expected = [
        "dataset2prompt.json",
        "dataset2maxlen.json",
        "hotpotqa.jsonl",
        "qasper.jsonl",
        "qasper_e.jsonl",
    ];
    assert_eq!(names, expected.map(Path::new));
    assert_eq!(outcome.fetched, 5);
    assert_eq!(leftovers(&folder), [""; 0]);
    sums_are_readable(&folder, 5);
    let read = longbench::Options {
        data: folder,
        datasets: vec![],
        limit: usize::MAX,
        protocol: Protocol::Paper,
        max_input: None,
        longbench_e: false,
    };
    let samples = with_target(|target| longbench::samples(&read, target).unwrap());
    let read: Vec<_> = samples
        .iter()
        .map(|sample| sample.dataset.as_str())
        .collect();
    assert_eq!(read, ["qasper", "hotpotqa"]);

    server.asked();
    let again = all(&asked, &sources);
    assert_eq!((again.fetched, again.paths), (0, outcome.paths));
    assert_eq!(server.asked(), []);
}

#[test]
fn babilong_gets_the_form_that_its_reader_reads() {
    let (server, dir) = (with_babilong(), tempfile::tempdir().unwrap());
    let outcome = all(&babilong_options(dir.path()), &server.sources());
    assert_eq!(outcome.fetched, 5);
    let folder = dir.path().join("babilong");
    sums_are_readable(&folder, 5);
    let read = babilong::Options {
        data: folder,
        tasks: vec!["qa1".into(), "qa2".into()],
        lengths: vec!["0k".into(), "1k".into()],
        limit: usize::MAX,
        protocol: Protocol::Paper,
        max_input: None,
        question_apart: false,
    };
    let samples = with_target(|target| babilong::samples(&read, target).unwrap());
    assert_eq!(samples.len(), 8);
    let text = &samples[0].prompt.text;
    for part in [
        "Read this.\n\nAn example\n",
        "Say where.",
        "It is 0k.\nMary",
        "Where is Mary?",
    ] {
        assert!(text.contains(part), "{text} lacks {part}");
    }
}

#[test]
fn a_cut_download_goes_on_where_it_ended() {
    let (server, dir) = (with_longbench(), tempfile::tempdir().unwrap());
    server.fault(ZIP, Fault::Cut(100));
    server.fault(ZIP, Fault::Status(503));
    server.fault(ZIP, Fault::Cut(200));
    all(&options(What::Longbench, dir.path()), &server.sources());
    let from: Vec<_> = server
        .asked()
        .into_iter()
        .filter(|asked| asked.path == ZIP)
        .map(|asked| asked.from)
        .collect();
    assert_eq!(from, [None, Some(100), Some(100), Some(300)]);
    sums_are_readable(&dir.path().join("longbench"), 5);
}

#[test]
fn an_interrupted_call_is_gone_on_with() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let (server, dir) = (with_longbench(), tempfile::tempdir().unwrap());
    let (asked, sources) = (options(What::Longbench, dir.path()), server.sources());
    let part = dir.path().join("longbench/data.zip.part");
    server.fault(ZIP, Fault::Stop(&STOP, part.clone()));
    let outcome = run(&asked, &sources, &STOP).unwrap();
    assert!(
        outcome.stopped && !outcome.complete() && outcome.failed.is_empty(),
        "{outcome:?}"
    );
    // The two that came before it.
    assert_eq!(outcome.paths.len(), 2);
    let kept = part.metadata().unwrap().len() as usize;
    assert!(kept > 0);
    server.asked();
    all(&asked, &sources);
    let asked = server.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0].from, Some(kept));
    assert_eq!(leftovers(&dir.path().join("longbench")), [""; 0]);
}

#[test]
fn what_came_whole_before_a_crash_does_not_come_again() {
    let (server, dir) = (with_longbench(), tempfile::tempdir().unwrap());
    let folder = dir.path().join("longbench");
    fs::create_dir(&folder).unwrap();
    let bytes = server.bytes(ZIP);
    fs::write(folder.join("data.zip.part"), &bytes).unwrap();
    let tag = format!("\"{}-0\"", bytes.len());
    fs::write(folder.join("data.zip.part.tag"), tag).unwrap();
    all(&options(What::Longbench, dir.path()), &server.sources());
    let asked = server.asked();
    let zip: Vec<_> = asked.iter().filter(|asked| asked.path == ZIP).collect();
    assert_eq!(zip.len(), 1, "{asked:?}");
    assert_eq!(zip[0].from, Some(bytes.len()));
    assert_eq!(leftovers(&folder), [""; 0]);
}

#[test]
fn what_changed_since_the_cut_comes_whole() {
    let (server, dir) = (with_longbench(), tempfile::tempdir().unwrap());
    let (asked, sources) = (options(What::Longbench, dir.path()), server.sources());
    // As many cuts as there are tries.
    (0..6).for_each(|_| server.fault(ZIP, Fault::Cut(10)));
    let outcome = fetch(&asked, &sources);
    assert_eq!(outcome.failed.len(), 1, "{outcome:?}");
    assert!(
        outcome.failed[0].contains("goes on from what came"),
        "{outcome:?}"
    );
    server.put(ZIP, archive(&[("data/hotpotqa.jsonl", &record("new"))]));
    all(&asked, &sources);
    let text = fs::read_to_string(dir.path().join("longbench/hotpotqa.jsonl")).unwrap();
    assert_eq!(text, record("new"));
}

#[test]
fn only_what_is_missing_or_damaged_is_fetched_again() {
    let (server, dir) = (with_babilong(), tempfile::tempdir().unwrap());
    let (asked, sources) = (babilong_options(dir.path()), server.sources());
    all(&asked, &sources);
    let folder = dir.path().join("babilong");
    let whole = fs::read(folder.join("0k/qa2.jsonl")).unwrap();
    fs::write(folder.join("0k/qa2.jsonl"), &whole[1..]).unwrap();
    fs::remove_file(folder.join("1k/qa1.jsonl")).unwrap();
    server.asked();
    assert_eq!(all(&asked, &sources).fetched, 2);
    let paths: Vec<_> = server.asked().into_iter().map(|asked| asked.path).collect();
    assert!(
        paths[0].ends_with("/data/qa2/0k.json") && paths[1].ends_with("/data/qa1/1k.json"),
        "{paths:?}"
    );
    assert_eq!(paths.len(), 2);
    assert_eq!(fs::read(folder.join("0k/qa2.jsonl")).unwrap(), whole);

    let (server, dir) = (with_longbench(), tempfile::tempdir().unwrap());
    let (asked, sources) = (options(What::Longbench, dir.path()), server.sources());
    all(&asked, &sources);
    let damaged = dir.path().join("longbench/hotpotqa.jsonl");
    fs::write(&damaged, "{}").unwrap();
    all(&asked, &sources);
    assert_eq!(fs::read_to_string(&damaged).unwrap(), record("here"));
}

#[test]
fn a_file_that_cannot_be_had_fails_alone() {
    let (server, dir) = (with_babilong(), tempfile::tempdir().unwrap());
    let mut asked = babilong_options(dir.path());
    asked.lengths.push("8k".into());
    server.put("/data/qa1/0k.json", "<html>log in</html>");
    let outcome = fetch(&asked, &server.sources());
    assert!(!outcome.complete() && !outcome.stopped);
    assert_eq!(outcome.paths.len(), 4);
    let failed = outcome.failed.join("\n");
    assert_eq!(outcome.failed.len(), 3, "{failed}");
    for part in [
        "0k/qa1.jsonl: what came is no list of records",
        "8k/qa1.jsonl: ",
        "status 404; no such file there, check HF_ENDPOINT",
    ] {
        assert!(failed.contains(part), "{failed} lacks {part}");
    }
    // A status that stays as it is is not asked for again.
    let count = server
        .asked()
        .iter()
        .filter(|asked| asked.path.ends_with("qa1/8k.json"))
        .count();
    assert_eq!(count, 1);
    assert!(!dir.path().join("babilong/0k/qa1.jsonl").exists());
    assert_eq!(leftovers(&dir.path().join("babilong/0k")), [""; 0]);
}

#[test]
fn nothing_is_asked_for_offline_and_nobody_is_asked_twice() {
    let (server, dir) = (with_longbench(), tempfile::tempdir().unwrap());
    let (asked, mut sources) = (options(What::Longbench, dir.path()), server.sources());
    sources.offline = true;
    let message = run(&asked, &sources, &GO).unwrap_err().to_string();
    assert!(
        message.contains("dataset2prompt.json: is not there, and HF_HUB_OFFLINE is set"),
        "{message}"
    );
    assert!(!message.contains('\n'));
    assert_eq!(server.asked(), []);
    all(&asked, &server.sources());
    server.asked();
    all(&asked, &sources);
    assert_eq!(server.asked(), []);

    let dir = tempfile::tempdir().unwrap();
    let nobody = Sources::new("http://127.0.0.1:1", &server.address).unwrap();
    let outcome = fetch(&options(What::Longbench, dir.path()), &nobody);
    // GitHub answers, the hub does not.
    assert_eq!(
        (outcome.paths.len(), outcome.failed.len()),
        (2, 1),
        "{outcome:?}"
    );
    assert!(
        outcome.failed[0].contains("check the network"),
        "{outcome:?}"
    );
    assert!(Sources::new("127.0.0.1:1", &server.address).is_err());
}

#[test]
fn an_archive_that_leaves_its_folder_is_refused() {
    let (server, dir) = (with_longbench(), tempfile::tempdir().unwrap());
    server.put(
        ZIP,
        archive(&[("data/hotpotqa.jsonl", "{}"), ("../../evil.jsonl", "{}")]),
    );
    let outcome = fetch(&options(What::Longbench, dir.path()), &server.sources());
    assert!(
        outcome.failed[0].contains("`../../evil.jsonl`, which leaves the folder"),
        "{outcome:?}"
    );
    assert!(!dir.path().join("evil.jsonl").exists());
    assert!(!dir.path().join("longbench/hotpotqa.jsonl").exists());
    assert_eq!(leftovers(&dir.path().join("longbench")), [""; 0]);
}

#[test]
fn a_redirect_takes_no_token_along_and_its_digest_counts() {
    let (server, storage, dir) = (
        with_longbench(),
        with_longbench(),
        tempfile::tempdir().unwrap(),
    );
    let there = format!("{}{ZIP}", storage.address);
    let digest = |digest: &str| Fault::Moved(there.clone(), digest.into());
    let sources = server.sources().with_token("hf_secret").unwrap();
    let asked = options(What::Longbench, dir.path());
    server.fault(ZIP, digest(&"0".repeat(64)));
    let outcome = fetch(&asked, &sources);
    assert!(
        outcome.failed[0].contains(&format!("not {}", "0".repeat(64))),
        "{outcome:?}"
    );
    assert!(!outcome.failed[0].contains("hf_secret"));
    assert_eq!(leftovers(&dir.path().join("longbench")), [""; 0]);

    let bytes = storage.bytes(ZIP);
    server.fault(ZIP, digest(&headkv_files::sha256(&[&bytes])));
    all(&asked, &sources);
    let token = Some("Bearer hf_secret".to_string());
    let mine = server.asked();
    assert!(
        mine.iter()
            .all(|asked| asked.token == token.clone().filter(|_| asked.path == ZIP)),
        "{mine:?}"
    );
    assert!(storage.asked().iter().all(|asked| asked.token.is_none()));
}

#[test]
fn a_known_digest_is_the_only_one_that_is_taken() {
    const NAME: &str = "Meta-Llama-3-8B-Instruct_retrieval_heads.json";
    let (server, dir) = (Server::start(), tempfile::tempdir().unwrap());
    for name in ["Meta-Llama-3-8B-Instruct", "Mistral-7B-Instruct-v0.2"] {
        server.put(&format!("head_score/{name}_retrieval_heads.json"), "abc");
        server.put(
            &format!("head_score/{name}_retrieval_reasoning_heads.json"),
            "xyz",
        );
    }
    let mut sources = server.sources();
    // The standard's own example, "abc".
    sources.known = &[(
        NAME,
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    )];
    let asked = options(What::Scores, dir.path());
    // What somebody put there before is taken where it is known, and replaced where not.
    let folder = dir.path().join("head_scores");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join(NAME), "abc").unwrap();
    fs::write(
        folder.join("Mistral-7B-Instruct-v0.2_retrieval_heads.json"),
        "mine",
    )
    .unwrap();
    assert_eq!(all(&asked, &sources).fetched, 3);
    sums_are_readable(&folder, 4);
    File::create(folder.join(NAME)).unwrap();
    server.put(&format!("head_score/{NAME}"), "other");
    let outcome = fetch(&asked, &sources);
    assert_eq!(
        (outcome.paths.len(), outcome.failed.len()),
        (3, 1),
        "{outcome:?}"
    );
    assert!(
        outcome.failed[0].contains("it was changed or damaged"),
        "{outcome:?}"
    );
}
