//! A method of one's own in all of `headkv-eval`: every command then knows it by name.
//!
//! cargo run --release --locked --example own_method -- needle --method snapkv,zigzag --lengths 1000

use headkv_plugin::{
    Error,
    methods::{self, Budget, Build, Entry, LayerContext, Method},
};

/// Every other layer keeps three times as much.
struct ZigZag {
    mean: usize,
    heads: usize,
}

impl Method for ZigZag {
    fn budget(&self, at: &LayerContext) -> Budget {
        let kept = [self.mean / 2, self.mean * 3 / 2][at.layer % 2];
        Budget::PerHead(vec![kept.min(at.candidates); self.heads])
    }
}

fn build(b: &Build) -> Result<Box<dyn Method>, Error> {
    Ok(Box::new(ZigZag {
        mean: b.config.chosen(),
        heads: b.model.stored_heads(b.config.granularity),
    }))
}

pub fn register() {
    let entry = Entry::new("zigzag", build);
    methods::register(entry.about("every other layer keeps three times as much"));
}

fn main() -> std::process::ExitCode {
    register();
    headkv_eval::cli::main()
}
