//! Every dependency has a licence that deny.toml allows, and comes from a registry. `cargo deny` says more where it is installed:
//! which registry, and what is known against a version.

use std::{collections::HashSet, fs, process::Command};

use serde::Deserialize;
use spdx::{Expression, ParseMode};

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    license: Option<String>,
    source: Option<String>,
}

#[derive(Deserialize)]
struct Deny {
    licenses: Licenses,
}

#[derive(Deserialize)]
struct Licenses {
    allow: HashSet<String>,
}

/// The packages of one platform's build, all of which are there, since the tests were built of them.
fn packages() -> Vec<Package> {
    let ran = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--offline", "--format-version", "1"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(headkv_tests::root())
        .output()
        .unwrap();
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    let metadata: Metadata = serde_json::from_slice(&ran.stdout).unwrap();
    metadata.packages
}

/// Why a package may not be used, if so.
fn fault(package: &Package, allow: &HashSet<String>) -> Option<String> {
    let name = &package.name;
    let licence = package.license.as_deref().unwrap_or_default();
    let of_registry = |s: &String| s.starts_with("registry+");
    if !package.source.as_ref().is_none_or(of_registry) {
        return Some(format!("{name} comes from {:?}", package.source));
    }
    match Expression::parse_mode(licence, ParseMode::LAX) {
        Ok(terms) if terms.evaluate(|one| allow.contains(&one.to_string())) => None,
        Ok(_) => Some(format!("{name} is under {licence}")),
        Err(_) => Some(format!("{name} says {licence:?}, which is no licence")),
    }
}

#[test]
fn dependencies_may_be_used() {
    let deny = fs::read_to_string(headkv_tests::root().join("deny.toml")).unwrap();
    let allow = toml::from_str::<Deny>(&deny).unwrap().licenses.allow;
    let packages = packages();
    assert!(packages.len() > 300, "{} packages", packages.len());
    let faults: Vec<_> = packages.iter().filter_map(|p| fault(p, &allow)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn others_may_not() {
    let allow = HashSet::from(["MIT".to_owned()]);
    let package = |license: &str, source: &str| Package {
        name: "a".into(),
        license: Some(license.into()),
        source: Some(source.into()),
    };
    let registry = "registry+https://example.org/index";
    assert_eq!(fault(&package("MIT/GPL-3.0", registry), &allow), None);
    assert!(fault(&package("GPL-3.0-only", registry), &allow).is_some());
    assert!(fault(&package("MIT AND GPL-3.0-only", registry), &allow).is_some());
    assert!(fault(&package("", registry), &allow).is_some());
    assert!(fault(&package("MIT", "git+https://example.org/a"), &allow).is_some());
}
