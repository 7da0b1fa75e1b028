//! What a server is started with.

use headkv_engine::{Device, Isq};
use headkv_plugin::{Compression, hook::Reuse, prefix::Place};
use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, time::Duration};

/// A server's settings; [`Options::new`] has the command line's defaults.
#[derive(Clone, Debug)]
pub struct Options {
    /// A model folder or a GGUF file.
    pub model: PathBuf,
    /// The model's name in requests; `None` is the folder's.
    pub name: Option<String>,
    /// Where it runs.
    pub device: Device,
    /// What linear layers are quantized in while they load.
    pub isq: Option<Isq>,
    /// What is kept of prompts; score files that are not named are looked for.
    pub compression: Compression,
    /// Where score files are looked for, in this order; see [`headkv_embedded::score_folders`].
    pub score_folders: Vec<PathBuf>,
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    /// The most sequences that run together.
    pub max_seqs: NonZeroUsize,
    /// Bytes of keys and values that all of them may hold.
    pub kv_budget: usize,
    /// Bytes of keys and values that one request may hold; `None` is all of the budget.
    pub request_kv: Option<usize>,
    /// Bytes of memory for prompts that have been read, beside the budget: a prompt that begins as an earlier one did
    /// is read on from there. 0 remembers none.
    pub prefix_bytes: usize,
    /// Where whole prompts are remembered, for a model on a GPU.
    pub prefix_place: Place,
    /// What is remembered within these bytes.
    pub reuse: Reuse,
    /// Files of prompts' beginnings that are known from the start.
    pub states: Vec<PathBuf>,
    /// Requests that may wait.
    pub queue: usize,
    /// Prompt tokens of one step.
    pub step_tokens: usize,
    /// The answer's length where a chat request does not say.
    pub default_max_tokens: usize,
    /// The largest body of a request, in bytes.
    pub max_body: usize,
    /// How long a client may take to send a request's headers, or leave a connection unused.
    pub headers: Duration,
    /// How long running requests may take to finish once the server is to end.
    pub drain: Duration,
    /// The file with the keys, one a line.
    pub api_key_file: Option<PathBuf>,
    /// Where a line per request goes.
    pub log: Log,
    /// Whether prompts are part of it.
    pub log_prompts: bool,
}

/// Where access logs go.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Log {
    /// Nowhere.
    #[default]
    Off,
    /// Standard output.
    Stdout,
    /// The end of a file.
    File(PathBuf),
}

/// The loopback address and the port that `mistralrs serve` has.
pub const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 1], 1234);

impl Options {
    /// The model at that path on the CPU, with everything else as the command line has it, and no log.
    pub fn new(model: impl Into<PathBuf>) -> Self {
        Self {
            model: model.into(),
            name: None,
            device: Device::Cpu,
            isq: None,
            compression: Compression::default(),
            score_folders: headkv_embedded::score_folders(),
            address: SocketAddr::from(ADDRESS),
            max_seqs: NonZeroUsize::MIN.saturating_add(63),
            kv_budget: 4 << 30,
            request_kv: None,
            prefix_bytes: 512 << 20,
            prefix_place: Place::Host,
            reuse: Reuse::Exact,
            states: Vec::new(),
            queue: 256,
            step_tokens: 4096,
            default_max_tokens: 1024,
            max_body: 16 << 20,
            headers: Duration::from_secs(75),
            drain: Duration::from_secs(30),
            api_key_file: None,
            log: Log::Off,
            log_prompts: false,
        }
    }
}
