//! The part of sampling that runs on the GPU, and what comes back from it.

use std::ffi::c_void;

use candle_core::{
    backend::BackendStorage,
    cuda_backend::{cudarc::driver::DevicePtr, CudaStorage, CudaStorageSlice},
    DType, Result, Storage, Tensor, D,
};

use super::{Rule, Top};

extern "C" {
    fn batch_sampling_largest(
        logits: *const c_void,
        dtype: i32,
        rows: i32,
        vocabulary: i32,
        out: *mut u32,
        stream: i64,
    );
    fn batch_sampling_top(
        logits: *const c_void,
        dtype: i32,
        rows: i32,
        vocabulary: i32,
        rules: *const c_void,
        out: *mut u32,
        stream: i64,
    );
}

/// As in cuda/batch_sampling.cu.
const NOT_A_NUMBER: u32 = u32::MAX;
const PER_UNIT: f32 = 64.0;
const CAPACITY: usize = 512;
const HEADER: usize = 4;
const WORDS: usize = HEADER + 2 * CAPACITY;

/// What was found in a row.
pub(super) enum Found {
    /// The token of the largest logit, and that.
    Largest(u32, f32),
    /// The most probable tokens.
    Top(Top),
    /// Nothing that the host can use: a logit is not a number, or too many tokens are probable.
    Nothing,
}

/// Looks into the logits `(batch, 1, vocabulary)`; `None` if a row needs all of them on the host.
pub(super) fn find(logits: &Tensor, rules: &[Rule]) -> Result<Option<Vec<Found>>> {
    let vocabulary = logits.dim(D::Minus1)?;
    let limited = |rule: &Rule| {
        rule.temperature.is_none() || rule.keeps_k(vocabulary).is_some() || rule.keeps_p().is_some()
    };
    if !rules.iter().all(limited) || logits.elem_count() != rules.len() * vocabulary {
        return Ok(None);
    }
    let dtype = match logits.dtype() {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::BF16 => 2,
        _ => return Ok(None),
    };
    let logits = logits.contiguous()?;
    let (storage, layout) = logits.storage_and_layout();
    let (Storage::Cuda(storage), Some((start, _))) = (&*storage, layout.contiguous_offsets())
    else {
        return Ok(None);
    };
    let device = storage.device();
    let stream = device.cuda_stream();
    let bytes = start * logits.dtype().size_in_bytes();
    let (rows, width) = (i32::try_from(rules.len())?, i32::try_from(vocabulary)?);
    let (source, _read) = match &storage.slice {
        CudaStorageSlice::F32(s) => s.device_ptr(&stream),
        CudaStorageSlice::F16(s) => s.device_ptr(&stream),
        CudaStorageSlice::BF16(s) => s.device_ptr(&stream),
        _ => return Ok(None),
    };
    let source = (source + bytes as u64) as *const c_void;
    let raw = stream.cu_stream() as i64;

    // Runs a kernel that writes so many words for each row.
    let run = |words: usize, kernel: &dyn Fn(*mut u32)| {
        // SAFETY: a kernel writes before the words are read, which is on the same stream.
        let out = unsafe { device.alloc::<u32>(rules.len() * words) }?;
        let (target, written) = out.device_ptr(&stream);
        kernel(target as *mut u32);
        drop(written);
        let storage = CudaStorage {
            slice: CudaStorageSlice::U32(out),
            device: device.clone(),
        };
        Tensor::from((
            Storage::Cuda(storage),
            candle_core::Shape::from((rules.len(), words)),
        ))
        .to_vec2::<u32>()
    };
    let mut found: Vec<Found> = rules.iter().map(|_| Found::Nothing).collect();
    if rules.iter().any(|rule| rule.temperature.is_none()) {
        // SAFETY: `source` points to rows x vocabulary elements of that type, `out` has two words a row.
        let words = run(2, &|out| unsafe {
            batch_sampling_largest(source, dtype, rows, width, out, raw)
        })?;
        for ((found, words), rule) in found.iter_mut().zip(words).zip(rules) {
            if rule.temperature.is_none() && words[0] != NOT_A_NUMBER {
                *found = Found::Largest(words[0], f32::from_bits(words[1]));
            }
        }
    }
    if rules.iter().any(|rule| rule.temperature.is_some()) {
        let limits: Vec<u32> = rules
            .iter()
            .flat_map(|rule| limits(rule, vocabulary))
            .collect();
        let limits = device.clone_htod(&limits)?;
        let (limits, _read) = limits.device_ptr(&stream);
        // SAFETY: as above; `limits` has four words a row, `out` WORDS.
        let words = run(WORDS, &|out| unsafe {
            batch_sampling_top(
                source,
                dtype,
                rows,
                width,
                limits as *const c_void,
                out,
                raw,
            )
        })?;
        for ((found, words), rule) in found.iter_mut().zip(words).zip(rules) {
            if rule.temperature.is_some() && words[0] as usize <= CAPACITY {
                *found = Found::Top(top(&words));
            }
        }
    }
    Ok(Some(found))
}

/// `Rule` of the kernel.
fn limits(rule: &Rule, vocabulary: usize) -> [u32; 4] {
    let scale = rule.temperature.map_or(1.0, |t| (1.0 / t) as f32);
    let (k, p) = (rule.keeps_k(vocabulary), rule.keeps_p());
    // What is rarer than this, all together, is not needed to reach `p`.
    let least = match (k, p) {
        (None, Some(p)) => (1.0 - p) / vocabulary as f32 / 4.0,
        _ => 0.0,
    };
    let k = k.and_then(|k| u32::try_from(k).ok()).unwrap_or(u32::MAX);
    [
        scale.to_bits(),
        p.unwrap_or(f32::INFINITY).to_bits(),
        k,
        least.to_bits(),
    ]
}

fn top(words: &[u32]) -> Top {
    let pairs = words[HEADER..].chunks_exact(2).take(words[0] as usize);
    Top {
        total: f64::from(f32::from_bits(words[1])),
        // The device's exponentials are good to 2^-17, the bound to first order.
        slack: 1.01 * f64::from(f32::from_bits(words[2])) + 1e-5,
        logits: pairs
            .map(|pair| (pair[0], f32::from_bits(pair[1])))
            .collect(),
        reach: words[3] as f32 / PER_UNIT - 1e-3,
    }
}
