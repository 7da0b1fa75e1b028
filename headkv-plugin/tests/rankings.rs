//! Whatever ranks, a budget is a budget: every ranking keeps exactly what the capacity says.

use candle_core::{Device, Tensor};
use headkv_plugin::{
    AttentionShape, Compression, ModelShape, Policy,
    cpu::Cpu,
    layer::{Layer, Row, attend},
    ranking::{self, Facts, Outputs},
    rotary::Rotary,
    settle::settle,
};
use proptest::prelude::*;
use std::{ops::Range, sync::Arc, time::Duration};

const SHAPE: AttentionShape = AttentionShape {
    heads: 4,
    kv_heads: 2,
    head_dim: 8,
    scale: 0.4,
    softcap: None,
    window: None,
    sinks: None,
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
    let width = SHAPE.heads * SHAPE.head_dim;
    let outputs = Outputs::new(move |_| Tensor::randn(0f32, 1.0, (16, width), &Device::Cpu));
    let facts = Facts {
        rotary: Some(rotary),
        outputs: Some(outputs.into()),
        encode: Some(Arc::new(|_: &str| Ok(Vec::new()))),
    };
    let policy = policy.with_facts(facts).unwrap();
    let compressed = k.dim(2).unwrap() - then;
    let mut layer = Layer::<Cpu<f32>>::default();
    let mut spent = Duration::ZERO;
    let mut pass = |layer: &mut Layer<_>, tokens: Range<usize>, aside| {
        let part = [q, k, v].map(|x| x.narrow(2, tokens.start, tokens.len()).unwrap());
        let mut rows = [Row {
            layer,
            policy: &policy,
            prompt: compressed,
            aside,
            record: false,
            recorded: None,
            compressing: &mut spent,
        }];
        attend(&Cpu::default(), 0, part.each_ref(), &SHAPE, &mut rows).unwrap();
    };
    if !policy.waits() {
        pass(&mut layer, 0..compressed + then, false);
        return layer.kept_bytes();
    }
    // What follows has to wait until it is decided what is kept.
    pass(&mut layer, 0..compressed, false);
    // What is kept whole is not said again.
    if policy.needs().replay && compressed > config.capacity {
        pass(&mut layer, 0..20, true);
        pass(&mut layer, 20..30, true);
    }
    settle(&Cpu::default(), &policy, &mut [&mut layer], compressed).unwrap();
    let kept = layer.kept_bytes();
    if then > 0 {
        pass(&mut layer, compressed..compressed + then, false);
    }
    assert_eq!(layer.kept_bytes(), kept);
    kept
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
            for method in ["snapkv", "adakv", "kvzip"] {
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
