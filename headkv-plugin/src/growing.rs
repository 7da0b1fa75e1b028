//! One layer of a prompt that is not compressed yet: all of its keys and values, and what ranks them.

use crate::{AttentionShape, Policy, backend::Backend, ranking::Observed, selection::Scores};
use candle_core::{Result, Tensor};

/// Keys and values of a prompt as far as it has come, and the last queries.
#[derive(Clone, Default)]
pub struct Growing {
    /// Tokens so far.
    pub tokens: usize,
    /// `(kv_heads, room, head_dim)`: room for the whole prompt, unless that came at once.
    keys: Option<Tensor>,
    values: Option<Tensor>,
    /// `(heads, at most the observation window, head_dim)`; all, if the ranking looks at them.
    queries: Option<Tensor>,
    /// What the candidates are worth, where that is known before it is decided what is kept.
    pub scores: Option<Scores>,
}

impl Growing {
    /// What the candidates are worth to each stored head, by the policy's ranking.
    ///
    /// # Errors
    /// As the backend's, and a prompt without queries.
    pub fn rank<B: Backend>(
        &self,
        backend: &B,
        layer: usize,
        policy: &Policy,
        shape: &AttentionShape,
    ) -> Result<B::Scores> {
        let Some(queries) = &self.queries else {
            candle_core::bail!("headkv: a prompt without queries cannot be ranked");
        };
        let ((k, v), asked) = (self.all()?, queries.dim(1)?);
        let window = policy.config.window.min(asked);
        let last = queries.narrow(1, asked - window, window)?;
        let needs = policy.needs();
        let outputs = match &policy.facts.outputs {
            Some(outputs) if needs.outputs => Some(outputs.layer(layer, k.device())?),
            _ => None,
        };
        let prompt = Observed::new(&last, &k, &v, shape)
            .with_all_queries(needs.all_queries.then_some(queries))
            .with_rotary(policy.facts.rotary.as_deref())
            .with_outputs(outputs.as_ref());
        backend.rank(&prompt, policy.ranking.as_deref(), &policy.config)
    }

    /// Takes in keys and values, `(kv_heads, new, head_dim)`.
    pub fn push(&mut self, k: &Tensor, v: &Tensor, prompt: usize) -> Result<()> {
        let new = k.dim(1)?;
        if self.tokens == 0 && new >= prompt {
            (self.keys, self.values) = (Some(k.clone()), Some(v.clone()));
        } else {
            if self.tokens + new > prompt {
                candle_core::bail!("headkv: a prompt of {prompt} tokens brought more");
            }
            for (held, x) in [(&mut self.keys, k), (&mut self.values, v)] {
                let held = match held {
                    Some(held) => held,
                    None => {
                        let (heads, _, head_dim) = x.dims3()?;
                        let room = Tensor::zeros((heads, prompt, head_dim), x.dtype(), x.device());
                        held.insert(room?)
                    }
                };
                held.slice_set(&x.contiguous()?, 1, self.tokens)?;
            }
        }
        self.tokens += new;
        Ok(())
    }

    /// Remembers the last queries of `q`, `(heads, new, head_dim)`, `window` of them.
    pub fn look(&mut self, q: &Tensor, window: usize) -> Result<()> {
        let last = |q: &Tensor| -> Result<Tensor> {
            let tokens = q.dim(1)?;
            q.narrow(1, tokens.saturating_sub(window), tokens.min(window))
        };
        let queries = match self.queries.take() {
            Some(before) if q.dim(1)? < window => last(&Tensor::cat(&[&before, q], 1)?)?,
            _ => last(q)?,
        };
        self.queries = Some(queries);
        Ok(())
    }

    /// All keys and values so far, `(kv_heads, tokens, head_dim)`.
    pub fn all(&self) -> Result<(Tensor, Tensor)> {
        let so_far = |held: &Option<Tensor>| match held {
            Some(held) => held.narrow(1, 0, self.tokens),
            None => candle_core::bail!("headkv: a prompt has not begun"),
        };
        Ok((so_far(&self.keys)?, so_far(&self.values)?))
    }

    /// Another prompt with the same past, which goes on by itself.
    ///
    /// # Errors
    /// Memory that runs out.
    pub fn fork(&self) -> Result<Self> {
        // What one fork writes behind its past, the other must not see.
        let own = |held: &Option<Tensor>| held.as_ref().map(Tensor::copy).transpose();
        Ok(Self {
            tokens: self.tokens,
            keys: own(&self.keys)?,
            values: own(&self.values)?,
            queries: self.queries.clone(),
            scores: self.scores.clone(),
        })
    }

    /// Bytes of its keys and values.
    pub fn bytes(&self) -> usize {
        let bytes = |held: &Option<Tensor>| {
            held.as_ref()
                .map_or(0, |x| x.elem_count() * x.dtype().size_in_bytes())
        };
        bytes(&self.keys) + bytes(&self.values)
    }
}
