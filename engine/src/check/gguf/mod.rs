//! The header of a GGUF file (the format of llama.cpp; its specification is `docs/gguf.md` of the project ggml).

mod reader;

use super::MOST_POSITIONS;
use reader::{Place, Reader, damaged};
use std::{
    collections::{BTreeMap, HashSet},
    io::Read,
};

/// Where tensors begin unless the file says otherwise: at multiples of this.
const ALIGNMENT: u64 = 32;

/// What a header says of the model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Header {
    /// `general.architecture`.
    pub architecture: Option<String>,
    /// All whole numbers by their keys.
    pub numbers: BTreeMap<String, u64>,
    /// Lengths of all arrays by their keys.
    pub arrays: BTreeMap<String, u64>,
    /// How many tensors there are.
    pub tensors: u64,
    /// Whether there is a chat template.
    pub chat: bool,
}

/// Reads and checks the header of a file of `length` bytes: every count, type and alignment, and that every tensor lies in
/// the file and none in another.
///
/// # Errors
/// What is wrong, as the end of a sentence that begins with the file's name.
pub fn read(from: impl Read, length: u64) -> Result<Header, String> {
    let mut reader = Reader::new(from, length);
    if length < 24 || &reader.bytes::<4>()? != b"GGUF" {
        return Err("is truncated or not in the GGUF format".into());
    }
    let version = reader.u32()?;
    if !(1..=3).contains(&version) {
        return Err(format!(
            "has version {version} of the GGUF format, not 1 to 3"
        ));
    }
    reader.narrow = version == 1;
    let (tensors, values) = (reader.count()?, reader.count()?);
    // A tensor takes 24 bytes at least and a value 9, in the first version 16 and 9.
    reader.fits(tensors, 16, "tensors")?;
    reader.fits(values, 9, "values")?;
    let mut header = Header {
        tensors,
        ..Header::default()
    };
    let mut keys = HashSet::new();
    for _ in 0..values {
        let key = reader.name()?;
        if !keys.insert(key.clone()) {
            return Err(damaged(format_args!("the key {key:?} comes twice")));
        }
        header.chat |= key == "tokenizer.chat_template";
        reader.value(key, &mut header)?;
    }
    let mut names = HashSet::new();
    let mut places = Vec::new();
    for _ in 0..tensors {
        let name = reader.name()?;
        let place = reader.tensor(&name)?;
        if !names.insert(name.clone()) {
            return Err(damaged(format_args!("the tensor {name:?} comes twice")));
        }
        places.push((place, name));
    }
    let alignment = match header.numbers.get("general.alignment") {
        Some(&alignment) if alignment.is_power_of_two() => alignment,
        Some(alignment) => return Err(damaged(format_args!("an alignment of {alignment}"))),
        None => ALIGNMENT,
    };
    let data = reader
        .at
        .checked_next_multiple_of(alignment)
        .ok_or_else(|| damaged(format_args!("an alignment of {alignment}")))?;
    inside(places, data, alignment, length)?;
    Ok(header)
}

/// Checks that what a header says makes a model.
///
/// # Errors
/// As [`read`].
pub fn fit(header: &Header) -> Result<(), String> {
    let Some(architecture) = &header.architecture else {
        return Err("does not say its architecture (general.architecture)".into());
    };
    let number = |key: &str| {
        let key = format!("{architecture}.{key}");
        header.numbers.get(&key).map(|&number| (key, number))
    };
    let between = |key: &str, most: u64| match number(key) {
        Some((key, found)) if !(1..=most).contains(&found) => {
            Err(format!("says {key} = {found}, where 1 to {most} can be"))
        }
        _ => Ok(()),
    };
    // Every layer has a tensor of its own.
    between("block_count", header.tensors)?;
    between("context_length", MOST_POSITIONS)?;
    for key in [
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.value_length",
        "embedding_length",
        "rope.dimension_count",
    ] {
        between(key, u64::from(u32::MAX))?;
    }
    if let (Some((key, heads)), Some((_, kv_heads))) = (
        number("attention.head_count"),
        number("attention.head_count_kv"),
    ) && heads % kv_heads != 0
    {
        return Err(format!(
            "says {key} = {heads}, no multiple of {kv_heads} KV heads"
        ));
    }
    match header.arrays.get("tokenizer.ggml.tokens") {
        None | Some(0) => Err("holds no tokens (tokenizer.ggml.tokens)".into()),
        Some(_) => Ok(()),
    }
}

fn inside(
    mut places: Vec<(Place, String)>,
    data: u64,
    alignment: u64,
    length: u64,
) -> Result<(), String> {
    places.sort();
    let mut end = 0;
    for ((offset, bytes), name) in &places {
        let last = data
            .checked_add(*offset)
            .and_then(|at| at.checked_add(*bytes));
        if last.is_none_or(|last| last > length) {
            let last = last.map_or("no byte that there is".into(), |last| {
                format!("byte {last}")
            });
            return Err(format!(
                "is truncated: tensor {name:?} ends at {last} of {length}"
            ));
        }
        if offset % alignment != 0 || *offset < end {
            return Err(damaged(format_args!(
                "the tensor {name:?} begins inside another"
            )));
        }
        end = offset + bytes;
    }
    Ok(())
}
