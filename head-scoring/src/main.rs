//! The program; see [`head_scoring::cli`].

use headkv_files::{interrupt, terminal};
use std::{env, process::ExitCode, sync::atomic::AtomicBool};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    static NEVER: AtomicBool = AtomicBool::new(false);
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| "error".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // Colours would reach files, and a closed stderr is no reason to fail.
        .with_ansi(false)
        .log_internal_errors(false)
        .init();
    let stop = interrupt::flag("stopping after this example").unwrap_or_else(|error| {
        terminal::say(&format!("Ctrl-C will end the program at once: {error}"));
        &NEVER
    });
    match head_scoring::cli::run(env::args_os(), stop) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            terminal::say(&format!("error: {}", failure.message));
            ExitCode::from(failure.code)
        }
    }
}
