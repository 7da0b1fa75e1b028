//! Upstream's attention against ours: speed, latencies, KV bytes and peak memory.
//!
//! Every measurement runs in a process of its own, because the peak of resident memory belongs to a process; the
//! configurations take turns, because a machine's speed drifts.

mod one;

pub use one::{One, one};

use crate::{
    engine::Outline,
    gpu_memory,
    speed::{self, Key, Measured, Row},
};
use anyhow::{Context, Result, bail};
use headkv_engine::{Attention, Device, Isq};
use headkv_files::{terminal, whole};
use headkv_plugin::Compression;
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::Command,
};

/// What to compare.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Model folder or .gguf file [default: the embedded model, tiny]
    #[arg(long, value_name = "DIR|FILE", help_heading = "Model")]
    pub model: Option<PathBuf>,
    /// Prompt lengths in tokens
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1000,4000,8000",
        help_heading = "Benchmark"
    )]
    pub lengths: Vec<usize>,
    /// One row instead of one a length: the prompts of a batch have the lengths in turn
    #[arg(long, help_heading = "Benchmark")]
    pub mixed: bool,
    /// Paths to compare: upstream, paged (on a GPU), full, or METHOD@CAPACITY
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "upstream,full,headkv@32",
        help_heading = "Method"
    )]
    pub paths: Vec<String>,
    /// Head scores of methods that need them [default: those found for the model]
    #[arg(long, value_name = "FILE", help_heading = "Method")]
    pub scores: Option<PathBuf>,
    /// The methods' beta [default: theirs]
    #[arg(long, help_heading = "Method")]
    pub beta: Option<f64>,
    /// Tokens to generate, 2 or more: the first one belongs to the prompt
    #[arg(long, default_value_t = 64, help_heading = "Benchmark")]
    pub decode: usize,
    /// Prompts that are sent at once and decode together; several numbers are measured in turn
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1",
        help_heading = "Benchmark"
    )]
    pub batch: Vec<NonZeroUsize>,
    /// Measurements of each, of which the median counts
    #[arg(long, default_value = "3", help_heading = "Benchmark")]
    pub rounds: NonZeroUsize,
    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu", help_heading = "Model")]
    pub device: String,
    /// Quantize linear layers while a folder loads on the CPU: q4_0, q4_1, q5_0, q5_1, q8_0, q2k, q3k, q4k, q5k or q6k
    #[arg(long, value_name = "FORMAT", help_heading = "Model")]
    pub isq: Option<String>,
    /// Also writes the measurements, one JSON object a row; `report` shows a bench.jsonl in its folder
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub out: Option<PathBuf>,
    /// Adds the ratios to an earlier run that --out wrote
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub compare: Option<PathBuf>,
}

/// Measures all paths at all lengths in turn, and prints tables of medians and of latencies.
///
/// # Errors
/// Wrong input, or a measurement that failed.
pub fn run(options: &Options) -> Result<()> {
    let model = match &options.model {
        Some(model) => model.clone(),
        None => headkv_embedded::model()?,
    };
    let device = options.device.parse::<Device>()?;
    for path in &options.paths {
        attention(path, &model, options.scores.as_deref(), options.beta, 0)?;
    }
    check(options, Outline::read(&model)?.context)?;
    let earlier = options.compare.as_deref().map(speed::read).transpose()?;
    let lengths: Vec<Vec<usize>> = match options.mixed {
        true => vec![options.lengths.clone()],
        false => options.lengths.iter().map(|length| vec![*length]).collect(),
    };
    let isq = options.isq.as_deref().map(str::parse::<Isq>).transpose()?;
    let mut name = model.display().to_string();
    if let Some(isq) = isq {
        name = format!("{name}:{isq}");
    }
    let mut rows = Vec::new();
    for &batch in &options.batch {
        for lengths in &lengths {
            for path in &options.paths {
                rows.push(Row::new(Key {
                    model: name.clone(),
                    device: options.device.clone(),
                    lengths: lengths.clone(),
                    batch: batch.get(),
                    decode: options.decode,
                    path: path.clone(),
                    beta: options.beta,
                }));
            }
        }
    }
    let total = options.rounds.get() * rows.len();
    let style =
        ProgressStyle::with_template("{bar:30} {pos}/{len} measurements, {eta} left  {msg}")?;
    let bar = ProgressBar::new(total as u64).with_style(style);
    for _ in 0..options.rounds.get() {
        for row in &mut rows {
            bar.set_message(row.key.name());
            let mut command = Command::new(std::env::current_exe()?);
            command
                .arg("bench-one")
                .args(row.key.arguments())
                .args(
                    options
                        .scores
                        .iter()
                        .flat_map(|file| [std::ffi::OsStr::new("--scores"), file.as_os_str()]),
                )
                .arg("--model")
                .arg(&model)
                .args(options.isq.iter().flat_map(|isq| ["--isq", isq]))
                // As the driver's tool counts cards.
                .env("CUDA_DEVICE_ORDER", "PCI_BUS_ID");
            let (output, gpu_bytes) = gpu_memory::watch(device, || command.output());
            let output = output?;
            if !output.status.success() {
                bail!(
                    "{} ended with {}: {}",
                    row.key.name(),
                    output.status,
                    terminal::one_line(&String::from_utf8_lossy(&output.stderr))
                );
            }
            let mut measured: Measured = serde_json::from_slice(&output.stdout)?;
            measured.peak_bytes = gpu_bytes.unwrap_or(measured.peak_bytes);
            row.rounds.push(measured);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    if let Some(file) = &options.out {
        whole::write_lines(file, &rows)?;
    }
    let mut tables = speed::tables(&rows);
    tables.extend(earlier.map(|earlier| speed::comparison(&rows, &earlier)));
    let tables: Vec<_> = tables.iter().map(speed::Plain::markdown).collect();
    terminal::print(&tables.join("\n"))?;
    Ok(())
}

/// Refuses what has no figure, or one of a cut prompt.
fn check(options: &Options, context: Option<usize>) -> Result<()> {
    if options.lengths.is_empty() || options.paths.is_empty() || options.batch.is_empty() {
        bail!(
            "nothing to run: name lengths with --lengths, paths with --paths and numbers of prompts with --batch"
        );
    }
    if options.decode < 2 {
        bail!(
            "--decode {} leaves no step to measure; use 2 or more",
            options.decode
        );
    }
    let fits = |length: usize| {
        let all = length.saturating_add(options.decode);
        length > 0 && context.is_none_or(|context| all <= context)
    };
    match options.lengths.iter().find(|length| !fits(**length)) {
        None => Ok(()),
        Some(length) => bail!(
            "a prompt of {length} tokens and {} to generate are not 1 to the {} that the model can read; lower --lengths or --decode",
            options.decode,
            context.unwrap_or(usize::MAX)
        ),
    }
}

/// A path by its name; `tokens` is what a paged cache has to hold.
fn attention(
    path: &str,
    model: &Path,
    scores: Option<&Path>,
    beta: Option<f64>,
    tokens: usize,
) -> Result<Attention> {
    match path {
        "upstream" => return Ok(Attention::Upstream),
        "paged" => return Ok(Attention::Paged(tokens)),
        _ => {}
    }
    let (method, capacity) = path.split_once('@').unwrap_or((path, "128"));
    let capacity = capacity
        .parse()
        .with_context(|| format!("`{path}` is not METHOD@CAPACITY"))?;
    let mut compression = Compression::new(method, capacity);
    compression.beta = beta.or(compression.beta);
    compression.check()?;
    if headkv_plugin::methods::find(method)?.needs_scores {
        compression.scores = Some(match scores {
            Some(file) => file.into(),
            None => {
                let name = compression.default_scores(Path::new(""), model);
                headkv_embedded::score_file(name)?.into()
            }
        });
    }
    Ok(Attention::Compressed(compression))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_prompt_is_cut_and_no_figure_is_of_nothing() {
        let options = |lengths: &[usize], decode| Options {
            lengths: lengths.to_vec(),
            decode,
            ..crate::grid::defaults()
        };
        let checked = |lengths: &[usize], decode| {
            check(&options(lengths, decode), Some(8192)).map_err(|e| e.to_string())
        };
        checked(&[1000, 8128], 64).unwrap();
        for (lengths, decode) in [
            (&[1000, 9000][..], 64),
            (&[1000], 100_000),
            (&[usize::MAX], 64),
            (&[0], 64),
        ] {
            let message = checked(lengths, decode).unwrap_err();
            assert!(message.contains("8192"), "{message}");
        }
        assert!(checked(&[1000], 1).unwrap_err().contains("--decode 1"));
        assert!(checked(&[], 64).unwrap_err().contains("nothing to run"));
    }
}
