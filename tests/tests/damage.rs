//! A thousand damages of every kind of file, and as many edits of proptest's, end in an error or in what is whole: no panic,
//! memory in proportion to the file, and no hang. `HEADKV_DAMAGES` sets another number.

use candle_core::{
    DType, Device, Tensor,
    quantized::{GgmlDType, QTensor, gguf_file},
};
use headkv_tests::{Counting, damage};
use proptest::{prelude::*, sample::Index};
use std::{
    fs,
    io::Cursor,
    panic,
    sync::Mutex,
    time::{Duration, Instant},
};

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

/// One test at a time, so that the bytes counted are its own.
static ALONE: Mutex<()> = Mutex::new(());

/// Bytes of memory for a byte of the file, at most, and what any file may take.
const MULTIPLE: usize = 100;
const ANY: usize = 1 << 20;

/// The most time for one file. No figure of speed, which no test may assert: a read takes microseconds, and one that lasts this
/// long on any machine follows a count that the file only claims.
const LONGEST: Duration = Duration::from_secs(10);

/// The first corpus of the fuzz targets: whole files, the cases of bug reports, and what fuzzers found.
fn seeds(reader: &str) -> Vec<(String, Vec<u8>)> {
    let folder = headkv_tests::root().join("fuzz/seeds").join(reader);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().flatten().collect();
    files.sort_by_key(|file| file.file_name());
    let seed = |file: fs::DirEntry| {
        let name = file.file_name().to_string_lossy().into_owned();
        (name, fs::read(file.path()).unwrap())
    };
    files.into_iter().map(seed).collect()
}

/// Reads bytes: no panic, no hang, and memory in proportion to them. Whether they pass.
fn survives(read: fn(&[u8]) -> bool, bytes: &[u8], what: &str) -> bool {
    let before = ALLOCATOR.restart();
    let started = Instant::now();
    let ended = panic::catch_unwind(|| read(bytes));
    let lasted = started.elapsed();
    assert!(lasted < LONGEST, "{what} takes {lasted:?}");
    let taken = ALLOCATOR.peak().saturating_sub(before);
    let most = ANY + MULTIPLE * bytes.len();
    assert!(taken <= most, "{what} takes {taken} bytes of memory");
    ended.unwrap_or_else(|_| panic!("{what} panics"))
}

/// Tries all seeds, of which the whole files pass, and a thousand damages of each; some are refused, or nothing is looked at.
fn seeds_and_damages(name: &str, read: fn(&[u8]) -> bool) {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    let tries = std::env::var("HEADKV_DAMAGES").map_or(1000, |n| n.parse().unwrap());
    let (mut whole, mut refused, mut tried) = (0, 0, 0);
    for (seed, bytes) in seeds(name) {
        let passes = survives(read, &bytes, &seed);
        if seed.starts_with("whole") {
            assert!(passes, "{seed} of {name} is refused");
            whole += 1;
        }
        for damage in 0..tries {
            let what = format!("damage {damage} of {seed}");
            let passes = survives(read, &damage::damaged(&bytes, damage), &what);
            if seed.starts_with("whole") {
                tried += 1;
                refused += u64::from(!passes);
            }
        }
    }
    assert!(whole > 0, "no whole file among the seeds of {name}");
    assert!(
        refused * 10 >= tried * 3,
        "only {refused} of {tried} damages of {name} are refused"
    );
}

/// A piece of a file is replaced by bytes that may mean something.
fn edit() -> impl Strategy<Value = (Index, usize, Vec<u8>)> {
    let texts = [
        "",
        "\"",
        "{",
        "[",
        "]",
        ",",
        "-1",
        "1e308",
        "null",
        "NaN",
        "\n",
        "\\u001b",
        "\u{202e}",
        "18446744073709551615",
    ];
    let numbers = [0, 1, 1 << 31, 1 << 40, 1 << 62, u64::MAX / 2, u64::MAX];
    let bytes = prop_oneof![
        prop::sample::select(texts.to_vec()).prop_map(|text| text.as_bytes().to_vec()),
        prop::sample::select(numbers.to_vec()).prop_map(|number| number.to_le_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..9),
    ];
    (any::<Index>(), 0..24usize, bytes)
}

/// Tries what proptest makes of the seeds.
fn edited(name: &str, read: fn(&[u8]) -> bool) {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    let seeds = seeds(name);
    let config = ProptestConfig {
        // Found cases become seeds.
        failure_persistence: None,
        ..ProptestConfig::with_cases(1000)
    };
    let edits = prop::collection::vec(edit(), 0..6);
    proptest!(config, |(seed in any::<Index>(), edits in edits)| {
        let mut bytes = seed.get(&seeds).1.clone();
        for (at, length, new) in edits {
            let at = at.index(bytes.len() + 1);
            let end = (at + length).min(bytes.len());
            bytes.splice(at..end, new);
        }
        survives(read, &bytes, "a seed that was edited");
    });
}

macro_rules! readers {
    ($($name:ident),*) => {
        $(mod $name {
            #[test]
            fn survives_damages() {
                super::seeds_and_damages(stringify!($name), headkv_tests::damage::$name);
            }

            #[test]
            fn survives_edits() {
                super::edited(stringify!($name), headkv_tests::damage::$name);
            }
        })*
    };
}

// One for each fuzz target but `request_body`, which the server tries itself.
readers!(
    arrow_stream,
    endpoint_answer,
    gguf,
    grid_file,
    needle_file,
    part_file,
    rows_file,
    safetensors,
    score_file,
    settings_file,
    state_file
);

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

fn header() -> Vec<u8> {
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

/// Damages that ended the runtime.
#[test]
fn known_damages_of_gguf_headers_are_named() {
    let whole = header();
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
        // Found by a fuzzer: the runtime stores no single numbers.
        (with(tensor, &[0; 4]), "has 0 dimensions"),
        (with(tensor + 4, &most), "no size that can be"),
        (with(tensor + 4, &[0; 8]), "no size that can be"),
        (with(tensor + 20, &[99, 0, 0, 0]), "is of type 99"),
        // Found by a fuzzer: Q8_1, a type of sums only.
        (with(tensor + 20, &[9, 0, 0, 0]), "is of type 9"),
        (with(tensor + 24, &most), "ends at no byte that there is"),
        (with(tensor + 24, &[1]), "begins inside another"),
    ] {
        assert!(message.contains(why), "{message} instead of {why}");
        assert!(!message.contains('\n'), "{message}");
    }
}
