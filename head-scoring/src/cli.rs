//! The command line.

use crate::{
    Error, Kind, Meta, ScoreFile, Scorer,
    example::{self, Grid},
    heatmap,
    run::Progress,
    show::Shown,
};
use clap::{Args, CommandFactory, Parser, Subcommand};
use headkv_engine::{Device, LoadOptions};
use headkv_files::terminal::{self, print, say};
use headkv_haystack::{Haystack, Patterns, Template, pattern::Builtin};
use headkv_plugin::HeadScores;
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    ffi::OsString,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

/// Measures how much each attention head retrieves, for any model that mistral.rs loads.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:
  head-scoring score --model models/tiny --kind retrieval
  head-scoring show head_scores/tiny_retrieval.json
  head-scoring convert a.json b.json --out merged.json"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Score the heads of a model
    Score(Score),
    /// Print a score file, or compare two
    Show(Show),
    /// Check score files, put their heads in order, and merge their examples
    Convert(Convert),
    /// Print the completions of a shell
    #[command(
        after_help = "Example:\n  head-scoring completions bash > ~/.local/share/bash-completion/completions/head-scoring"
    )]
    Completions {
        /// The shell
        shell: headkv_cli::Shell,
    },
    /// Write man pages, one for each command
    #[command(after_help = "Example:\n  head-scoring man ~/.local/share/man/man1")]
    Man {
        /// The folder
        dir: PathBuf,
    },
}

#[derive(Args)]
#[command(after_help = "Examples:
  head-scoring score --model models/tiny --kind enhanced --lengths 1000,2000 --draws 12
  head-scoring score --model SmolLM2-135M-Instruct.Q4_1.gguf --template chat --needles my.jsonl --haystack essays
  head-scoring score --model Meta-Llama-3-8B-Instruct --template chat --device cuda --batch 4
Ctrl-C stops a run and keeps what is done; the same command goes on from there. A second Ctrl-C stops at once.")]
struct Score {
    /// A folder with config.json, tokenizer.json and safetensors, or a .gguf file [default: the embedded model, tiny]
    #[arg(long, value_name = "DIR|FILE", help_heading = "Model")]
    model: Option<PathBuf>,
    /// retrieval (tokens copied), enhanced (attention on the needle) or reasoning (attention on the right answer)
    #[arg(long, default_value = "retrieval", help_heading = "Scores")]
    kind: Kind,
    /// JSON Lines with needle, question, real_needle and answer; texts may hold variables [default: built-in needles]
    #[arg(long, help_heading = "Examples drawn")]
    needles: Option<PathBuf>,
    /// Needles to draw from the file's lines in turn [default: one per line]
    #[arg(long, help_heading = "Examples drawn")]
    draws: Option<NonZeroUsize>,
    /// Seed of the drawn needles and of the generated haystack
    #[arg(long, default_value_t = 0, help_heading = "Examples drawn")]
    seed: u64,
    /// A text file, or a folder of .txt files [default: generated text]
    #[arg(long, help_heading = "Examples drawn")]
    haystack: Option<PathBuf>,
    /// Tokens of the contexts, needle included
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1000,2000,4000",
        help_heading = "Examples drawn"
    )]
    lengths: Vec<usize>,
    /// Where the needle stands, in percent of the context
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "0,20,40,60,80,100",
        help_heading = "Examples drawn"
    )]
    depths: Vec<f64>,
    /// plain, book, chat (the model's own template), or a text with {context} and {question}
    #[arg(long, default_value = "plain", help_heading = "Examples drawn")]
    template: Template,
    /// The most tokens of an answer
    #[arg(long, default_value = "50", help_heading = "Scores")]
    max_tokens: NonZeroUsize,
    /// Examples that decode together; on the CPU 16 at most, and those of a .gguf file one by one
    #[arg(long, default_value = "1", help_heading = "Model")]
    batch: NonZeroUsize,
    /// cpu, cuda or cuda:N; a GPU needs a build with --features head-scoring/cuda
    #[arg(long, default_value = "cpu", help_heading = "Model")]
    device: Device,
    /// The score file [default: head_scores/{model}_{kind}.json]
    #[arg(long, help_heading = "Output")]
    out: Option<PathBuf>,
}

#[derive(Args)]
#[command(after_help = "Examples:
  head-scoring show head_scores/tiny_retrieval.json --svg heatmap.svg
  head-scoring show head_scores/tiny_retrieval.json head_scores/tiny_enhanced.json")]
struct Show {
    /// A score file
    file: PathBuf,
    /// Another one of the same model, to compare with
    other: Option<PathBuf>,
    /// How many heads to list and to compare
    #[arg(long, default_value_t = 10)]
    top: usize,
    /// Also draw the heatmap of the first file
    #[arg(long)]
    svg: Option<PathBuf>,
}

#[derive(Args)]
#[command(after_help = "Examples:
  head-scoring convert a.json b.json --out merged.json
  head-scoring convert a.json --shuffle 1 --out control.json
The meta file of a single file that is not shuffled goes along; nothing else has one.")]
struct Convert {
    /// Score files of one model
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Give the scores to other heads, drawn with this seed: a control that real scores must beat
    #[arg(long, value_name = "SEED")]
    shuffle: Option<u64>,
    /// The file to write
    #[arg(long)]
    out: PathBuf,
}

/// Why a command did not do what was asked.
#[derive(Debug)]
pub struct Failure {
    /// One line for the person who typed it.
    pub message: String,
    /// The exit code: 1 if the same command can go on, 2 if something has to be changed first.
    pub code: u8,
}

impl From<headkv_files::Error> for Failure {
    fn from(error: headkv_files::Error) -> Self {
        Error::from(error).into()
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = if matches!(error, Error::Stopped { .. }) {
            1
        } else {
            2
        };
        Self {
            message: terminal::one_line(&error.to_string()),
            code,
        }
    }
}

/// Runs a command line, the program's name first. Results go to stdout, progress to stderr.
///
/// Scoring ends early, and can be resumed, once `stop` is set.
///
/// # Errors
/// Whatever ends the program with another exit code than 0.
pub fn run(args: impl IntoIterator<Item = OsString>, stop: &AtomicBool) -> Result<(), Failure> {
    match Cli::try_parse_from(args) {
        Ok(cli) => Ok(match cli.command {
            Command::Score(args) => score(&args, stop),
            Command::Show(args) => show(&args),
            Command::Convert(args) => convert(&args),
            Command::Completions { shell } => {
                headkv_cli::completions(Cli::command(), shell).map_err(Error::from)
            }
            Command::Man { dir } => headkv_cli::man(Cli::command(), &dir).map_err(Error::from),
        }?),
        // Help and version are not mistakes.
        Err(asked) if !asked.use_stderr() => Ok(print(&asked.to_string())?),
        Err(wrong) => {
            // The first paragraph says what is wrong; the rest repeats the usage.
            let text = wrong.to_string();
            let first = text.split("\n\n").next().unwrap_or_default();
            Err(Failure {
                message: terminal::one_line(first.trim_start_matches("error: ")),
                code: 2,
            })
        }
    }
}

fn score(args: &Score, stop: &AtomicBool) -> Result<(), Error> {
    let depths: Vec<f64> = args.depths.iter().map(|depth| depth + 0.0).collect();
    let patterns = match (&args.needles, args.kind) {
        (Some(file), _) => Patterns::read(file)?,
        (None, Kind::Reasoning) => Patterns::builtin(Builtin::Reasoning),
        (None, _) => Patterns::builtin(Builtin::Retrieval),
    };
    let (haystack, source) = match &args.haystack {
        Some(path) => (Haystack::read(path)?, path.display().to_string()),
        None => (
            Haystack::generated(args.seed),
            format!("generated, seed {}", args.seed),
        ),
    };
    let draws = args.draws.map_or(patterns.len(), NonZeroUsize::get);
    example::check(draws, &args.lengths, &depths)?;
    let grid = Grid {
        needles: patterns.draw(args.seed, draws)?,
        haystack,
        lengths: args.lengths.clone(),
        depths,
        template: args.template.clone(),
    };
    let model = match &args.model {
        Some(model) => model.clone(),
        None => headkv_embedded::model()?,
    };
    let scorer = Scorer::load(LoadOptions {
        device: args.device,
        ..LoadOptions::new(model)
    })?;
    let examples = grid.examples(scorer.engine())?;
    let settings = scorer.settings(args.kind, &grid, &source, args.max_tokens.get(), &examples)?;
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| HeadScores::path(Path::new("head_scores"), &settings.model, args.kind));
    let bar = progress_bar(examples.iter().map(|example| example.prompt.len()).sum());
    let mut resumed = false;
    let show = |Progress {
                    done,
                    counted,
                    tokens,
                }| {
        bar.set_position(tokens as u64);
        bar.set_message(format!(
            "{done} of {} examples, {counted} answered right",
            examples.len()
        ));
        // What an earlier run did says nothing about the time that this one takes.
        if !resumed {
            bar.reset_eta();
            resumed = true;
        }
    };
    let meta = scorer.run(&settings, &examples, &out, args.batch.get(), stop, show)?;
    bar.finish();
    say(&format!(
        "{} of {} examples counted; wrote {}",
        meta.counted,
        meta.total,
        out.display()
    ));
    Ok(print(&Shown::read(&out)?.report(10))?)
}

/// Counts prompt tokens, because time goes with them.
fn progress_bar(tokens: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {percent}% {msg}, {eta} left");
    let bar = ProgressBar::new(tokens as u64);
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn show(args: &Show) -> Result<(), Error> {
    let first = Shown::read(&args.file)?;
    print(&first.report(args.top))?;
    if let Some(other) = &args.other {
        let other = Shown::read(other)?;
        let comparison = first.comparison(&other, args.top)?;
        print(&format!("\n{}\n{comparison}", other.report(args.top)))?;
    }
    if let Some(svg) = &args.svg {
        heatmap::svg(&first.scores, &args.file.display().to_string(), svg)?;
        say(&format!("wrote {}", svg.display()));
    }
    Ok(())
}

fn convert(args: &Convert) -> Result<(), Error> {
    let mut merged = ScoreFile::merged(&args.files)?;
    if let Some(seed) = args.shuffle {
        merged = merged.shuffled(seed);
    }
    // What lies beside one file still tells how its scores were made, unless they go to other heads.
    let meta = match (&args.files[..], args.shuffle) {
        ([file], None) => Meta::beside(file)?,
        _ => None,
    };
    merged.write(&args.out)?;
    match meta {
        Some(meta) => meta.write(&args.out)?,
        None => Meta::remove(&args.out)?,
    }
    let ((layers, heads), (_, examples)) = (merged.shape(), merged.examples());
    say(&format!(
        "wrote {}: {layers} layers x {heads} heads, {examples} examples a head",
        args.out.display()
    ));
    Ok(())
}
