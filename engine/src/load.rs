//! From a path to a running model.

use crate::{Device, Error, ModelFiles, check::guard, facts, files::first_line, wait::wait};
use headkv_plugin::{
    Compression, HeadKv, ModelShape,
    hook::{Model, Options, Panels, Reuse},
    prefix::Place,
};
use mistralrs_core::{
    DefaultSchedulerMethod, DeviceMapSetting, GGUFLoaderBuilder, GGUFSpecificConfig, Loader,
    MemoryGpuConfig, MistralRs, MistralRsBuilder, ModelDType, MultimodalLoaderBuilder,
    MultimodalSpecificConfig, NormalLoaderBuilder, NormalSpecificConfig, PagedAttentionConfig,
    PagedCacheType, Pipeline, SchedulerConfig, TokenSource,
    attention_hook::{self, AttentionHook, PromptPolicy},
};
use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    thread,
};
use tokenizers::Tokenizer;
use tokio::sync::oneshot;

/// What to load and where.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// A model folder or a GGUF file.
    pub model: PathBuf,
    /// Where it runs.
    pub device: Device,
    /// The most sequences that decode together.
    pub max_batch: NonZeroUsize,
    /// Whether answers go on past the model's end tokens, to the length asked for.
    pub ignore_end: bool,
    /// How prompts share the engine with sequences that decode, under [`Attention::Compressed`].
    pub prompts: PromptPolicy,
    /// Bytes of memory for prompts that have been read, under [`Attention::Compressed`]: one that begins as an earlier one
    /// did is read on from where they part. 0 remembers none.
    pub prefix_bytes: usize,
    /// Where these bytes are, for a model on a GPU.
    pub prefix_place: Place,
    /// What is remembered within these bytes.
    pub reuse: Reuse,
}

impl LoadOptions {
    /// The model at that path, on the CPU, up to 32 sequences at once.
    pub fn new(model: impl Into<PathBuf>) -> Self {
        Self {
            model: model.into(),
            device: Device::Cpu,
            max_batch: NonZeroUsize::MIN.saturating_add(31),
            ignore_end: false,
            prompts: PromptPolicy::default(),
            prefix_bytes: 0,
            prefix_place: Place::default(),
            reuse: Reuse::Exact,
        }
    }
}

/// What computes attention and keeps keys and values.
#[expect(
    clippy::large_enum_variant,
    reason = "a model is loaded with one of these"
)]
#[non_exhaustive]
pub enum Attention {
    /// HeadKV, which can be reconfigured by [`Engine::set_compression`].
    Compressed(Compression),
    /// A hook of one's own.
    Hook(Arc<dyn AttentionHook>),
    /// The runtime's own path, unhooked.
    Upstream,
    /// The runtime's paged attention, unhooked, with a cache for that many tokens; on a GPU only.
    Paged(usize),
}

/// A loaded model.
pub struct Engine {
    pub(crate) mistral: Arc<MistralRs>,
    pub(crate) model: Option<Arc<Model>>,
    /// The model's own end tokens.
    pub(crate) end_tokens: Vec<u32>,
    tokenizer: Arc<Tokenizer>,
    files: ModelFiles,
    shape: ModelShape,
    #[cfg(feature = "cuda")]
    device: candle_core::Device,
    /// As [`ModelFiles::identity`], once it was asked for.
    identity: OnceLock<String>,
    /// Bytes of one element of a key without a hook.
    element_bytes: usize,
    /// Elements of one head's value without a hook.
    value_dim: usize,
    context: usize,
}

impl Engine {
    /// Loads a model.
    ///
    /// # Errors
    /// Files that are missing or damaged, a device that is not there, a configuration or score file that does not fit
    /// the model, or a model that cannot be hooked.
    pub fn load(options: LoadOptions, attention: Attention) -> Result<Self, Error> {
        let files = ModelFiles::open(&options.model)?;
        if let Some(why) = refused_on(&files, options.device, &attention) {
            return Err(refused(&files, why));
        }
        let device = options.device.open()?;
        let load = || guard::quietly(|| pipeline(&files, &device, options.device, &attention));
        let loaded = match &attention {
            Attention::Compressed(compression) => {
                let how = Options {
                    prompts: options.prompts,
                    prefix_bytes: options.prefix_bytes,
                    prefix_place: options.prefix_place,
                    reuse: options.reuse,
                    facts: facts::of(&files),
                };
                HeadKv::with_options(compression.clone(), how)?.scope(load)
            }
            Attention::Hook(hook) => {
                attention_hook::sync_scope(hook.clone(), || Panels::scope(load))
            }
            Attention::Upstream | Attention::Paged(_) => load(),
        };
        let pipeline = match loaded {
            Ok(Ok(pipeline)) => pipeline,
            Ok(Err(e)) => return Err(refused(&files, &root_message(&*e))),
            Err(why) => {
                return Err(refused(
                    &files,
                    &format!("the runtime cannot load it ({why}); check its config.json"),
                ));
            }
        };
        let (model, tokenizer, info, metadata) = wait(async {
            let pipeline = pipeline.lock().await;
            (
                Model::of(&*pipeline),
                attention_hook::tokenizer(&*pipeline),
                attention_hook::model_info(&*pipeline),
                pipeline.get_metadata(),
            )
        });
        let tokenizer = tokenizer.ok_or_else(|| refused(&files, "has no tokenizer"))?;
        let info = info.ok_or_else(|| refused(&files, "is not a text model"))?;
        let scheduler = match (&attention, metadata.cache_config.clone()) {
            (Attention::Paged(_), Some(config)) => SchedulerConfig::PagedAttentionMeta {
                max_num_seqs: options.max_batch.get(),
                config,
            },
            (Attention::Paged(_), None) => {
                return Err(refused(&files, "has no paged attention on this device"));
            }
            _ => SchedulerConfig::DefaultScheduler {
                method: DefaultSchedulerMethod::Fixed(options.max_batch),
            },
        };
        let builder = MistralRsBuilder::new(pipeline, scheduler, false, None)
            .with_no_prefix_cache(true)
            .with_disable_eos_stop(options.ignore_end);
        // On a thread without a runtime, where upstream sends no prompt of its own to warm up.
        let build = move || wait(builder.build());
        let built = thread::scope(|scope| scope.spawn(build).join());
        let mistral = built.map_err(|_| refused(&files, "the runtime's engine did not start"))?;
        Ok(Self {
            mistral,
            model,
            end_tokens: metadata.eos_tok.clone(),
            tokenizer,
            files,
            shape: ModelShape {
                layers: info.layers,
                heads: info.heads,
                kv_heads: info.kv_heads,
                head_dim: info.head_dim,
            },
            #[cfg(feature = "cuda")]
            device,
            identity: OnceLock::new(),
            // GPUs run models in 16 bits, the CPU in f32.
            element_bytes: if options.device == Device::Cpu { 4 } else { 2 },
            value_dim: info.value_dim,
            context: info.max_seq_len,
        })
    }

    /// As [`Engine::load`], for asynchronous programs: loads on a thread of its own.
    ///
    /// # Errors
    /// As [`Engine::load`].
    pub async fn load_async(options: LoadOptions, attention: Attention) -> Result<Self, Error> {
        let (sender, loaded) = oneshot::channel();
        let load = move || {
            // Nobody may be waiting any more.
            let _ = sender.send(Self::load(options, attention));
        };
        let named = thread::Builder::new().name("headkv-load".into());
        named
            .spawn(load)
            .map_err(|e| Error::Generation(e.to_string()))?;
        loaded.await.unwrap_or(Err(Error::Stopped))
    }

    /// Changes the compression of sequences that begin from now on.
    ///
    /// # Errors
    /// As [`Model::set`]; [`Error::NotCompressed`] if the model was not loaded with [`Attention::Compressed`].
    pub fn set_compression(&self, compression: &Compression) -> Result<(), Error> {
        Ok(self.compressed()?.set(compression)?)
    }

    /// The model's side of the compression: what its sequences hold, and configurations by request.
    ///
    /// # Errors
    /// [`Error::NotCompressed`] if the model was not loaded with [`Attention::Compressed`].
    pub fn compressed(&self) -> Result<&Arc<Model>, Error> {
        self.model.as_ref().ok_or(Error::NotCompressed)
    }

    /// The runtime's engine, for everything that [`Engine::generate`] does not do.
    pub fn mistral(&self) -> &Arc<MistralRs> {
        &self.mistral
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Token ids of a text, without added special tokens.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        let encoding = self
            .tokenizer
            .encode(text, false)
            .map_err(|e| Error::Tokenizer(e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The model's files.
    pub fn files(&self) -> &ModelFiles {
        &self.files
    }

    /// The digest of the model's files, as [`ModelFiles::identity`] has it; computed once.
    ///
    /// # Errors
    /// As [`ModelFiles::identity`].
    pub fn identity(&self) -> Result<&str, Error> {
        if let Some(known) = self.identity.get() {
            return Ok(known);
        }
        let digest = self.files.identity()?;
        Ok(self.identity.get_or_init(|| digest))
    }

    /// The model's attention shape.
    pub fn shape(&self) -> ModelShape {
        self.shape
    }

    /// Bytes that tensors take on the model's GPU now, weights included; `None` on the CPU.
    ///
    /// # Errors
    /// [`Error::Device`] if the device failed.
    pub fn gpu_bytes(&self) -> Result<Option<u64>, Error> {
        #[cfg(feature = "cuda")]
        return headkv_plugin::cuda::allocated_bytes(&self.device).map_err(|e| Error::Device {
            name: format!("{:?}", self.device.location()),
            why: first_line(&e.to_string()).into(),
        });
        #[cfg(not(feature = "cuda"))]
        return Ok(None);
    }

    /// Bytes of one element of a key or value.
    pub fn element_bytes(&self) -> usize {
        self.element_bytes
    }

    /// Bytes that the runtime's own cache takes for each token, over all layers.
    pub(crate) fn token_bytes(&self) -> usize {
        let shape = self.shape;
        let elements = shape.head_dim + self.value_dim;
        shape.layers * shape.kv_heads * elements * self.element_bytes
    }

    /// The model's context in tokens, prompt and answer together.
    pub fn context(&self) -> usize {
        self.context
    }
}

type LoadedPipeline = Arc<tokio::sync::Mutex<dyn Pipeline + Send + Sync>>;

fn pipeline(
    files: &ModelFiles,
    device: &candle_core::Device,
    on: Device,
    attention: &Attention,
) -> Result<LoadedPipeline, Box<dyn std::error::Error>> {
    let folder = |path: &Path| path.to_string_lossy().into_owned();
    // Lies there until the model is loaded.
    let unlimited = files.unlimited_tokenizer()?;
    let loader: Box<dyn Loader> = if files.is_gguf() {
        let (dir, file) = (
            files.path().parent().unwrap_or(Path::new(".")),
            files.path().file_name().unwrap_or_default(),
        );
        let dir = if dir.as_os_str().is_empty() {
            Path::new(".")
        } else {
            dir
        };
        let names = vec![file.to_string_lossy().into_owned()];
        GGUFLoaderBuilder::new(
            None,
            None,
            folder(dir),
            names,
            GGUFSpecificConfig::default(),
            false,
            None,
        )
        .build()
    } else {
        let id = Some(folder(files.path()));
        let tokenizer = unlimited.as_ref().map(|file| folder(file.path()));
        if files.is_multimodal() {
            let settings = MultimodalSpecificConfig::default();
            MultimodalLoaderBuilder::new(settings, None, tokenizer, id, None).build(None)
        } else {
            let settings = NormalSpecificConfig::default();
            NormalLoaderBuilder::new(settings, None, tokenizer, id, false, None).build(None)?
        }
    };
    let dtype = if on == Device::Cpu {
        ModelDType::F32
    } else {
        ModelDType::Auto
    };
    let paged = match attention {
        Attention::Paged(tokens) => {
            let memory = MemoryGpuConfig::ContextSize(*tokens);
            Some(PagedAttentionConfig::new(
                None,
                memory,
                PagedCacheType::Auto,
            )?)
        }
        _ => None,
    };
    Ok(loader.load_model_from_hf(
        None,
        TokenSource::None,
        &dtype,
        device,
        true,
        DeviceMapSetting::dummy(),
        None,
        paged,
    )?)
}

/// Why that model cannot run there under that attention, if it cannot.
fn refused_on(files: &ModelFiles, device: Device, attention: &Attention) -> Option<&'static str> {
    let compressed = matches!(attention, Attention::Compressed(_));
    (compressed && device != Device::Cpu && files.has_sinks()).then_some(
        "has attention sinks, which HeadKV has no kernel for on GPUs; run it on the CPU, or without HeadKV",
    )
}

fn refused(files: &ModelFiles, why: &str) -> Error {
    Error::Model {
        path: files.path().into(),
        why: why.into(),
    }
}

/// The innermost message, without the backtrace that candle prints behind it.
fn root_message(error: &(dyn std::error::Error + 'static)) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    first_line(&root.to_string()).to_string()
}
