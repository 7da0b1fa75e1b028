//! `full`: nothing is dropped.

use super::{Budget, Build, LayerContext, Method};
use crate::Error;

struct Full;

impl Method for Full {
    fn budget(&self, _: &LayerContext) -> Budget {
        Budget::All
    }
}

pub fn build(_: &Build) -> Result<Box<dyn Method>, Error> {
    Ok(Box::new(Full))
}
