//! Linear layers of a hooked model: one product for all rows of a batch, and the hook's own where it has one.
//!
//! Upstream multiplies every sequence of a batch by the weights apart, `(batch, 1, in)` by `(batch, out, in)`: a decode
//! step then reads all weights once per sequence. On a GPU its products of more than eight rows come back transposed, and
//! are copied element by element.

pub(crate) mod gguf;

use std::{borrow::Cow, fmt, sync::atomic::AtomicUsize, sync::Arc};

use candle_core::{DType, Device, Module, Result, Tensor, D};
use mistralrs_quant::{
    DistributedKind, IsqType, QuantMethod, QuantMethodConfig, QuantizeOntoGuard, QuantizedSerde,
};

use crate::linear_hook;

/// Puts the layers of a loaded model, if its attention is hooked or a linear hook is there, behind this module; stacks of
/// experts and quantized ones that no hook takes stay as they are.
pub(crate) fn install<'a>(
    attention_hooked: bool,
    layers: impl IntoIterator<Item = &'a mut Arc<dyn QuantMethod>>,
) -> Result<()> {
    let hook = linear_hook::current();
    if hook.is_none() && !attention_hooked {
        return Ok(());
    }
    for layer in layers {
        let Some((weight, _)) = layer.unquant_weight_bias() else {
            if let Some(hooked) = gguf::in_place(&**layer)? {
                *layer = Arc::new(hooked);
            }
            continue;
        };
        if weight.rank() != 2 {
            continue;
        }
        // A layer whose rest is in other processes adds up by itself.
        let hook = hook.as_ref().filter(|_| !spread());
        let product = match hook.map_or(Ok(None), |hook| hook.linear(&weight))? {
            None if weight.device().is_cuda() && !spread() => Product::Matrix {
                bias: bias(&**layer, weight.dim(D::Minus1)?)?,
                layer: layer.clone(),
                weight,
            },
            None => Product::Runtime(layer.clone()),
            Some(module) => Product::Hook {
                module,
                bias: bias(&**layer, weight.dim(D::Minus1)?)?,
                dtype: weight.dtype(),
                device: weight.device().clone(),
            },
        };
        *layer = Arc::new(HookedLinear { product });
    }
    Ok(())
}

/// What a layer adds to its product, wherever in it that is kept: its answer to zeros.
fn bias(layer: &dyn QuantMethod, inputs: usize) -> Result<Option<Tensor>> {
    let (dtype, device) = layer.dtype_and_device();
    let zeros = Tensor::zeros((1, 1, inputs), dtype, &device)?;
    let bias = layer.forward(&zeros)?.flatten_all()?;
    let sum = bias.abs()?.to_dtype(DType::F32)?.sum_all()?;
    Ok((sum.to_scalar::<f32>()? > 0.0).then_some(bias))
}

/// Whether a layer's product is only a part of it, the rest being in other processes.
fn spread() -> bool {
    mistralrs_quant::distributed::use_nccl() || mistralrs_quant::distributed::use_ring()
}

/// Rows whose activations are held at once; as many keep a GPU busy.
const BLOCK_ROWS: usize = 4096;

/// Runs what works on each row of `x`, `(batch, tokens, elements)`, apart over blocks of rows; `None` if they are one
/// block, or `layer` is not a hooked model's.
pub(crate) fn in_blocks(
    x: &Tensor,
    layer: &dyn QuantMethod,
    run: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Option<Tensor>> {
    let &[batch, tokens, elements] = x.dims() else {
        return Ok(None);
    };
    let rows = batch * tokens;
    if rows <= BLOCK_ROWS || layer.name() != NAME {
        return Ok(None);
    }
    let x = x.reshape((1, rows, elements))?;
    let mut out: Option<Tensor> = None;
    for start in (0..rows).step_by(BLOCK_ROWS) {
        let block = run(&x.narrow(1, start, BLOCK_ROWS.min(rows - start))?)?.contiguous()?;
        let out = match &out {
            Some(out) => out,
            None => out.insert(Tensor::zeros(
                (1, rows, block.dim(D::Minus1)?),
                block.dtype(),
                block.device(),
            )?),
        };
        out.slice_set(&block, 1, start)?;
    }
    out.map(|out| out.reshape((batch, tokens, ()))).transpose()
}

const NAME: &str = "hooked-linear";

/// Most rows that the runtime multiplies by a kernel for vectors.
const VECTOR_ROWS: usize = 8;

enum Product {
    /// The runtime's own: quantized by rows, spread over processes, on the CPU.
    Runtime(Arc<dyn QuantMethod>),
    /// The runtime's for few rows, one matrix product for more.
    Matrix {
        layer: Arc<dyn QuantMethod>,
        weight: Tensor,
        bias: Option<Tensor>,
    },
    /// The hook holds the weights; the runtime's own are gone.
    Hook {
        module: Box<dyn Module + Send + Sync>,
        bias: Option<Tensor>,
        dtype: DType,
        device: Device,
    },
}

pub(crate) struct HookedLinear {
    product: Product,
}

impl fmt::Debug for HookedLinear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.product {
            Product::Runtime(layer) | Product::Matrix { layer, .. } => {
                write!(f, "HookedLinear({layer:?})")
            }
            Product::Hook { .. } => write!(f, "HookedLinear(the hook's)"),
        }
    }
}

impl HookedLinear {
    /// A layer of the hook's whose inputs and outputs are f32.
    fn new(module: Box<dyn Module + Send + Sync>, bias: Option<Tensor>, device: &Device) -> Self {
        let (dtype, device) = (DType::F32, device.clone());
        let product = Product::Hook {
            module,
            bias,
            dtype,
            device,
        };
        Self { product }
    }

    fn layer(&self) -> Result<&Arc<dyn QuantMethod>> {
        match &self.product {
            Product::Runtime(layer) | Product::Matrix { layer, .. } => Ok(layer),
            Product::Hook { .. } => candle_core::bail!(
                "attention hook: a linear layer belongs to the hook; load the model without it"
            ),
        }
    }
}

fn with_bias(product: Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    match bias {
        Some(bias) => product.broadcast_add(bias),
        None => Ok(product),
    }
}

impl QuantMethod for HookedLinear {
    fn new(_: QuantMethodConfig) -> Result<Self> {
        candle_core::bail!("attention hook: its linear layers are made of loaded ones")
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let inputs = x.dim(D::Minus1)?;
        let rows = x.elem_count() / inputs.max(1);
        let out = match &self.product {
            // One sequence, or a shape that only the layer itself knows.
            Product::Runtime(layer) if x.rank() != 3 || x.dim(0)? == 1 => return layer.forward(x),
            Product::Runtime(layer) => layer.forward(&x.reshape((1, rows, inputs))?)?,
            Product::Matrix { layer, .. } if rows <= VECTOR_ROWS => {
                layer.forward(&x.reshape((1, rows, inputs))?)?
            }
            Product::Matrix { weight, bias, .. } => {
                let out = x.reshape((rows, inputs))?.matmul(&weight.t()?)?;
                with_bias(out, bias.as_ref())?
            }
            Product::Hook { module, bias, .. } => {
                let out = module.forward(&x.reshape((rows, inputs))?)?;
                with_bias(out, bias.as_ref())?
            }
        };
        let mut shape = x.dims().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = out.dim(D::Minus1)?;
        }
        out.reshape(shape)
    }

    fn gather_forward(&self, x: &Tensor, indices: &Tensor) -> Result<Tensor> {
        self.layer()?.gather_forward(x, indices)
    }

    fn dequantize_w(&self) -> Result<Tensor> {
        self.layer()?.dequantize_w()
    }

    fn quantized_act_type(&self) -> Option<DType> {
        self.layer().ok()?.quantized_act_type()
    }

    fn dtype_and_device(&self) -> (DType, Device) {
        match &self.product {
            Product::Runtime(layer) | Product::Matrix { layer, .. } => layer.dtype_and_device(),
            Product::Hook { dtype, device, .. } => (*dtype, device.clone()),
        }
    }

    fn add_delta_w(&self, delta: &Tensor) -> Result<Arc<dyn QuantMethod>> {
        self.layer()?.add_delta_w(delta)
    }

    fn apply_isq(
        self: Arc<Self>,
        dtype: Option<IsqType>,
        device: Device,
        n_quantized: &AtomicUsize,
        imatrix_weight: Option<Vec<f32>>,
        guard: QuantizeOntoGuard,
    ) -> Result<Arc<dyn QuantMethod>> {
        let layer = self.layer()?.clone();
        layer.apply_isq(dtype, device, n_quantized, imatrix_weight, guard)
    }

    fn unquant_weight_bias(&self) -> Option<(Tensor, Option<Tensor>)> {
        self.layer().ok()?.unquant_weight_bias()
    }

    fn is_distributed(&self) -> Option<DistributedKind> {
        self.layer().ok()?.is_distributed()
    }
}

impl QuantizedSerde for HookedLinear {
    fn name(&self) -> &'static str {
        NAME
    }

    fn isq_serde_supported(&self) -> bool {
        self.layer().is_ok_and(|layer| layer.isq_serde_supported())
    }

    fn serialize(&self) -> Result<Cow<'_, [u8]>> {
        self.layer()?.serialize()
    }

    fn serialize_with_bias(&self, bias: Option<Tensor>) -> Result<Cow<'_, [u8]>> {
        self.layer()?.serialize_with_bias(bias)
    }
}
