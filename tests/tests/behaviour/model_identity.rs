//! A model's identity is that of everything that its answers depend on.

use headkv_engine::ModelFiles;
use std::{fs, path::Path};

fn identity(dir: &Path) -> String {
    ModelFiles::open(dir).unwrap().identity().unwrap()
}

#[test]
fn weights_configuration_tokenizer_and_template_count() {
    let (tiny, dir) = (headkv_tests::tiny(), tempfile::tempdir().unwrap());
    for entry in fs::read_dir(&tiny).unwrap().flatten() {
        fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    let same = identity(dir.path());
    assert_eq!(same, identity(&tiny));
    // A space more changes no meaning, but only the bytes tell for sure.
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        let path = dir.path().join(name);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.clone() + " ").unwrap();
        assert_ne!(identity(dir.path()), same, "{name}");
        fs::write(&path, text).unwrap();
    }
    assert_eq!(identity(dir.path()), same);
    fs::write(dir.path().join("chat_template.jinja"), "{{ messages }}").unwrap();
    let with_template = identity(dir.path());
    assert_ne!(with_template, same);
    let weights = ModelFiles::open(dir.path()).unwrap().digest().unwrap();
    assert_eq!(weights, ModelFiles::open(&tiny).unwrap().digest().unwrap());
    assert_ne!(weights, same);
}
