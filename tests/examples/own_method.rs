//! A method of one's own, used by name in `headkv-eval`'s needle test.
//!
//! cargo run --release -p headkv-tests --example own_method

use clap::Parser;
use headkv_eval::needle;
use headkv_plugin::{
    Error,
    methods::{self, Budget, Build, Entry, LayerContext, Method},
};

/// Every other layer keeps twice as much.
struct ZigZag {
    mean: usize,
    heads: usize,
}

impl Method for ZigZag {
    fn budget(&self, at: &LayerContext) -> Budget {
        let kept = if at.layer.is_multiple_of(2) {
            self.mean / 2
        } else {
            self.mean * 3 / 2
        };
        Budget::PerHead(vec![kept.min(at.candidates); self.heads])
    }
}

fn build(b: &Build) -> Result<Box<dyn Method>, Error> {
    let heads = b.model.stored_heads(b.config.granularity);
    Ok(Box::new(ZigZag {
        mean: b.config.capacity - b.config.window,
        heads,
    }))
}

fn main() -> anyhow::Result<()> {
    methods::register(Entry {
        name: "zigzag".into(),
        aliases: vec![],
        about: "every other layer keeps twice as much".into(),
        needs_scores: false,
        factory: build,
    });
    let options = Options::parse_from(["", "--method", "snapkv,zigzag", "--lengths", "1000"]);
    let mut rows = Vec::new();
    needle::NeedleTest::new(&options.needle)?.run(|row| {
        rows.push(row);
        Ok(true)
    })?;
    print!("{}", headkv_eval::table::summary(&rows));
    Ok(())
}

#[derive(Parser)]
struct Options {
    #[command(flatten)]
    needle: needle::Options,
}
