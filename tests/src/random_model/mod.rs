//! Small models with random weights: of every family that the hook takes, with the embedded model's tokenizer.

mod family;
mod settings;
mod weights;

pub use family::Family;

use candle_core::{DType, Device, Tensor};
use serde_json::Value;
use std::{collections::HashMap, fs, path::Path};

/// Layers of the random models.
pub const LAYERS: usize = 4;
const HEADS: usize = 6;
/// KV heads of the random models.
pub const KV_HEADS: usize = 2;
/// Elements of one head's key in the random models, but for those of latent attention.
pub const HEAD_DIM: usize = 16;
const HIDDEN: usize = HEADS * HEAD_DIM;
const INNER: usize = 128;
const EXPERTS: usize = 3;
/// Width of one of several experts.
const EXPERT: usize = 64;
/// Rank of latent attention.
const RANK: usize = 32;
/// Elements of a latent key that are turned by position.
const ROPE_DIM: usize = 8;
/// Width of vision towers.
const VISION: usize = 32;

/// Writes the folder of a random Llama; see [`random_model`].
pub fn random_llama(folder: &Path, seed: u64) {
    random_model(folder, Family::Llama, 0, seed);
}

/// Writes a model folder: 4 layers, 6 query heads on 2 KV heads of 16 elements, the embedded model's tokenizer, and a
/// window of that many tokens where the family has one. The weights depend on the seed alone.
pub fn random_model(folder: &Path, family: Family, window: usize, seed: u64) {
    random_model_with(folder, family, window, seed, &Value::Null);
}

/// As [`random_model`], with these settings of config.json besides.
pub fn random_model_with(folder: &Path, family: Family, window: usize, seed: u64, changes: &Value) {
    let tiny = super::tiny();
    fs::create_dir_all(folder).unwrap();
    for name in [
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
    ] {
        fs::copy(tiny.join(name), folder.join(name)).unwrap();
    }
    let base = fs::read_to_string(tiny.join("config.json")).unwrap();
    let base: Value = serde_json::from_str(&base).unwrap();
    let vocabulary = base["vocab_size"].as_u64().unwrap() as usize;
    let mut config = settings::of(family, &base, window);
    for (key, value) in changes.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    if let Some(processor) = settings::processor(family) {
        fs::write(folder.join("processor_config.json"), processor.to_string()).unwrap();
    }

    let mut random = Random(seed);
    let tensors: HashMap<String, Tensor> = weights::of(family, vocabulary)
        .into_iter()
        .map(|(name, shape)| {
            let tensor = random.tensor(family, &name, &shape);
            (name, tensor)
        })
        .collect();
    candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).unwrap();
}

/// Gives a model with latent attention values as long as its keys, of which the added elements are zero and go nowhere: the
/// same function.
pub fn widen_values(folder: &Path) {
    let (weights, config) = (folder.join("model.safetensors"), folder.join("config.json"));
    let mut tensors = candle_core::safetensors::load(&weights, &Device::Cpu).unwrap();
    for (name, tensor) in &mut tensors {
        let apart = |shape: &[usize]| tensor.reshape(shape).unwrap();
        let (wide, dim, shape) = if name.ends_with("kv_b_proj.weight") {
            // A head's key without its turned part, then its value.
            let wide = apart(&[HEADS, 2 * HEAD_DIM, RANK]);
            (wide, 1, [HEADS * (2 * HEAD_DIM + ROPE_DIM), RANK])
        } else if name.ends_with("o_proj.weight") {
            let wide = apart(&[HIDDEN, HEADS, HEAD_DIM]);
            (wide, 2, [HIDDEN, HEADS * (HEAD_DIM + ROPE_DIM)])
        } else {
            continue;
        };
        let wide = wide.pad_with_zeros(dim, 0, ROPE_DIM).unwrap();
        *tensor = wide.reshape(&shape).unwrap();
    }
    candle_core::safetensors::save(&tensors, &weights).unwrap();
    let text = fs::read_to_string(&config).unwrap();
    let mut settings: Value = serde_json::from_str(&text).unwrap();
    settings["v_head_dim"] = (HEAD_DIM + ROPE_DIM).into();
    fs::write(config, settings.to_string()).unwrap();
}

/// Knuth's linear congruential generator (MMIX).
struct Random(u64);

impl Random {
    /// 24 random bits.
    fn next(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as u32
    }

    fn tensor(&mut self, family: Family, name: &str, shape: &[usize]) -> Tensor {
        let count = shape.iter().product::<usize>();
        // Numbers of 4 bits are up to 6; their scale, a power of two, makes them as small as other weights.
        let bytes: Option<Vec<u8>> = if name.ends_with("_blocks") {
            Some((0..count).map(|_| self.next() as u8).collect())
        } else {
            name.ends_with("_scales").then(|| vec![127 - 5; count])
        };
        if let Some(bytes) = bytes {
            return Tensor::from_vec(bytes, shape, &Device::Cpu).unwrap();
        }
        // Matrices keep their inputs' size, norms do nothing, biases are small.
        let (around, scale) = match shape {
            _ if name.ends_with("bias") => (0.0, 0.1),
            [_, _] if name.contains("embed") => (0.0, 1.0),
            [EXPERTS, inputs, _] if name.contains("experts") => {
                (0.0, 2.0 / (*inputs as f32).sqrt())
            }
            [_, inputs @ ..] if !inputs.is_empty() => {
                let inputs = inputs.iter().product::<usize>();
                (0.0, 2.0 / (inputs as f32).sqrt())
            }
            _ if family.norms_from_zero() && !name.contains("linear_attn") => (0.0, 0.1),
            _ => (1.0, 0.1),
        };
        let values: Vec<f32> = (0..count)
            .map(|_| (self.next() as f32 / (1 << 23) as f32 - 1.0) * scale + around)
            .collect();
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
        tensor.to_dtype(DType::BF16).unwrap()
    }
}
