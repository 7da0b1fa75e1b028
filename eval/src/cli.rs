//! The command line: results on stdout, messages on stderr, exit code 0 done, 1 partly failed, 2 wrong input.
//!
//! It is part of the library so that a program of one's own, which registers its own methods first, has all of it.

use crate::{
    bench,
    engine::list,
    fetch,
    grid::{Babilong, Grid, LongBench, Methods, Needle, Ruler, Turns},
    report,
    session::{self, Session},
    store::Results,
};
use anyhow::{Error, Result};
use clap::{CommandFactory, Parser, Subcommand};
use headkv_files::{interrupt, shell, terminal};
use std::{
    ffi::OsString,
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
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
    Needle(One<Needle>),
    /// Runs LongBench and LooGLE from the official files
    ///
    /// Example: headkv-eval longbench --data longbench --datasets hotpotqa,qasper --limit 20
    #[command(verbatim_doc_comment)]
    Longbench(One<LongBench>),
    /// Runs babilong from the official files
    ///
    /// Example: headkv-eval babilong --data babilong --tasks qa1,qa2 --lengths 0k,1k --limit 20
    #[command(verbatim_doc_comment)]
    Babilong(One<Babilong>),
    /// Runs needles with several keys, several values, and variables, as in RULER
    ///
    /// Example: headkv-eval ruler --tasks multi-key --lengths 4000 --samples 20
    #[command(verbatim_doc_comment)]
    Ruler(One<Ruler>),
    /// Asks several questions over one text, reading it each time or once
    ///
    /// Example: headkv-eval turns --method full,headkv --lengths 4000 --reuse fresh,exact
    #[command(verbatim_doc_comment)]
    Turns(One<Turns>),
    /// Runs a grid of models, benchmarks and methods from a TOML file
    ///
    /// Example: headkv-eval run grid.toml --out results
    #[command(verbatim_doc_comment)]
    Run(RunFile),
    /// Writes report.html, report.md and report.csv for a folder of results
    ///
    /// Example: headkv-eval report results
    #[command(verbatim_doc_comment)]
    Report {
        /// The --out folder of a run
        dir: PathBuf,
        /// The folder to write to [default: DIR]
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
        /// Benchmarks whose prompts and answers are left out, where their data may not be passed on
        #[arg(long, value_delimiter = ',', value_name = "NAME")]
        withhold: Vec<String>,
        #[command(flatten)]
        options: report::Options,
    },
    /// Joins the folders of several runs, such as the shards of one
    ///
    /// Example: headkv-eval merge shard1 shard2 --out results
    #[command(verbatim_doc_comment)]
    Merge {
        /// The --out folders
        #[arg(required = true)]
        dirs: Vec<PathBuf>,
        /// The folder to write
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Fetches official data into data/: longbench, babilong, or the original's head scores
    ///
    /// What is whole by its digest (SHA256SUMS beside it) stays, what is damaged or of unknown origin is replaced, what
    /// was cut goes on. HF_ENDPOINT names another hub, HF_TOKEN is sent to it, HF_HUB_OFFLINE=1 asks nobody;
    /// HEADKV_GITHUB_RAW names another place for GitHub's raw files. babilong's prompts are published as Python source,
    /// which is read as data into prompts.json. Head scores serve as they are:
    /// --scores data/head_scores/Meta-Llama-3-8B-Instruct_retrieval_heads.json
    ///
    /// Example: headkv-eval fetch babilong --tasks qa1,qa2 --lengths 0k,1k
    #[command(verbatim_doc_comment)]
    Fetch(fetch::Options),
    /// Compares upstream's attention with ours: speed, KV bytes and peak memory
    ///
    /// Example: headkv-eval bench --lengths 1000,4000
    #[command(verbatim_doc_comment)]
    Bench(bench::Options),
    /// Lists the methods and rankings: names, what they need, and one line on each
    ///
    /// Example: headkv-eval methods --json
    #[command(verbatim_doc_comment)]
    Methods {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Prints the completions of a shell
    ///
    /// Example: headkv-eval completions bash > ~/.local/share/bash-completion/completions/headkv-eval
    #[command(verbatim_doc_comment)]
    Completions {
        /// The shell
        shell: headkv_cli::Shell,
    },
    /// Writes man pages, one for each command
    ///
    /// Example: headkv-eval man ~/.local/share/man/man1
    #[command(verbatim_doc_comment)]
    Man {
        /// The folder
        dir: PathBuf,
    },
    /// One measurement of `bench`, in a process of its own
    #[command(hide = true)]
    BenchOne(bench::One),
}

/// One benchmark.
#[derive(clap::Args)]
struct One<B: clap::Args> {
    /// Model folders or .gguf files [default: the embedded model, tiny]
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "DIR|FILE",
        help_heading = "Model"
    )]
    model: Vec<PathBuf>,
    #[command(flatten)]
    methods: Methods,
    #[command(flatten)]
    benchmark: B,
    #[command(flatten)]
    session: session::Options,
    /// Folder for rows.jsonl and the reports; a rerun goes on where the last one ended [default: headkv-out/BENCHMARK]
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    out: Option<PathBuf>,
}

impl<B: clap::Args> One<B> {
    fn run(self, name: &str, set: impl FnOnce(&mut Grid, B)) -> Result<bool> {
        let mut grid = Grid {
            models: self.model,
            methods: self.methods,
            ..Grid::default()
        };
        if grid.models.is_empty() {
            grid.models.push(headkv_embedded::model()?);
        }
        set(&mut grid, self.benchmark);
        let out = self
            .out
            .unwrap_or_else(|| Path::new("headkv-out").join(name));
        run(&grid, &self.session, &out)
    }
}

/// A grid file.
#[derive(clap::Args)]
struct RunFile {
    /// The TOML file
    file: PathBuf,
    #[command(flatten)]
    session: session::Options,
    /// Folder for rows.jsonl and the reports; a rerun goes on where the last one ended
    #[arg(
        long,
        value_name = "DIR",
        default_value = "headkv-out/run",
        help_heading = "Output"
    )]
    out: PathBuf,
}

/// Runs the command that this process's arguments name; a wrong one ends the process with clap's message.
pub fn main() -> ExitCode {
    let filter =
        tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "error".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A file that stderr goes to wants no colours.
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match run_with(std::env::args_os()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            terminal::say(&format!("error: {}", message(&error)));
            ExitCode::from(2)
        }
    }
}

/// An error and its causes in one line; a cause that the line has already said is not said again.
fn message(error: &Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    terminal::one_line(&line)
}

/// Runs the command that `args` name, the program's own name first; false if it was partly done.
///
/// # Errors
/// Wrong input, on one line; arguments that are no command end the process with clap's message.
pub fn run_with(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<bool> {
    match Cli::try_parse_from(args) {
        Ok(cli) => command(cli.command),
        Err(asked) => Ok(headkv_cli::help(&asked).map(|()| true)?),
    }
}

/// Runs a command; false if it was partly done.
fn command(command: Command) -> Result<bool> {
    match command {
        Command::Needle(one) => one.run("needle", |grid, needle| grid.needle = Some(needle)),
        Command::Longbench(one) => one.run("longbench", |grid, longbench| {
            grid.longbench = Some(longbench)
        }),
        Command::Babilong(one) => {
            one.run("babilong", |grid, babilong| grid.babilong = Some(babilong))
        }
        Command::Ruler(one) => one.run("ruler", |grid, ruler| grid.ruler = Some(ruler)),
        Command::Turns(one) => one.run("turns", |grid, turns| grid.turns = Some(turns)),
        Command::Run(RunFile { file, session, out }) => run(&Grid::read(&file)?, &session, &out),
        Command::Report {
            dir,
            to,
            withhold,
            options,
        } => {
            let mut results = Results::read(&dir)?;
            results.withhold(&withhold)?;
            let page = session::write_reports(&results, to.as_ref().unwrap_or(&dir), &options)?;
            let text = report::markdown(&report::tables(&results.rows));
            terminal::print(&(text + &report::speed(&results.speed)))?;
            terminal::say(&format!("report: {}", page.display()));
            Ok(true)
        }
        Command::Merge { dirs, out } => merge(&dirs, &out).map(|()| true),
        Command::Fetch(options) => fetched(&options),
        Command::Methods { json } => {
            let listed = if json {
                serde_json::to_string_pretty(&list::json())? + "\n"
            } else {
                list::text()
            };
            terminal::print(&listed)?;
            Ok(true)
        }
        Command::Completions { shell } => {
            headkv_cli::completions(Cli::command(), shell)?;
            Ok(true)
        }
        Command::Man { dir } => {
            headkv_cli::man(Cli::command(), &dir)?;
            Ok(true)
        }
        Command::Bench(options) => bench::run(&options).map(|()| true),
        Command::BenchOne(one) => bench::one(&one).map(|()| true),
    }
}

/// Fetches data and says what came; false if some of it did not.
fn fetched(options: &fetch::Options) -> Result<bool> {
    let sources = fetch::Sources::from_env()?;
    let stop = interrupt::flag("stopping; what came so far is kept")?;
    let outcome = fetch::run(options, &sources, stop)?;
    let paths = outcome.paths.iter();
    let paths: String = paths.map(|path| format!("{}\n", path.display())).collect();
    terminal::print(&paths)?;
    for failed in &outcome.failed {
        terminal::say(&format!("failed: {failed}"));
    }
    let (there, new) = (outcome.paths.len(), outcome.fetched);
    terminal::say(&format!(
        "{there} files are whole, {new} of them fetched now"
    ));
    if outcome.stopped {
        terminal::say("interrupted; the same command goes on from here");
    }
    Ok(outcome.complete())
}

/// Joins folders; what the new one held stays.
fn merge(dirs: &[PathBuf], out: &Path) -> Result<()> {
    let mut results = Results::default();
    if Results::are_in(out) {
        results.merge(Results::read(out)?);
    }
    for dir in dirs {
        results.merge(Results::read(dir)?);
    }
    results.write(out)?;
    terminal::say(&format!("{} rows in {}", results.rows.len(), out.display()));
    for table in report::tables(&results.rows) {
        if table.uneven {
            let counts = table.lines.iter().map(|line| line.prompts);
            let (fewest, most) = (counts.clone().min(), counts.max());
            terminal::say(&format!(
                "note: the methods of {} answered different prompts, {} to {} of them; a part may be missing",
                table.title,
                fewest.unwrap_or(0),
                most.unwrap_or(0)
            ));
        }
    }
    Ok(())
}

/// Runs a grid and shows what came out; false if prompts failed or it was interrupted.
fn run(grid: &Grid, options: &session::Options, out: &Path) -> Result<bool> {
    let stop = interrupt::flag("stopping after this answer")?;
    let command = shell::command_line("headkv-eval", std::env::args_os().skip(1));
    let outcome = Session {
        grid,
        options,
        out,
        command: &command,
        stop,
    }
    .run()?;
    if !outcome.started() {
        terminal::say("interrupted before the first prompt; the same command starts again");
        return Ok(false);
    }
    let results = Results::read(out)?;
    let page = session::write_reports(&results, out, &report::Options::default())?;
    let rows = outcome.rows(results.rows);
    terminal::print(&report::markdown(&report::tables(&rows)))?;
    let summary = &outcome.summary;
    let kept = if summary.skipped > 0 {
        format!(", {} were there", summary.skipped)
    } else {
        String::new()
    };
    let failed = if summary.failed > 0 {
        format!(", {} failed", summary.failed)
    } else {
        String::new()
    };
    terminal::say(&format!(
        "{} prompts answered{kept}{failed} in {:.1} s",
        summary.done, outcome.seconds
    ));
    if options.endpoint.is_none() && summary.done > 0 {
        let outside = 100.0 * (1.0 - summary.model_seconds / outcome.seconds);
        terminal::say(&format!(
            "{outside:.1} % of that time was spent outside the model"
        ));
    }
    for why in &summary.reasons {
        terminal::say(&format!("failed: {}", terminal::one_line(why)));
    }
    if summary.stopped {
        terminal::say("interrupted; the same command goes on from here");
    }
    terminal::say(&format!("report: {}", page.display()));
    Ok(outcome.complete())
}
