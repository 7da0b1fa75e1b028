use super::*;
use candle_core::{
    Result,
    quantized::{QTensor, gguf_file},
};
use tempfile::TempDir;
use tokenizers::{AddedToken, models::bpe::BPE};

const HIDDEN: usize = 64;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 16;
const VOCAB: usize = 32;

/// A llama of two layers: its norms in f32, its matrices in `dtype`.
struct Tiny {
    dir: TempDir,
    tensors: Vec<(String, QTensor)>,
    metadata: Vec<(&'static str, Value)>,
}

impl Tiny {
    fn new(dtype: GgmlDType) -> Result<Self> {
        let mut shapes = vec![
            ("token_embd".into(), vec![VOCAB, HIDDEN]),
            ("output_norm".into(), vec![HIDDEN]),
        ];
        for layer in 0..2 {
            for (part, shape) in [
                ("attn_norm", vec![HIDDEN]),
                ("attn_q", vec![HEADS * HEAD_DIM, HIDDEN]),
                ("attn_k", vec![KV_HEADS * HEAD_DIM, HIDDEN]),
                ("attn_v", vec![KV_HEADS * HEAD_DIM, HIDDEN]),
                ("attn_output", vec![HIDDEN, HEADS * HEAD_DIM]),
                ("ffn_norm", vec![HIDDEN]),
                ("ffn_gate", vec![96, HIDDEN]),
                ("ffn_up", vec![96, HIDDEN]),
                ("ffn_down", vec![HIDDEN, 96]),
            ] {
                shapes.push((format!("blk.{layer}.{part}"), shape));
            }
        }
        let tensor = |(name, shape): (String, Vec<usize>)| {
            let dtype = if shape.len() == 1 {
                GgmlDType::F32
            } else {
                dtype
            };
            let values = Tensor::randn(0f32, 1f32, shape, &Device::Cpu)?;
            Ok((format!("{name}.weight"), QTensor::quantize(&values, dtype)?))
        };
        Ok(Self {
            dir: tempfile::tempdir()?,
            tensors: shapes.into_iter().map(tensor).collect::<Result<_>>()?,
            metadata: vec![
                ("general.architecture", Value::String("llama".into())),
                ("llama.block_count", Value::U32(2)),
                ("llama.context_length", Value::U32(128)),
                ("llama.embedding_length", Value::U32(HIDDEN as u32)),
                ("llama.feed_forward_length", Value::U32(96)),
                ("llama.attention.head_count", Value::U32(HEADS as u32)),
                ("llama.attention.head_count_kv", Value::U32(KV_HEADS as u32)),
                ("llama.attention.layer_norm_rms_epsilon", Value::F32(0.5)),
                ("llama.rope.freq_base", Value::F32(500.0)),
                ("tokenizer.ggml.bos_token_id", Value::U32(0)),
                ("tokenizer.ggml.eos_token_id", Value::U32(1)),
                ("tokenizer.ggml.add_bos_token", Value::Bool(true)),
                (
                    "tokenizer.chat_template",
                    Value::String("{{ messages }}".into()),
                ),
            ],
        })
    }

    fn files(&self) -> Result<ModelFiles> {
        let path = self.dir.path().join("Tiny-Q.gguf");
        let metadata: Vec<_> = self
            .metadata
            .iter()
            .map(|(key, value)| (*key, value))
            .collect();
        let tensors: Vec<_> = self
            .tensors
            .iter()
            .map(|(name, t)| (name.as_str(), t))
            .collect();
        gguf_file::write(&mut File::create(&path)?, &metadata, &tensors)?;
        ModelFiles::open(&path).map_err(candle_core::Error::wrap)
    }

    fn dequantized(&self) -> std::result::Result<ModelFiles, Error> {
        let files = self
            .files()
            .map_err(|e| refused(self.dir.path(), e.to_string()))?;
        dequantized(&files, &tokenizer(), &self.dir.path().join("cache"))
    }

    /// The values that the file stands for.
    fn values(&self, name: &str) -> Vec<Vec<f32>> {
        let (_, tensor) = self.tensors.iter().find(|(n, _)| n == name).unwrap();
        tensor.dequantize(&Device::Cpu).unwrap().to_vec2().unwrap()
    }
}

fn tokenizer() -> Tokenizer {
    let mut tokenizer = Tokenizer::new(BPE::default());
    let special = ["<s>", "</s>"].map(|text| AddedToken::from(text, true));
    tokenizer.add_special_tokens(&special);
    tokenizer
}

fn json(folder: &ModelFiles, name: &str) -> serde_json::Value {
    serde_json::from_slice(&fs::read(folder.path().join(name)).unwrap()).unwrap()
}

#[test]
fn weights_keep_their_values_and_rotary_pairs_move_half_a_head_apart() {
    for dtype in [GgmlDType::F32, GgmlDType::Q4_1] {
        let tiny = Tiny::new(dtype).unwrap();
        let folder = tiny.dequantized().unwrap();
        let weights =
            candle_core::safetensors::load(folder.path().join("model.safetensors"), &Device::Cpu)
                .unwrap();
        let values = |name: &str| weights[name].to_vec2::<f32>().unwrap();
        assert_eq!(weights.len(), tiny.tensors.len());
        assert_eq!(
            values("model.embed_tokens.weight"),
            tiny.values("token_embd.weight")
        );
        for layer in 0..2 {
            let of = |part: &str| tiny.values(&format!("blk.{layer}.{part}.weight"));
            let to = |part: &str| values(&format!("model.layers.{layer}.{part}.weight"));
            assert_eq!(to("self_attn.v_proj"), of("attn_v"));
            assert_eq!(to("self_attn.o_proj"), of("attn_output"));
            assert_eq!(to("mlp.gate_proj"), of("ffn_gate"));
            assert_eq!(to("mlp.up_proj"), of("ffn_up"));
            assert_eq!(to("mlp.down_proj"), of("ffn_down"));
            for (to, of) in [
                (to("self_attn.q_proj"), of("attn_q")),
                (to("self_attn.k_proj"), of("attn_k")),
            ] {
                for (row, values) in to.iter().enumerate() {
                    let (head, i) = (row / HEAD_DIM, row % HEAD_DIM);
                    let paired = 2 * (i % (HEAD_DIM / 2)) + i / (HEAD_DIM / 2);
                    assert_eq!(values, &of[head * HEAD_DIM + paired], "{dtype:?} row {row}");
                }
            }
        }
    }
}

#[test]
fn configuration_and_special_tokens_come_from_the_metadata() {
    let mut tiny = Tiny::new(GgmlDType::Q4_1).unwrap();
    let folder = tiny.dequantized().unwrap();
    assert_eq!(folder.name(), "tiny-q");
    let expected = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 32, "hidden_size": 64,
        "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 16, "hidden_act": "silu", "rms_norm_eps": 0.5, "rope_theta": 500.0, "rope_scaling": null,
        "max_position_embeddings": 128, "tie_word_embeddings": true, "bos_token_id": 0, "eos_token_id": 1,
        "torch_dtype": "float32",
    });
    assert_eq!(json(&folder, "config.json"), expected);
    assert_eq!(
        json(&folder, "generation_config.json"),
        json!({"bos_token_id": 0, "eos_token_id": 1})
    );
    let expected = json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>",
        "add_bos_token": true, "chat_template": "{{ messages }}",
    });
    assert_eq!(json(&folder, "tokenizer_config.json"), expected);
    let saved = Tokenizer::from_file(folder.path().join("tokenizer.json")).unwrap();
    assert_eq!(saved.token_to_id("</s>"), Some(1));

    let output = tiny.tensors[0].1.dequantize(&Device::Cpu).unwrap();
    let output = QTensor::quantize(&output, GgmlDType::F32).unwrap();
    tiny.tensors.push(("output.weight".into(), output));
    let folder = tiny.dequantized().unwrap();
    assert_eq!(json(&folder, "config.json")["tie_word_embeddings"], false);
}

#[test]
fn qwen2_keeps_its_row_order_and_its_biases() {
    let mut tiny = Tiny::new(GgmlDType::F32).unwrap();
    for (key, value) in &mut tiny.metadata {
        match key.strip_prefix("llama.") {
            Some(rest) => *key = format!("qwen2.{rest}").leak(),
            None if *key == "general.architecture" => *value = Value::String("qwen2".into()),
            None => {}
        }
    }
    let bias = Tensor::randn(0f32, 1f32, HIDDEN, &Device::Cpu).unwrap();
    let stored = QTensor::quantize(&bias, GgmlDType::F32).unwrap();
    tiny.tensors.push(("blk.0.attn_q.bias".into(), stored));
    let folder = tiny.dequantized().unwrap();
    let path = folder.path().join("model.safetensors");
    let weights = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let query = weights["model.layers.1.self_attn.q_proj.weight"]
        .to_vec2::<f32>()
        .unwrap();
    assert_eq!(query, tiny.values("blk.1.attn_q.weight"));
    let kept = weights["model.layers.0.self_attn.q_proj.bias"]
        .to_vec1::<f32>()
        .unwrap();
    assert_eq!(kept, bias.to_vec1::<f32>().unwrap());
    assert_eq!(
        json(&folder, "config.json")["architectures"],
        json!(["Qwen2ForCausalLM"])
    );
}

#[test]
fn a_complete_folder_is_reused_and_a_damaged_one_replaced() {
    let tiny = Tiny::new(GgmlDType::Q4_1).unwrap();
    let folder = tiny.dequantized().unwrap();
    let (mark, weights) = (
        folder.path().join("mark"),
        folder.path().join("model.safetensors"),
    );
    fs::write(&mark, "").unwrap();
    assert_eq!(tiny.dequantized().unwrap().path(), folder.path());
    assert!(mark.exists());

    let length = fs::metadata(&weights).unwrap().len();
    File::options()
        .write(true)
        .open(&weights)
        .unwrap()
        .set_len(length / 2)
        .unwrap();
    tiny.dequantized().unwrap();
    assert_eq!(fs::metadata(&weights).unwrap().len(), length);
    assert!(!mark.exists());
    let left = fs::read_dir(folder.path().parent().unwrap())
        .unwrap()
        .count();
    assert_eq!(left, 1, "drafts are removed");
}

#[test]
fn what_a_folder_cannot_express_is_refused_by_name_and_leaves_nothing() {
    let change = |key: &'static str, value: Value| {
        let mut tiny = Tiny::new(GgmlDType::Q4_1).unwrap();
        tiny.metadata.retain(|(k, _)| *k != key);
        tiny.metadata.push((key, value));
        tiny
    };
    let mut frequencies = Tiny::new(GgmlDType::Q4_1).unwrap();
    let ones = Tensor::ones(HEAD_DIM / 2, candle_core::DType::F32, &Device::Cpu).unwrap();
    let ones = QTensor::quantize(&ones, GgmlDType::F32).unwrap();
    frequencies.tensors.push(("rope_freqs.weight".into(), ones));
    for (tiny, named) in [
        (
            change("general.architecture", Value::String("phi3".into())),
            "architecture phi3",
        ),
        (
            change("llama.rope.dimension_count", Value::U32(8)),
            "rope.dimension_count is not 16",
        ),
        (
            change("llama.rope.scaling.type", Value::String("yarn".into())),
            "scaling yarn",
        ),
        (
            change("llama.attention.head_count", Value::U32(0)),
            "no attention heads",
        ),
        (
            change(
                "llama.attention.head_count",
                Value::Array(vec![Value::U32(4)]),
            ),
            "no single attention.head_count",
        ),
        (frequencies, "tensor rope_freqs.weight"),
    ] {
        let message = tiny.dequantized().unwrap_err().to_string();
        assert!(message.contains(named), "{message}");
        assert!(!worth_dequantizing(&tiny.files().unwrap()), "{named}");
        assert!(!tiny.dir.path().join("cache").exists());
    }
    // Only the weights show that this one's key heads do not divide its rows.
    let tiny = change("llama.attention.head_count_kv", Value::U32(3));
    let message = tiny.dequantized().unwrap_err().to_string();
    assert!(message.contains("attn_k.weight"), "{message}");
    let left: Vec<_> = fs::read_dir(tiny.dir.path().join("cache"))
        .unwrap()
        .flatten()
        .collect();
    assert_eq!(fs::read_dir(left[0].path()).unwrap().count(), 0);
}

#[test]
fn an_unwritable_cache_is_named() {
    let tiny = Tiny::new(GgmlDType::Q4_1).unwrap();
    fs::write(tiny.dir.path().join("cache"), "a file, not a folder").unwrap();
    let message = tiny.dequantized().unwrap_err().to_string();
    assert!(
        message.contains("cannot be written") && message.contains("cache"),
        "{message}"
    );
}

#[test]
fn only_types_without_simd_products_are_worth_it() {
    let worth = |dtype| worth_dequantizing(&Tiny::new(dtype).unwrap().files().unwrap());
    assert!(worth(GgmlDType::Q4_1) && worth(GgmlDType::Q5_0) && worth(GgmlDType::Q5_1));
    assert!(!worth(GgmlDType::F32) && !worth(GgmlDType::F16) && !worth(GgmlDType::BF16));
    let simd = cfg!(any(target_feature = "avx2", target_feature = "neon"));
    assert_eq!(worth(GgmlDType::Q8_0), !simd);
}
