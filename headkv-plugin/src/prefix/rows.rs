//! Keys or values of one layer of a prompt, where they are held.

use candle_core::{DType, Device, Result, Tensor};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where the keys and values of earlier prompts are held, for a model on a GPU; one on the CPU has no choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// In host memory.
    #[default]
    Host,
    /// In the GPU's memory: nothing is copied over the bus.
    Device,
}

impl std::str::FromStr for Place {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        match name {
            "host" => Ok(Self::Host),
            "device" => Ok(Self::Device),
            _ => Err(format!("there is no memory `{name}`; give host or device")),
        }
    }
}

/// Keys or values, `(kv_heads, tokens, head_dim)`.
pub struct Rows {
    place: Place,
    dtype: DType,
    held: Mutex<Held>,
}

enum Held {
    Tensor(Tensor),
    /// In memory that a GPU reads by itself.
    #[cfg(feature = "cuda")]
    Locked(crate::cuda::Locked),
}

/// A copy in that place.
fn hold(x: &Tensor, place: Place) -> Result<Held> {
    match (x.device(), place) {
        #[cfg(feature = "cuda")]
        (Device::Cuda(_), Place::Host) => crate::cuda::Locked::copy(x).map(Held::Locked),
        _ => x.force_contiguous().map(Held::Tensor),
    }
}

impl Rows {
    /// A copy of keys or values, which belong to a batch or have room for more.
    ///
    /// # Errors
    /// Memory that runs out.
    pub fn copy(x: &Tensor, place: Place) -> Result<Self> {
        Ok(Self {
            place,
            dtype: x.dtype(),
            held: hold(x, place)?.into(),
        })
    }

    /// Takes in keys or values in host memory, wherever they go when they are first asked for.
    pub fn new(x: Tensor, place: Place) -> Self {
        Self {
            place,
            dtype: x.dtype(),
            held: Held::Tensor(x).into(),
        }
    }

    /// Their element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The first so many tokens, on that device and in that type.
    ///
    /// # Errors
    /// Memory that runs out.
    pub fn first(&self, tokens: usize, device: &Device, dtype: DType) -> Result<Tensor> {
        let mut held = self.held();
        // What was read from a file goes where it belongs, once a GPU asks for it.
        if let Held::Tensor(x) = &*held
            && x.device().is_cpu()
            && !device.is_cpu()
        {
            *held = hold(&x.to_device(device)?.to_dtype(dtype)?, self.place)?;
        }
        let all = match &*held {
            Held::Tensor(x) => x.clone(),
            #[cfg(feature = "cuda")]
            Held::Locked(locked) => locked.read(device)?,
        };
        all.narrow(1, 0, tokens)?.to_device(device)?.to_dtype(dtype)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
