//! A zip archive's JSON Lines files, whatever folder they lie in there.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    path::Path,
};
use zip::ZipArchive;

/// What the names of files end in that are unpacked.
pub(super) const ENDING: &str = ".jsonl";

/// The most bytes that come out of an archive.
const MOST: u64 = 16 << 30;

/// A file in an archive.
#[derive(Debug, PartialEq)]
pub(super) struct Entry {
    at: usize,
    /// Its name without folders.
    pub name: String,
}

/// The files of an archive that are unpacked.
///
/// # Errors
/// What is wrong with it: no archive, none such in it, two of a name, names that lead out of the folder, or too much.
pub(super) fn entries(archive: &Path) -> Result<Vec<Entry>, String> {
    let mut zip = open(archive).map_err(|e| {
        format!("what came is no zip archive ({e}); nothing is kept of it, the same command fetches it anew")
    })?;
    let (mut found, mut names, mut bytes) = (Vec::new(), HashSet::new(), 0u64);
    for at in 0..zip.len() {
        let file = zip.by_index_raw(at).map_err(|e| e.to_string())?;
        let named = file.name().to_string();
        let Some(path) = file.enclosed_name() else {
            return Err(format!(
                "the archive holds `{named}`, which leaves the folder; nothing is unpacked"
            ));
        };
        if file.is_symlink() {
            return Err(format!(
                "the archive holds a link, `{named}`; nothing is unpacked"
            ));
        }
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        // What begins with a dot is what an operating system noted of the file.
        if file.is_dir() || !name.ends_with(ENDING) || name.starts_with('.') {
            continue;
        }
        bytes = bytes.saturating_add(file.size());
        if bytes > MOST {
            return Err(format!(
                "the archive holds more than {MOST} bytes; nothing is unpacked"
            ));
        }
        if !names.insert(name.to_string()) {
            return Err(format!(
                "the archive holds two files `{name}`; nothing is unpacked"
            ));
        }
        found.push(Entry {
            at,
            name: name.into(),
        });
    }
    if found.is_empty() {
        return Err(format!(
            "the archive holds no {ENDING} files; nothing is unpacked"
        ));
    }
    Ok(found)
}

/// Unpacks one of them to a file, and checks what the archive says of it.
///
/// # Errors
/// Whatever reading and writing say.
pub(super) fn one(archive: &Path, entry: &Entry, to: &Path) -> io::Result<()> {
    let mut zip = open(archive)?;
    let file = zip.by_index(entry.at)?;
    let size = file.size();
    let mut to = BufWriter::new(File::create(to)?);
    let came = io::copy(&mut file.take(size + 1), &mut to)?;
    if came != size {
        return Err(io::Error::other(format!(
            "its archive says {size} bytes for it, and holds others"
        )));
    }
    to.flush()
}

fn open(archive: &Path) -> io::Result<ZipArchive<BufReader<File>>> {
    Ok(ZipArchive::new(BufReader::new(File::open(archive)?))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::PathBuf};
    use zip::{ZipWriter, write::SimpleFileOptions};

    fn archive(dir: &Path, files: &[(&str, &str)]) -> PathBuf {
        let path = dir.join("a.zip");
        let mut zip = ZipWriter::new(File::create(&path).unwrap());
        for (name, text) in files {
            zip.start_file(*name, SimpleFileOptions::default()).unwrap();
            zip.write_all(text.as_bytes()).unwrap();
        }
        zip.finish().unwrap();
        path
    }

    #[test]
    fn only_lines_come_out_without_their_folders() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            ("data/", ""),
            ("data/a.jsonl", "{}\n"),
            ("data/README.md", "x"),
            ("__MACOSX/data/._a.jsonl", "x"),
            ("data/deep/b.jsonl", "[]\n"),
        ];
        let path = archive(dir.path(), &files);
        let entries = entries(&path).unwrap();
        let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["a.jsonl", "b.jsonl"]);
        let out = dir.path().join("out");
        one(&path, &entries[1], &out).unwrap();
        assert_eq!(fs::read_to_string(&out).unwrap(), "[]\n");
    }

    #[test]
    fn what_would_do_harm_is_refused_whole() {
        let dir = tempfile::tempdir().unwrap();
        for (files, why) in [
            (
                &[("a.jsonl", "{}"), ("../b.jsonl", "{}")][..],
                "leaves the folder",
            ),
            (&[("/tmp/../../b.jsonl", "{}")], "leaves the folder"),
            (&[("a/x.jsonl", "{}"), ("b/x.jsonl", "{}")], "two files"),
            (&[("a.txt", "x")], "no .jsonl"),
        ] {
            let message = entries(&archive(dir.path(), files)).unwrap_err();
            assert!(message.contains(why), "{files:?}: {message}");
        }
        let path = dir.path().join("a.zip");
        let mut zip = ZipWriter::new(File::create(&path).unwrap());
        let options = SimpleFileOptions::default();
        zip.add_symlink("a.jsonl", "/etc/passwd", options).unwrap();
        zip.finish().unwrap();
        assert!(entries(&path).unwrap_err().contains("a link"));
        fs::write(&path, "<html>").unwrap();
        assert!(entries(&path).unwrap_err().contains("no zip archive"));
    }

    #[test]
    fn a_damaged_file_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let text = "{\"a\": \"some text that is packed\"}\n".repeat(50);
        let path = archive(dir.path(), &[("a.jsonl", &text)]);
        let entries = entries(&path).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[45] ^= 0x55;
        fs::write(&path, bytes).unwrap();
        assert!(one(&path, &entries[0], &dir.path().join("out")).is_err());
    }
}
