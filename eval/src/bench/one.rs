//! One measurement, in a process of its own.

use super::attention;
use crate::speed::Measured;
use anyhow::{Result, bail};
use headkv_engine::{Engine, Generation, LoadOptions, Request};
use headkv_files::terminal;
use headkv_haystack::text;
use std::{num::NonZeroUsize, path::PathBuf};

/// One measurement.
#[derive(Clone, Debug, clap::Args)]
pub struct One {
    /// Model folder or file.
    #[arg(long)]
    pub model: PathBuf,
    /// Prompt tokens, of the prompts in turn.
    #[arg(long, value_delimiter = ',')]
    pub lengths: Vec<usize>,
    /// Tokens to generate.
    #[arg(long)]
    pub decode: usize,
    /// Prompts.
    #[arg(long)]
    pub batch: NonZeroUsize,
    /// The path to measure.
    #[arg(long)]
    pub path: String,
    /// Head scores, if not those found for the model.
    #[arg(long)]
    pub scores: Option<PathBuf>,
    /// The method's beta, if not its own.
    #[arg(long)]
    pub beta: Option<f64>,
    /// The device.
    #[arg(long)]
    pub device: String,
    /// What linear layers are quantized in.
    #[arg(long)]
    pub isq: Option<String>,
}

/// Takes one measurement and prints it as JSON.
///
/// # Errors
/// Wrong input.
pub fn one(one: &One) -> Result<()> {
    let options = LoadOptions {
        device: one.device.parse()?,
        isq: one.isq.as_deref().map(str::parse).transpose()?,
        max_batch: one.batch,
        ignore_end: true,
        ..LoadOptions::new(&one.model)
    };
    let longest = one.lengths.iter().max().copied().unwrap_or(0);
    let room = one.batch.get() * (longest + one.decode) + 1024;
    let attention = attention(&one.path, &one.model, one.scores.as_deref(), one.beta, room)?;
    let engine = Engine::load(options, attention)?;
    let tokens = engine.encode(&text::generate(1, 8 * longest))?;
    if tokens.len() < longest {
        bail!("the tokenizer makes too few tokens of a text for {longest}");
    }
    // A short run first: threads and memory are there when the clock starts.
    engine.generate(&[Request::new(tokens[..longest.min(64)].to_vec(), 2)])?;
    let prompts = one.lengths.iter().cycle().take(one.batch.get());
    let requests: Vec<_> = prompts
        .map(|&length| Request::new(tokens[..length].to_vec(), one.decode))
        .collect();
    let answers = engine.generate(&requests)?;
    let sum = |figure: fn(&Generation) -> f64| answers.iter().map(figure).sum::<f64>();
    let last = |figure: fn(&Generation) -> f64| {
        answers
            .iter()
            .map(figure)
            .max_by(f64::total_cmp)
            .unwrap_or(0.0)
    };
    // All were sent at once, and decode together once the last prompt is done.
    let prompts = last(|a| a.prompt_seconds);
    let decoding = last(|a| a.prompt_seconds + a.decode_seconds) - prompts;
    let between = |a: &Generation| -> Vec<f64> {
        a.token_seconds
            .windows(2)
            .map(|two| two[1] - two[0])
            .collect()
    };
    let measured = Measured {
        prompt: sum(|a| a.prompt_tokens as f64) / prompts,
        decode: sum(|a| (a.tokens.len() - 1) as f64) / decoding,
        kv_bytes: sum(|a| a.kv_bytes as f64),
        peak_bytes: peak_memory().unwrap_or(f64::NAN),
        held_bytes: engine.gpu_bytes()?.map(|bytes| bytes as f64),
        first_token: answers.iter().map(|a| a.prompt_seconds).collect(),
        between_tokens: answers.iter().flat_map(between).collect(),
    };
    terminal::print(&(serde_json::to_string(&measured)? + "\n"))?;
    Ok(())
}

/// The largest resident memory of this process so far, where the system tells it.
fn peak_memory() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? * 1024.0)
}
