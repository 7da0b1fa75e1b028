//! The ragged cache of one layer and sequence, on the GPU.
//!
//! As on the CPU ([`crate::cache`]): the compressed part is written once and shared by forks, and later tokens go to
//! blocks of a tail. Blocks grow up to a limit, so that few allocations serve a long answer.

use super::{
    device::{Operand, device_of, launch, start, uninitialized},
    ffi,
    plan::Cut,
    rank::DeviceScores,
};
use crate::backend::KvCache;
use candle_core::{CudaDevice, DType, Result, Tensor};
use cudarc::driver::CudaSlice;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Tokens of the tail's first block, and of its largest ones.
const FIRST_BLOCK: usize = 64;
const LARGEST_BLOCK: usize = 1024;

/// Keys and values of one layer and sequence, a different number of tokens for each stored head.
///
/// Stored heads are KV heads, or query heads where each keeps a set of its own; the tail is stored once per KV head.
pub struct RaggedCache {
    /// Tells caches apart in a plan.
    pub(super) id: u64,
    pub(super) device: CudaDevice,
    pub(super) dtype: DType,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    kept: Arc<KeptRows>,
    blocks: Vec<Arc<Block>>,
    /// Tokens that came to the tail.
    pub(super) tail: usize,
    /// Tokens that the tail holds at most: once it is full, a new one takes the oldest one's place.
    window: Option<usize>,
    /// Its pieces of work, until the tail gets another block.
    cut: Option<Cut>,
}

struct KeptRows {
    /// Token offsets of the stored heads in `keys` and `values`, one more than heads.
    offsets: Vec<usize>,
    /// `(kept tokens of all heads, head_dim)`, as 16-bit words.
    keys: CudaSlice<u16>,
    values: CudaSlice<u16>,
}

/// A block of the tail: `(2, kv_heads, tokens, head_dim)`, keys then values.
struct Block {
    tokens: usize,
    words: CudaSlice<u16>,
}

/// Which rows of a prompt a cache keeps.
enum Kept<'a> {
    All,
    /// Positions by stored head.
    At(&'a [Vec<u32>]),
    /// The best so many of each stored head, and so many of the last tokens.
    Best(&'a DeviceScores, &'a [usize], usize),
}

impl RaggedCache {
    /// Keeps every token of a prompt; `k` and `v` are `(kv_heads, tokens, head_dim)`.
    ///
    /// # Errors
    /// Tensors that are not in bf16 or f16 on one CUDA device, or memory that runs out.
    pub fn keep_all(k: &Tensor, v: &Tensor) -> Result<Self> {
        let (kv_heads, tokens, _) = k.dims3()?;
        Self::build(k, v, vec![tokens; kv_heads], Kept::All)
    }

    /// Keeps a prompt's last `window` tokens, and from then on no more than so many.
    ///
    /// # Errors
    /// As [`Self::keep_all`].
    pub fn keep_last(k: &Tensor, v: &Tensor, window: usize) -> Result<Self> {
        let (kv_heads, tokens, head_dim) = k.dims3()?;
        let held = tokens.min(window);
        let last = |x: &Tensor| x.narrow(1, tokens - held, held);
        let Self { kept, .. } = Self::keep_all(&last(k)?, &last(v)?)?;
        let mut cache = Self::build(
            k,
            v,
            vec![0; kv_heads],
            Kept::At(&vec![Vec::new(); kv_heads]),
        )?;
        let half = kv_heads * held * head_dim;
        let mut words: CudaSlice<u16> = uninitialized(&cache.device, 2 * half)?;
        let stream = cache.device.cuda_stream();
        let wrap = candle_core::Error::wrap;
        stream
            .memcpy_dtod(&kept.keys, &mut words.slice_mut(..half))
            .map_err(wrap)?;
        stream
            .memcpy_dtod(&kept.values, &mut words.slice_mut(half..))
            .map_err(wrap)?;
        cache.blocks.push(Arc::new(Block {
            tokens: held,
            words,
        }));
        (cache.tail, cache.window) = (held, Some(window));
        Ok(cache)
    }

    /// Keeps the prompt's tokens at `kept[stored head]`, in that order.
    ///
    /// # Errors
    /// As [`Self::keep_all`], and positions beyond the prompt.
    pub fn keep_at(k: &Tensor, v: &Tensor, kept: &[Vec<u32>]) -> Result<Self> {
        let tokens = k.dim(1)?;
        if let Some(at) = kept.iter().flatten().find(|&&at| at as usize >= tokens) {
            candle_core::bail!("headkv: position {at} is beyond the prompt of {tokens} tokens");
        }
        Self::build(k, v, kept.iter().map(Vec::len).collect(), Kept::At(kept))
    }

    /// Keeps the `counts[stored head]` best-ranked candidates and the last `recent` tokens, without waiting for the device.
    ///
    /// # Errors
    /// As [`Self::keep_all`], and counts that do not fit the scores.
    pub fn keep_best(
        k: &Tensor,
        v: &Tensor,
        scores: &DeviceScores,
        counts: &[usize],
        recent: usize,
    ) -> Result<Self> {
        if counts.len() != scores.heads() || k.dim(1)? != scores.tokens() {
            candle_core::bail!(
                "headkv: {} counts and a prompt of {} tokens do not fit scores of {} heads and {} tokens",
                counts.len(),
                k.dim(1)?,
                scores.heads(),
                scores.tokens()
            );
        }
        let counts: Vec<usize> = counts.iter().map(|&n| n.min(scores.candidates())).collect();
        let recent = recent.min(scores.tokens() - scores.candidates());
        let lengths = counts.iter().map(|n| n + recent).collect();
        Self::build(k, v, lengths, Kept::Best(scores, &counts, recent))
    }

    fn build(k: &Tensor, v: &Tensor, lengths: Vec<usize>, kept: Kept<'_>) -> Result<Self> {
        let (kv_heads, _, head_dim) = k.dims3()?;
        if k.dims() != v.dims() || k.dtype() != v.dtype() {
            candle_core::bail!(
                "headkv: keys {:?} do not fit values {:?}",
                k.dims(),
                v.dims()
            );
        }
        if lengths.is_empty()
            || !lengths.len().is_multiple_of(kv_heads)
            || !head_dim.is_multiple_of(8)
        {
            candle_core::bail!(
                "headkv: {} stored heads of {kv_heads} KV heads, head_dim {head_dim}",
                lengths.len()
            );
        }
        let device = device_of(k)?;
        let mut offsets = vec![0];
        for length in &lengths {
            offsets.push(offsets[offsets.len() - 1] + length);
        }
        let total = offsets[lengths.len()];
        let as_i32 = |list: &[usize]| list.iter().map(|&n| n as i32).collect::<Vec<_>>();
        let device_offsets = device.clone_htod(&as_i32(&offsets))?;
        let positions = match kept {
            Kept::All => None,
            Kept::At(kept) => Some(device.clone_htod(&[kept.concat(), vec![0]].concat())?),
            Kept::Best(scores, counts, recent) => {
                Some(scores.select(&as_i32(counts), recent, &device_offsets, total)?)
            }
        };

        let (operand_k, operand_v) = (Operand::new(k)?, Operand::new(v)?);
        let keys = uninitialized(&device, total * head_dim)?;
        let values = uninitialized(&device, total * head_dim)?;
        let args = ffi::Gather {
            k: operand_k.address,
            v: operand_v.address,
            k_head: operand_k.strides[0],
            k_token: operand_k.strides[1],
            v_head: operand_v.strides[0],
            v_token: operand_v.strides[1],
            offsets: start(&device_offsets, &device),
            positions: positions.as_ref().map_or(0, |p| start(p, &device)),
            kept_k: start(&keys, &device),
            kept_v: start(&values, &device),
            heads: lengths.len() as i32,
            share: (lengths.len() / kv_heads) as i32,
            longest: lengths.iter().copied().max().unwrap_or(0) as i32,
            head_dim: head_dim as i32,
        };
        // SAFETY: positions are below `tokens`, offsets end at the slices' length; tests compare with the CPU's rows.
        launch(&device, "copying what is kept", |stream| unsafe {
            ffi::headkv_gather(&args, stream)
        })?;
        Ok(Self {
            id: next_id(),
            dtype: k.dtype(),
            device,
            kv_heads,
            head_dim,
            kept: Arc::new(KeptRows {
                offsets,
                keys,
                values,
            }),
            blocks: Vec::new(),
            tail: 0,
            window: None,
            cut: None,
        })
    }

    /// Number of stored heads.
    pub fn stored_heads(&self) -> usize {
        self.kept.offsets.len() - 1
    }

    /// Tokens of the prompt that a stored head keeps.
    pub fn kept(&self, stored: usize) -> usize {
        self.kept.offsets[stored + 1] - self.kept.offsets[stored]
    }

    /// Tokens of the tail.
    pub fn tail_tokens(&self) -> usize {
        self.tail
    }

    /// The compressed part's bits, keys and values.
    #[cfg(test)]
    pub(super) fn read(&self) -> (Vec<u16>, Vec<u16>) {
        let read = |words| self.device.clone_dtoh(words).unwrap();
        (read(&self.kept.keys), read(&self.kept.values))
    }

    /// Blocks of the tail.
    pub(super) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Makes room for one more token; the compressed part and full blocks stay where they are.
    pub(super) fn reserve(&mut self) -> Result<()> {
        let most = self.window.unwrap_or(usize::MAX);
        if self.tail == self.room() && self.tail < most {
            // As long as the tail so far: it doubles, up to the largest block.
            let tokens = self
                .tail
                .clamp(FIRST_BLOCK, LARGEST_BLOCK)
                .min(most - self.tail);
            let words = uninitialized(&self.device, 2 * self.kv_heads * tokens * self.head_dim)?;
            self.blocks.push(Arc::new(Block { tokens, words }));
            self.cut = None;
        }
        Ok(())
    }

    fn room(&self) -> usize {
        self.blocks.iter().map(|block| block.tokens).sum()
    }

    /// Tokens of the tail with the one that comes next, and which of them that is.
    pub(super) fn next(&self) -> (i32, i32) {
        let most = self.window.unwrap_or(usize::MAX);
        ((self.tail + 1).min(most) as i32, (self.tail % most) as i32)
    }

    /// Units of a stored head: its query heads, so many as share one read.
    fn units(&self, heads: usize) -> usize {
        (heads / self.stored_heads()).div_ceil(ffi::MAX_ROWS)
    }

    /// Tokens that the units of `heads` query heads read together, those that the tail has room for included.
    pub(super) fn work(&self, heads: usize) -> usize {
        let kept = self.kept.offsets[self.stored_heads()];
        (kept + self.stored_heads() * self.room()) * self.units(heads)
    }

    /// Its pieces of work of about `piece` tokens, for `heads` query heads.
    ///
    /// # Errors
    /// A tail of more blocks than one launch can attend to.
    pub(super) fn cut(&mut self, heads: usize, piece: i32) -> Result<&Cut> {
        let cut = match self.cut.take() {
            Some(cut) if cut.is(self.stored_heads() * self.units(heads), piece) => cut,
            _ => self.cut_anew(heads, piece)?,
        };
        Ok(self.cut.insert(cut))
    }

    fn cut_anew(&self, heads: usize, piece: i32) -> Result<Cut> {
        let (stored_heads, share) = (self.stored_heads(), heads / self.stored_heads());
        let per_kv_head = stored_heads / self.kv_heads;
        let row = (self.head_dim * 2) as u64;
        let of = |words| start(words, &self.device);
        let kept = (of(&self.kept.keys), of(&self.kept.values));
        let blocks = self.blocks.iter();
        let blocks: Vec<_> = blocks
            .map(|block| (of(&block.words), block.tokens))
            .collect();
        let (mut units, mut segments) = (Vec::new(), Vec::new());
        for stored in 0..stored_heads {
            let kv_head = stored / per_kv_head;
            // Everything that it attends to: its kept part, then the tail's blocks.
            let first_segment = segments.len() as i32;
            let at = self.kept.offsets[stored] as u64 * row;
            segments.push(ffi::Segment {
                keys: kept.0 + at,
                values: kept.1 + at,
                tokens: self.kept(stored) as i32,
                tail_first: -1,
            });
            let mut tail_first = 0;
            for &(words, tokens) in &blocks {
                let head = |at: usize| words + (at * tokens) as u64 * row;
                segments.push(ffi::Segment {
                    keys: head(kv_head),
                    values: head(self.kv_heads + kv_head),
                    tokens: tokens as i32,
                    tail_first,
                });
                tail_first += tokens as i32;
            }
            units.extend((0..share).step_by(ffi::MAX_ROWS).map(|first| ffi::Unit {
                head: (stored * share + first) as i32,
                rows: (share - first).min(ffi::MAX_ROWS) as i32,
                kv_head: kv_head as i32,
                appends: i32::from(stored % per_kv_head == 0 && first == 0),
                first_segment,
                segments: 1 + blocks.len() as i32,
            }));
        }
        Cut::new(&units, &segments, self.head_dim, piece)
    }
}

/// A number that no other cache has.
fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Relaxed)
}

impl KvCache for RaggedCache {
    fn fork(&self) -> Result<Self> {
        let mut blocks = self.blocks.clone();
        let open = match self.window {
            // Any block is written to when its tokens are the oldest.
            Some(_) => 0,
            None => blocks.len() - usize::from(self.tail < self.room()),
        };
        for open in &mut blocks[open..] {
            let stream = self.device.cuda_stream();
            let words = stream.clone_dtod(&open.words);
            *open = Arc::new(Block {
                tokens: open.tokens,
                words: words.map_err(candle_core::Error::wrap)?,
            });
        }
        Ok(Self {
            id: next_id(),
            device: self.device.clone(),
            kept: self.kept.clone(),
            blocks,
            cut: None,
            ..*self
        })
    }

    fn kept_bytes(&self) -> usize {
        // Of rows, not of the slices, which are never empty.
        2 * self.kept.offsets[self.stored_heads()] * self.head_dim * 2
    }

    fn tail_bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.words.len() * 2).sum()
    }
}
