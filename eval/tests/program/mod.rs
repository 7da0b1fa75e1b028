//! The program under test.

use std::process::{Command, Output};

/// Runs the program with these arguments to its end.
pub fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_headkv-eval"))
        .args(args)
        .env("HEADKV_HOME", concat!(env!("CARGO_TARGET_TMPDIR"), "/home"))
        .output()
        .unwrap()
}
