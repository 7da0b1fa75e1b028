//! A whole run: the grid's models are loaded one after the other, every prompt is answered, and reports are written.

use crate::{
    Backend, Error, Row, Variant,
    datasets::Target,
    endpoint::{self, Endpoint},
    engine::{self, InProcess},
    grid::Grid,
    home::home,
    lines, report,
    row::{self, Model},
    runner::{self, Shard, Summary},
    store::{Heads, Results, Store},
};
use std::{
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    time::Instant,
};
use tokenizers::Tokenizer;

/// Where answers come from and rows go to.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// The part of the prompts to run here, such as 1/4; `merge` joins the parts
    #[arg(long, value_name = "I/N", default_value = "1/1")]
    pub shard: String,
    /// Ask an OpenAI-compatible server; --model gives the tokenizer, and the server compresses as it likes
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// The model's name at the server [default: the folder's name]
    #[arg(long, value_name = "NAME", requires = "endpoint")]
    pub endpoint_model: Option<String>,
    /// Requests to the server at the same time
    #[arg(long, value_name = "N", default_value_t = 4, requires = "endpoint")]
    pub concurrency: usize,
    /// Further tries after a failed request
    #[arg(long, value_name = "N", default_value_t = 4, requires = "endpoint")]
    pub retries: u32,
    /// Tokens that the server's model can read
    #[arg(
        long,
        value_name = "TOKENS",
        default_value_t = 8192,
        requires = "endpoint"
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
    /// Seconds from after loading to the last row, over all models.
    pub seconds: f64,
    /// The keys of the grid's rows, those that were there before included.
    keys: Vec<String>,
}

impl Outcome {
    /// Whether every prompt of the grid (or of its shard) has an answer.
    pub fn complete(&self) -> bool {
        self.summary.failed == 0 && !self.summary.stopped
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

impl Session<'_> {
    /// Runs the grid. Nothing is written before a model's input has been checked.
    ///
    /// # Errors
    /// Wrong input of any kind, or a folder that cannot be written or is in use.
    pub fn run(&self) -> Result<Outcome, Error> {
        let shard: Shard = self.options.shard.parse()?;
        let mut outcome = Outcome::default();
        for path in &self.grid.models {
            match &self.options.endpoint {
                Some(url) => self.ask_endpoint(url, path, shard, &mut outcome)?,
                None => self.ask_engine(path, shard, &mut outcome)?,
            }
        }
        Ok(outcome)
    }

    fn ask_engine(&self, path: &Path, shard: Shard, outcome: &mut Outcome) -> Result<(), Error> {
        // Loading takes long for large models: everything that is cheap to check comes first.
        engine::check_files(path)?;
        let variants = engine::variants(&self.grid.methods, path, &home().join("head_scores"))?;
        let backend = InProcess::load(path, &self.options.device)?;
        let engine = backend.engine();
        let mut heads = Vec::new();
        for variant in &variants {
            backend.configure(variant)?;
            heads.extend(backend.heads(variant)?.filter(|_| variant.scores.is_some()));
        }
        let digest = engine
            .files()
            .digest()
            .map_err(|e| Error::Backend(e.to_string()))?;
        let model = Model {
            name: engine.files().name(),
            digest,
            backend: self.options.device.clone(),
        };
        let target = Target {
            model: &model.name,
            tokenizer: engine.tokenizer(),
            context: engine.context(),
        };
        self.answer(&target, &variants, &model, &backend, &heads, shard, outcome)
    }

    fn ask_endpoint(
        &self,
        url: &str,
        path: &Path,
        shard: Shard,
        outcome: &mut Outcome,
    ) -> Result<(), Error> {
        let file = path.join("tokenizer.json");
        let tokenizer = Tokenizer::from_file(&file).map_err(|e| {
            Error::file(
                &file,
                format!("{e}; name the folder of the server's model with --model"),
            )
        })?;
        let folder = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let name = self.options.endpoint_model.clone().unwrap_or(folder);
        let settings = endpoint::Options {
            concurrency: self.options.concurrency,
            retries: self.options.retries,
            ..endpoint::Options::new(url, &name)
        };
        let backend = Endpoint::new(settings)?;
        let model = Model {
            name,
            digest: url.into(),
            backend: "endpoint".into(),
        };
        let target = Target {
            model: &model.name,
            tokenizer: &tokenizer,
            context: self.options.endpoint_context,
        };
        self.answer(
            &target,
            &[Variant::new("endpoint")],
            &model,
            &backend,
            &[],
            shard,
            outcome,
        )
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "what a model brings, and what the session adds to it"
    )]
    fn answer(
        &self,
        target: &Target,
        variants: &[Variant],
        model: &Model,
        backend: &dyn Backend,
        heads: &[Heads],
        shard: Shard,
        outcome: &mut Outcome,
    ) -> Result<(), Error> {
        let started = Instant::now();
        let samples = self.grid.samples(target)?;
        let mut store = Store::open(self.out)?;
        store.add_run(self.command)?;
        for heads in heads {
            store.add_heads(heads)?;
        }
        let options = runner::Options {
            shard,
            stop: self.stop,
        };
        let summary = runner::run(&samples, variants, model, backend, &mut store, options)?;
        outcome.summary.add(summary);
        outcome.seconds += started.elapsed().as_secs_f64();
        let keys = variants.iter().flat_map(|variant| {
            samples
                .iter()
                .map(|sample| row::key(sample, model, variant))
        });
        outcome.keys.extend(keys);
        Ok(())
    }
}

/// Writes report.html, report.md and report.csv of a folder's results into `to`.
///
/// # Errors
/// A folder that cannot be written.
pub fn write_reports(results: &Results, to: &Path) -> Result<PathBuf, Error> {
    let tables = report::tables(&results.rows);
    lines::write_whole(&to.join("report.md"), &report::markdown(&tables))?;
    lines::write_whole(&to.join("report.csv"), &report::csv(&tables))?;
    let page = to.join("report.html");
    lines::write_whole(&page, &report::html(results)?)?;
    Ok(page)
}
