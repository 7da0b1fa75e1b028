//! Assembles mistralrs-core 0.8.1 in `OUT_DIR`: pristine source, then `patches/`, then our hook module.

mod assemble;
mod cuda;
mod source;

use std::{env, error::Error, path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    for watched in ["build", "patches", "src"] {
        println!("cargo:rerun-if-changed={watched}");
    }
    println!("cargo:rerun-if-env-changed={}", source::ENV);
    // Upstream's build script asks git; the assembled source is a release and has one answer.
    println!("cargo:rustc-env=MISTRALRS_GIT_REVISION=0.8.1");

    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?).join("src");
    let pristine = source::locate()?;
    assemble::assemble(&pristine, &here, &out, cfg!(feature = "headkv"))?;
    cuda::build(&out)?;
    Ok(())
}
