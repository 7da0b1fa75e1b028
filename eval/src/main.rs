//! The command line: results on stdout, messages on stderr, exit code 0 done, 1 partly failed, 2 wrong input.

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use headkv_eval::{bench, needle, report, row::Row, table};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    fs,
    io::Write,
    path::Path,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// Measures what KV compression costs in quality, and what it saves in memory and time.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Hides a fact in a long context and asks for it
    ///
    /// Example: headkv-eval needle --method full,snapkv,headkv --capacity 32 --lengths 2000,8000
    #[command(verbatim_doc_comment)]
    Needle(needle::Options),
    /// Compares upstream's attention with ours: speed, KV bytes and peak memory
    ///
    /// Example: headkv-eval bench --lengths 1000,4000
    #[command(verbatim_doc_comment)]
    Bench(bench::Options),
    /// One measurement of `bench`, in a process of its own
    #[command(hide = true)]
    BenchOne(bench::One),
}

fn main() -> ExitCode {
    let filter =
        tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "error".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let done = match Cli::parse().command {
        Command::Needle(options) => needle(&options),
        Command::Bench(options) => bench::run(&options).map(|()| true),
        Command::BenchOne(one) => bench::one(&one).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs the needle test; false if it was interrupted.
fn needle(options: &needle::Options) -> Result<bool> {
    let out = Output::new(&options.out)?;
    let test = needle::NeedleTest::new(options)?;
    let mut lines = out.rows()?;
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = interrupted.clone();
    // A second Ctrl-C ends at once.
    ctrlc::set_handler(move || {
        if flag.swap(true, Relaxed) {
            std::process::exit(130);
        }
        eprintln!("\nstopping after this answer; press Ctrl-C again to stop at once");
    })?;
    let bar = ProgressBar::new(test.len() as u64).with_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} answers, {eta} left  {msg}",
    )?);
    let mut rows: Vec<Row> = Vec::with_capacity(test.len());
    test.run(|row| {
        writeln!(lines, "{}", serde_json::to_string(&row)?)?;
        bar.set_message(format!(
            "{} at {} tokens: {:.0}",
            row.label(),
            row.length,
            row.f1 * 100.0
        ));
        bar.inc(1);
        rows.push(row);
        Ok(!interrupted.load(Relaxed))
    })?;
    bar.finish_and_clear();
    let command = std::env::args()
        .skip(1)
        .fold("headkv-eval".to_string(), |line, word| line + " " + &word);
    out.write("report.html", &report::html(&rows, &command)?)?;
    print!("{}", table::summary(&rows));
    eprintln!("report: {}", options.out.join("report.html").display());
    Ok(rows.len() == test.len())
}

/// The folder that results go to.
struct Output<'a>(&'a Path);

impl<'a> Output<'a> {
    fn new(dir: &'a Path) -> Result<Self> {
        let named = || {
            format!(
                "cannot write to {}; choose another folder with --out",
                dir.display()
            )
        };
        fs::create_dir_all(dir).with_context(named)?;
        tempfile::tempfile_in(dir).with_context(named)?;
        Ok(Self(dir))
    }

    fn rows(&self) -> Result<fs::File> {
        Ok(fs::File::create(self.0.join("rows.jsonl"))?)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(self.0)?;
        file.write_all(text.as_bytes())?;
        file.persist(self.0.join(name))?;
        Ok(())
    }
}
