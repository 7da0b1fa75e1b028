//! What is kept of a prompt whose layers wait for each other, or for the prompt to be said again ([`Policy::waits`]).

use crate::{
    Policy,
    backend::Backend,
    layer::Layer,
    methods::Budget,
    selection::{self, Scores},
};
use candle_core::{Error, Result};

/// Compresses the layers that wait, `tokens` tokens each, once each of them knows what its positions are worth.
///
/// # Errors
/// As the backend's, and a method whose budget does not fit; no layer has changed then.
pub fn settle<B: Backend>(
    backend: &B,
    policy: &Policy,
    layers: &mut [&mut Layer<B>],
    tokens: usize,
) -> Result<()> {
    let (mut numbers, mut ranked) = (Vec::new(), Vec::new());
    for (number, layer) in layers.iter().enumerate() {
        if let Layer::Growing(past) = &**layer {
            match &past.scores {
                Some(scores) if past.tokens == tokens => ranked.push(scores),
                _ => return Ok(()),
            }
            numbers.push(number);
        }
    }
    let budgets = numbers.iter().map(|&layer| policy.budget(layer, tokens));
    let mut budgets = budgets.collect::<std::result::Result<Vec<_>, _>>();
    if policy.method.across_layers()
        && let Ok(budgets) = &mut budgets
    {
        *budgets = one_pool(budgets, &ranked);
    }
    let budgets = budgets.map_err(Error::msg)?;
    let mut kept = Vec::with_capacity(numbers.len());
    for ((&number, budget), scores) in numbers.iter().zip(&budgets).zip(&ranked) {
        let Layer::Growing(past) = &*layers[number] else {
            continue;
        };
        let (k, v) = past.all()?;
        let positions = policy.select(budget, tokens, || Ok::<_, Error>((*scores).clone()))?;
        kept.push(backend.keep_at(&k, &v, &positions)?);
    }
    for (number, cache) in numbers.into_iter().zip(kept) {
        *layers[number] = Layer::Compressed(cache);
    }
    Ok(())
}

/// What each layer's heads keep where those of all layers compete for the sum of their budgets.
fn one_pool(budgets: &[Budget], ranked: &[&Scores]) -> Vec<Budget> {
    let (mut total, mut floor, mut all) = (0, usize::MAX, Vec::new());
    for budget in budgets {
        // `Policy::budget` lets no other kind pass.
        if let Budget::Competing {
            total: of_layer,
            floor: sure,
            weights,
        } = budget
        {
            total += of_layer;
            floor = floor.min(*sure);
            all.extend_from_slice(weights);
        }
    }
    let scores = Scores::together(ranked.iter().copied());
    let counts = selection::compete(&scores, total, floor, &all);
    let heads = counts.len() / ranked.len().max(1);
    let layers = counts.chunks(heads.max(1)).map(<[usize]>::to_vec);
    layers.map(Budget::PerHead).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Compression, ModelShape, cpu::Cpu, growing::Growing};
    use candle_core::{DType, Device, Tensor};

    const TOKENS: usize = 40;

    /// Two layers of one head whose best positions are all in the second.
    fn layers(kept: usize) -> Vec<usize> {
        let model = ModelShape {
            layers: 2,
            heads: 1,
            kv_heads: 1,
            head_dim: 4,
        };
        let policy = Policy::new(&Compression::new("kvzip", kept), model, None).unwrap();
        let rows = Tensor::zeros((1, TOKENS, 4), DType::F32, &Device::Cpu).unwrap();
        let layer = |worth: f32| {
            let mut growing = Growing::default();
            growing.push(&rows, &rows, TOKENS).unwrap();
            let candidates = TOKENS - policy.config.window;
            growing.scores = Some(Scores::new(candidates, vec![worth; candidates]));
            Layer::<Cpu<f32>>::Growing(growing)
        };
        let mut layers = [layer(1.0), layer(2.0)];
        let mut all: Vec<_> = layers.iter_mut().collect();
        settle(&Cpu::default(), &policy, &mut all, TOKENS).unwrap();
        let bytes = |layer: &Layer<_>| layer.kept_bytes() / (2 * 4 * size_of::<f32>());
        layers.iter().map(bytes).collect()
    }

    #[test]
    fn the_heads_of_all_layers_compete_for_the_sum_of_their_budgets() {
        assert_eq!(layers(18), [8, 28]);
        // The second layer has no more than its 32 candidates.
        assert_eq!(layers(30), [20, 40]);
    }
}
