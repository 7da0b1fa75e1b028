//! Runs a model over examples and collects the scores of its heads.

use crate::{
    Error, Kind, Meta, ScoreFile, Settings, estimator,
    example::{Example, Grid},
    file,
    observer::Observer,
    session::{Outcome, Session},
};
use headkv_engine::{Attention, Device, Engine, LoadOptions, ModelFiles, Request};
use headkv_files::{sha256, shell};
use headkv_haystack::answer;
use headkv_plugin::linear;
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Answers end at a line's end, as in the original.
const STOP: &str = "\n";

/// A model with an observer in its attention.
pub struct Scorer {
    engine: Engine,
    device: Device,
    /// The most examples that decode together.
    together: usize,
    observer: Arc<Observer>,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// Examples done.
    pub done: usize,
    /// Of those, the ones that were answered right.
    pub counted: usize,
    /// Tokens of their prompts.
    pub tokens: usize,
}

impl Scorer {
    /// Loads a model.
    ///
    /// # Errors
    /// As [`Engine::load`].
    pub fn load(options: LoadOptions) -> Result<Self, Error> {
        let (observer, device, most) = (Observer::new()?, options.device, options.max_batch.get());
        let engine = Engine::load(options, Attention::Hook(observer.clone()))?;
        let together = most.min(together(device, engine.files()));
        Ok(Self {
            engine,
            device,
            together,
            observer,
        })
    }

    /// The model.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What the scores of these examples depend on; `haystack` says where its text came from.
    ///
    /// # Errors
    /// The model's weights cannot be read.
    pub fn settings(
        &self,
        kind: Kind,
        grid: &Grid,
        haystack: &str,
        max_tokens: usize,
        examples: &[Example],
    ) -> Result<Settings, Error> {
        let tokenizer = self
            .engine
            .tokenizer()
            .to_string(false)
            .map_err(headkv_haystack::Error::from)?;
        let prompts = examples
            .iter()
            .flat_map(|example| &example.prompt)
            .flat_map(|token| token.to_le_bytes());
        Ok(Settings {
            model: self.engine.files().name(),
            weights_sha256: self.engine.files().digest()?,
            tokenizer_sha256: sha256(&[tokenizer.as_bytes()]),
            device: self.device.to_string(),
            kind,
            needles: grid.needles.clone(),
            haystack: haystack.into(),
            lengths: grid.lengths.clone(),
            depths: grid.depths.clone(),
            template: grid.template.to_string(),
            max_tokens,
            prompts_sha256: sha256(&[&prompts.collect::<Vec<u8>>()]),
            tool: concat!("head-scoring ", env!("CARGO_PKG_VERSION")).into(),
        })
    }

    /// Answers the examples and scores every head in each. They decode together, as many as may.
    ///
    /// # Errors
    /// As [`Engine::generate`].
    pub fn measure(
        &self,
        kind: Kind,
        examples: &[&Example],
        max_tokens: usize,
    ) -> Result<Vec<Outcome>, Error> {
        let mut outcomes = Vec::with_capacity(examples.len());
        for together in examples.chunks(self.together) {
            outcomes.extend(self.measure_together(kind, together, max_tokens)?);
        }
        Ok(outcomes)
    }

    fn measure_together(
        &self,
        kind: Kind,
        examples: &[&Example],
        max_tokens: usize,
    ) -> Result<Vec<Outcome>, Error> {
        let request =
            |example: &&Example| Request::new(example.prompt.clone(), max_tokens).stop_at(STOP);
        let mut requests: Vec<Request> = examples.iter().map(request).collect();
        // Damaged weights spoil every output, so that looking at one is enough; the observer looks at all attention.
        if let Some(first) = requests.first_mut() {
            first.keep_logits = true;
        }
        for example in examples {
            self.observer.watch(&example.prompt, example.needle.clone());
        }
        let answers = self.engine.generate(&requests);
        // Taken before an error returns, so that nothing stays watched.
        let sights: Vec<_> = examples
            .iter()
            .map(|example| self.observer.take(&example.prompt))
            .collect();
        let outcome = |((example, generation), layers): (
            (&&Example, headkv_engine::Generation),
            Option<_>,
        )| {
            let mut scores = Vec::new();
            for steps in layers.unwrap_or_default() as crate::observer::Sights {
                for head in 0..steps.first().map_or(0, Vec::len) {
                    let sights: Vec<_> = steps.iter().map(|heads| heads[head]).collect();
                    let score = estimator::score(
                        kind,
                        &sights,
                        &generation.tokens,
                        &example.prompt,
                        &example.needle,
                    );
                    scores.push((score * DECIMALS).round() / DECIMALS);
                }
            }
            let answer = generation.text.trim().to_string();
            Outcome {
                f1: answer::qa_f1(&answer, &example.answer),
                answer,
                scores,
            }
        };
        let answers = answers?;
        if answers
            .iter()
            .flat_map(|answer| &answer.logits)
            .flatten()
            .any(|x| x.is_nan())
        {
            return Err(Error::NotANumber);
        }
        Ok(examples
            .iter()
            .zip(answers)
            .zip(sights)
            .map(outcome)
            .collect())
    }

    /// That every prompt and its answer fit the model, before any work is done.
    fn check_lengths(&self, examples: &[Example], max_tokens: usize) -> Result<(), Error> {
        let prompt = examples
            .iter()
            .map(|example| example.prompt.len())
            .max()
            .unwrap_or(0);
        let context = self.engine.context();
        if prompt.saturating_add(max_tokens) > context {
            return Err(headkv_engine::Error::TooLong {
                prompt,
                answer: max_tokens,
                context,
            }
            .into());
        }
        Ok(())
    }

    /// Scores every head over all examples that are answered right, and writes the score file at the end.
    ///
    /// `batch` examples decode together. Outcomes are kept beside `out` until then, so that a run that was stopped (by
    /// `stop`, or by force) goes on where it was.
    ///
    /// # Errors
    /// [`Error::Stopped`], [`Error::NoneRight`], [`Error::AllZero`], and those of [`Scorer::measure`] and of files.
    pub fn run(
        &self,
        settings: &Settings,
        examples: &[Example],
        out: &Path,
        batch: usize,
        stop: &AtomicBool,
        mut progress: impl FnMut(Progress),
    ) -> Result<Meta, Error> {
        self.check_lengths(examples, settings.max_tokens)?;
        let shape = self.engine.shape();
        let heads = shape.layers * shape.heads;
        let mut session = Session::open(&unfinished(out), settings, examples.len(), heads)?;
        let left: Vec<usize> = (0..examples.len())
            .filter(|i| !session.done.contains_key(i))
            .collect();
        progress(so_far(&session, examples));
        for numbers in left.chunks(batch.max(1)) {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Stopped {
                    done: session.done.len(),
                    total: examples.len(),
                });
            }
            let batch: Vec<_> = numbers.iter().map(|&i| &examples[i]).collect();
            for (number, outcome) in
                numbers
                    .iter()
                    .zip(self.measure(settings.kind, &batch, settings.max_tokens)?)
            {
                session.add(*number, outcome)?;
            }
            progress(so_far(&session, examples));
        }
        let mut scores = ScoreFile::new(shape.layers, shape.heads);
        session
            .done
            .values()
            .filter(|outcome| right(outcome))
            .for_each(|outcome| scores.push(&outcome.scores));
        let (counted, total) = (scores.examples().1, examples.len());
        if counted == 0 {
            let answers = session
                .done
                .iter()
                .take(2)
                .map(|(&i, o)| (o.answer.clone(), examples[i].answer.clone()));
            let error = Error::NoneRight {
                tried: total,
                answers: answers.collect(),
            };
            session.finish()?;
            return Err(error);
        }
        if scores.means().is_err() {
            session.finish()?;
            return Err(Error::AllZero { counted });
        }
        scores.write(out)?;
        let meta = Meta {
            settings: settings.clone(),
            counted,
            total,
            date: jiff::Timestamp::now()
                .strftime("%Y-%m-%dT%H:%M:%SZ")
                .to_string(),
            command: shell::command_line("head-scoring", std::env::args_os().skip(1)),
        };
        meta.write(out)?;
        session.finish()?;
        Ok(meta)
    }
}

/// How many examples may decode together on a CPU without changing each other's scores by a bit. HeadKV's products sum
/// every row in the same order up to [`linear::FEW`] rows; a GGUF file's layers are not HeadKV's, and more rows than one are summed in
/// another order. On a GPU nothing keeps the order.
fn together(device: Device, files: &ModelFiles) -> usize {
    match device {
        Device::Cpu if files.is_gguf() => 1,
        Device::Cpu => linear::FEW,
        _ => usize::MAX,
    }
}

/// Scores are rounded to this: what lies below is noise of the order in which floats are added.
const DECIMALS: f64 = 1e6;

/// An example counts when its answer reaches more than this.
const RIGHT: f64 = 0.5;

fn right(outcome: &Outcome) -> bool {
    // A half that was rounded up is a half.
    outcome.f1 > RIGHT + f64::EPSILON
}

fn so_far(session: &Session, examples: &[Example]) -> Progress {
    let done = || session.done.iter();
    Progress {
        done: session.done.len(),
        counted: done().filter(|(_, outcome)| right(outcome)).count(),
        tokens: done()
            .filter_map(|(&i, _)| examples.get(i))
            .map(|example| example.prompt.len())
            .sum(),
    }
}

/// Where an unfinished run keeps its outcomes: `x.json` has `x.json.part`.
pub fn unfinished(out: &Path) -> PathBuf {
    file::appended(out, ".part")
}
