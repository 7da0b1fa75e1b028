//! What a device offers: attention, ranking, and a cache that gathers and appends. What is kept is decided elsewhere.

use crate::{
    AttentionShape,
    config::Compression,
    ranking::{Observed, Ranking},
    selection::{self, Scores},
};
use candle_core::{DType, Device, Result, Tensor};

/// The keys and values that one layer of one sequence holds, a different number for each stored head.
pub trait KvCache: Send + Sized + 'static {
    /// Another cache with the same past, which goes on by itself; the kept part is stored once.
    ///
    /// # Errors
    /// Memory that runs out.
    fn fork(&self) -> Result<Self>;

    /// Bytes of the kept part, which forks share.
    fn kept_bytes(&self) -> usize;

    /// Bytes of the tail, the cache's own.
    fn tail_bytes(&self) -> usize;
}

/// One kind of device and element type.
///
/// Tensors of one sequence are `(heads, tokens, head_dim)`, of a batch `(batch, heads, tokens, head_dim)`; the numbers of
/// heads are those of the [`AttentionShape`]. Errors are tensors of another device or element type, and memory that
/// runs out; nothing has changed then.
pub trait Backend: Send + Sync + 'static {
    /// What a compressed layer of a sequence holds.
    type Cache: KvCache;
    /// Scores of a layer's candidates, where the device has them.
    type Scores;

    /// Causal attention of new tokens over all keys, the last of which are their own; every sequence has as many.
    ///
    /// # Errors
    /// As all of the trait.
    fn prefill(&self, q: &Tensor, k: &Tensor, v: &Tensor, shape: &AttentionShape)
    -> Result<Tensor>;

    /// Appends new tokens to each cache, and gives their causal attention over everything that it then holds.
    ///
    /// `layer` tells calls of one pass apart, for what a backend wants to reuse in the next pass.
    ///
    /// # Errors
    /// As all of the trait.
    fn extend(
        &self,
        layer: usize,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        shape: &AttentionShape,
        caches: &mut [&mut Self::Cache],
    ) -> Result<Tensor>;

    /// Ranks the candidates, all tokens before the observation window: by `ranking`, or if there is none by the window's
    /// attention. One row of scores per stored head of the configuration, reduced and pooled as it says.
    ///
    /// # Errors
    /// As all of the trait.
    fn rank(
        &self,
        prompt: &Observed<'_>,
        ranking: Option<&dyn Ranking>,
        config: &Compression,
    ) -> Result<Self::Scores>;

    /// The scores on the host.
    ///
    /// # Errors
    /// A failure of the device.
    fn to_host(&self, scores: &Self::Scores) -> Result<Scores>;

    /// How many candidates each stored head keeps where those of all heads compete for `total`, by score times the head's
    /// weight, after each head's own `floor` best.
    ///
    /// # Errors
    /// As [`Self::to_host`].
    fn compete(
        &self,
        scores: &Self::Scores,
        total: usize,
        floor: usize,
        weights: &[f64],
    ) -> Result<Vec<usize>> {
        let scores = self.to_host(scores)?;
        Ok(selection::compete(&scores, total, floor, weights))
    }

    /// Keeps every token.
    ///
    /// # Errors
    /// As all of the trait.
    fn keep_all(&self, k: &Tensor, v: &Tensor) -> Result<Self::Cache>;

    /// Keeps the last `window` tokens: what a sliding window shows. [`Backend::extend`] with that window in the shape keeps
    /// it at that.
    ///
    /// # Errors
    /// As all of the trait.
    fn keep_last(&self, k: &Tensor, v: &Tensor, window: usize) -> Result<Self::Cache>;

    /// Keeps the tokens at these ascending positions of each stored head.
    ///
    /// # Errors
    /// As all of the trait.
    fn keep_at(&self, k: &Tensor, v: &Tensor, positions: &[Vec<u32>]) -> Result<Self::Cache>;

    /// Keeps each stored head's `counts` best candidates, and the last `recent` tokens.
    ///
    /// # Errors
    /// As all of the trait.
    fn keep_best(
        &self,
        k: &Tensor,
        v: &Tensor,
        scores: &Self::Scores,
        counts: &[usize],
        recent: usize,
    ) -> Result<Self::Cache>;
}

/// What any device can do with a ranking that is written with tensors: its scores on the host, reduced and pooled.
pub(crate) fn rank_on_host(
    prompt: &Observed<'_>,
    ranking: &dyn Ranking,
    config: &Compression,
) -> Result<Scores> {
    let (shape, tokens) = (prompt.shape, prompt.keys.dim(1)?);
    let candidates = tokens - prompt.queries.dim(1)?;
    let scores = ranking
        .checked(prompt)?
        .narrow(1, 0, candidates)?
        .to_dtype(DType::F32)?
        .to_device(&Device::Cpu)?;
    let scores = Scores::new(candidates, scores.flatten_all()?.to_vec1()?);
    let group = shape.heads / shape.stored_heads(config.granularity);
    Ok(selection::rank(scores, group, config))
}
