//! The command line: it serves until SIGTERM or Ctrl-C, and ends with 0, or with 2 and one line if its input is wrong.

use crate::{
    options::{ADDRESS, Log, Options},
    server::Server,
};
use anyhow::{Context, Result, bail};
use clap::{CommandFactory, Parser, Subcommand};
use headkv_engine::Device;
use headkv_files::{size, terminal};
use headkv_plugin::{Compression, hook::Reuse, prefix::Place};
use std::{
    ffi::OsString,
    fs,
    io::IsTerminal,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

/// Serves a model with compressed KV caches over OpenAI's API
///
/// Example: headkv-serve --model models/tiny --method headkv --capacity 64 --port 1234
///
///   curl http://127.0.0.1:1234/v1/chat/completions -H 'content-type: application/json' \
///     -d '{"messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 32}'
#[derive(Parser)]
#[command(
    name = "headkv-serve",
    version,
    verbatim_doc_comment,
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(subcommand)]
    page: Option<Page>,
    /// A model folder, a .gguf file, or a model's name on the Hugging Face hub [default: the embedded model, tiny]
    #[arg(long, value_name = "DIR|FILE|ORG/NAME", help_heading = "Model")]
    model: Option<PathBuf>,
    /// The model's name in requests [default: the folder's, in lower case]
    #[arg(long, value_name = "NAME", help_heading = "Model")]
    served_name: Option<String>,
    /// What is kept of prompts: a name of `headkv-eval methods` [default: headkv]
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with = "config",
        help_heading = "Method"
    )]
    method: Option<String>,
    /// Tokens kept per head on average [default: 1024; 64 for the embedded model]
    #[arg(
        long,
        value_name = "TOKENS",
        conflicts_with = "config",
        help_heading = "Method"
    )]
    capacity: Option<usize>,
    /// Head scores [default: those of the model's name or digest in head_scores/, in HEADKV_HOME, or embedded]
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "config",
        help_heading = "Method"
    )]
    scores: Option<PathBuf>,
    /// A TOML file with every parameter of the compression, in place of the three above
    #[arg(long, value_name = "FILE", help_heading = "Method")]
    config: Option<PathBuf>,
    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu", help_heading = "Model")]
    device: String,
    /// Quantize linear layers while a folder loads on the CPU: q4_0, q4_1, q5_0, q5_1, q8_0, q2k, q3k, q4k, q5k or q6k
    #[arg(long, value_name = "FORMAT", help_heading = "Model")]
    isq: Option<String>,
    /// The address to listen on; others than the loopback's should have a key
    #[arg(long, value_name = "IP", default_value_t = IpAddr::from(ADDRESS.0), help_heading = "Endpoint")]
    host: IpAddr,
    /// The port to listen on; 0 takes a free one
    #[arg(long, default_value_t = ADDRESS.1, help_heading = "Endpoint")]
    port: u16,
    /// The most sequences that run together
    #[arg(
        long,
        value_name = "N",
        default_value = "64",
        help_heading = "Admission"
    )]
    max_seqs: NonZeroUsize,
    /// Memory for keys and values of all of them, such as 8GiB
    #[arg(long, value_name = "BYTES", default_value = "4GiB", value_parser = size::bytes, help_heading = "Admission")]
    kv_budget: usize,
    /// Memory for keys and values of one request, whatever it asks for [default: --kv-budget]
    #[arg(long, value_name = "BYTES", value_parser = size::bytes, help_heading = "Admission")]
    request_kv: Option<usize>,
    /// Memory beside --kv-budget for prompts that were read: one that begins as an earlier one did, such as the next
    /// turn of a conversation, is read on from there; 0 turns it off
    #[arg(long, value_name = "BYTES", default_value = "512MiB", value_parser = size::bytes_or_none, help_heading = "Admission")]
    prefix_bytes: usize,
    /// Where that memory is of exact ones, for a model on a GPU: host, or device, where reading on copies nothing over the bus
    #[arg(
        long,
        value_name = "PLACE",
        default_value = "host",
        help_heading = "Admission"
    )]
    prefix_place: Place,
    /// What is read on from: exact (all of it, which changes no answer), compressed (what was kept of the turn before, or of
    /// what stands before a question that comes apart, which does: less is held and attended to)
    #[arg(long, value_name = "MODE", default_value = "exact", value_parser = reuse, help_heading = "Admission")]
    reuse: Reuse,
    /// A prompt's beginning that `headkv-eval turns --save-state` read, within --prefix-bytes; may be repeated
    #[arg(long, value_name = "FILE", help_heading = "Admission")]
    state: Vec<PathBuf>,
    /// Requests that may wait for memory; those after them get 429
    #[arg(
        long,
        value_name = "N",
        default_value_t = 256,
        help_heading = "Admission"
    )]
    queue: usize,
    /// Prompt tokens of one step, so that running answers go on meanwhile; a longer prompt comes in pieces
    #[arg(
        long,
        value_name = "TOKENS",
        default_value_t = 4096,
        help_heading = "Admission"
    )]
    step_tokens: usize,
    /// The answer's length where a chat request does not say
    #[arg(
        long,
        value_name = "TOKENS",
        default_value_t = 1024,
        help_heading = "Endpoint"
    )]
    default_max_tokens: usize,
    /// The largest body of a request
    #[arg(long, value_name = "BYTES", default_value = "16MiB", value_parser = size::bytes, help_heading = "Endpoint")]
    max_body: usize,
    /// Seconds that a client may take to send a request's headers, and may leave a connection unused; more than a proxy
    /// before it keeps unused ones
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 75,
        value_parser = clap::value_parser!(u64).range(1..),
        help_heading = "Endpoint"
    )]
    header_seconds: u64,
    /// Seconds that running requests have to finish after SIGTERM
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 30,
        help_heading = "Endpoint"
    )]
    drain_seconds: u64,
    /// A file with API keys, one a line [default: none is asked for]
    #[arg(long, value_name = "FILE", help_heading = "Endpoint")]
    api_key_file: Option<PathBuf>,
    /// Where a JSON line per request goes: a file, - for stdout, or off
    #[arg(
        long,
        value_name = "FILE",
        default_value = "-",
        help_heading = "Output"
    )]
    access_log: PathBuf,
    /// Write prompts to the access log
    #[arg(long, help_heading = "Output")]
    log_prompts: bool,
}

/// What is printed or written instead of serving.
#[derive(Subcommand)]
enum Page {
    /// Prints the completions of a shell
    ///
    /// Example: headkv-serve completions bash > ~/.local/share/bash-completion/completions/headkv-serve
    #[command(verbatim_doc_comment)]
    Completions {
        /// The shell
        shell: headkv_cli::Shell,
    },
    /// Writes man pages
    ///
    /// Example: headkv-serve man ~/.local/share/man/man1
    #[command(verbatim_doc_comment)]
    Man {
        /// The folder
        dir: PathBuf,
    },
}

/// Runs the server that this process's arguments ask for.
pub fn main() -> ExitCode {
    let filter =
        tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "error".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A file that stderr goes to wants no colours.
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match run(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::say(&format!(
                "error: {}",
                terminal::one_line(&format!("{error:#}"))
            ));
            ExitCode::from(2)
        }
    }
}

fn run(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<()> {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(asked) => return Ok(headkv_cli::help(&asked)?),
    };
    match cli.page {
        Some(Page::Completions { shell }) => {
            return Ok(headkv_cli::completions(Cli::command(), shell)?);
        }
        Some(Page::Man { dir }) => return Ok(headkv_cli::man(Cli::command(), &dir)?),
        None => {}
    }
    let server = Server::start(settings(cli)?)?;
    terminal::say(server.greeting());
    server.until_signalled()
}

/// The settings that arguments ask for, the program's own name first.
///
/// # Errors
/// Wrong input, on one line; arguments that clap refuses end the process with its message.
pub fn options(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Options> {
    settings(Cli::parse_from(args))
}

fn settings(cli: Cli) -> Result<Options> {
    let embedded = cli.model.is_none();
    let model = match cli.model {
        Some(model) => model,
        None => headkv_embedded::model()?,
    };
    let compression = match &cli.config {
        Some(file) => {
            let text = fs::read_to_string(file)
                .with_context(|| format!("cannot read --config {}", file.display()))?;
            Compression::from_toml(&text).with_context(|| file.display().to_string())?
        }
        None => Compression {
            scores: cli.scores.map(Into::into),
            ..Compression::new(
                cli.method.as_deref().unwrap_or("headkv"),
                cli.capacity.unwrap_or(if embedded { 64 } else { 1024 }),
            )
        },
    };
    let log = match cli.access_log.to_str() {
        Some("-") => Log::Stdout,
        Some("off") => Log::Off,
        _ => Log::File(cli.access_log),
    };
    if cli.step_tokens == 0 || cli.default_max_tokens == 0 {
        bail!("--step-tokens and --default-max-tokens must be at least 1");
    }
    let device: Device = cli.device.parse()?;
    Ok(Options {
        name: cli.served_name,
        device,
        isq: cli.isq.as_deref().map(str::parse).transpose()?,
        compression,
        address: SocketAddr::new(cli.host, cli.port),
        max_seqs: cli.max_seqs,
        kv_budget: cli.kv_budget,
        request_kv: cli.request_kv,
        prefix_bytes: cli.prefix_bytes,
        prefix_place: cli.prefix_place,
        reuse: cli.reuse,
        states: cli.state,
        queue: cli.queue,
        step_tokens: cli.step_tokens,
        default_max_tokens: cli.default_max_tokens,
        max_body: cli.max_body,
        headers: Duration::from_secs(cli.header_seconds),
        drain: Duration::from_secs(cli.drain_seconds),
        api_key_file: cli.api_key_file,
        log,
        log_prompts: cli.log_prompts,
        ..Options::new(model)
    })
}

fn reuse(name: &str) -> Result<Reuse, String> {
    match name {
        "exact" => Ok(Reuse::Exact),
        "compressed" => Ok(Reuse::Compressed),
        _ => Err("use exact or compressed".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_arguments_serve_the_embedded_model_on_the_loopback() {
        let options = options(["headkv-serve"]).unwrap();
        assert!(options.model.ends_with("models/tiny"));
        assert_eq!(options.address.to_string(), "127.0.0.1:1234");
        assert_eq!(options.compression, Compression::new("headkv", 64));
        assert_eq!(options.prefix_bytes, 512 << 20);
    }
}
