//! One layer of one sequence: its whole prompt while that comes, then what the policy keeps of it, and a tail.

use crate::{
    AttentionShape, Policy,
    backend::{Backend, KvCache},
    growing::Growing,
    methods::Budget,
    ranking::Observed,
};
use candle_core::{Result, Tensor};
use std::time::{Duration, Instant};

/// What a layer of a sequence holds.
pub enum Layer<B: Backend> {
    /// Everything, because the prompt is not complete.
    Growing(Growing),
    /// What is kept of the prompt, and everything after it.
    Compressed(B::Cache),
}

/// A sequence's part in one call.
pub struct Row<'a, B: Backend> {
    /// What the layer holds.
    pub layer: &'a mut Layer<B>,
    /// What is kept of the sequence.
    pub policy: &'a Policy,
    /// Tokens of the prompt that is compressed; what comes after them stays whole.
    pub prompt: usize,
    /// Whether the tokens say the prompt again: they rank it, and are not stored.
    pub aside: bool,
    /// Whether the whole keys and values of a prompt that is complete are wanted.
    pub record: bool,
    /// Those, `(kv_heads, tokens, head_dim)`.
    pub recorded: Option<[Tensor; 2]>,
    /// Gains the host's time for ranking, selecting and copying what is kept.
    pub compressing: &'a mut Duration,
}

impl<B: Backend> Default for Layer<B> {
    fn default() -> Self {
        Self::Growing(Growing::default())
    }
}

impl<B: Backend> Layer<B> {
    /// Another layer with the same past, which goes on by itself.
    ///
    /// # Errors
    /// Memory that runs out.
    pub fn fork(&self) -> Result<Self> {
        match self {
            Self::Growing(growing) => growing.fork().map(Self::Growing),
            Self::Compressed(cache) => cache.fork().map(Self::Compressed),
        }
    }

    /// A layer of a prompt of `prompt` tokens whose first ones have these keys and values, in parts of
    /// `(kv_heads, tokens, head_dim)`.
    ///
    /// # Errors
    /// Memory that runs out.
    pub fn resume(parts: &[[Tensor; 2]], prompt: usize) -> Result<Self> {
        let mut growing = Growing::default();
        for [k, v] in parts {
            growing.push(k, v, prompt)?;
        }
        Ok(Self::Growing(growing))
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::Growing(past) if past.tokens == 0)
    }

    /// Bytes of the kept part, which forks share.
    pub fn kept_bytes(&self) -> usize {
        match self {
            Self::Growing(_) => 0,
            Self::Compressed(cache) => cache.kept_bytes(),
        }
    }

    /// Bytes of everything else that the layer holds.
    pub fn own_bytes(&self) -> usize {
        match self {
            Self::Growing(growing) => growing.bytes(),
            Self::Compressed(cache) => cache.tail_bytes(),
        }
    }
}

/// Attention of a batch's new tokens to all that came before them and to themselves, `(batch, heads, new, head_dim)`.
///
/// Here alone prompts and generated tokens differ: a layer whose prompt is complete is compressed, once. What follows it in
/// the same call sees only what is kept.
///
/// # Errors
/// As the backend's, a method whose budget does not fit, and sequences that are not what the batch's shape says.
pub fn attend<B: Backend>(
    backend: &B,
    layer: usize,
    [q, k, v]: [&Tensor; 3],
    shape: &AttentionShape,
    rows: &mut [Row<'_, B>],
) -> Result<Tensor> {
    if let Some(window) = shape.window {
        return slide(backend, layer, [q, k, v], shape, window, rows);
    }
    let new = q.dim(2)?;
    if rows
        .iter()
        .all(|row| row.layer.is_empty() && new <= row.prompt)
    {
        let out = backend.prefill(q, k, v, shape)?;
        for (i, row) in rows.iter_mut().enumerate() {
            row.take([&q.get(i)?, &k.get(i)?, &v.get(i)?])?;
            row.complete(backend, layer, shape)?;
        }
        return Ok(out);
    }
    if let Some(mut caches) = compressed(rows) {
        return backend.extend(layer, q, k, v, shape, &mut caches);
    }
    let each = rows.iter_mut().enumerate().map(|(i, row)| {
        let [q, k, v] = [q, k, v].map(|x| x.narrow(0, i, 1));
        row.attend(backend, layer, [&q?, &k?, &v?], shape)
    });
    Tensor::cat(&each.collect::<Result<Vec<_>>>()?, 0)
}

impl<B: Backend> Row<'_, B> {
    /// Attends the new tokens of this sequence alone, `(1, heads, new, head_dim)`.
    fn attend(
        &mut self,
        backend: &B,
        layer: usize,
        [q, k, v]: [&Tensor; 3],
        shape: &AttentionShape,
    ) -> Result<Tensor> {
        if self.aside {
            return self.look_back(backend, [q, k, v], shape);
        }
        let new = q.dim(2)?;
        let of_prompt = match self.layer {
            Layer::Growing(past) => new.min(self.prompt - past.tokens),
            Layer::Compressed(_) => 0,
        };
        let part = |from, tokens| -> Result<[Tensor; 3]> {
            let part = |x: &Tensor| x.narrow(2, from, tokens);
            Ok([part(q)?, part(k)?, part(v)?])
        };
        let mut outputs = Vec::with_capacity(2);
        if of_prompt > 0 {
            let [q, k, v] = part(0, of_prompt)?;
            self.take([&q.squeeze(0)?, &k.squeeze(0)?, &v.squeeze(0)?])?;
            if let Layer::Growing(past) = self.layer {
                let (k, v) = past.all()?;
                outputs.push(backend.prefill(&q, &k.unsqueeze(0)?, &v.unsqueeze(0)?, shape)?);
            }
            self.complete(backend, layer, shape)?;
        }
        if of_prompt < new {
            let [q, k, v] = part(of_prompt, new - of_prompt)?;
            let Layer::Compressed(cache) = self.layer else {
                candle_core::bail!("headkv: a prompt of {} tokens brought more", self.prompt);
            };
            outputs.push(backend.extend(layer, &q, &k, &v, shape, &mut [cache])?);
        }
        Tensor::cat(&outputs, 2)
    }

    /// Takes in tokens of a prompt, `(heads, new, head_dim)`.
    fn take(&mut self, [q, k, v]: [&Tensor; 3]) -> Result<()> {
        let Layer::Growing(past) = self.layer else {
            candle_core::bail!("headkv: a prompt of {} tokens brought more", self.prompt);
        };
        past.push(k, v, self.prompt)?;
        let looked_at = if self.policy.needs().all_queries {
            self.prompt
        } else {
            self.policy.config.window
        };
        past.look(q, looked_at)
    }

    /// Compresses a prompt that is complete.
    fn complete(&mut self, backend: &B, layer: usize, shape: &AttentionShape) -> Result<()> {
        let Layer::Growing(past) = self.layer else {
            return Ok(());
        };
        if past.tokens < self.prompt {
            return Ok(());
        }
        let start = Instant::now();
        let (k, v) = past.all()?;
        self.recorded = self.record.then(|| [k.clone(), v.clone()]);
        let budget = self.policy.budget(layer, past.tokens);
        let budget = budget.map_err(candle_core::Error::msg)?;
        let scores = || past.rank(backend, layer, self.policy, shape);
        let recent = self.policy.recent(past.tokens);
        let keep_best =
            |scores, counts: &[usize]| backend.keep_best(&k, &v, scores, counts, recent);
        if self.policy.has_to_wait(&budget) {
            if !self.policy.needs().replay {
                past.scores = Some(backend.to_host(&scores()?)?);
            }
        } else {
            let cache = match &budget {
                Budget::All => {
                    if let Some(watch) = &self.policy.watch {
                        let all = (0..past.tokens as u32).collect();
                        watch.layer(&vec![all; shape.kv_heads], past.tokens);
                    }
                    backend.keep_all(&k, &v)?
                }
                // A device that selects by itself does not say what.
                Budget::PerHead(counts) if self.policy.watch.is_none() => {
                    keep_best(&scores()?, counts)?
                }
                Budget::Competing {
                    total,
                    floor,
                    weights,
                } if self.policy.watch.is_none() => {
                    let scores = scores()?;
                    let counts = backend.compete(&scores, *total, *floor, weights)?;
                    keep_best(&scores, &counts)?
                }
                _ => {
                    let scores = || backend.to_host(&scores()?);
                    let kept = self.policy.select(&budget, past.tokens, scores)?;
                    backend.keep_at(&k, &v, &kept)?
                }
            };
            *self.layer = Layer::Compressed(cache);
        }
        *self.compressing += start.elapsed();
        Ok(())
    }

    /// Attends tokens that say the prompt again to it and to themselves, `(1, heads, new, head_dim)`, and has them rank it.
    fn look_back(
        &mut self,
        backend: &B,
        [q, k, v]: [&Tensor; 3],
        shape: &AttentionShape,
    ) -> Result<Tensor> {
        let Layer::Growing(past) = self.layer else {
            candle_core::bail!("headkv: a prompt is said again that was compressed before");
        };
        let (keys, values) = past.all()?;
        let keys = Tensor::cat(&[&keys, &k.squeeze(0)?], 1)?;
        let values = Tensor::cat(&[&values, &v.squeeze(0)?], 1)?;
        let out = backend.prefill(q, &keys.unsqueeze(0)?, &values.unsqueeze(0)?, shape)?;
        let start = Instant::now();
        let queries = q.squeeze(0)?;
        let replay = Observed::new(&queries, &keys, &values, shape);
        let ranking = self.policy.ranking.as_deref();
        let scores = backend.rank(&replay, ranking, &self.policy.config)?;
        let candidates = past.tokens - self.policy.config.window;
        let scores = backend.to_host(&scores)?.first(candidates);
        past.scores = Some(match past.scores.take() {
            Some(before) => before.maximum(&scores),
            None => scores,
        });
        *self.compressing += start.elapsed();
        Ok(out)
    }
}

/// Attention of a layer that slides: nothing is ranked, the window's tokens are kept.
fn slide<B: Backend>(
    backend: &B,
    layer: usize,
    [q, k, v]: [&Tensor; 3],
    shape: &AttentionShape,
    window: usize,
    rows: &mut [Row<'_, B>],
) -> Result<Tensor> {
    if let Some(mut caches) = compressed(rows) {
        return backend.extend(layer, q, k, v, shape, &mut caches);
    }
    let out = backend.prefill(q, k, v, shape)?;
    let kept = (0..rows.len()).map(|i| backend.keep_last(&k.get(i)?, &v.get(i)?, window));
    let kept = kept.collect::<Result<Vec<_>>>()?;
    for (row, cache) in rows.iter_mut().zip(kept) {
        if !row.layer.is_empty() {
            candle_core::bail!("headkv: prompts and generated tokens came in one batch");
        }
        *row.layer = Layer::Compressed(cache);
    }
    Ok(out)
}

/// The batch's caches, if all of its prompts are complete.
fn compressed<'a, B: Backend>(rows: &'a mut [Row<'_, B>]) -> Option<Vec<&'a mut B::Cache>> {
    let caches = rows.iter_mut().map(|row| match row.layer {
        Layer::Growing(_) => None,
        Layer::Compressed(cache) => Some(cache),
    });
    caches.collect()
}
