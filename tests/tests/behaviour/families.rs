//! Every family of models, windows shorter than the prompt: with nothing dropped the hooked model says what the model
//! is defined to say, and under compression layers that slide keep their window and no more.
//!
//! The definition of a window of W tokens is that a query sees W keys, its own included. Upstream's prompt pass shows
//! it one more, so that upstream with W - 1 in its configuration is the reference for prompts; what is generated is
//! compared with prompt passes over everything that came before it.

use candle_core::{D, DType, Result, Tensor};
use headkv_engine::{Attention, Engine, Generation, LoadOptions, Request};
use headkv_plugin::Compression;
use headkv_tests::{Family, random_model, widen_values};
use mistralrs_core::attention_hook::{
    AttendCx, AttentionHook, HookedSequence, ModelHook, ModelInfo, PromptPolicy, SeqInfo,
};
use std::{any::Any, path::Path, sync::Arc};

const WINDOW: usize = 96;
const PROMPT: usize = 300;
const STEPS: usize = 64;
/// Logits of prompt passes over so many of the steps are compared.
const CHECKED: [usize; 6] = [0, 1, 2, 20, 40, STEPS - 1];

fn options(folder: &Path) -> LoadOptions {
    LoadOptions {
        ignore_end: true,
        ..LoadOptions::new(folder)
    }
}

fn load(folder: &Path, attention: Attention) -> Engine {
    Engine::load(options(folder), attention).unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
}

fn full() -> Attention {
    Attention::Compressed(Compression::new("full", 16))
}

fn prompt(engine: &Engine, from: usize, tokens: usize) -> Vec<u32> {
    let story = headkv_haystack::text::generate(11, 6_000);
    engine.encode(&story).unwrap()[from..from + tokens].to_vec()
}

fn one(engine: &Engine, prompt: Vec<u32>, steps: usize) -> Generation {
    let request = Request {
        keep_logits: true,
        ..Request::new(prompt, steps)
    };
    engine.generate(&[request]).unwrap().remove(0)
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.max_by(f32::total_cmp).unwrap()
}

fn is_the_definition(family: Family) {
    let folder = tempfile::tempdir().unwrap();
    let (hooked, reference) = (
        folder.path().join("hooked"),
        folder.path().join("reference"),
    );
    random_model(&hooked, family, WINDOW, 3);
    // Upstream applies Qwen 2's window although its configuration says not to use it.
    let window = if family.layers()[0] > 0 {
        WINDOW - 1
    } else {
        8192
    };
    random_model(&reference, family, window, 3);
    let hooked = load(&hooked, full());
    // Two of one length are read in one pass.
    let prompts = [
        (0, PROMPT),
        (40, PROMPT + 37),
        (7, WINDOW / 2),
        (60, PROMPT),
    ];
    let requests: Vec<Request> = prompts
        .iter()
        .map(|&(from, tokens)| Request {
            keep_logits: true,
            ..Request::new(prompt(&hooked, from, tokens), STEPS)
        })
        .collect();
    let together = hooked.generate(&requests).unwrap();
    if family.short_values() {
        // Upstream's kernel for the CPU takes values to be as long as keys.
        widen_values(&reference);
    }
    // Upstream rounds its attention with sinks to f16 on the CPU, and its attention there does not take Qwen 3 Next's queries.
    let by_definition = || load(&reference, Attention::Hook(Arc::new(Dense)));
    let references = match family {
        Family::GptOss => vec![
            (load(&reference, Attention::Upstream), 5e-2),
            (by_definition(), 1e-3),
        ],
        Family::Qwen3Next => vec![(by_definition(), 1e-3)],
        _ => vec![(load(&reference, Attention::Upstream), 1e-3)],
    };
    for (request, answer) in requests.iter().zip(&together) {
        let alone = hooked.generate(std::slice::from_ref(request)).unwrap();
        assert_eq!(alone[0].tokens, answer.tokens, "{family:?}: alone");
        for step in CHECKED {
            let so_far = [&request.prompt, &answer.tokens[..step]].concat();
            for (reference, bound) in &references {
                let next = one(reference, so_far.clone(), 1);
                let worst = worst(&answer.logits[step], &next.logits[0]);
                assert!(
                    worst <= *bound,
                    "{family:?}, step {step}: logits differ by {worst}"
                );
                assert!(
                    *bound > 1e-3 || answer.tokens[step] == next.tokens[0],
                    "{family:?}, step {step}"
                );
            }
        }
    }
}

/// Attention of whole prompts from its definition, with tensors.
#[derive(Clone)]
struct Dense;

impl AttentionHook for Dense {
    fn attach(&self, _: &ModelInfo) -> Result<Arc<dyn ModelHook>> {
        Ok(Arc::new(Dense))
    }
}

impl ModelHook for Dense {
    fn begin(&self, _: &SeqInfo) -> Result<Box<dyn Any + Send>> {
        Ok(Box::new(()))
    }

    fn attend(&self, cx: &AttendCx<'_>, _: &[Arc<HookedSequence>]) -> Result<Tensor> {
        let (batch, heads, tokens, head_dim) = cx.q.dims4()?;
        let group = heads / cx.model.kv_heads;
        let per_query_head = |x: &Tensor| {
            let shape = (batch, cx.model.kv_heads, group, tokens, head_dim);
            let x = x.unsqueeze(2)?.broadcast_as(shape)?;
            x.reshape((batch, heads, tokens, head_dim))
        };
        let logits = cx.q.contiguous()?.matmul(&per_query_head(cx.k)?.t()?)?;
        let logits = (logits * f64::from(cx.softmax_scale))?;
        // Upstream's configuration says one token less than its prompts show.
        let window = cx.window.map_or(tokens, |window| window + 1);
        let sees = |query: usize, key: usize| key <= query && query < key + window;
        let hidden = (0..tokens * tokens).map(|at| match sees(at / tokens, at % tokens) {
            true => 0f32,
            false => f32::NEG_INFINITY,
        });
        let hidden = Tensor::from_iter(hidden, logits.device())?.reshape((tokens, tokens))?;
        let logits = logits.broadcast_add(&hidden)?;
        let logits = match cx.sinks {
            Some(sinks) => {
                let sinks = sinks.reshape((1, heads, 1, 1))?.to_dtype(DType::F32)?;
                let sinks = sinks.broadcast_as((batch, heads, tokens, 1))?;
                Tensor::cat(&[&logits, &sinks.contiguous()?], D::Minus1)?
            }
            None => logits,
        };
        let powers = logits
            .broadcast_sub(&logits.max_keepdim(D::Minus1)?)?
            .exp()?;
        let weights = powers.broadcast_div(&powers.sum_keepdim(D::Minus1)?)?;
        let weights = weights.narrow(D::Minus1, 0, tokens)?.contiguous()?;
        weights.matmul(&per_query_head(cx.v)?)
    }
}

/// A test for each family, which run side by side.
macro_rules! full_is_the_definition {
    ($($test:ident: $family:ident,)*) => {
        mod full_is_the_definition {
            use super::*;

            $(
                #[test]
                fn $test() {
                    is_the_definition(Family::$family);
                }
            )*

            #[test]
            fn for_every_family() {
                assert_eq!(Family::ALL, [$(Family::$family),*]);
            }
        }
    };
}

full_is_the_definition! {
    llama: Llama,
    mistral: Mistral,
    mixtral: Mixtral,
    starcoder_2: Starcoder2,
    phi_3: Phi3,
    gemma_2: Gemma2,
    gemma_3: Gemma3,
    gemma_3_vision: Gemma3Vision,
    qwen_2: Qwen2,
    qwen_2_sliding: Qwen2Sliding,
    qwen_3: Qwen3,
    gpt_oss: GptOss,
    mistral_3: Mistral3,
    qwen_25_vl: Qwen25Vl,
    qwen_3_vl: Qwen3Vl,
    deepseek_2: DeepSeek2,
    deepseek_3: DeepSeek3,
    glm_4_moe_lite: Glm4MoeLite,
    qwen_3_next: Qwen3Next,
    granite_hybrid: GraniteHybrid,
}

#[test]
fn prompts_in_pieces_and_read_on_say_the_same() {
    for family in Family::ALL {
        let folder = tempfile::tempdir().unwrap();
        random_model(folder.path(), family, WINDOW, 3);
        let whole = load(folder.path(), full());
        let cut = LoadOptions {
            prompts: PromptPolicy {
                tokens: 70,
                interleave: true,
            },
            prefix_bytes: 64 << 20,
            ..options(folder.path())
        };
        let cut = Engine::load(cut, full()).unwrap();
        let first = prompt(&whole, 0, PROMPT);
        let second = [&first[..PROMPT - 40], &prompt(&whole, 1000, 60)[..]].concat();
        let mut reused = 0;
        for prompt in [first, second] {
            let (expected, answer) = (one(&whole, prompt.clone(), 8), one(&cut, prompt, 8));
            assert_eq!(answer.tokens, expected.tokens, "{family:?}");
            for (a, b) in answer.logits.iter().zip(&expected.logits) {
                let worst = worst(a, b);
                assert!(worst <= 1e-3, "{family:?}: logits differ by {worst}");
            }
            reused += answer.reused_tokens;
        }
        let anew = cut.compressed().unwrap().starts_anew();
        assert_eq!(anew.is_none(), reused > 0, "{family:?}: {anew:?}, {reused}");
    }
}

#[test]
fn layers_that_slide_keep_their_window_and_the_others_the_budget() {
    for family in Family::ALL {
        let folder = tempfile::tempdir().unwrap();
        random_model(folder.path(), family, WINDOW, 3);
        let capacity = 24;
        for method in ["snapkv", "adakv"] {
            let compression = Compression::new(method, capacity);
            let engine = load(folder.path(), Attention::Compressed(compression));
            let request = Request::new(prompt(&engine, 0, PROMPT), STEPS);
            let answer = engine.generate(&[request]).unwrap().remove(0);
            let row = family.row() * size_of::<f32>();
            let [sliding, others] = family.layers();
            // Nothing that slides is part of what compression keeps.
            assert_eq!(
                answer.kept_bytes,
                others * capacity * row,
                "{family:?}, {method}"
            );
            let block = headkv_plugin::cache::TAIL_BLOCK;
            let tail = (STEPS - 1).next_multiple_of(block) * others;
            let window = (WINDOW.next_multiple_of(block) + block) * sliding;
            let held = answer.kv_bytes - answer.kept_bytes;
            assert!(
                held <= (tail + window) * row && held >= (tail + WINDOW * sliding) * row,
                "{family:?}, {method}: {held} bytes beside what is kept"
            );
        }
    }
}

#[test]
fn the_table_of_models_says_what_is_tested() {
    let text = std::fs::read_to_string(headkv_tests::root().join("docs/models.md")).unwrap();
    let rows: Vec<&str> = text
        .lines()
        .skip_while(|line| !line.starts_with("| class |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    let expected = Family::ALL.map(|family| {
        let class = match family {
            Family::Qwen2Sliding => format!("{}, `use_sliding_window`", family.class()),
            _ => family.class().to_string(),
        };
        let (slide, compressed) = match family.layers() {
            [0, _] => ("none", "yes"),
            [_, 0] => ("all", "window only"),
            _ => ("every other", "yes"),
        };
        let [sliding, others] = family.layers();
        let layers = match sliding + others == headkv_tests::LAYERS {
            true => slide,
            false => "none; every other is recurrent",
        };
        format!("| {class} | {layers} | yes | {compressed} | yes |")
    });
    assert_eq!(rows, expected);
}
