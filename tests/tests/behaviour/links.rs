//! Every relative link of the documents leads to a file that is there, and every anchor to a heading.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

/// The Markdown files of the checkout; folders that builds, runs and other projects make are left out.
fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
    const NOT_OURS: [&str; 6] = [
        "target",
        "headkv-out",
        "data",
        "shared",
        "smollm2",
        "node_modules",
    ];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && !NOT_OURS.contains(&name.as_str()) {
            documents(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "md") {
            found.push(path);
        }
    }
}

/// A document's lines without its blocks of code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

/// Where the links of a line lead.
fn targets(line: &str) -> Vec<String> {
    // A link's own text may be code: only its end counts.
    let ends = line.split("](").skip(1);
    let inside = ends.filter_map(|rest| rest.split(')').next());
    inside
        .map(|target| target.split(' ').next().unwrap_or("").to_string())
        .collect()
}

/// A heading's anchor, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(text: &str) -> Vec<String> {
    let mut seen = HashMap::new();
    let headings = prose(text).filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let name = anchor(line);
            let count: &mut usize = seen.entry(name.clone()).or_default();
            *count += 1;
            if *count > 1 {
                format!("{name}-{}", *count - 1)
            } else {
                name
            }
        })
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut files = Vec::new();
    documents(headkv_tests::root(), &mut files);
    assert!(files.len() > 10, "{files:?}");
    let (mut wrong, mut links) = (Vec::new(), 0);
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        for target in prose(&text).flat_map(targets) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            links += 1;
            let (path, heading) = target.split_once('#').unwrap_or((&target, ""));
            let to = match path {
                "" => file.clone(),
                path => file.parent().unwrap().join(path),
            };
            let lost = if !to.exists() {
                true
            } else if heading.is_empty() || to.extension().is_none_or(|kind| kind != "md") {
                false
            } else {
                !anchors(&fs::read_to_string(&to).unwrap()).contains(&heading.to_string())
            };
            if lost {
                wrong.push(format!("{}: {target}", file.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{links} links, of which these lead nowhere:\n{}",
        wrong.join("\n")
    );
    assert!(links > 50, "{links} links");
}

#[test]
fn every_document_that_is_meant_to_be_found_is_linked() {
    let root = headkv_tests::root();
    let mut pages = vec![fs::read_to_string(root.join("README.md")).unwrap()];
    pages.push(fs::read_to_string(root.join("docs/where.md")).unwrap());
    for entry in fs::read_dir(root.join("docs")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        let linked = pages.iter().any(|page| page.contains(&name));
        assert!(
            linked || !name.ends_with(".md"),
            "docs/{name} is two clicks from nowhere"
        );
    }
}

#[test]
fn the_readmes_program_is_the_one_that_is_compiled() {
    let root = headkv_tests::root();
    let example = fs::read_to_string(root.join("tests/examples/embed.rs")).unwrap();
    let lines = example.split("    // README\n").nth(1).unwrap();
    let shown: Vec<&str> = lines
        .lines()
        .map(|line| line.strip_prefix("    ").unwrap_or(line))
        .collect();
    let shown = format!("```rust\n{}\n```\n", shown.join("\n"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    assert!(
        readme.contains(&shown),
        "the README does not show this:\n{shown}"
    );
}

#[test]
fn headings_and_links_are_read_as_github_reads_them() {
    assert_eq!(
        anchor("## Protocol: what differs from the original"),
        "protocol-what-differs-from-the-original"
    );
    assert_eq!(
        anchor("### A `Backend`: attention, ranking"),
        "a-backend-attention-ranking"
    );
    assert_eq!(anchors("# A\n```\n# no\n```\n# A\n"), ["a", "a-1"]);
    assert_eq!(targets("[`a`](b.md#c) and [d](<e>)"), ["b.md#c", "<e>"]);
}
