//! The model that is served, and what can be known of a request before it runs.

use crate::{
    error::ApiError,
    footprint::{Footprint, Sizes},
    options::Options,
    scores::Scores,
};
use anyhow::{Context, Result};
use either::Either;
use headkv_engine::{Attention, Engine, LoadOptions, ModelFiles};
use headkv_plugin::{Compression, Policy, hook::Model};
use mistralrs_core::{NormalRequest, Request, RequestMessage, TokenizationRequest};
use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::mpsc;

/// A loaded model and the compression that requests get unless they ask for another.
pub struct Served {
    engine: Engine,
    model: Arc<Model>,
    /// Its name in requests.
    pub name: String,
    /// Seconds since 1970 at which it was loaded.
    pub created: u64,
    /// What requests get that do not ask for another.
    pub compression: Compression,
    /// `compression`, ready for this model.
    pub policy: Arc<Policy>,
    /// Its sizes.
    pub sizes: Sizes,
    scores: Scores,
}

impl Served {
    /// Loads the model; not to be called from asynchronous code.
    ///
    /// # Errors
    /// As [`Engine::load`], and scores that are missing, with the command that makes them.
    pub fn load(options: &Options) -> Result<Self> {
        let files = ModelFiles::open(&options.model)?;
        let scores = Scores::of(&files, options.score_folders.clone())?;
        let compression = scores.complete(options.compression.clone())?;
        let mut load = LoadOptions::new(&options.model);
        load.device = options.device;
        load.isq = options.isq;
        load.max_batch = options.max_seqs;
        load.prompts.tokens = options.step_tokens;
        load.prompts.interleave = true;
        load.prefix_bytes = options.prefix_bytes;
        load.prefix_place = options.prefix_place;
        load.reuse = options.reuse;
        let engine = Engine::load(load, Attention::Compressed(compression.clone()))?;
        for file in &options.states {
            engine.load_state(file)?;
        }
        let model = engine.compressed()?.clone();
        let sizes = Sizes {
            shape: model.shape(),
            device: options.device,
            element_bytes: engine.element_bytes(),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Ok(Self {
            name: options.name.clone().unwrap_or_else(|| files.name()),
            created: now.map_or(0, |since| since.as_secs()),
            policy: model.policy(&compression)?,
            compression,
            sizes,
            scores,
            model,
            engine,
        })
    }

    /// The runtime's engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What the model's sequences hold.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The configuration with its score file, ready for this model.
    ///
    /// # Errors
    /// 400 with what is wrong with it.
    pub fn policy(&self, config: Compression) -> Result<Arc<Policy>, ApiError> {
        let wrong = |why: String| ApiError::parameter("headkv", why);
        let config = self
            .scores
            .complete(config)
            .map_err(|e| wrong(e.to_string()))?;
        self.model.policy(&config).map_err(|e| wrong(e.to_string()))
    }

    /// What a sequence holds after a prompt and an answer of so many tokens.
    ///
    /// # Errors
    /// 400 if the method cannot say.
    pub fn footprint(
        &self,
        policy: &Policy,
        prompt: usize,
        answer: usize,
    ) -> Result<Footprint, ApiError> {
        self.sizes
            .footprint(policy, prompt, answer)
            .map_err(|e| ApiError::parameter("headkv", e.to_string()))
    }

    /// Token ids of a request's prompt, as the engine will have them.
    ///
    /// # Errors
    /// 400 if the chat template refuses the messages; 503 if the engine is gone.
    pub async fn prompt(&self, request: &NormalRequest) -> Result<Vec<u32>, ApiError> {
        match &request.messages {
            RequestMessage::CompletionTokens(tokens) => Ok(tokens.clone()),
            RequestMessage::Completion { text, .. } => self.encode(text, true),
            _ => self.conversation(request, 0).await,
        }
    }

    /// How many tokens of a conversation's prompt come before its last message: those that do not change with it.
    ///
    /// # Errors
    /// As [`Self::prompt`], and 400 if there is nothing before it.
    pub async fn before_the_last_message(
        &self,
        request: &NormalRequest,
        prompt: &[u32],
    ) -> Result<usize, ApiError> {
        let before = match &request.messages {
            RequestMessage::Chat { messages, .. } if messages.len() > 1 => {
                self.conversation(request, 1).await?
            }
            _ => Vec::new(),
        };
        let same = before.iter().zip(prompt).take_while(|(a, b)| a == b);
        match same.count() {
            0 => Err(ApiError::parameter(
                "headkv",
                "question_apart compresses what comes before the last message; send that as messages of its own",
            )),
            tokens => Ok(tokens.min(prompt.len() - 1)),
        }
    }

    /// Token ids of a conversation without its last `without` messages; of all of it, with what begins an answer.
    async fn conversation(
        &self,
        request: &NormalRequest,
        without: usize,
    ) -> Result<Vec<u32>, ApiError> {
        if !self.engine.files().has_chat_template() {
            let why = "this model has no chat template; ask it at /v1/completions";
            return Err(ApiError::parameter("messages", why));
        }
        let RequestMessage::Chat {
            mut messages,
            enable_thinking,
            reasoning_effort,
        } = request.messages.clone()
        else {
            return Err(ApiError::request("this server answers to text only"));
        };
        messages.truncate(messages.len().saturating_sub(without));
        let (response, mut tokens) = mpsc::channel(1);
        let ask = Request::Tokenize(TokenizationRequest {
            text: Either::Left(messages),
            tools: request.tools.clone(),
            add_generation_prompt: without == 0,
            add_special_tokens: true,
            enable_thinking,
            reasoning_effort,
            response,
        });
        self.send(ask).await?;
        // A task of its own: the engine takes it badly if the receiver of this kind of answer is gone.
        let answer = tokio::spawn(async move { tokens.recv().await }).await;
        match answer {
            Ok(Some(Ok(tokens))) => Ok(tokens),
            Ok(Some(Err(why))) => Err(ApiError::parameter(
                "messages",
                why.root_cause().to_string(),
            )),
            _ => Err(ApiError::unavailable("the engine has stopped")),
        }
    }

    /// Token ids of a text, with those that the model wants at its ends if `special`.
    ///
    /// # Errors
    /// 400 if the tokenizer refuses it.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, ApiError> {
        let encoding = self.engine.tokenizer().encode_fast(text, special);
        let encoding = encoding.map_err(|e| ApiError::parameter("prompt", e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Sends something to the engine; one that died is started again.
    ///
    /// # Errors
    /// 503 if the engine is gone.
    pub async fn send(&self, request: Request) -> Result<mpsc::Sender<Request>, ApiError> {
        let gone = || ApiError::unavailable("the engine has stopped");
        let sender = self.engine.mistral().get_sender(None);
        let sender = sender.map_err(|_| gone())?;
        sender.send(request).await.map_err(|_| gone())?;
        Ok(sender)
    }

    /// Lists where scores come from, for the greeting.
    ///
    /// # Errors
    /// None in practice: the configuration was checked when the model was loaded.
    pub fn describe(&self) -> Result<String> {
        let config = &self.policy.config;
        let scores = self.compression.scores.as_ref();
        let scores = scores.filter(|_| config.method.starts_with("headkv"));
        let file = scores.and_then(|scores| scores.file()?.file_name());
        let scores = file.map_or_else(String::new, |name| {
            format!(" by {}", name.to_string_lossy())
        });
        let method = headkv_plugin::methods::find(&config.method).context("the method")?;
        Ok(if method.keeps_all {
            "full caches".into()
        } else {
            format!("{}@{}{scores}", config.method, config.capacity)
        })
    }
}
