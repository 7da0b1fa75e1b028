//! The logits of attention sinks, where the kernels read them.

use super::{device::start, ffi::Address};
use crate::AttentionShape;
use candle_core::{CudaDevice, Result};
use cudarc::driver::CudaSlice;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// The sinks of a model's layers on the device, each copied once.
///
/// By the address of the logits here, which are held with them, so that no others come to lie there.
#[derive(Default)]
pub struct Sinks(Mutex<HashMap<usize, (Arc<[f32]>, CudaSlice<f32>)>>);

impl Sinks {
    /// The address of a layer's logits; null where it has none.
    ///
    /// # Errors
    /// Memory that runs out.
    pub fn address(&self, shape: &AttentionShape, device: &CudaDevice) -> Result<Address> {
        let Some(logits) = &shape.sinks else {
            return Ok(0);
        };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = logits.as_ptr() as usize;
        if let Some((_, copy)) = known.get(&at) {
            return Ok(start(copy, device));
        }
        let copy = device.clone_htod(&logits[..])?;
        let address = start(&copy, device);
        known.insert(at, (logits.clone(), copy));
        Ok(address)
    }
}
