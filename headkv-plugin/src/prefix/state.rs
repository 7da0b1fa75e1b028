//! A prompt's beginning as one piece, to be taken elsewhere.

use candle_core::{DType, Tensor};

/// Keys and values of a prompt's first tokens, whatever is kept of it later.
#[derive(Clone, Debug)]
pub struct State {
    /// The token ids.
    pub tokens: Vec<u32>,
    /// By layer: keys and values, `(kv_heads, tokens, head_dim)`, in host memory.
    pub layers: Vec<[Tensor; 2]>,
}

impl State {
    /// Bytes of keys and values.
    pub fn bytes(&self) -> usize {
        let all = self.layers.iter().flatten();
        all.map(|x| x.elem_count() * x.dtype().size_in_bytes())
            .sum()
    }

    /// What is wrong with it for a model of so many layers, KV heads and elements of a head, if anything is.
    pub fn misfit(&self, layers: usize, kv_heads: usize, head_dim: usize) -> Option<String> {
        if self.layers.len() != layers {
            let has = self.layers.len();
            return Some(format!("has {has} layers where the model has {layers}"));
        }
        let expected = [kv_heads, self.tokens.len(), head_dim];
        let float = |x: &Tensor| matches!(x.dtype(), DType::F32 | DType::BF16 | DType::F16);
        let first = self.layers.first().map(|[k, _]| k.dtype());
        for (at, x) in self.layers.iter().flatten().enumerate() {
            let layer = at / 2;
            if x.dims() != expected {
                let found = x.dims();
                return Some(format!(
                    "has {found:?} elements in layer {layer} where {expected:?} are expected"
                ));
            }
            if !float(x) || Some(x.dtype()) != first {
                let found = x.dtype();
                return Some(format!("has elements of type {found:?} in layer {layer}"));
            }
        }
        None
    }
}
