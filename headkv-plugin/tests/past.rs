//! Attention of any number of new tokens over any past (growing, compressed, forked) is masked full attention, and a
//! prompt that comes in pieces keeps what it keeps in one.

use candle_core::{Device, Result, Tensor};
use headkv_plugin::{
    AttentionShape, Compression, ModelShape, Policy,
    cpu::Cpu,
    layer::{Layer, Row, attend},
};
use std::time::Duration;

const SHAPE: AttentionShape = AttentionShape {
    heads: 6,
    kv_heads: 2,
    head_dim: 16,
    scale: 0.3,
    softcap: None,
    window: None,
    sinks: None,
};
const PROMPT: usize = 150;

type Past = Layer<Cpu<f32>>;

fn policy(method: &str, capacity: usize) -> Policy {
    let model = ModelShape {
        layers: 1,
        heads: SHAPE.heads,
        kv_heads: SHAPE.kv_heads,
        head_dim: SHAPE.head_dim,
    };
    Policy::new(&Compression::new(method, capacity), model, None).unwrap()
}

/// Queries, keys and values of one sequence, `(1, heads, tokens, head_dim)`.
struct Tokens([Tensor; 3]);

impl Tokens {
    fn random(tokens: usize) -> Self {
        let make = |heads| {
            Tensor::randn(0f32, 1.0, (1, heads, tokens, SHAPE.head_dim), &Device::Cpu).unwrap()
        };
        Self([SHAPE.heads, SHAPE.kv_heads, SHAPE.kv_heads].map(make))
    }

    fn part(&self, from: usize, tokens: usize) -> [Tensor; 3] {
        let part = |x: &Tensor| x.narrow(2, from, tokens).unwrap();
        [part(&self.0[0]), part(&self.0[1]), part(&self.0[2])]
    }
}

/// Attends the next tokens of some sequences, batch row by batch row.
fn step(pasts: &mut [&mut Past], policy: &Policy, parts: &[[Tensor; 3]]) -> Result<Tensor> {
    let batch = |i: usize| {
        let rows: Vec<_> = parts.iter().map(|part| part[i].clone()).collect();
        Tensor::cat(&rows, 0)
    };
    let mut spent = vec![Duration::ZERO; pasts.len()];
    let mut rows: Vec<_> = pasts
        .iter_mut()
        .zip(&mut spent)
        .map(|(layer, compressing)| Row {
            layer,
            policy,
            prompt: PROMPT,
            aside: false,
            record: false,
            recorded: None,
            compressing,
        })
        .collect();
    let (q, k, v) = (batch(0)?, batch(1)?, batch(2)?);
    attend(&Cpu::default(), 0, [&q, &k, &v], &SHAPE, &mut rows)
}

/// The definition: token `from + i` sees those up to itself, of the prompt only what is kept once it is complete.
fn expected(all: &Tokens, from: usize, tokens: usize, kept: &dyn Fn(usize) -> bool) -> Vec<f32> {
    let [q, k, v] = &all.0;
    let rows = |x: &Tensor| -> Vec<Vec<Vec<f32>>> { x.squeeze(0).unwrap().to_vec3().unwrap() };
    let (q, k, v) = (rows(q), rows(k), rows(v));
    let mut out = Vec::new();
    for (head, queries) in q.iter().enumerate() {
        let (k, v) = (&k[head / SHAPE.group()], &v[head / SHAPE.group()]);
        for (at, query) in queries.iter().enumerate().skip(from).take(tokens) {
            let sees = |j: &usize| at < PROMPT || *j >= PROMPT || kept(*j);
            let seen: Vec<usize> = (0..=at).filter(sees).collect();
            let dot = |key: &Vec<f32>| query.iter().zip(key).map(|(a, b)| a * b).sum::<f32>();
            let weights: Vec<f64> = seen
                .iter()
                .map(|&j| f64::from(dot(&k[j]) * SHAPE.scale).exp())
                .collect();
            let sum: f64 = weights.iter().sum();
            out.extend((0..SHAPE.head_dim).map(|e| {
                let parts = seen.iter().zip(&weights);
                (parts.map(|(&j, w)| w * f64::from(v[j][e])).sum::<f64>() / sum) as f32
            }));
        }
    }
    out
}

fn close(ours: &Tensor, expected: &[f32], about: &str) {
    let ours: Vec<f32> = ours.flatten_all().unwrap().to_vec1().unwrap();
    assert_eq!(ours.len(), expected.len(), "{about}");
    for (a, b) in ours.iter().zip(expected) {
        assert!((a - b).abs() <= 1e-4, "{about}: {a} instead of {b}");
    }
}

#[test]
fn new_tokens_see_the_past_and_each_other() {
    for (method, capacity) in [("full", 64), ("streaming", 40)] {
        let policy = policy(method, capacity);
        // StreamingLLM keeps 4 sinks, and of the others the last: what a reference can know without ranking.
        let kept = |j: usize| method == "full" || !(4..PROMPT - 36).contains(&j);
        for pieces in [
            vec![PROMPT],
            vec![1, 49, 100],
            vec![100, 50],
            vec![70, 2, 7, 71],
        ] {
            let all = Tokens::random(PROMPT + 400);
            let mut past = Past::default();
            let mut at = 0;
            for &tokens in &pieces {
                let out = step(&mut [&mut past], &policy, &[all.part(at, tokens)]).unwrap();
                let about = format!("{method}: {tokens} tokens of a growing past of {at}");
                close(&out, &expected(&all, at, tokens, &kept), &about);
                at += tokens;
            }
            for tokens in [1, 2, 7, 100, 1] {
                let mut fork = past.fork().unwrap();
                let next = all.part(at, tokens);
                let out = step(&mut [&mut past], &policy, std::slice::from_ref(&next)).unwrap();
                let about = format!("{method}: {tokens} tokens after {at}");
                close(&out, &expected(&all, at, tokens, &kept), &about);
                // The fork does not know what came after it, and goes its own way.
                let other = Tokens::random(PROMPT + 400);
                step(&mut [&mut fork], &policy, &[other.part(at, 3)]).unwrap();
                at += tokens;
            }
        }
    }
}

#[test]
fn a_prompt_in_pieces_keeps_what_it_keeps_in_one() {
    for (method, capacity) in [("snapkv", 24), ("adakv", 24)] {
        let policy = policy(method, capacity);
        let all = Tokens::random(PROMPT + 10);
        let mut whole = Past::default();
        step(&mut [&mut whole], &policy, &[all.part(0, PROMPT)]).unwrap();
        // The last piece is shorter than the observation window: its queries come from two pieces.
        for pieces in [vec![64, 64, 22], vec![145, 5], vec![147, 1, 1, 1]] {
            let (mut past, mut at) = (Past::default(), 0);
            for tokens in pieces {
                step(&mut [&mut past], &policy, &[all.part(at, tokens)]).unwrap();
                at += tokens;
            }
            assert_eq!(past.kept_bytes(), whole.kept_bytes());
            let mut fork = whole.fork().unwrap();
            let ours = step(&mut [&mut past], &policy, &[all.part(PROMPT, 10)]).unwrap();
            let once = step(&mut [&mut fork], &policy, &[all.part(PROMPT, 10)]).unwrap();
            let once: Vec<f32> = once.flatten_all().unwrap().to_vec1().unwrap();
            close(&ours, &once, method);
        }
    }
}

#[test]
fn growing_and_compressed_sequences_share_a_batch() {
    let policy = policy("streaming", 40);
    let kept = |j: usize| !(4..PROMPT - 36).contains(&j);
    let (first, second) = (Tokens::random(PROMPT + 8), Tokens::random(PROMPT));
    let (mut compressed, mut growing) = (Past::default(), Past::default());
    step(&mut [&mut compressed], &policy, &[first.part(0, PROMPT)]).unwrap();
    step(&mut [&mut growing], &policy, &[second.part(0, 50)]).unwrap();
    let parts = [first.part(PROMPT, 8), second.part(50, 8)];
    let out = step(&mut [&mut compressed, &mut growing], &policy, &parts).unwrap();
    let expected = [
        expected(&first, PROMPT, 8, &kept),
        expected(&second, 50, 8, &kept),
    ];
    close(&out, &expected.concat(), "a mixed batch");
}

#[test]
fn a_forked_prompt_that_still_grows_goes_on_apart() {
    let policy = policy("full", 64);
    let (first, second) = (Tokens::random(PROMPT), Tokens::random(PROMPT));
    let mut past = Past::default();
    step(&mut [&mut past], &policy, &[first.part(0, 100)]).unwrap();
    let mut fork = past.fork().unwrap();
    step(&mut [&mut fork], &policy, &[second.part(100, 50)]).unwrap();
    let out = step(&mut [&mut past], &policy, &[first.part(100, 50)]).unwrap();
    close(&out, &expected(&first, 100, 50, &|_| true), "after a fork");
}

#[test]
fn what_follows_a_prompt_in_one_call_sees_only_what_is_kept_of_it() {
    let policy = policy("streaming", 40);
    let kept = |j: usize| !(4..PROMPT - 36).contains(&j);
    let all = [Tokens::random(PROMPT + 9), Tokens::random(PROMPT + 9)];
    let expect = |from, tokens| all.each_ref().map(|all| expected(all, from, tokens, &kept));
    // In one call, and from the middle of a piece.
    for pieces in [vec![PROMPT + 9], vec![100, 55, 4]] {
        let (mut first, mut second) = (Past::default(), Past::default());
        let mut at = 0;
        for tokens in pieces {
            let parts = all.each_ref().map(|all| all.part(at, tokens));
            let out = step(&mut [&mut first, &mut second], &policy, &parts).unwrap();
            close(&out, &expect(at, tokens).concat(), "a question apart");
            at += tokens;
        }
        assert_eq!(
            first.kept_bytes(),
            2 * SHAPE.kv_heads * 40 * SHAPE.head_dim * 4
        );
    }
}

#[test]
fn what_follows_a_prompt_has_no_part_in_ranking_it() {
    for method in ["snapkv", "adakv"] {
        let policy = policy(method, 24);
        let (all, probe) = (Tokens::random(PROMPT), Tokens::random(10));
        let mut alone = Past::default();
        step(&mut [&mut alone], &policy, &[all.part(0, PROMPT)]).unwrap();
        let question = Tokens::random(6);
        let with = all.0.iter().zip(&question.0);
        let with: Vec<_> = with
            .map(|(a, b)| Tensor::cat(&[a, b], 2).unwrap())
            .collect();
        let with = Tokens(with.try_into().unwrap());
        let mut both = Past::default();
        step(&mut [&mut both], &policy, &[with.part(0, PROMPT + 6)]).unwrap();
        step(&mut [&mut alone], &policy, &[question.part(0, 6)]).unwrap();
        assert_eq!(both.kept_bytes(), alone.kept_bytes());
        let next = std::slice::from_ref(&probe.0);
        let ours = step(&mut [&mut both], &policy, next).unwrap();
        let expected = step(&mut [&mut alone], &policy, next).unwrap();
        let expected: Vec<f32> = expected.flatten_all().unwrap().to_vec1().unwrap();
        close(&ours, &expected, method);
    }
}
