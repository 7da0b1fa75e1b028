//! `threshold`: as few positions as lose no more than a bound, the capacity being a ceiling and not a target.
//!
//! A head keeps its best positions until those that it drops hold no more than the part `loss` of what its ranking adds up to
//! (the idea of DropKV and KVzap: an error bound in place of a number). Where a layer's heads want more than its capacity
//! together, they share that in proportion. A prompt that needs little keeps little.

use super::{Budget, Build, LayerContext, Method};
use crate::Error;

struct Threshold {
    total: usize,
    loss: f64,
}

impl Method for Threshold {
    fn budget(&self, _: &LayerContext) -> Budget {
        Budget::Enough {
            total: self.total,
            loss: self.loss,
        }
    }
}

pub fn build(b: &Build) -> Result<Box<dyn Method>, Error> {
    let heads = b.model.stored_heads(b.config.granularity);
    Ok(Box::new(Threshold {
        total: b.config.chosen() * heads,
        loss: b.config.loss,
    }))
}
