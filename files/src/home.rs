//! Where the project's own models and head scores lie.

use std::path::PathBuf;

/// The folder that holds `models/` and `head_scores/`: `$HEADKV_HOME`, else the checkout that this was built from.
pub fn home() -> PathBuf {
    let checkout = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let dir = std::env::var_os("HEADKV_HOME").map_or_else(checkout, PathBuf::from);
    dir.canonicalize().unwrap_or(dir)
}
