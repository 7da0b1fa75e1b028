//! `kvzip`: the positions of all layers and heads that a repetition of the prompt looks at most (KVzip, Kim et al., arXiv
//! 2505.23416): one pool, no head scores, no question asked.

use super::{Budget, Build, Defaults, Entry, LayerContext, Method};
use crate::{Error, config::Pool};

struct KvZip {
    /// Tokens of a layer's heads together, if all layers had as many.
    total: usize,
    heads: usize,
}

impl Method for KvZip {
    fn budget(&self, _: &LayerContext) -> Budget {
        Budget::Competing {
            total: self.total,
            floor: 0,
            weights: vec![1.0; self.heads],
        }
    }

    fn across_layers(&self) -> bool {
        true
    }
}

pub fn entry() -> Entry {
    let none = Pool {
        before: 0,
        after: 0,
        decay: 1.0,
    };
    Entry::new("kvzip", build)
        .aliases(&["KVzip"])
        .about("what a repetition of the prompt looks at, in one pool over all layers; twice the prompt's time or more")
        .defaults(Defaults {
            ranking: "kvzip".into(),
            pool: Some(none),
            ..Defaults::default()
        })
}

fn build(b: &Build) -> Result<Box<dyn Method>, Error> {
    let heads = b.model.stored_heads(b.config.granularity);
    Ok(Box::new(KvZip {
        total: b.config.chosen() * heads,
        heads,
    }))
}
