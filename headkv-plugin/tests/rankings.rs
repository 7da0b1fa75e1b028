//! Whatever ranks, a budget is a budget: every ranking keeps exactly what the capacity says.

use candle_core::{Device, Tensor};
use headkv_plugin::{
    AttentionShape, Compression, ModelShape, Policy,
    cpu::Cpu,
    layer::{Layer, Row, attend},
    ranking,
    rotary::Rotary,
};
use proptest::prelude::*;
use std::{sync::Arc, time::Duration};

const SHAPE: AttentionShape = AttentionShape {
    heads: 4,
    kv_heads: 2,
    head_dim: 8,
    scale: 0.4,
    softcap: None,
    window: None,
};

/// Bytes that are kept of a prompt, `(1, heads, tokens, head_dim)`, of which so many tokens come apart.
fn kept(config: &Compression, [q, k, v]: &[Tensor; 3], then: usize) -> usize {
    let model = ModelShape {
        layers: 1,
        heads: SHAPE.heads,
        kv_heads: SHAPE.kv_heads,
        head_dim: SHAPE.head_dim,
    };
    let rotary = Arc::new(Rotary::new(100.0, SHAPE.head_dim));
    let policy = Policy::new(config, model, None).unwrap();
    let policy = policy.with_rotary(Some(rotary)).unwrap();
    let mut layer = Layer::<Cpu<f32>>::default();
    let mut spent = Duration::ZERO;
    let mut rows = [Row {
        layer: &mut layer,
        policy: &policy,
        prompt: k.dim(2).unwrap() - then,
        record: false,
        recorded: None,
        compressing: &mut spent,
    }];
    attend(&Cpu::default(), 0, [q, k, v], &SHAPE, &mut rows).unwrap();
    layer.kept_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_ranking_keeps_the_budget(
        tokens in 40usize..400,
        capacity in 9usize..60,
        then in 0usize..20,
        // Models overflow, and texts repeat themselves.
        spoiled in 0usize..3,
    ) {
        let make = |heads| {
            let x = Tensor::randn(0f32, 1.0, (1, heads, tokens, SHAPE.head_dim), &Device::Cpu).unwrap();
            match spoiled {
                0 => x,
                1 => (x * 0.0).unwrap(),
                _ => (x * 1e30).unwrap(),
            }
        };
        let prompt = [SHAPE.heads, SHAPE.kv_heads, SHAPE.kv_heads].map(make);
        for ranking in ranking::all() {
            for method in ["snapkv", "adakv"] {
                let config = Compression {
                    ranking: Some(ranking.name.clone()),
                    sinks: 0,
                    ..Compression::new(method, capacity)
                };
                let expected = capacity.min(tokens - then) * SHAPE.kv_heads * 2 * SHAPE.head_dim * 4;
                prop_assert_eq!(kept(&config, &prompt, then), expected, "{} by {}", method, ranking.name);
            }
        }
    }
}
