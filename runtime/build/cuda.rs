//! Compiles upstream's CUDA kernels from the assembled source, with the flags of its own build script.

use std::{error::Error, path::Path};

#[cfg(not(feature = "cuda"))]
pub fn build(_src: &Path) -> Result<(), Box<dyn Error>> {
    Ok(())
}

#[cfg(feature = "cuda")]
pub fn build(src: &Path) -> Result<(), Box<dyn Error>> {
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    let sources = src.join("cuda/*.cu");
    let mut builder = cudaforge::KernelBuilder::new()
        .source_glob(sources.to_str().ok_or("OUT_DIR is not UTF-8")?)
        .out_dir(&out);
    for flag in [
        "-std=c++17",
        "-O3",
        "-U__CUDA_NO_HALF_OPERATORS__",
        "-U__CUDA_NO_HALF_CONVERSIONS__",
        "-U__CUDA_NO_HALF2_OPERATORS__",
        "-U__CUDA_NO_BFLOAT16_CONVERSIONS__",
        "--expt-relaxed-constexpr",
        "--expt-extended-lambda",
        "--use_fast_math",
        "--compiler-options",
        "-fPIC",
    ] {
        builder = builder.arg(flag);
    }
    // bf16 tensor-core instructions begin with compute capability 8.0.
    if builder.get_compute_cap().is_some_and(|cap| cap < 80) {
        builder = builder.arg("-DNO_BF16_KERNEL");
    }
    if let Some(flags) = option_env!("CUDA_NVCC_FLAGS") {
        builder = builder.arg("--compiler-options").arg(flags);
    }
    let windows = std::env::var("TARGET")?.contains("msvc");
    let name = if windows {
        "mistralrscuda.lib"
    } else {
        "libmistralrscuda.a"
    };
    builder
        .build_lib(out.join(name))
        .map_err(|e| format!("cuda kernels: {e}"))?;
    println!("cargo:rustc-link-search={}", out.display());
    println!("cargo:rustc-link-lib=mistralrscuda");
    println!("cargo:rustc-link-lib=dylib=cudart");
    if !windows {
        println!("cargo:rustc-link-lib=dylib=stdc++");
    }
    Ok(())
}
