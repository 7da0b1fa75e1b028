//! `snapkv`: the same capacity for every head (SnapKV, Li et al., NeurIPS 2024, arXiv 2404.14469).

use super::{Budget, Build, LayerContext, Method};
use crate::Error;

struct SnapKv {
    kept: usize,
    heads: usize,
}

impl Method for SnapKv {
    fn budget(&self, _: &LayerContext) -> Budget {
        Budget::PerHead(vec![self.kept; self.heads])
    }
}

pub fn build(b: &Build) -> Result<Box<dyn Method>, Error> {
    let heads = b.model.stored_heads(b.config.granularity);
    Ok(Box::new(SnapKv {
        kept: b.config.chosen(),
        heads,
    }))
}
