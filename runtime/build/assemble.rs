//! Copies the pristine source, drops the one attribute that `include!` refuses, and applies the patches.

use crate::source::files;
use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

/// Upstream's only inner attribute of the crate: `include!` accepts none.
const REFUSED: &str = "#![deny(clippy::cast_possible_truncation, clippy::cast_precision_loss)]\n";

/// The modules that are ours.
pub const MODULES: [&str; 17] = [
    "attention_hook.rs",
    "attention_hook/cache.rs",
    "attention_hook/failure.rs",
    "attention_hook/load.rs",
    "attention_hook/mxfp4.rs",
    "attention_hook/pass.rs",
    "attention_hook/rotary.rs",
    "attention_hook/schedule.rs",
    "attention_hook/sequence.rs",
    "attention_hook/shutdown.rs",
    "cuda/batch_sampling.cu",
    "hooked_linear.rs",
    "linear_hook.rs",
    "sampler/batch.rs",
    "sampler/batch/certain.rs",
    "sampler/batch/device.rs",
    "sampler/batch/host.rs",
];

/// Writes the source to compile into `out`; with `hook`, the patches and modules of `here` are in it.
pub fn assemble(
    pristine: &Path,
    here: &Path,
    out: &Path,
    hook: bool,
) -> Result<(), Box<dyn Error>> {
    let mut tree = BTreeMap::new();
    for file in files(pristine)? {
        tree.insert(file.clone(), fs::read(pristine.join(file))?);
    }
    let lib = tree.get_mut(Path::new("lib.rs")).ok_or("no lib.rs")?;
    let text = String::from_utf8(std::mem::take(lib))?;
    let body = text
        .strip_prefix(REFUSED)
        .ok_or("lib.rs does not begin with its known attribute")?;
    *lib = body.as_bytes().to_vec();

    if hook {
        for patch in patches(here)? {
            apply(&patch, &mut tree).map_err(|e| format!("{}: {e}", patch.display()))?;
        }
        for module in MODULES {
            tree.insert(module.into(), fs::read(here.join("src").join(module))?);
        }
    }
    write_changed(&tree, out)
}

fn patches(here: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut found: Vec<_> = fs::read_dir(here.join("patches"))?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    found.retain(|path| path.extension().is_some_and(|e| e == "patch"));
    found.sort();
    Ok(found)
}

/// Applies one file of unified diffs; text before the first `--- ` line is its message.
fn apply(patch: &Path, tree: &mut BTreeMap<PathBuf, Vec<u8>>) -> Result<(), Box<dyn Error>> {
    let text = fs::read_to_string(patch)?;
    let starts: Vec<usize> = text
        .match_indices("--- a/")
        .map(|(at, _)| at)
        .filter(|&at| at == 0 || text.as_bytes()[at - 1] == b'\n')
        .collect();
    for (i, &start) in starts.iter().enumerate() {
        let diff = &text[start..starts.get(i + 1).copied().unwrap_or(text.len())];
        let name = diff["--- a/".len()..].lines().next().unwrap_or_default();
        let target = tree
            .get_mut(Path::new(name))
            .ok_or_else(|| format!("no file {name}"))?;
        let base = String::from_utf8(std::mem::take(target))?;
        let patched = diffy::apply(&base, &diffy::Patch::from_str(diff)?)
            .map_err(|e| format!("{name}: {e}"))?;
        *target = patched.into_bytes();
    }
    Ok(())
}

/// Touches only files whose content changed, so that rebuilds stay incremental.
fn write_changed(tree: &BTreeMap<PathBuf, Vec<u8>>, out: &Path) -> Result<(), Box<dyn Error>> {
    for (name, bytes) in tree {
        let path = out.join(name);
        if fs::read(&path).is_ok_and(|old| old == *bytes) {
            continue;
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, bytes)?;
    }
    if out.is_dir() {
        for stale in files(out)? {
            if !tree.contains_key(&stale) {
                fs::remove_file(out.join(stale))?;
            }
        }
    }
    Ok(())
}
