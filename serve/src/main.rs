use std::process::ExitCode;

fn main() -> ExitCode {
    headkv_serve::cli::main()
}
