//! A thousand damages of every kind of file end in an error or in what is whole: no panic, and memory in proportion to the
//! file. `HEADKV_DAMAGES` sets another number.

use candle_core::{
    DType, Device, Tensor,
    quantized::{GgmlDType, QTensor, gguf_file},
};
use headkv_tests::{Counting, damage};
use std::{io::Cursor, panic, sync::Mutex};

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

/// One test at a time, so that the bytes counted are its own.
static ALONE: Mutex<()> = Mutex::new(());

/// Bytes of memory for a byte of the file, at most, and what any file may take.
const MULTIPLE: usize = 100;
const ANY: usize = 1 << 20;

/// Tries the damages of one file, and that the whole file passes.
fn survives(original: &[u8], read: fn(&[u8])) {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    let tries = std::env::var("HEADKV_DAMAGES").map_or(1000, |n| n.parse().unwrap());
    read(original);
    for seed in 0..tries {
        let bytes = damage::damaged(original, seed);
        let before = ALLOCATOR.restart();
        let ended = panic::catch_unwind(|| read(&bytes));
        let taken = ALLOCATOR.peak().saturating_sub(before);
        assert!(ended.is_ok(), "damage {seed} panics");
        let most = ANY + MULTIPLE * bytes.len();
        assert!(taken <= most, "damage {seed} takes {taken} bytes of memory");
    }
}

fn gguf() -> Vec<u8> {
    use gguf_file::Value::{Array, Bool, F32, I32, String as Text, U32, U64};
    let words = (0..300).map(|at| Text(format!("word {at}"))).collect();
    let metadata = [
        ("general.architecture", Text("llama".into())),
        ("general.alignment", U32(32)),
        ("llama.block_count", U32(2)),
        ("llama.context_length", U64(4096)),
        ("llama.attention.head_count", U32(8)),
        ("llama.attention.head_count_kv", U32(4)),
        ("llama.rope.freq_base", F32(10000.0)),
        ("tokenizer.ggml.add_bos_token", Bool(true)),
        ("tokenizer.ggml.tokens", Array(words)),
        ("tokenizer.ggml.token_type", Array(vec![I32(1); 300])),
        ("nested", Array(vec![Array(vec![U32(1)]), Array(vec![])])),
    ];
    let tensor = |rows: usize, kind| {
        let values = Tensor::ones((rows, 256), DType::F32, &Device::Cpu).unwrap();
        QTensor::quantize(&values, kind).unwrap()
    };
    let tensors = [
        ("token_embd.weight", tensor(3, GgmlDType::Q4_1)),
        ("blk.0.attn_q.weight", tensor(2, GgmlDType::Q6K)),
        ("blk.1.attn_q.weight", tensor(1, GgmlDType::F32)),
        ("output_norm.weight", tensor(1, GgmlDType::BF16)),
    ];
    let metadata: Vec<_> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let tensors: Vec<_> = tensors
        .iter()
        .map(|(name, tensor)| (*name, tensor))
        .collect();
    let mut file = Cursor::new(Vec::new());
    gguf_file::write(&mut file, &metadata, &tensors).unwrap();
    file.into_inner()
}

#[test]
fn damaged_gguf_files() {
    let whole = gguf();
    let header = headkv_engine::check::gguf::read(&whole[..], whole.len() as u64).unwrap();
    headkv_engine::check::gguf::fit(&header).unwrap();
    survives(&whole, damage::gguf);
    // The header alone: most damages of a whole file hit its tensors.
    let data = whole
        .windows(18)
        .position(|at| at == b"output_norm.weight")
        .unwrap()
        + 50;
    survives(&whole[..data], damage::gguf);
}

/// The type table is the runtime's own: each type's tensors have exactly the bytes that the check expects.
#[test]
fn types_have_the_runtimes_sizes() {
    use GgmlDType::{BF16, F16, F32, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0, Q8K};
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    for kind in [
        F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2K, Q3K, Q4K, Q5K, Q6K, Q8K,
    ] {
        let values = Tensor::ones((2, 256), DType::F32, &Device::Cpu).unwrap();
        let tensor = QTensor::quantize(&values, kind).unwrap();
        let mut file = Cursor::new(Vec::new());
        gguf_file::write(&mut file, &[], &[("t", &tensor)]).unwrap();
        let mut file = file.into_inner();
        let read = |bytes: &[u8]| headkv_engine::check::gguf::read(bytes, bytes.len() as u64);
        // Behind the last tensor lies what aligns the next one.
        let padding = 31 - (31 + tensor.storage_size_in_bytes()) % 32;
        file.truncate(file.len() - padding);
        assert_eq!(read(&file).map(|header| header.tensors), Ok(1), "{kind:?}");
        file.pop();
        let message = read(&file).unwrap_err();
        assert!(
            message.starts_with("is truncated: tensor \"t\""),
            "{kind:?}: {message}"
        );
    }
}

#[test]
fn damaged_safetensors_files() {
    let tensor = |rows: usize| Tensor::ones((rows, 4), DType::F32, &Device::Cpu).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.safetensors");
    let tensors = [
        ("a.weight", tensor(1)),
        ("b.weight", tensor(2)),
        ("c", tensor(1)),
    ];
    candle_core::safetensors::save(&tensors.into_iter().collect(), &path).unwrap();
    survives(&std::fs::read(path).unwrap(), damage::safetensors);
}

#[test]
fn damaged_state_files() {
    let part = |value: f32| Tensor::full(value, (2, 64, 3), &Device::Cpu).unwrap();
    let state = headkv_plugin::prefix::State {
        tokens: (0..64).collect(),
        layers: (0..2).map(|_| [part(0.5), part(-1.0)]).collect(),
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    headkv_engine::state::write(&state, "m", &path).unwrap();
    let whole = std::fs::read(path).unwrap();
    assert!(headkv_engine::state::parse(&whole, "m").is_ok());
    survives(&whole, damage::state_file);
}

#[test]
fn damaged_score_files() {
    let file = r#"{"0-0": [0.25, 1], "0-1": [0, 1e-3], "1-0": [1, 2], "1-1": [0.5, 0]}"#;
    survives(file.as_bytes(), damage::score_file);
}

#[test]
fn damaged_unfinished_runs() {
    let begun = serde_json::to_string(&damage::settings()).unwrap();
    let line = |example: usize| {
        format!("{{\"example\":{example},\"answer\":\"A\",\"f1\":1.0,\"scores\":[0.5,0.1]}}\n")
    };
    let text = begun + "\n" + &line(0) + &line(3);
    survives(text.as_bytes(), damage::part_file);
}

#[test]
fn damaged_needle_files() {
    let text = concat!(
        r#"{"variables": {"person": ["Ada", "Ben", "Cid"], "age": {"from": 20, "to": 60}}}"#,
        "\n",
        r#"{"needle": ["{person.1} is {age.1}.", "{person.2} is {age.2}."], "question": "Who is {age.1}?","#,
        r#" "real_needle": "{person.1} is {age.1}.", "answer": "{person.1}."}"#,
    );
    survives(text.as_bytes(), damage::needle_file);
}

#[test]
fn damaged_settings() {
    let tokenizer = br#"{"truncation": {"max_length": 5}, "padding": null, "added_tokens": [],
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}}"#;
    survives(tokenizer, damage::settings_file);
    let config = br#"{"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 1, "num_attention_heads": 8,
        "num_key_value_heads": 4, "max_position_embeddings": 8192, "tie_word_embeddings": true}"#;
    survives(config, damage::settings_file);
}

/// Damages that ended the runtime.
#[test]
fn known_damages_of_gguf_headers_are_named() {
    let whole = gguf();
    let read = |bytes: &[u8]| headkv_engine::check::gguf::read(bytes, bytes.len() as u64);
    let behind = |key: &str| {
        let at = whole
            .windows(key.len())
            .position(|bytes| bytes == key.as_bytes());
        at.unwrap() + key.len()
    };
    let with = |at: usize, value: &[u8]| {
        let mut bytes = whole.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        read(&bytes)
            .err()
            .unwrap_or_else(|| panic!("{value:?} at {at} passes"))
    };
    let most = u64::MAX.to_le_bytes();
    let alignment = behind("general.alignment") + 4;
    let tokens = behind("tokenizer.ggml.tokens") + 4;
    let nested = behind("nested") + 4;
    // Behind a tensor's name: dimensions, their sizes, the type, the offset.
    let tensor = behind("blk.1.attn_q.weight");
    for (message, why) in [
        (with(8, &most), "18446744073709551615 tensors in the"),
        (with(16, &most), "18446744073709551615 values in the"),
        (with(24, &most), "a name of 18446744073709551615 bytes"),
        (with(alignment, &[0; 4]), "an alignment of 0"),
        (with(alignment, &[3, 0, 0, 0]), "an alignment of 3"),
        (with(tokens + 4, &most), "elements of an array in the"),
        (with(tokens + 12, &most), "bytes in the"),
        (
            with(nested, &[9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0]),
            "arrays in arrays",
        ),
        (with(tensor, &[255; 4]), "has 4294967295 dimensions"),
        (with(tensor + 4, &most), "no size that can be"),
        (with(tensor + 4, &[0; 8]), "no size that can be"),
        (with(tensor + 20, &[99, 0, 0, 0]), "is of type 99"),
        (with(tensor + 24, &most), "ends at no byte that there is"),
        (with(tensor + 24, &[1]), "begins inside another"),
    ] {
        assert!(message.contains(why), "{message} instead of {why}");
        assert!(!message.contains('\n'), "{message}");
    }
}
