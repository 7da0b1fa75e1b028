//! The header of a safetensors file.

use safetensors::tensor::Metadata;
use std::io::Read;

/// The largest header that the format allows, in bytes.
const MOST_HEADER: u64 = 100_000_000;

/// Compares the tensors' places in a file's header with the file's length, and gives the tensors' names; the tensors
/// themselves are not read.
///
/// # Errors
/// What is wrong, as the end of a sentence that begins with the file's name.
pub fn read(from: impl Read, length: u64) -> Result<Vec<String>, String> {
    metadata(from, length).map(|(_, metadata)| metadata.offset_keys())
}

/// As [`read`], and gives the length of the header, which follows 8 bytes, and what it says.
///
/// # Errors
/// As [`read`].
pub fn metadata(mut from: impl Read, length: u64) -> Result<(u64, Metadata), String> {
    let mut prefix = [0; 8];
    from.read_exact(&mut prefix)
        .map_err(|_| "is empty".to_string())?;
    let header = u64::from_le_bytes(prefix);
    if header > MOST_HEADER || header > length.saturating_sub(8) {
        return Err("is truncated or not in the safetensors format".into());
    }
    let mut bytes = Vec::new();
    from.take(header)
        .read_to_end(&mut bytes)
        .map_err(|e| format!("cannot be read ({e})"))?;
    let metadata: Metadata =
        serde_json::from_slice(&bytes).map_err(|e| format!("has a damaged header ({e})"))?;
    match (8 + header).checked_add(metadata.data_len() as u64) {
        Some(expected) if expected == length => Ok((header, metadata)),
        Some(expected) => Err(format!(
            "is truncated: {length} bytes, its header promises {expected}"
        )),
        None => Err("has a damaged header (more bytes than there can be)".into()),
    }
}
