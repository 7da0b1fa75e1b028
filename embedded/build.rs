//! Lists the files that go into the programs, with their digests.

use sha2::{Digest, Sha256};
use std::{env, error::Error, fmt::Write, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let here = env::var("CARGO_MANIFEST_DIR")?;
    let root = Path::new(&here).join("..").canonicalize()?;
    let mut all = Sha256::new();
    let mut code = String::new();
    for (list, folder) in [("MODEL", "models/tiny"), ("SCORES", "head_scores")] {
        println!("cargo:rerun-if-changed=../{folder}");
        let entries = fs::read_dir(root.join(folder))?.collect::<Result<Vec<_>, _>>()?;
        let mut files: Vec<_> = entries.iter().map(|entry| entry.path()).collect();
        files.retain(|file| {
            let kind = file.extension().and_then(|kind| kind.to_str());
            matches!(kind, Some("json" | "safetensors"))
        });
        files.sort();
        writeln!(code, "/// The files of {folder}/.")?;
        writeln!(code, "pub const {list}: &[File] = &[")?;
        for file in files {
            println!("cargo:rerun-if-changed={}", file.display());
            let name = file.file_name().and_then(|name| name.to_str());
            let name = name.ok_or_else(|| format!("{} is not UTF-8", file.display()))?;
            let digest = hexadecimal(Sha256::digest(fs::read(&file)?).as_slice());
            all.update(format!("{folder}/{name} {digest}\n"));
            writeln!(
                code,
                "    File {{ name: {name:?}, digest: {digest:?}, bytes: include_bytes!({file:?}) }},"
            )?;
        }
        writeln!(code, "];")?;
    }
    let all = hexadecimal(all.finalize().as_slice());
    writeln!(code, "/// The digest of all of them, shortened.")?;
    writeln!(code, "pub const VERSION: &str = {:?};", &all[..12])?;
    Ok(fs::write(
        Path::new(&env::var("OUT_DIR")?).join("files.rs"),
        code,
    )?)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
