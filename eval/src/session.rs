//! A whole run: the grid's models are loaded one after the other, every prompt is answered, and reports are written.

use crate::{
    Backend, Error, Row, Sample, Variant, commit,
    datasets::{ChatTemplate, Target},
    endpoint::{self, Endpoint, Key},
    engine::{self, InProcess, Outline, Scores},
    grid::Grid,
    machine, report,
    row::{self, Model},
    runner::{self, Summary},
    shard::Shard,
    store::{Heads, Results, Run, Store},
};
use headkv_files::{terminal, whole};
use std::{
    num::{NonZeroU64, NonZeroUsize},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// Where answers come from and rows go to.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu", help_heading = "Model")]
    pub device: String,
    /// Quantize linear layers while a folder loads on the CPU: q4_0, q4_1, q5_0, q5_1, q8_0, q2k, q3k, q4k, q5k or q6k
    #[arg(
        long,
        value_name = "FORMAT",
        conflicts_with = "endpoint",
        help_heading = "Model"
    )]
    pub isq: Option<String>,
    /// Prompts that are answered together; on a GPU they share every step, and more take more memory
    #[arg(
        long,
        value_name = "N",
        default_value = "1",
        conflicts_with = "endpoint",
        help_heading = "Model"
    )]
    pub batch: NonZeroUsize,
    /// The part of the prompts to run here, such as 1/4; `merge` joins the parts
    #[arg(
        long,
        value_name = "I/N",
        default_value = "1/1",
        help_heading = "Output"
    )]
    pub shard: String,
    /// Ask an OpenAI-compatible server, with the key in HEADKV_API_KEY if it wants one; --model gives the tokenizer, and
    /// the flags of the methods label the rows, since the server compresses as it likes
    #[arg(long, value_name = "URL", help_heading = "Endpoint")]
    pub endpoint: Option<String>,
    /// The model's name at the server [default: the folder's name]
    #[arg(
        long,
        value_name = "NAME",
        requires = "endpoint",
        help_heading = "Endpoint"
    )]
    pub endpoint_model: Option<String>,
    /// Requests to the server at the same time
    #[arg(
        long,
        value_name = "N",
        default_value_t = 4,
        requires = "endpoint",
        help_heading = "Endpoint"
    )]
    pub concurrency: usize,
    /// Further tries after a failed request
    #[arg(
        long,
        value_name = "N",
        default_value_t = 4,
        requires = "endpoint",
        help_heading = "Endpoint"
    )]
    pub retries: u32,
    /// Seconds that a request to the server may take, from its first byte to its answer's last
    #[arg(
        long,
        value_name = "SECONDS",
        default_value = "600",
        requires = "endpoint",
        help_heading = "Endpoint"
    )]
    pub timeout: NonZeroU64,
    /// Tokens that the server's model can read
    #[arg(
        long,
        value_name = "TOKENS",
        default_value_t = 8192,
        requires = "endpoint",
        help_heading = "Endpoint"
    )]
    pub endpoint_context: usize,
}

impl Default for Options {
    fn default() -> Self {
        crate::grid::defaults()
    }
}

/// What a session did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Sums over all models.
    pub summary: Summary,
    /// Seconds from the loaded model to its last row, over all models.
    pub seconds: f64,
    /// The keys of the grid's rows, those that were there before included.
    keys: Vec<String>,
}

impl Outcome {
    /// Whether every prompt of the grid (or of its shard) has an answer.
    pub fn complete(&self) -> bool {
        self.summary.failed == 0 && !self.summary.stopped
    }

    /// Whether a model got as far as its first prompt.
    pub fn started(&self) -> bool {
        !self.keys.is_empty()
    }

    /// The grid's rows among all rows of the folder.
    pub fn rows(&self, rows: Vec<Row>) -> Vec<Row> {
        let keys: std::collections::HashSet<_> = self.keys.iter().collect();
        rows.into_iter()
            .filter(|row| keys.contains(&row.key))
            .collect()
    }
}

/// A session with everything that it is given.
pub struct Session<'a> {
    /// What to run.
    pub grid: &'a Grid,
    /// Where answers come from.
    pub options: &'a Options,
    /// The folder for rows and reports.
    pub out: &'a Path,
    /// The command line, kept for the report.
    pub command: &'a str,
    /// Set from outside to end the run early.
    pub stop: &'a AtomicBool,
}

/// A model that can answer, and what it is asked.
struct Ready<'a> {
    model: Model,
    /// Samples, and the variants under which they are answered.
    parts: Vec<(Vec<Sample>, Vec<Variant>)>,
    heads: Vec<Heads>,
    backend: Box<dyn Backend + 'a>,
    /// What it took to make the samples.
    seconds: f64,
}

impl Session<'_> {
    /// Runs the grid. Nothing is written before the input of all models has been checked.
    ///
    /// # Errors
    /// Wrong input of any kind, or a folder that cannot be written or is in use.
    pub fn run(&self) -> Result<Outcome, Error> {
        let shard: Shard = self.options.shard.parse()?;
        let models = &self.grid.models;
        self.grid.check()?;
        if let Some(turns) = &self.grid.turns {
            turns.modes()?;
        }
        let mut outcome = Outcome::default();
        for path in models.iter().take_while(|_| !self.stopped()) {
            self.check(path)?;
        }
        for path in models {
            // Loading a model can take minutes, which nobody wants to wait for after Ctrl-C.
            if self.stopped() {
                outcome.summary.stopped = true;
                break;
            }
            self.answer(self.ready(path)?, shard, &mut outcome)?;
        }
        Ok(outcome)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Checks what can be checked of a model without its weights: each is loaded once only.
    fn check(&self, path: &Path) -> Result<(), Error> {
        if self.options.endpoint.is_some() {
            if self.grid.asks_apart() {
                return Err(Error::Option(
                    "a server reads context and question together; leave out --question-apart or --endpoint".into(),
                ));
            }
            return engine::label(&self.grid.methods).map(|_| ());
        }
        let outline = Outline::read(path)?;
        if self.grid.asks_for_chats() && !outline.chat {
            return Err(Error::Option(format!(
                "{} has no chat template; take --template plain, or --protocol paper",
                outline.name
            )));
        }
        let variants = self.variants(path, &outline.name)?;
        outline.check(&variants, &Scores::read(&variants)?)?;
        // The first model's prompts are made in a moment anyway, once it is loaded.
        let (Some(file), Some(context)) = (&outline.tokenizer, outline.context) else {
            return Ok(());
        };
        if self.grid.models.len() > 1 {
            let tokenizer = headkv_haystack::tokenizer::read(file)?;
            // The template itself is the runtime's: without it, a prompt is no longer than with it.
            let bare = |text: &str| Ok(tokenizer.encode_fast(text, false)?.get_ids().to_vec());
            let chat: &ChatTemplate = &bare;
            self.grid.samples(&Target {
                model: &outline.name,
                tokenizer: &tokenizer,
                chat: Some(chat),
                context,
            })?;
        }
        Ok(())
    }

    /// The variants of a model of that name.
    fn variants(&self, path: &Path, name: &str) -> Result<Vec<Variant>, Error> {
        let methods = self.grid.methods.of_model(name);
        engine::variants(&methods, path)
    }

    fn ready(&self, path: &Path) -> Result<Ready<'_>, Error> {
        match &self.options.endpoint {
            Some(url) => self.endpoint(url, path, vec![engine::label(&self.grid.methods)?]),
            None => self.in_process(path),
        }
    }

    fn in_process(&self, path: &Path) -> Result<Ready<'_>, Error> {
        let Options {
            device, isq, batch, ..
        } = &self.options;
        let backend = InProcess::load(path, device, isq.as_deref(), *batch)?;
        let name = backend.engine().files().name();
        let variants = self.variants(path, &name)?;
        let mut heads = Vec::new();
        for variant in &variants {
            let fit = || {
                backend.configure(variant)?;
                backend.heads(variant)
            };
            // Of many models and score files, the message has to name the two that do not fit.
            let fit = fit().map_err(|e| Error::Backend(format!("{name}, {variant}: {e}")));
            heads.extend(fit?);
        }
        let engine = backend.engine();
        let digest = engine.identity();
        let model = Model {
            // Rows of another quantization are another model's.
            name: engine.name(),
            digest: digest.map_err(|e| Error::Backend(e.to_string()))?.into(),
            backend: kind(&self.options.device),
        };
        let started = Instant::now();
        let samples = self.grid.samples(&Target {
            model: &name,
            tokenizer: engine.tokenizer(),
            chat: Some(&|text| backend.chat(text)),
            context: engine.context(),
        })?;
        let seconds = started.elapsed().as_secs_f64();
        let (samples, turns) = apart(samples);
        let mut parts = vec![(samples, variants.clone())];
        let mut backend = backend;
        if let Some(options) = &self.grid.turns {
            backend = backend.remember(engine::Memory {
                bytes: options.prefix_bytes,
                place: engine::place(&options.prefix_place)?,
                states: options.state.clone(),
            })?;
            if let Some(file) = &options.save_state {
                let prompts: Vec<_> = turns.iter().map(|sample| &sample.prompt).collect();
                let tokens = backend.save_state(&prompts, file)?;
                terminal::say(&format!("{tokens} tokens saved in {}", file.display()));
            }
            let modes = options.modes()?;
            let reusing = variants.iter().flat_map(|variant| {
                let modes = modes.iter();
                modes.map(move |mode| variant.clone().reuse(*mode))
            });
            parts.push((turns, reusing.collect()));
        }
        Ok(Ready {
            model,
            parts,
            heads,
            backend: Box::new(backend),
            seconds,
        })
    }

    fn endpoint(&self, url: &str, path: &Path, variants: Vec<Variant>) -> Result<Ready<'_>, Error> {
        let file = path.join("tokenizer.json");
        let tokenizer = headkv_haystack::tokenizer::read(&file).map_err(|e| {
            Error::Option(format!(
                "{e}; name the folder of the server's model with --model"
            ))
        })?;
        let folder = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let name = match &self.options.endpoint_model {
            Some(_) if self.grid.models.len() > 1 => {
                return Err(Error::Option(
                    "--endpoint-model names one model, but there are several; leave it out or run them one by one"
                        .into(),
                ));
            }
            Some(name) => name.clone(),
            None => folder,
        };
        let settings = endpoint::Options {
            key: Key::from_environment()?,
            concurrency: self.options.concurrency,
            retries: self.options.retries,
            timeout: Duration::from_secs(self.options.timeout.get()),
            ..endpoint::Options::new(url, &name)
        };
        let started = Instant::now();
        let samples = self.grid.samples(&Target {
            model: &name,
            tokenizer: &tokenizer,
            chat: None,
            context: self.options.endpoint_context,
        })?;
        Ok(Ready {
            backend: Box::new(Endpoint::new(settings)?.until(self.stop)),
            model: Model {
                name,
                digest: url.into(),
                backend: "endpoint".into(),
            },
            parts: vec![(samples, variants)],
            heads: Vec::new(),
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    fn answer(&self, ready: Ready<'_>, shard: Shard, outcome: &mut Outcome) -> Result<(), Error> {
        let Ready {
            model,
            parts,
            heads,
            backend,
            seconds,
        } = ready;
        let started = Instant::now();
        let mut store = Store::open(self.out)?;
        store.add_run(&self.provenance()?)?;
        store.add_heads(&heads)?;
        let options = runner::Options {
            shard,
            stop: self.stop,
        };
        for (samples, variants) in parts.iter().filter(|(samples, _)| !samples.is_empty()) {
            terminal::say(&format!(
                "{}: {} configurations x {} prompts",
                model.name,
                variants.len(),
                samples.len()
            ));
            let summary = runner::run(samples, variants, &model, &*backend, &mut store, options)?;
            outcome.summary.add(summary);
            let keys = variants.iter().flat_map(|variant| {
                samples
                    .iter()
                    .map(|sample| row::key(sample, &model, variant))
            });
            outcome.keys.extend(keys);
        }
        outcome.seconds += seconds + started.elapsed().as_secs_f64();
        Ok(())
    }

    fn provenance(&self) -> Result<Run, Error> {
        let device = match &self.options.endpoint {
            Some(url) => url.clone(),
            None => self.options.device.clone(),
        };
        Ok(Run {
            command: self.command.into(),
            grid_file: self.grid.file.clone(),
            settings: self.grid.settings()?,
            machine: self
                .options
                .endpoint
                .is_none()
                .then(|| machine::describe(&device)),
            date: Some(jiff::Timestamp::now().strftime("%Y-%m-%d").to_string()),
            device,
            version: row::version(),
            commit: commit::commit().map(str::to_owned),
        })
    }
}

/// Samples that stand by themselves, and turns.
fn apart(samples: Vec<Sample>) -> (Vec<Sample>, Vec<Sample>) {
    samples
        .into_iter()
        .partition(|sample| sample.turn.is_none())
}

/// The device without its number: whichever GPU of a machine ran a shard, its rows belong with the others.
fn kind(device: &str) -> String {
    device.split(':').next().unwrap_or(device).into()
}

/// Writes report.html, report.md and report.csv of a folder's results into `to`.
///
/// # Errors
/// A folder that cannot be written.
pub fn write_reports(
    results: &Results,
    to: &Path,
    options: &report::Options,
) -> Result<PathBuf, Error> {
    let tables = report::tables(&results.rows);
    let text = report::markdown(&tables) + &report::speed(&results.speed);
    whole::write(&to.join("report.md"), text)?;
    whole::write(&to.join("report.csv"), report::csv(&tables))?;
    let page = to.join("report.html");
    whole::write(&page, &report::html(results, options)?)?;
    Ok(page)
}
