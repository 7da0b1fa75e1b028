//! The plugin's modules import each other one way only, in the order that ARCHITECTURE.md gives.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

const HEADING: &str = "## How the plugin's modules import each other";

/// Top-level modules and those that they name; tests and comments left out.
fn imports(root: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let lib = code(&root.join("lib.rs"));
    // What the crate's root re-exports, by its module: `pub use shape::{A, B};`.
    let homes: BTreeMap<&str, &str> = (lib.split("pub use ").skip(1))
        .filter_map(|line| line.split(';').next()?.split_once("::"))
        .flat_map(|(home, names)| words(names).map(move |name| (name, home)))
        .collect();
    let mut found = BTreeMap::new();
    for path in files(root) {
        let inside = path.strip_prefix(root).unwrap();
        let first = Path::new(inside.components().next().unwrap().as_os_str());
        let module = first.file_stem().unwrap().to_str().unwrap();
        if module == "lib" {
            continue;
        }
        let text = code(&path);
        let named = found.entry(module.to_owned()).or_insert_with(BTreeSet::new);
        for rest in text.split("crate::").skip(1) {
            for name in roots(rest) {
                named.insert(homes.get(name).copied().unwrap_or(name).to_owned());
            }
        }
        named.remove(module);
    }
    found
}

/// The first name of each path behind `crate::`: of `a::B` that is a, of `{a::{B, C}, d}` a and d.
fn roots(text: &str) -> Vec<&str> {
    let Some(list) = text.strip_prefix('{') else {
        return words(text).take(1).collect();
    };
    let (mut depth, mut begins, mut out) = (0, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                out.extend(words(&list[begins..at]).next());
                begins = at + 1;
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    out
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
}

/// A file's text before its tests, without comments.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let lines = text.lines().map(|line| line.split("//").next().unwrap());
    lines.collect::<Vec<_>>().join("\n")
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut out = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && name != "tests" {
            out.extend(files(&path));
        } else if name.ends_with(".rs") && !["tests.rs", "reference.rs"].contains(&name) {
            out.push(path);
        }
    }
    out
}

#[test]
fn modules_import_only_what_stands_before_them() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let document = fs::read_to_string(workspace.join("ARCHITECTURE.md")).unwrap();
    let section = document.split_once(HEADING).expect("the section").1;
    let drawn = section.split("```").nth(1).expect("its block");
    let place: BTreeMap<&str, usize> = (drawn.lines().enumerate())
        .flat_map(|(line, names)| words(names).map(move |name| (name, line)))
        .collect();
    let found = imports(&workspace.join("headkv-plugin/src"));
    assert!(found["hook"].len() > 10, "{:?}", found["hook"]);
    assert!(
        found["hook"].contains("policy"),
        "a name of the crate's root"
    );
    let modules: BTreeSet<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(
        modules,
        place.keys().copied().collect(),
        "the drawn modules"
    );
    for (module, named) in &found {
        for other in named {
            let Some(line) = place.get(other.as_str()) else {
                panic!("{module} names crate::{other}, which is no module");
            };
            assert!(
                *line < place[module.as_str()],
                "{module} imports {other}, which ARCHITECTURE.md draws behind it"
            );
        }
    }
}

#[test]
fn lists_of_imports_are_read() {
    let names = |text| roots(text).join(" ");
    assert_eq!(names("shape::A;"), "shape");
    assert_eq!(names("{a::{B, C}, d, e::F};\nuse x;"), "a d e");
}
