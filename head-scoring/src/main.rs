//! The program; see [`head_scoring::cli`].

use std::{
    env,
    process::{self, ExitCode},
    sync::atomic::{AtomicBool, Ordering},
};
use tracing_subscriber::EnvFilter;

/// Set by the first Ctrl-C; the second one ends the program at once.
static STOP: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| "error".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let handled = ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            process::exit(130);
        }
        eprintln!("\nstopping after this example; press Ctrl-C again to stop at once");
    });
    if let Err(error) = handled {
        eprintln!("Ctrl-C will end the program at once: {error}");
    }
    match head_scoring::cli::run(env::args_os(), &STOP) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}
