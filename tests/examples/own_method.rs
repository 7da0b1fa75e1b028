//! A method of one's own, used by name in `headkv-eval`'s needle test.
//!
//! cargo run --release -p headkv-tests --example own_method

use headkv_eval::{
    grid::{Grid, Methods, Needle},
    home::home,
    report,
    session::{Options, Session},
    store::Results,
};
use headkv_plugin::{
    Error,
    methods::{self, Budget, Build, Entry, LayerContext, Method},
};
use std::sync::atomic::AtomicBool;

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
    let methods = Methods {
        method: vec!["snapkv".into(), "zigzag".into()],
        ..Methods::default()
    };
    let needle = Needle {
        lengths: vec![1000],
        ..Needle::default()
    };
    let grid = Grid {
        needle: Some(needle),
        ..Grid::one(home().join("models/tiny"), methods)
    };
    let out = tempfile::tempdir()?;
    let session = Session {
        grid: &grid,
        options: &Options::default(),
        out: out.path(),
        command: "own_method",
        stop: &AtomicBool::new(false),
    };
    session.run()?;
    print!(
        "{}",
        report::markdown(&report::tables(&Results::read(out.path())?.rows))
    );
    Ok(())
}
