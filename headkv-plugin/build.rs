//! Compiles the CUDA kernels into a static library if the feature `cuda` is on; otherwise there is nothing to do.
//!
//! `CUDA_COMPUTE_CAP` (default 90) is the oldest GPU to run on; newer ones compile the embedded PTX on first use.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Child, Command},
};

/// Kernels, each compiled by itself; `plan.cpp` is plain C++.
const SOURCES: [&str; 10] = [
    "decode.cu",
    "window.cu",
    "drop.cu",
    "compete.cu",
    "select.cu",
    "prompt.cu",
    "product.cu",
    "product_tiles.cu",
    HOPPER,
    "plan.cpp",
];
/// Uses instructions that compute capability 9.0 alone has, and is called on such a GPU only.
const HOPPER: &str = "prompt_hopper.cu";
const HEADERS: [&str; 9] = [
    "headkv.h",
    "element.cuh",
    "early.cuh",
    "tile.cuh",
    "window.cuh",
    "order.cuh",
    "prompt.cuh",
    "hopper.cuh",
    "product.cuh",
];
/// Variables that name the toolkit's folder.
const TOOLKIT: [&str; 4] = [
    "CUDA_HOME",
    "CUDA_PATH",
    "CUDA_ROOT",
    "CUDA_TOOLKIT_ROOT_DIR",
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_CUDA").is_some()
        && let Err(why) = build()
    {
        println!("cargo::error={why}");
    }
}

fn build() -> Result<(), String> {
    for variable in TOOLKIT.iter().chain(&["CUDA_COMPUTE_CAP"]) {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    for file in SOURCES.iter().chain(&HEADERS) {
        println!("cargo::rerun-if-changed=kernels/{file}");
    }
    let capability = env::var("CUDA_COMPUTE_CAP")
        .unwrap_or_else(|_| "90".into())
        .replace('.', "");
    if capability.parse::<u32>().is_ok_and(|c| c < 80) {
        return Err(format!(
            "CUDA_COMPUTE_CAP is {capability}; the kernels need 80 (Ampere) or later"
        ));
    }
    let toolkit = toolkit()?;
    let nvcc = toolkit.join("bin/nvcc");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set; build with cargo")?);
    let target =
        format!("-gencode=arch=compute_{capability},code=[sm_{capability},compute_{capability}]");

    let objects: Vec<PathBuf> = SOURCES
        .iter()
        .map(|file| out.join(file).with_extension("o"))
        .collect();
    let mut compilers = Vec::new();
    for (file, object) in SOURCES.iter().zip(&objects) {
        let mut command = Command::new(&nvcc);
        command
            .args(["-std=c++17", "-O3", "-Xcompiler", "-fPIC", "-c"])
            .arg(if *file == HOPPER {
                "-gencode=arch=compute_90a,code=sm_90a"
            } else {
                &target
            });
        compilers.push(start(
            command
                .arg(Path::new("kernels").join(file))
                .arg("-o")
                .arg(object),
        )?);
    }
    for (mut compiler, file) in compilers.into_iter().zip(SOURCES) {
        finish(
            &mut compiler,
            &format!("nvcc did not compile kernels/{file}"),
        )?;
    }
    let library = out.join("libheadkv_kernels.a");
    let mut archive = start(
        Command::new(&nvcc)
            .arg("--lib")
            .args(&objects)
            .arg("-o")
            .arg(&library),
    )?;
    finish(&mut archive, "nvcc did not archive the kernels")?;

    println!("cargo::rustc-link-search=native={}", out.display());
    println!("cargo::rustc-link-lib=static=headkv_kernels");
    for folder in ["lib64", "lib"] {
        println!(
            "cargo::rustc-link-search=native={}",
            toolkit.join(folder).display()
        );
    }
    println!("cargo::rustc-link-lib=dylib=cudart");
    println!("cargo::rustc-link-lib=dylib=stdc++");
    Ok(())
}

/// The toolkit's folder: the first that has a compiler.
fn toolkit() -> Result<PathBuf, String> {
    let named = TOOLKIT.iter().filter_map(env::var_os).map(PathBuf::from);
    let on_path = env::var_os("PATH").into_iter().flat_map(|path| {
        env::split_paths(&path)
            .filter_map(|bin| Some(bin.parent()?.to_path_buf()))
            .collect::<Vec<_>>()
    });
    let usual = PathBuf::from("/usr/local/cuda");
    named.chain(on_path).chain([usual]).find(|folder| folder.join("bin/nvcc").is_file()).ok_or_else(|| {
        "feature `cuda` needs the CUDA toolkit, and no bin/nvcc was found; install it, set CUDA_HOME to its folder, or \
         build without the feature"
            .into()
    })
}

fn start(command: &mut Command) -> Result<Child, String> {
    command
        .spawn()
        .map_err(|e| format!("cannot run {}: {e}", command.get_program().display()))
}

fn finish(child: &mut Child, failure: &str) -> Result<(), String> {
    let status = child.wait().map_err(|e| format!("{failure}: {e}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{failure}: {status}; see its messages above"))
    }
}
