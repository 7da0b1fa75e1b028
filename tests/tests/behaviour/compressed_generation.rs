//! What is generated from a compressed cache is what full attention says where the dropped positions are masked out.
//!
//! The reference is a hook of its own, written from the definitions with tensors: it keeps every key and value, decides
//! by plain sorting which positions of the prompt each query head may still see, and masks the others.

use candle_core::{D, IndexOp, Result, Tensor};
use headkv_engine::{Attention, Engine, Generation, LoadOptions, Request};
use headkv_plugin::{Compression, config::Granularity};
use mistralrs_core::attention_hook::{
    AttendCx, AttentionHook, HookedSequence, ModelHook, ModelInfo, SeqInfo,
};
use std::{
    any::Any,
    path::PathBuf,
    sync::{Arc, Mutex},
};

const STEPS: usize = 24;

/// All keys and values of a layer and sequence, `(kv_heads, tokens, head_dim)`, and what each query head may see of the
/// prompt: 0, or minus infinity where it was dropped.
struct Layer {
    keys: Tensor,
    values: Tensor,
    mask: Vec<Vec<f32>>,
}

/// All layers of a sequence, as far as they were called.
type Layers = Vec<Option<Layer>>;

#[derive(Clone)]
struct Masked(Arc<Mutex<Compression>>);

impl AttentionHook for Masked {
    fn attach(&self, _: &ModelInfo) -> Result<Arc<dyn ModelHook>> {
        Ok(Arc::new(self.clone()))
    }
}

impl ModelHook for Masked {
    fn begin(&self, _: &SeqInfo) -> Result<Box<dyn Any + Send>> {
        Ok(Box::new(Layers::new()))
    }

    fn attend(&self, cx: &AttendCx<'_>, seqs: &[Arc<HookedSequence>]) -> Result<Tensor> {
        let config = self.0.lock().unwrap().clone();
        let rows = seqs.iter().enumerate().map(|(row, seq)| {
            let (q, k, v) = (cx.q.i(row)?, cx.k.i(row)?, cx.v.i(row)?);
            let mut layers = seq.state::<Layers>()?;
            if layers.len() == cx.layer {
                layers.push(None);
            }
            let state = &mut layers[cx.layer];
            let (weights, layer) = match state.take() {
                None => {
                    let weights = softmax(&(logits(cx, &q, &k)? + causal(q.dim(1)?, &q)?)?)?;
                    let mask = mask(&config, cx, &weights)?;
                    let (keys, values) = (k, v);
                    (weights, Layer { keys, values, mask })
                }
                Some(Layer { keys, values, mask }) => {
                    let keys = Tensor::cat(&[&keys, &k], 1)?;
                    let values = Tensor::cat(&[&values, &v], 1)?;
                    let generated = keys.dim(1)? - mask[0].len();
                    let see = mask
                        .iter()
                        .flat_map(|head| head.iter().copied().chain(vec![0.0; generated]));
                    let see: Vec<f32> = see.collect();
                    let see = Tensor::from_vec(see, (mask.len(), 1, keys.dim(1)?), q.device())?;
                    let weights = softmax(&(logits(cx, &q, &keys)? + see)?)?;
                    (weights, Layer { keys, values, mask })
                }
            };
            let out = weights.matmul(&per_query_head(cx, &layer.values)?)?;
            *state = Some(layer);
            Ok(out)
        });
        Tensor::stack(&rows.collect::<Result<Vec<_>>>()?, 0)
    }
}

/// `(kv_heads, tokens, head_dim)` to `(heads, tokens, head_dim)`.
fn per_query_head(cx: &AttendCx<'_>, x: &Tensor) -> Result<Tensor> {
    let (kv_heads, tokens, head_dim) = x.dims3()?;
    let group = cx.model.heads / kv_heads;
    x.unsqueeze(1)?
        .broadcast_as((kv_heads, group, tokens, head_dim))?
        .reshape((cx.model.heads, tokens, head_dim))
}

fn logits(cx: &AttendCx<'_>, q: &Tensor, k: &Tensor) -> Result<Tensor> {
    let k = per_query_head(cx, k)?.transpose(1, 2)?.contiguous()?;
    q.contiguous()?.matmul(&k)? * f64::from(cx.softmax_scale)
}

/// `(heads, tokens, tokens)`, minus infinity above the diagonal.
fn causal(tokens: usize, q: &Tensor) -> Result<Tensor> {
    let see = (0..tokens).flat_map(|query| {
        (0..tokens).map(move |key| if key <= query { 0.0 } else { f32::NEG_INFINITY })
    });
    let see: Vec<f32> = see.collect();
    Tensor::from_vec(see, (1, tokens, tokens), q.device())?.broadcast_as((
        q.dim(0)?,
        tokens,
        tokens,
    ))
}

fn softmax(logits: &Tensor) -> Result<Tensor> {
    let powers = logits
        .broadcast_sub(&logits.max_keepdim(D::Minus1)?)?
        .exp()?;
    powers.broadcast_div(&powers.sum_keepdim(D::Minus1)?)
}

/// What each query head may see of the prompt after its compression, from the prompt's attention weights.
fn mask(config: &Compression, cx: &AttendCx<'_>, weights: &Tensor) -> Result<Vec<Vec<f32>>> {
    let (heads, tokens, _) = weights.dims3()?;
    let candidates = tokens - config.window;
    let window = weights.i((.., candidates.., ..candidates))?.sum(1)?;
    let window: Vec<Vec<f32>> = window.to_vec2()?;
    let group = match config.granularity {
        Granularity::QueryHead => 1,
        Granularity::KvHead => heads / cx.model.kv_heads,
    };
    let counts = capacities(config, cx, group, candidates);
    let mut masks = Vec::new();
    for (stored, rows) in window.chunks(group).enumerate() {
        let mean = |at: usize| rows.iter().map(|row| row[at]).sum::<f32>() / group as f32;
        let reach = config.kernel / 2;
        let pooled = |at: usize| {
            let near = at.saturating_sub(reach)..(at + reach + 1).min(candidates);
            near.map(mean).max_by(f32::total_cmp).unwrap_or(0.0)
        };
        let pooled: Vec<f32> = (0..candidates).map(pooled).collect();
        let mut order: Vec<usize> = (0..candidates).collect();
        order.sort_by(|&a, &b| pooled[b].total_cmp(&pooled[a]).then(a.cmp(&b)));
        let mut mask = vec![f32::NEG_INFINITY; tokens];
        mask[candidates..].fill(0.0);
        for at in &order[..counts[stored]] {
            mask[*at] = 0.0;
        }
        masks.extend(vec![mask; group]);
    }
    Ok(masks)
}

/// Tokens before the window that each stored head of a layer keeps.
fn capacities(
    config: &Compression,
    cx: &AttendCx<'_>,
    group: usize,
    candidates: usize,
) -> Vec<usize> {
    let stored = cx.model.heads / group;
    let mean = config.capacity - config.window;
    let Some(scores) = &config.scores else {
        return vec![mean; stored];
    };
    // Section 3.3: a floor for every head, and a pool that goes by importance, token by token.
    let scores = scores.read().unwrap();
    let scores: Vec<f64> = scores
        .values()
        .chunks(group)
        .map(|s| s.iter().sum::<f64>() / group as f64)
        .collect();
    let pooled = (mean as f64 / config.beta.unwrap_or(1.2)) as usize;
    let floor = mean - pooled;
    let mut tokens = vec![0; scores.len()];
    for _ in 0..pooled * scores.len() {
        let claim = |h: &usize| scores[*h] / (2 * tokens[*h] + 1) as f64;
        let open = (0..scores.len()).filter(|&h| tokens[h] + floor < candidates);
        let next = open.max_by(|a, b| claim(a).total_cmp(&claim(b))).unwrap();
        tokens[next] += 1;
    }
    let layer = &tokens[cx.layer * stored..][..stored];
    layer.iter().map(|tokens| tokens + floor).collect()
}

/// Prompts of different lengths; the first two ask for a fact.
fn requests(engine: &Engine) -> Vec<Request> {
    let story = headkv_haystack::text::generate(11, 6_000);
    let fact = " The best thing to do in Oslo is read a novel by the old harbor in the evening.";
    let ask =
        "Based on the content of the book, Question: The best thing to do in Oslo is: \nAnswer:";
    let texts = [
        format!("{}{fact}{}{ask}", &story[..700], &story[700..1300]),
        format!("{}{fact}{}{ask}", &story[..1500], &story[1500..2400]),
        story[3000..4700].to_string(),
    ];
    let request = |text: &String| Request {
        keep_logits: true,
        ..Request::new(engine.encode(text).unwrap(), STEPS)
    };
    texts.iter().map(request).collect()
}

fn one_by_one(engine: &Engine, requests: &[Request]) -> Vec<Generation> {
    let alone = |r: &Request| engine.generate(std::slice::from_ref(r)).unwrap().remove(0);
    requests.iter().map(alone).collect()
}

/// The largest difference of two runs' logits, over the steps before which both had taken the same tokens.
fn difference(a: &Generation, b: &Generation) -> f32 {
    let same = a.tokens.iter().zip(&b.tokens).take_while(|(a, b)| a == b);
    let steps = (same.count() + 1).min(a.logits.len()).min(b.logits.len());
    let logits = |g: &Generation| g.logits[..steps].concat();
    let pairs = logits(a).into_iter().zip(logits(b));
    // Unlike f32::max, the order of all floats does not lose a NaN.
    let differences = pairs.map(|(a, b)| (a - b).abs());
    differences.max_by(f32::total_cmp).unwrap_or(0.0)
}

#[test]
fn a_compressed_cache_is_a_mask() {
    let full = Compression::new("full", 16);
    let masked = Masked(Arc::new(Mutex::new(full.clone())));
    let options = LoadOptions::new(headkv_tests::tiny());
    let ours = Engine::load(options.clone(), Attention::Compressed(full)).unwrap();
    let reference = Engine::load(options, Attention::Hook(Arc::new(masked.clone()))).unwrap();
    let requests = requests(&ours);
    let uncompressed = one_by_one(&ours, &requests);

    let scores: PathBuf = headkv_tests::root().join("head_scores/tiny_retrieval.json");
    for (method, scores) in [("snapkv", None), ("headkv", Some(scores))] {
        for granularity in [Granularity::QueryHead, Granularity::KvHead] {
            let config = Compression {
                scores: scores.clone().map(Into::into),
                granularity,
                ..Compression::new(method, 16)
            };
            let about = format!("{method} {granularity:?}");
            *masked.0.lock().unwrap() = config.clone();
            ours.set_compression(&config).unwrap();
            let expected = one_by_one(&reference, &requests);
            let alone = one_by_one(&ours, &requests);
            let together = ours.generate(&requests).unwrap();
            for (i, expected) in expected.iter().enumerate() {
                let worst = difference(&alone[i], expected);
                let batched = difference(&together[i], &alone[i]);
                let dropped = difference(&uncompressed[i], expected);
                println!(
                    "{about}, {} tokens: within {worst:.1e} of the mask, {batched:.1e} in a batch; \
                     compression changes logits by {dropped:.2}",
                    expected.prompt_tokens
                );
                assert_eq!(alone[i].tokens, expected.tokens, "{about}: greedy tokens");
                assert_eq!(together[i].tokens, expected.tokens, "{about}: batched");
                assert!(worst <= 1e-2, "{about}: logits differ by {worst}");
                assert!(
                    batched <= 1e-3,
                    "{about}: a batch changes logits by {batched}"
                );
                assert!(
                    dropped >= 0.1,
                    "{about}: the test would not notice full attention"
                );
            }
        }
    }
}
