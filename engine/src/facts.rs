//! What a model's files say that some rankings want to know.

use crate::{ModelFiles, check::safetensors, rotary};
use candle_core::{DType, Device, Result, Tensor};
use headkv_plugin::ranking::{Encode, Facts, Outputs};
use std::{
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};
use tokenizers::Tokenizer;

/// What is known for sure of a model: of a GGUF file nothing.
pub fn of(files: &ModelFiles) -> Facts {
    if files.is_gguf() {
        return Facts::default();
    }
    let rotary = rotary::of(files);
    let weights = files.weights().to_vec();
    // The families whose tensors' names are known are those whose rotary embedding is.
    let outputs = rotary.is_some().then(|| {
        Arc::new(Outputs::new(move |layer| {
            tensor(
                &weights,
                &format!("model.layers.{layer}.self_attn.o_proj.weight"),
            )
        }))
    });
    Facts {
        rotary: rotary.map(Arc::new),
        outputs,
        encode: Some(encoder(files.path().join("tokenizer.json"))),
    }
}

/// The tokenizer in that file, read when it is first asked.
fn encoder(file: PathBuf) -> Arc<Encode> {
    let tokenizer = OnceLock::new();
    Arc::new(move |text| {
        // Where it would fill texts up or cut them, a short one comes back as another.
        let read = || {
            let mut tokenizer = Tokenizer::from_file(&file).map_err(|e| e.to_string())?;
            tokenizer.with_padding(None);
            tokenizer.with_truncation(None).map_err(|e| e.to_string())?;
            Ok::<_, String>(tokenizer)
        };
        let encoding = match tokenizer.get_or_init(read) {
            Ok(tokenizer) => tokenizer.encode_fast(text, false),
            Err(why) => candle_core::bail!("headkv: {}: {why}", file.display()),
        };
        Ok(encoding
            .map_err(candle_core::Error::msg)?
            .get_ids()
            .to_vec())
    })
}

/// One tensor out of files of weights; nothing else of them is read.
fn tensor(files: &[PathBuf], name: &str) -> Result<Tensor> {
    for file in files {
        if let Some(found) = tensor_in(file, name)? {
            return Ok(found);
        }
    }
    candle_core::bail!("headkv: the weights have no {name}; use another --ranking")
}

fn tensor_in(file: &Path, name: &str) -> Result<Option<Tensor>> {
    let mut from = BufReader::new(File::open(file)?);
    let length = from.get_ref().metadata()?.len();
    let (header, metadata) = safetensors::metadata(&mut from, length)
        .map_err(|why| candle_core::Error::msg(format!("headkv: {} {why}", file.display())))?;
    let Some(info) = metadata.info(name) else {
        return Ok(None);
    };
    let (start, end) = info.data_offsets;
    from.seek(SeekFrom::Start(8 + header + start as u64))?;
    let mut bytes = vec![0; end.saturating_sub(start)];
    from.read_exact(&mut bytes)?;
    let dtype = DType::try_from(info.dtype)?;
    Tensor::from_raw_buffer(&bytes, dtype, &info.shape, &Device::Cpu).map(Some)
}
