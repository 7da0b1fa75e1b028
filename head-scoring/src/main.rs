//! The command line of head scoring.

mod cli;

use clap::Parser;
use cli::{Cli, Command};
use head_scoring::Error;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(asked) if !asked.use_stderr() => asked.exit(),
        Err(wrong) => {
            // Its first paragraph says what is wrong; the rest repeats the usage.
            let text = wrong.to_string();
            let lines = text.lines().take_while(|line| !line.is_empty());
            eprintln!("{}", lines.map(str::trim).collect::<Vec<_>>().join(" "));
            return ExitCode::from(2);
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| "error".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    let done = match cli.command {
        Command::Score(args) => cli::score(&args),
        Command::Show(args) => cli::show(&args),
        Command::Convert(args) => cli::convert(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(
                if matches!(error.downcast_ref(), Some(Error::Stopped { .. })) {
                    1
                } else {
                    2
                },
            )
        }
    }
}
