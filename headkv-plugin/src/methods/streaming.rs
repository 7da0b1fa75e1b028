//! `streaming`: attention sinks and the most recent tokens (StreamingLLM, Xiao et al., ICLR 2024, arXiv 2309.17453).

use super::{Budget, Build, LayerContext, Method};
use crate::Error;

struct Streaming {
    sinks: usize,
    recent: usize,
}

impl Method for Streaming {
    fn budget(&self, _: &LayerContext) -> Budget {
        Budget::Ends {
            first: self.sinks,
            last: self.recent,
        }
    }
}

pub fn build(b: &Build) -> Result<Box<dyn Method>, Error> {
    let (sinks, kept) = (b.config.sinks, b.config.capacity - b.config.window);
    Ok(Box::new(Streaming {
        sinks,
        recent: kept - sinks,
    }))
}
