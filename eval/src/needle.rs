//! The needle test: a fact hidden at some depth of a long context, asked for at its end (Kamradt 2023; section 4.3).

use crate::{
    home::home,
    metrics::{qa_f1, rouge_score},
    row::Row,
};
use anyhow::{Context as _, Result, bail};
use headkv_engine::{Attention, Device, Engine, Generation, LoadOptions, Request};
use headkv_haystack::{Haystack, Inserter, Needle, Template, needle};
use headkv_plugin::{Compression, methods};
use std::path::PathBuf;

/// What to run.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Model folder or .gguf file [default: the embedded models/tiny]
    #[arg(long, value_name = "DIR|FILE")]
    pub model: Option<PathBuf>,
    /// Methods to compare
    #[arg(long, value_delimiter = ',', default_value = "full,snapkv,headkv")]
    pub method: Vec<String>,
    /// Tokens kept per head, window included
    #[arg(long, value_delimiter = ',', default_value = "16,32")]
    pub capacity: Vec<usize>,
    /// HeadKV's beta: 1/beta of the budget is shared by importance
    #[arg(long, value_delimiter = ',', default_value = "1.2")]
    pub beta: Vec<f64>,
    /// Head scores [default: head_scores/{model}_{kind}.json]
    #[arg(long, value_name = "FILE")]
    pub scores: Option<PathBuf>,
    /// Which default head scores: copy (retrieval), enhanced, reason (reasoning)
    #[arg(long, default_value = "copy", value_parser = parse_enum::<headkv_plugin::config::HeadChoice>)]
    pub head_choice: headkv_plugin::config::HeadChoice,
    /// One kept set per kv-head, or per query-head as the original
    #[arg(long, default_value = "kv-head", value_parser = parse_enum::<headkv_plugin::config::Granularity>)]
    pub granularity: headkv_plugin::config::Granularity,
    /// How query heads that share a KV head are reduced: mean or max
    #[arg(long, default_value = "mean", value_parser = parse_enum::<headkv_plugin::config::Reduce>)]
    pub reduce: headkv_plugin::config::Reduce,
    /// Text to hide the needle in [default: generated]
    #[arg(long, value_name = "DIR|FILE")]
    pub haystack: Option<PathBuf>,
    /// Needles as JSON lines: needle, question, real_needle, answer [default: one of our own]
    #[arg(long, value_name = "FILE")]
    pub needles: Option<PathBuf>,
    /// Context lengths in tokens, needle included, question not
    #[arg(long, value_delimiter = ',', default_value = "1000,2000,4000")]
    pub lengths: Vec<usize>,
    /// Depths of the needle in percent
    #[arg(long, value_delimiter = ',', default_value = "0,20,40,60,80,100")]
    pub depths: Vec<f64>,
    /// Prompt: plain, book, chat (the model's own chat template) or a text with {context} and {question}
    #[arg(long, default_value = "plain")]
    pub template: String,
    /// Most tokens of an answer
    #[arg(long, default_value_t = 48)]
    pub max_tokens: usize,
    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Folder for report.html and rows.jsonl
    #[arg(long, value_name = "DIR", default_value = "headkv-out/needle")]
    pub out: PathBuf,
}

/// Parses a value by its name in configuration files.
pub(crate) fn parse_enum<T: serde::de::DeserializeOwned>(name: &str) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::from(name)).map_err(|e| e.to_string())
}

/// One prompt of the test.
struct Case {
    length: usize,
    depth: f64,
    needle: usize,
    prompt: Vec<u32>,
}

/// A needle test that is ready to run.
pub struct NeedleTest {
    engine: Engine,
    model: String,
    compressions: Vec<Compression>,
    needles: Vec<Needle>,
    cases: Vec<Case>,
    max_tokens: usize,
    chat: bool,
}

impl NeedleTest {
    /// Checks everything that can be wrong before anything runs, and loads the model.
    ///
    /// # Errors
    /// One line that names the thing and the fix.
    pub fn new(options: &Options) -> Result<Self> {
        let device: Device = options.device.parse()?;
        let model = options
            .model
            .clone()
            .unwrap_or_else(|| home().join("models/tiny"));
        let template: Template = options.template.parse()?;
        let chat = template.is_chat();
        let haystack = match &options.haystack {
            Some(path) => Haystack::read(path)?,
            None => Haystack::generated(0),
        };
        let needles = match &options.needles {
            Some(path) => needle::read(path)?,
            None => vec![needle::san_francisco()],
        };
        let compressions = compressions(options, &model)?;
        let first = compressions
            .first()
            .context("no method to run; name one with --method")?;
        let load = LoadOptions {
            device,
            ..LoadOptions::new(&model)
        };
        let engine = Engine::load(load, Attention::Compressed(first.clone()))?;
        for compression in &compressions {
            engine.set_compression(compression)?;
        }
        let longest = options.lengths.iter().copied().max().unwrap_or(0);
        if longest > engine.context() {
            bail!(
                "length {longest} is more than the model's context of {} tokens; lower --lengths",
                engine.context()
            );
        }
        let inserter = Inserter::new(engine.tokenizer(), &haystack, longest)?;
        let mut cases = Vec::new();
        for &length in &options.lengths {
            for &depth in &options.depths {
                for (number, needle) in needles.iter().enumerate() {
                    let context = inserter.insert(&needle.needle, length, depth)?;
                    let text = template.fill(&context.text, &needle.question);
                    let prompt = if chat {
                        engine.encode_chat(&text)?
                    } else {
                        engine.encode(&text)?
                    };
                    if prompt.len() + options.max_tokens > engine.context() {
                        bail!(
                            "length {length} makes a prompt of {} tokens; with {} tokens of answer the model's context \
                             of {} is too short; lower --lengths",
                            prompt.len(),
                            options.max_tokens,
                            engine.context()
                        );
                    }
                    cases.push(Case {
                        length,
                        depth,
                        needle: number,
                        prompt,
                    });
                }
            }
        }
        Ok(Self {
            model: engine.files().name(),
            engine,
            compressions,
            needles,
            cases,
            max_tokens: options.max_tokens,
            chat,
        })
    }

    /// Number of answers that a run brings.
    pub fn len(&self) -> usize {
        self.compressions.len() * self.cases.len()
    }

    /// Whether there is nothing to run.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Runs every prompt under every configuration, handing over rows as they come, until `next` returns false.
    ///
    /// # Errors
    /// A request that the engine fails, or what `next` returns.
    pub fn run(&self, mut next: impl FnMut(Row) -> Result<bool>) -> Result<()> {
        for case in &self.cases {
            for compression in &self.compressions {
                self.engine.set_compression(compression)?;
                let mut request = Request::new(case.prompt.clone(), self.max_tokens);
                if !self.chat {
                    // Answers to plain prompts end with the line; chat models have an end token.
                    request = request.stop_at("\n");
                }
                let answer = self.engine.generate(&[request])?.remove(0);
                if !next(self.row(case, compression, answer))? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn row(&self, case: &Case, compression: &Compression, answer: Generation) -> Row {
        let needle = &self.needles[case.needle];
        let text = answer.text.trim().to_string();
        let full = compression.method == "full";
        Row {
            benchmark: "needle".into(),
            model: self.model.clone(),
            method: compression.method.clone(),
            capacity: (!full).then_some(compression.capacity),
            beta: (compression.method == "headkv").then_some(compression.beta),
            length: case.length,
            depth: case.depth,
            needle: case.needle,
            prompt_tokens: answer.prompt_tokens,
            question: needle.question.clone(),
            f1: qa_f1(&text, &needle.answer),
            rouge1: rouge_score::rouge1(&text, &needle.needle).f,
            answer: text,
            reference: needle.answer.clone(),
            kv_bytes: answer.kv_bytes,
            prompt_seconds: answer.prompt_seconds,
            decode_seconds: answer.decode_seconds,
            answer_tokens: answer.tokens.len(),
        }
    }
}

/// Every method at every capacity and beta, each only where it matters.
fn compressions(options: &Options, model: &std::path::Path) -> Result<Vec<Compression>> {
    let mut all = Vec::new();
    for name in &options.method {
        let method = methods::find(name)?;
        let capacities = if method.name == "full" {
            &options.capacity[..1.min(options.capacity.len())]
        } else {
            &options.capacity
        };
        let betas = if method.needs_scores {
            &options.beta[..]
        } else {
            &[1.2]
        };
        for &capacity in capacities {
            for &beta in betas {
                let mut compression = Compression {
                    method: method.name.clone(),
                    capacity,
                    beta,
                    head_choice: options.head_choice,
                    granularity: options.granularity,
                    reduce: options.reduce,
                    ..Compression::default()
                };
                compression.check()?;
                if method.needs_scores {
                    compression.scores = Some(match &options.scores {
                        Some(file) => file.clone(),
                        None => compression.default_scores(&home().join("head_scores"), model),
                    });
                }
                all.push(compression);
            }
        }
    }
    Ok(all)
}
