//! What the behaviour tests share: where things lie, and how a test says that it was skipped.

mod allocator;
pub mod damage;
mod hook;
pub mod http;
mod page;
mod random_model;

/// The readers that [`damage`] tries.
mod readers {
    pub use head_scoring::session as outcome;
    pub use headkv_engine::{check, state};
}

pub use allocator::Counting;
pub use hook::{Watch, Watched};
pub use page::assert_self_contained;
pub use random_model::{
    Family, HEAD_DIM, KV_HEADS, LAYERS, random_llama, random_model, random_model_with, widen_values,
};

use headkv_engine::{Attention, Engine, LoadOptions};
use headkv_plugin::Compression;
use std::{
    io::Write,
    path::{Path, PathBuf},
};

/// The workspace's root.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The embedded model.
pub fn tiny() -> PathBuf {
    root().join("models/tiny")
}

/// models/tiny with nothing dropped, in an engine that does not stop at end tokens; `change` sets its other options.
pub fn tiny_engine(change: impl FnOnce(&mut LoadOptions)) -> Engine {
    let mut options = LoadOptions {
        ignore_end: true,
        ..LoadOptions::new(tiny())
    };
    change(&mut options);
    let full = Attention::Compressed(Compression::new("full", 16));
    Engine::load(options, full).expect("models/tiny loads")
}

/// A program of the same build, or a visible note that the test is skipped; cargo does not say where those of other packages
/// lie.
pub fn program(name: &str) -> Option<PathBuf> {
    let test = std::env::current_exe().ok()?;
    let file = test.parent()?.parent()?.join(name);
    if file.is_file() {
        return Some(file);
    }
    skipped(format_args!("{} is not built", file.display()));
    None
}

/// A folder of the original's outputs, or a visible note that the test is skipped.
pub fn goldens() -> Option<PathBuf> {
    external("HEADKV_GOLDENS", "../shared/goldens")
}

/// Public data for tests and trials, or a visible note that the test is skipped.
pub fn upstream_data(name: &str) -> Option<PathBuf> {
    let path = external("HEADKV_DATA", "../shared/upstream-data")?.join(name);
    if path.exists() {
        return Some(path);
    }
    skipped(format_args!("{} is not there", path.display()));
    None
}

/// Says why a test, or a case of it, did not run; with `HEADKV_REQUIRE_DATA=1` that is a failure.
pub fn skipped(why: impl std::fmt::Display) {
    let required = std::env::var_os("HEADKV_REQUIRE_DATA").is_some_and(|value| value == "1");
    assert!(!required, "skipped, though HEADKV_REQUIRE_DATA=1: {why}");
    // Not eprintln!, which the test harness keeps to itself when a test passes.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

fn external(variable: &str, default: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map_or_else(|| root().join(default), PathBuf::from);
    if path.exists() {
        return Some(path);
    }
    skipped(format_args!(
        "{} is not there (set {variable} to run this test)",
        path.display()
    ));
    None
}
