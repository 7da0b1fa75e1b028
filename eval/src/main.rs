//! The binary `headkv-eval`; everything is in the library.

fn main() -> std::process::ExitCode {
    headkv_eval::cli::main()
}
