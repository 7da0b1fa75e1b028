//! `adakv`: one capacity shared by the heads of a layer (Ada-KV, Feng et al., arXiv 2407.11550).

use super::{Budget, Build, LayerContext, Method};
use crate::Error;

struct AdaKv {
    mean: usize,
    floor: f64,
    exact: bool,
}

impl Method for AdaKv {
    fn budget(&self, _: &LayerContext) -> Budget {
        Budget::Shared {
            mean: self.mean,
            floor: self.floor,
            exact: self.exact,
        }
    }
}

pub fn build(b: &Build) -> Result<Box<dyn Method>, Error> {
    Ok(Box::new(AdaKv {
        mean: b.config.chosen(),
        floor: b.config.floor,
        exact: b.config.redistribute,
    }))
}
