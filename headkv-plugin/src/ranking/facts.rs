//! What some rankings want to know of a model, and attention does not tell.

use super::{Needs, WINDOW};
use crate::{Error, rotary::Rotary};
use candle_core::{Device, Result, Tensor};
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// What is known of a model besides its shape; whoever loads it may know more or less.
#[derive(Clone, Default)]
pub struct Facts {
    /// Its rotary embedding.
    pub rotary: Option<Arc<Rotary>>,
    /// The weights of its output projections.
    pub outputs: Option<Arc<Outputs>>,
    /// Its tokenizer: the ids of a text, without special tokens.
    pub encode: Option<Arc<Encode>>,
}

/// The token ids of a text.
pub type Encode = dyn Fn(&str) -> Result<Vec<u32>> + Send + Sync;

impl Facts {
    /// That what a ranking needs is there.
    ///
    /// # Errors
    /// [`Error::Config`] names what is missing.
    pub(crate) fn check(
        &self,
        ranking: Option<&str>,
        needs: Needs,
    ) -> std::result::Result<(), Error> {
        let families = " of the families llama, mistral, qwen2 and qwen3";
        let missing = [
            (
                needs.rotary && self.rotary.is_none(),
                "rotary embedding",
                families,
            ),
            (
                needs.outputs && self.outputs.is_none(),
                "output projections",
                families,
            ),
            (needs.replay && self.encode.is_none(), "tokenizer", ""),
        ];
        match missing.iter().find(|(missing, ..)| *missing) {
            None => Ok(()),
            Some((_, what, of)) => Err(Error::Config(format!(
                "ranking `{}` needs the model's {what}, known of model folders{of} alone; use another --ranking",
                ranking.unwrap_or(WINDOW)
            ))),
        }
    }
}

impl fmt::Debug for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facts")
            .field("rotary", &self.rotary)
            .field("outputs", &self.outputs.is_some())
            .field("encode", &self.encode.is_some())
            .finish()
    }
}

/// The output projections W_O of a model, `(hidden, heads * head_dim)` each, read when they are first asked for and then
/// held a second time, where the model's own are.
pub struct Outputs {
    read: Box<dyn Fn(usize) -> Result<Tensor> + Send + Sync>,
    held: Mutex<HashMap<usize, Tensor>>,
}

impl Outputs {
    /// `read` gives a layer's, in any type and on any device.
    pub fn new(read: impl Fn(usize) -> Result<Tensor> + Send + Sync + 'static) -> Self {
        Self {
            read: Box::new(read),
            held: Mutex::default(),
        }
    }

    /// A layer's, on that device.
    ///
    /// # Errors
    /// Weights that cannot be read, and memory that runs out.
    pub fn layer(&self, layer: usize, device: &Device) -> Result<Tensor> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = held.get(&layer)
            && known.device().same_device(device)
        {
            return Ok(known.clone());
        }
        let weights = (self.read)(layer)?.to_device(device)?;
        held.insert(layer, weights.clone());
        Ok(weights)
    }
}
