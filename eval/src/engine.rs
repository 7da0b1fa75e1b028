//! A backend that runs the model in this process, and the only room here that knows the plugin and the engine.

pub mod list;
mod outline;
mod variants;

pub use outline::{Outline, Scores};
pub use variants::{label, variants};

use crate::{
    Backend, Completion, Error, Failure, Job, Reuse, Variant,
    kept::{Runs, runs},
    sample::Prompt,
    store::Heads,
};
use headkv_engine::{Attention, Device, Engine, Generation, Isq, LoadOptions, Request, hub};
use headkv_plugin::{
    Compression, hook, methods,
    prefix::{BLOCK, Place},
    watch::Watch,
};
use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
};
use variants::compression;

/// Tokens at each end of a text that a chat template may have joined with its own.
const JOINED: usize = 2;

/// A model in this process.
pub struct InProcess {
    engine: Engine,
    batch: NonZeroUsize,
    memory: Memory,
    on_cpu: bool,
}

/// What variants that reuse prompts remember.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// The most bytes of prompts.
    pub bytes: usize,
    /// Where they are, for a model on a GPU.
    pub place: Place,
    /// Files of prompts' beginnings that are known from the start.
    pub states: Vec<PathBuf>,
}

/// Where earlier prompts are held, by its name.
///
/// # Errors
/// An unknown one.
pub fn place(name: &str) -> Result<Place, Error> {
    let unknown = |why| Error::Option(format!("--prefix-place: {why}"));
    name.parse().map_err(unknown)
}

impl InProcess {
    /// Loads a model folder or a GGUF file, of which up to `batch` prompts are answered together, quantized in a format's
    /// name.
    ///
    /// # Errors
    /// A model that is missing, damaged or cannot be hooked; a device that is not there.
    pub fn load(
        model: &Path,
        device: &str,
        isq: Option<&str>,
        batch: NonZeroUsize,
    ) -> Result<Self, Error> {
        let device = device.parse::<Device>().map_err(backend)?;
        let on_cpu = device == Device::Cpu;
        let isq = isq.map(str::parse::<Isq>).transpose();
        let options = LoadOptions {
            device,
            isq: isq.map_err(backend)?,
            max_batch: batch,
            ..LoadOptions::new(model)
        };
        let attention = Attention::Compressed(Compression {
            method: "full".into(),
            ..Compression::default()
        });
        let engine = Engine::load(options, attention).map_err(backend)?;
        Ok(Self {
            engine,
            batch,
            memory: Memory::default(),
            on_cpu,
        })
    }

    /// What variants remember that reuse prompts.
    ///
    /// # Errors
    /// A state that does not fit the model, or the bytes.
    pub fn remember(mut self, memory: Memory) -> Result<Self, Error> {
        self.memory = memory;
        self.start(Some(Reuse::Exact))?;
        Ok(self)
    }

    /// Saves what all of these prompts begin with, read whole; returns its tokens.
    ///
    /// # Errors
    /// Prompts that have no block of tokens in common; a file that cannot be written.
    pub fn save_state(&self, prompts: &[&Prompt], file: &Path) -> Result<usize, Error> {
        let mut common: Option<Vec<u32>> = None;
        for prompt in prompts {
            let ids = self.encode(prompt).map_err(backend)?;
            common = Some(match common {
                Some(common) => common[..shared(&common, &ids)].to_vec(),
                None => ids,
            });
        }
        let common = common.unwrap_or_default();
        if common.len() < BLOCK {
            return Err(Error::Option(format!(
                "--save-state saves what all prompts begin with, and these share {} tokens of at least {BLOCK}; \
                 set --documents 1 and one of --kinds",
                common.len()
            )));
        }
        self.start(Some(Reuse::Exact))?;
        self.engine.save_state(&common, file).map_err(backend)
    }

    /// Forgets all prompts, and remembers those that come if they are to be reused.
    fn start(&self, reuse: Option<Reuse>) -> Result<(), Error> {
        let model = self.engine.compressed().map_err(backend)?;
        let Memory { bytes, place, .. } = self.memory;
        match reuse {
            None => model.remember(hook::Reuse::Exact, 0, place),
            Some(Reuse::Compressed) => model.remember(hook::Reuse::Compressed, bytes, place),
            Some(Reuse::Exact) => {
                model.remember(hook::Reuse::Exact, bytes, place);
                for file in &self.memory.states {
                    self.engine.load_state(file).map_err(backend)?;
                }
            }
        }
        Ok(())
    }

    /// Reads the prompt of the turn before if this one could be read on from it and cannot: the run was interrupted, or
    /// another machine had it. It is not part of any answer's time.
    fn catch_up(&self, before: &Prompt, prompt: &[u32]) -> Result<(), Failure> {
        let (before, then) = self.parts(before)?;
        let model = self.engine.compressed().map_err(failure)?;
        let shared = shared(&before, prompt);
        let wanted = match () {
            () if model.prefixes().is_on() => shared / BLOCK * BLOCK,
            () if model.conversations().is_on() && shared == before.len() => shared,
            () => 0,
        };
        if model.known(prompt) < wanted {
            let mut request = Request::new(before, 1);
            request.then = then;
            self.engine.generate(&[request]).map_err(failure)?;
        }
        Ok(())
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Token ids of a user's message in the model's own chat template.
    ///
    /// # Errors
    /// A model without a chat template.
    pub fn chat(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.engine.encode_chat(text).map_err(backend)
    }

    /// What each head keeps of a long prompt, window included; none for methods that decide it prompt by prompt.
    ///
    /// # Errors
    /// A variant that does not fit the model.
    pub fn heads(&self, variant: &Variant) -> Result<Option<Heads>, Error> {
        let (config, layers) = (compression(variant)?, self.engine.shape().layers);
        if methods::find(&config.method).is_ok_and(|entry| entry.keeps_all) {
            return Ok(None);
        }
        let model = self.engine.compressed().map_err(backend)?;
        let policy = model.policy(&config).map_err(backend)?;
        let mut capacities = Vec::with_capacity(layers);
        for layer in 0..layers {
            let lengths = policy.lengths(layer, self.engine.context());
            match lengths.map_err(backend)? {
                Some(lengths) => capacities.push(lengths),
                None => return Ok(None),
            }
        }
        Ok(Some(Heads {
            model: self.engine.name(),
            variant: variant.clone(),
            capacities,
        }))
    }
}

impl InProcess {
    /// Whether it is to be known which tokens are kept: on the CPU, where that costs nothing. What follows an earlier prompt is
    /// not ranked alone.
    fn watches(&self) -> bool {
        let remembers = |model: &hook::Model| model.remembered_bytes().1 > 0;
        let model = self.engine.compressed();
        self.on_cpu && model.is_ok_and(|model| !remembers(model))
    }

    /// What was kept of a prompt's text; `None` where its tokens are not found among the request's.
    fn kept(&self, prompt: &Prompt, request: &Request) -> Option<Runs> {
        let shares = request.watch.as_ref()?.shares();
        // A prompt that is kept whole has nothing to show.
        if shares.iter().all(|share| *share == 1.0) {
            return None;
        }
        let text = self.engine.tokenizer().encode(&*prompt.text, false).ok()?;
        let ids = text.get_ids();
        let all = [&request.prompt[..], &request.then[..]].concat();
        // A chat template stands around the text, and may join its first and last tokens with its own.
        let inner = ids.get(JOINED..ids.len().checked_sub(JOINED)?)?;
        let mut places = all.windows(inner.len().max(1));
        let first = places.position(|place| place == inner)?;
        // What follows the part that is compressed is whole.
        let share = |at: usize| shares.get(at).copied().unwrap_or(1.0);
        let ends = text.get_offsets()[..ids.len() - JOINED].iter().enumerate();
        let place = |at: usize| (first + at).saturating_sub(JOINED);
        Some(runs(ends.map(|(at, (_, end))| (*end, share(place(at))))))
    }

    /// A prompt's token ids.
    fn encode(&self, prompt: &Prompt) -> Result<Vec<u32>, Failure> {
        self.tokens(prompt, &prompt.text)
    }

    /// The token ids of a text, framed as that prompt is.
    fn tokens(&self, framing: &Prompt, text: &str) -> Result<Vec<u32>, Failure> {
        if framing.chat {
            return self.engine.encode_chat(text).map_err(failure);
        }
        let tokenizer = self.engine.tokenizer();
        let encoding = tokenizer.encode_fast(text, framing.special);
        let encoding = encoding.map_err(|e| Failure::Row(format!("tokenizer: {e}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// A prompt's token ids: those that are compressed, and those that come then.
    fn parts(&self, framed: &Prompt) -> Result<(Vec<u32>, Vec<u32>), Failure> {
        let mut prompt = self.encode(framed)?;
        let Some(at) = framed.apart else {
            return Ok((prompt, Vec::new()));
        };
        // The tokens are those of the whole prompt; one that reaches into the question belongs to it.
        let context = framed.text.get(..at).unwrap_or_default();
        let context = self.tokens(framed, context)?;
        let then = prompt.split_off(shared(&prompt, &context));
        if prompt.is_empty() || then.is_empty() {
            let why = "this prompt has no context before its question, or no question; leave out --question-apart";
            return Err(Failure::Row(why.into()));
        }
        Ok((prompt, then))
    }

    /// The request of a job.
    fn request(&self, job: &Job) -> Result<Request, Failure> {
        let (prompt, then) = self.parts(job.prompt)?;
        if let Some(before) = job.before {
            self.catch_up(before, &[&prompt[..], &then].concat())?;
        }
        Ok(Request {
            watch: self.watches().then(Arc::<Watch>::default),
            then,
            stop: job.stop.to_vec(),
            min_tokens: job.min_tokens,
            ..Request::new(prompt, job.max_tokens)
        })
    }
}

/// Whether a model's path could be its name on the hub.
pub fn is_hub_name(model: &Path) -> bool {
    let name = model.to_str().and_then(hub::Name::parse);
    name.is_some()
}

/// The model, its files and the compression were checked before: what fails now is this prompt's own fault.
fn failure(error: headkv_engine::Error) -> Failure {
    match error {
        headkv_engine::Error::Stopped | headkv_engine::Error::NotANumber => {
            Failure::Fatal(error.to_string())
        }
        headkv_engine::Error::Generation(why) => Failure::Row(why),
        other => Failure::Row(other.to_string()),
    }
}

/// How many tokens two prompts have in common at their beginnings.
fn shared(one: &[u32], other: &[u32]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}

/// What prompts and steps of a batch took: each its tokens' share, so that sums over rows are the time that passed.
struct Shares {
    prompt: f64,
    decode: f64,
}

impl Shares {
    fn of(answers: &[&Generation]) -> Self {
        let longest = |figure: fn(&Generation) -> f64| {
            answers
                .iter()
                .map(|answer| figure(answer))
                .fold(0.0, f64::max)
        };
        let sum = |figure: fn(&Generation) -> usize| {
            let tokens: usize = answers.iter().map(|answer| figure(answer)).sum();
            tokens.max(1) as f64
        };
        // All were sent at once, and decode together once the last prompt is done.
        let prompts = longest(|a| a.prompt_seconds);
        let all = longest(|a| a.prompt_seconds + a.decode_seconds);
        Self {
            prompt: prompts / sum(|a| a.prompt_tokens),
            decode: (all - prompts).max(0.0) / sum(|a| a.tokens.len().saturating_sub(1)),
        }
    }

    fn completion(&self, answer: &Generation, held_bytes: Option<usize>) -> Completion {
        let steps = answer.tokens.len().saturating_sub(1);
        Completion {
            text: answer.text.clone(),
            prompt_tokens: answer.prompt_tokens,
            tokens: answer.tokens.len(),
            reused_tokens: Some(answer.reused_tokens),
            held_bytes,
            prompt_seconds: Some(self.prompt * answer.prompt_tokens as f64),
            decode_seconds: self.decode * steps as f64,
            kv_bytes: Some(answer.kv_bytes),
            kept_bytes: Some(answer.kept_bytes),
            kept: None,
        }
    }
}

impl Backend for InProcess {
    fn configure(&self, variant: &Variant) -> Result<(), Error> {
        self.start(variant.reuse)?;
        self.engine
            .set_compression(&compression(variant)?)
            .map_err(backend)
    }

    fn complete(&self, job: &Job) -> Result<Completion, Failure> {
        let mut outcomes = self.complete_all(std::slice::from_ref(job));
        let none = || Err(Failure::Row("the engine gave no answer".into()));
        outcomes.pop().unwrap_or_else(none)
    }

    fn complete_all(&self, jobs: &[Job]) -> Vec<Result<Completion, Failure>> {
        let requests: Vec<_> = jobs.iter().map(|job| self.request(job)).collect();
        let sent: Vec<Request> = requests.iter().flatten().cloned().collect();
        let answers = self.engine.generate_each(&sent);
        let shares = Shares::of(&answers.iter().flatten().collect::<Vec<_>>());
        let mut answers = answers.into_iter();
        let remembered = self
            .engine
            .compressed()
            .map(|model| model.remembered_bytes());
        let held = remembered.ok().filter(|(_, limit)| *limit > 0);
        let held = held.map(|(bytes, _)| bytes);
        let outcome = |(request, job): (Result<Request, Failure>, &Job)| {
            let request = request?;
            match answers.next() {
                Some(answer) => answer
                    .map(|answer| Completion {
                        kept: self.kept(job.prompt, &request),
                        ..shares.completion(&answer, held)
                    })
                    .map_err(failure),
                None => Err(Failure::Row("the engine gave no answer".into())),
            }
        };
        requests.into_iter().zip(jobs).map(outcome).collect()
    }

    fn batch(&self) -> usize {
        self.batch.get()
    }
}

fn backend(e: impl std::fmt::Display) -> Error {
    Error::Backend(e.to_string())
}
