//! A model's name, after which its score files are named.

use std::{ffi::OsStr, path::Path};

/// The name of a model in lower case: that of its folder, of its `.gguf` file without the ending, or of its repository if
/// the folder lies in a Hugging Face hub cache, whose folders are named after commits. `.` and links have the name of
/// what they lead to.
pub fn model_name(model: &Path) -> String {
    let real = model.canonicalize();
    // In a hub cache, a file's name leads to a nameless one.
    let path = match &real {
        Ok(real) if real.is_dir() || is_gguf(real) => real,
        _ => model,
    };
    let name = repository(path).unwrap_or_else(|| {
        let last = path.file_name().unwrap_or(path.as_os_str());
        last.to_string_lossy().into_owned()
    });
    let name = name.to_lowercase();
    name.strip_suffix(".gguf").unwrap_or(&name).to_string()
}

/// `name` for a folder below `models--org--name/snapshots/`; a file there has a name of its own.
fn repository(path: &Path) -> Option<String> {
    if is_gguf(path) {
        return None;
    }
    let parts: Vec<_> = path.iter().map(OsStr::to_string_lossy).collect();
    let repository = parts
        .windows(3)
        .find(|parts| parts[0].starts_with("models--") && parts[1] == "snapshots")?;
    repository[0].rsplit("--").next().map(String::from)
}

fn is_gguf(path: &Path) -> bool {
    path.extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("gguf"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn folders_and_files_have_their_own_names() {
        let name = |path: &str| model_name(Path::new(path));
        assert_eq!(name("models/Tiny/"), "tiny");
        assert_eq!(name("a/SmolLM2-Q4_1.gguf"), "smollm2-q4_1");
        assert_eq!(name("a/B.GGUF"), "b");
        let here = std::env::current_dir().unwrap();
        assert_eq!(name("."), model_name(&here));
        assert_ne!(name("."), ".");
    }

    #[cfg(unix)]
    #[test]
    fn a_hub_cache_has_the_names_of_its_repositories() {
        let dir = tempfile::tempdir().unwrap();
        let repository = dir.path().join("hub/models--Org--A.Name-3B");
        let snapshot = repository.join("snapshots/0123abc");
        fs::create_dir_all(&snapshot).unwrap();
        fs::create_dir_all(repository.join("blobs")).unwrap();
        let blob = repository.join("blobs/f00d");
        fs::write(&blob, "").unwrap();
        let file = snapshot.join("A.Name-3B-Q4.gguf");
        std::os::unix::fs::symlink(&blob, &file).unwrap();
        assert_eq!(model_name(&snapshot), "a.name-3b");
        assert_eq!(model_name(&snapshot.join("")), "a.name-3b");
        assert_eq!(model_name(&file), "a.name-3b-q4");
        let link = dir.path().join("mine");
        std::os::unix::fs::symlink(&snapshot, &link).unwrap();
        assert_eq!(model_name(&link), "a.name-3b");
    }
}
