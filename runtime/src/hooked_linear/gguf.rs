//! The layers of a GGUF model: a linear hook may take the quantized weights, embedding and tied head once for both.

use std::{
    borrow::Cow,
    io::{Read, Seek},
    sync::Arc,
};

use candle_core::{
    quantized::{gguf_file, GgmlDType, QStorage, QTensor},
    Device, Module, Result, Tensor,
};
use mistralrs_quant::{QuantMethod, QuantMethodConfig};

use super::{HookedLinear, Product};
use crate::{
    gguf::Content,
    linear_hook::{self, Quantized},
};

/// Weights that stay quantized without a hook; candle multiplies them by a scalar loop on the CPU, and fewer are worth the
/// memory that they take in f32.
const QUANTIZED: usize = 1_000_000_000;

/// A tensor of a file, with f32 instead of its type where nothing multiplies that well.
pub(crate) fn as_it_runs(tensor: QTensor, files: &[gguf_file::Content]) -> Result<QTensor> {
    let infos = files.iter().flat_map(|file| file.tensor_infos.values());
    let weights: usize = infos.map(|info| info.shape.elem_count()).sum();
    let device = tensor.device();
    if linear_hook::current().is_some() || !device.is_cpu() || weights > QUANTIZED {
        return Ok(tensor);
    }
    QTensor::quantize(&tensor.dequantize(&device)?, GgmlDType::F32)
}

fn hooked(weight: &QTensor) -> Result<Option<Arc<dyn Quantized>>> {
    match linear_hook::current() {
        Some(hook) if weight.rank() == 2 => hook.quantized(weight),
        _ => Ok(None),
    }
}

/// The rows of an embedding.
pub(crate) enum Rows {
    /// In the type of the activations.
    Tensor(Tensor),
    Hook(Arc<dyn Quantized>),
}

impl From<Tensor> for Rows {
    fn from(rows: Tensor) -> Self {
        Self::Tensor(rows)
    }
}

/// An embedding's rows as they are kept.
pub(crate) fn rows(weight: QTensor) -> Result<Rows> {
    Ok(match hooked(&weight)? {
        Some(weight) => Rows::Hook(weight),
        None => Rows::Tensor(weight.dequantize(&weight.device())?),
    })
}

/// An embedding.
pub(crate) struct Embedding {
    rows: Rows,
    width: usize,
}

impl Embedding {
    pub(crate) fn new(rows: impl Into<Rows>, width: usize) -> Self {
        let rows = rows.into();
        Self { rows, width }
    }
}

impl Module for Embedding {
    fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        match &self.rows {
            Rows::Tensor(rows) => candle_nn::Embedding::new(rows.clone(), self.width).forward(ids),
            Rows::Hook(weight) => weight.rows(ids),
        }
    }
}

/// The layer of the logits: the file's own, or the embedding's weights, which a hook holds once for both.
pub(crate) fn head<R: Read + Seek>(
    embedding: &Rows,
    file: &mut Content<'_, R>,
    device: &Device,
) -> Result<Arc<dyn QuantMethod>> {
    let tied = !file.has_tensor("output.weight");
    if let (true, Rows::Hook(weight)) = (tied, embedding) {
        let weight = Shared(weight.clone());
        return Ok(Arc::new(HookedLinear::new(Box::new(weight), None, device)));
    }
    let name = if tied {
        "token_embd.weight"
    } else {
        "output.weight"
    };
    let q_weight = Arc::new(file.tensor(name, device)?);
    let layer = GgufMatMul::new(QuantMethodConfig::Gguf { q_weight, b: None })?;
    Ok(Arc::new(layer))
}

/// Makes a linear layer of quantized weights, as upstream's of that name does.
pub(crate) struct GgufMatMul;

impl GgufMatMul {
    #[allow(clippy::new_ret_no_self)]
    pub(crate) fn new(config: QuantMethodConfig) -> Result<HookedLinear> {
        if let QuantMethodConfig::Gguf { q_weight, b } = &config {
            let device = q_weight.device();
            if let Some(weight) = hooked(q_weight)? {
                let module = Box::new(Shared(weight));
                return Ok(HookedLinear::new(module, b.clone(), &device));
            }
            let whole = matches!(
                q_weight.dtype(),
                GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16
            );
            let hook = linear_hook::current().filter(|_| whole && device.is_cpu());
            if let Some(hook) = hook.filter(|_| q_weight.rank() == 2) {
                if let Some(module) = hook.linear(&q_weight.dequantize(&device)?)? {
                    return Ok(HookedLinear::new(module, b.clone(), &device));
                }
            }
        }
        let layer = Arc::new(mistralrs_quant::GgufMatMul::new(config)?);
        Ok(HookedLinear {
            product: Product::Runtime(layer),
        })
    }
}

/// A layer that was quantized while it loaded, as the hook's; `None` where it is in no blocks, or the hook leaves it alone.
pub(super) fn in_place(layer: &dyn QuantMethod) -> Result<Option<HookedLinear>> {
    if linear_hook::current().is_none() || !matches!(layer.name(), "gguf" | "pending-isq") {
        return Ok(None);
    }
    let (_, device) = layer.dtype_and_device();
    if !device.is_cpu() {
        return Ok(None);
    }
    // What is not quantized after all has no such form.
    let Ok(form) = layer.serialize() else {
        return Ok(None);
    };
    let weight = written(&form)?;
    let Some(module) = hooked(&weight)? else {
        return Ok(None);
    };
    let bias = super::bias(layer, weight.shape().dims2()?.1)?;
    Ok(Some(HookedLinear::new(
        Box::new(Shared(module)),
        bias,
        &device,
    )))
}

/// The blocks in the form in which the runtime writes such a layer (UQFF): a version in 4 bytes, the kind in 1, the data's
/// length in 4, whether there is a bias in 1, the type in 4, how many dimensions there are, these in 4 each, the data.
fn written(form: &[u8]) -> Result<QTensor> {
    let number = |at: usize| -> Result<u32> {
        match form.get(at..at + 4) {
            Some(&[a, b, c, d]) => Ok(u32::from_le_bytes([a, b, c, d])),
            _ => candle_core::bail!("linear hook: a quantized layer is cut short"),
        }
    };
    let dtype = match (form.get(4), number(10)?) {
        (Some(0), 2) => GgmlDType::Q4_0,
        (Some(0), 3) => GgmlDType::Q4_1,
        (Some(0), 6) => GgmlDType::Q5_0,
        (Some(0), 7) => GgmlDType::Q5_1,
        (Some(0), 8) => GgmlDType::Q8_0,
        (Some(0), 10) => GgmlDType::Q2K,
        (Some(0), 11) => GgmlDType::Q3K,
        (Some(0), 12) => GgmlDType::Q4K,
        (Some(0), 13) => GgmlDType::Q5K,
        (Some(0), 14) => GgmlDType::Q6K,
        (kind, dtype) => {
            candle_core::bail!("linear hook: a layer quantized as {kind:?}, {dtype} is unknown")
        }
    };
    let rank = number(14)? as usize;
    let dims: Vec<usize> = (0..rank)
        .map(|i| Ok(number(18 + 4 * i)? as usize))
        .collect::<Result<_>>()?;
    // A bias may follow.
    let (start, length) = (18 + 4 * rank, number(5)? as usize);
    let data = form.get(start..start + length).unwrap_or_default();
    // Borrowed: candle would read what is owned after it is freed.
    let storage = QStorage::from_data(Cow::Borrowed(data), &Device::Cpu, dtype)?;
    QTensor::new(storage, dims)
}

struct Shared(Arc<dyn Quantized>);

impl Module for Shared {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0.forward(x)
    }
}
