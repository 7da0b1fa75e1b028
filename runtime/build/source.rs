//! Finds the published source of mistralrs-core and proves that it is the one the patches were made for.

use sha2::{Digest, Sha256};
use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Names a folder that holds the unpacked crate, for builds without a registry.
pub const ENV: &str = "MISTRALRS_CORE_SRC";
const CRATE: &str = "mistralrs-core-0.8.1";
/// SHA-256 over the sorted files of `src/`, as [`digest`] computes it.
const DIGEST: &str = "24cefa2597362cef32dbd2ba93134250ba9b958d422ab85d9b45789650bf460b";

/// The `src` folder of the pristine crate: `$MISTRALRS_CORE_SRC`, else cargo's registry, else downloaded into it.
pub fn locate() -> Result<PathBuf, Box<dyn Error>> {
    if let Some(dir) = env::var_os(ENV) {
        let dir = PathBuf::from(dir);
        return verified(&dir).map_err(|why| format!("{ENV}={}: {why}", dir.display()).into());
    }
    if let Some(dir) = in_registry() {
        return verified(&dir).map_err(|why| {
            format!(
                "{}: {why}; delete that folder, cargo unpacks it anew",
                dir.display()
            )
            .into()
        });
    }
    let fetched = download();
    match (in_registry(), fetched) {
        (Some(dir), _) => Ok(verified(&dir)?),
        (None, why) => Err(format!(
            "the source of {CRATE} was not found ({}). Looked at: the variable {ENV}; \
             {}/registry/src/*/{CRATE}; `cargo info mistralrs-core@0.8.1 --registry crates-io`. \
             Without a registry, unpack the published crate and set {ENV} to its folder",
            why.err().unwrap_or_else(|| "cargo fetched nothing".into()),
            cargo_home().display()
        )
        .into()),
    }
}

fn cargo_home() -> PathBuf {
    let default = || env::home_dir().unwrap_or_default().join(".cargo");
    env::var_os("CARGO_HOME").map_or_else(default, PathBuf::from)
}

fn in_registry() -> Option<PathBuf> {
    let registries = fs::read_dir(cargo_home().join("registry/src")).ok()?;
    registries
        .flatten()
        .map(|registry| registry.path().join(CRATE))
        .find(|dir| dir.join("src/lib.rs").is_file())
}

/// `[patch]` removes the original from the dependency graph, so cargo has to be asked for it by name.
fn download() -> Result<(), String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["info", "mistralrs-core@0.8.1", "--registry", "crates-io"])
        // Inside the workspace cargo would describe the patched package instead of the published one.
        .current_dir(env::temp_dir())
        .output()
        .map_err(|e| e.to_string())?;
    if output.status.success() {
        Ok(())
    } else {
        let stderr = String::from_utf8_lossy(&output.stderr);
        Err(stderr.lines().last().unwrap_or("cargo failed").to_string())
    }
}

pub fn verified(dir: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let src = dir.join("src");
    if !src.join("lib.rs").is_file() {
        return Err(format!("holds no src/lib.rs; it must be the unpacked crate {CRATE}").into());
    }
    let found = digest(&src)?;
    if found != DIGEST {
        return Err(format!(
            "is not the published {CRATE}: digest of src is {found}, expected {DIGEST}"
        )
        .into());
    }
    Ok(src)
}

/// All files under `dir`, relative and sorted.
pub fn files(dir: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    fn walk(dir: &Path, root: &Path, found: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() {
                walk(&path, root, found)?;
            } else {
                found.push(path.strip_prefix(root)?.to_path_buf());
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    walk(dir, dir, &mut found)?;
    found.sort();
    Ok(found)
}

fn digest(src: &Path) -> Result<String, Box<dyn Error>> {
    let mut hash = Sha256::new();
    for file in files(src)? {
        let name = file.to_string_lossy().replace('\\', "/");
        let bytes = fs::read(src.join(&file))?;
        hash.update(format!("{name}\0{}\0", bytes.len()));
        hash.update(&bytes);
    }
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}
