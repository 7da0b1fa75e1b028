//! Each ranking against its formula, position by position, in f64.

use super::*;
use candle_core::Device;

mod agnostic;

const SHAPE: AttentionShape = AttentionShape {
    heads: 4,
    kv_heads: 2,
    head_dim: 8,
    scale: 0.4,
    softcap: None,
    window: None,
    sinks: None,
};
const TOKENS: usize = 40;
const WINDOW_TOKENS: usize = 5;
const HIDDEN: usize = 12;

struct Example {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    /// The output projection.
    o: Tensor,
}

type Rows = Vec<Vec<Vec<f32>>>;

impl Example {
    fn random() -> Self {
        let make = |heads, tokens| {
            Tensor::randn(0.2f32, 1.0, (heads, tokens, SHAPE.head_dim), &Device::Cpu).unwrap()
        };
        Self {
            q: make(SHAPE.heads, WINDOW_TOKENS),
            k: make(SHAPE.kv_heads, TOKENS),
            v: make(SHAPE.kv_heads, TOKENS),
            o: Tensor::randn(
                0f32,
                1.0,
                (HIDDEN, SHAPE.heads * SHAPE.head_dim),
                &Device::Cpu,
            )
            .unwrap(),
        }
    }

    fn scores(&self, name: &str) -> Vec<Vec<f32>> {
        let ranking = find(name).unwrap().ranking.unwrap();
        let observed = Observed::new(&self.q, &self.k, &self.v, &SHAPE).with_outputs(Some(&self.o));
        ranking.scores(&observed).unwrap().to_vec2().unwrap()
    }

    fn rows(&self) -> (Rows, Rows, Rows) {
        let rows = |x: &Tensor| x.to_vec3().unwrap();
        (rows(&self.q), rows(&self.k), rows(&self.v))
    }

    /// Attention probabilities of one query head and window row, zero where hidden.
    fn probabilities(&self, head: usize, row: usize) -> Vec<f64> {
        let (q, k, _) = self.rows();
        let keys = &k[head / SHAPE.group()];
        let sees = TOKENS - WINDOW_TOKENS + row;
        let powers: Vec<f64> = (0..TOKENS)
            .map(|j| {
                let dot: f32 = q[head][row].iter().zip(&keys[j]).map(|(a, b)| a * b).sum();
                if j <= sees {
                    f64::from(dot * SHAPE.scale).exp()
                } else {
                    0.0
                }
            })
            .collect();
        let sum: f64 = powers.iter().sum();
        powers.into_iter().map(|x| x / sum).collect()
    }
}

fn close(ours: f32, expected: f64, about: &str) {
    let difference = (f64::from(ours) - expected).abs();
    assert!(
        difference <= 1e-5 + 1e-4 * expected.abs(),
        "{about}: {ours} instead of {expected}"
    );
}

fn norm(x: &[f32]) -> f64 {
    x.iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt()
}

#[test]
fn value_norm_weighs_attention_by_the_values_norm() {
    let example = Example::random();
    let (_, _, v) = example.rows();
    for (head, scores) in example.scores("value-norm").iter().enumerate() {
        for (j, &score) in scores.iter().enumerate() {
            let attention: f64 = (0..WINDOW_TOKENS)
                .map(|row| example.probabilities(head, row)[j])
                .sum();
            let expected = attention * norm(&v[head / SHAPE.group()][j]);
            close(score, expected, &format!("head {head}, position {j}"));
        }
    }
}

#[test]
fn drop_is_the_distance_that_the_outputs_move() {
    let example = Example::random();
    let (_, _, v) = example.rows();
    for (head, scores) in example.scores("drop").iter().enumerate() {
        let values = &v[head / SHAPE.group()];
        for (j, &score) in scores.iter().enumerate() {
            let mut expected = 0.0;
            for row in 0..WINDOW_TOKENS {
                let p = example.probabilities(head, row);
                // By the definition: attention with and without the position.
                let moved = (0..SHAPE.head_dim).map(|e| {
                    let all = |skip: Option<usize>| {
                        let kept = (0..TOKENS).filter(|k| Some(*k) != skip);
                        let weight: f64 = kept.clone().map(|k| p[k]).sum();
                        kept.map(|k| p[k] * f64::from(values[k][e])).sum::<f64>() / weight
                    };
                    (all(None) - all(Some(j))).powi(2)
                });
                expected += moved.sum::<f64>();
            }
            close(score, expected, &format!("head {head}, position {j}"));
        }
    }
}

#[test]
fn critical_weighs_attention_by_what_the_value_adds_to_the_output() {
    let example = Example::random();
    let (_, _, v) = example.rows();
    let o: Vec<Vec<f32>> = example.o.to_vec2().unwrap();
    for (head, scores) in example.scores("critical").iter().enumerate() {
        let values = &v[head / SHAPE.group()];
        for (j, &score) in scores.iter().enumerate() {
            let added = o.iter().map(|row| {
                let row = &row[head * SHAPE.head_dim..][..SHAPE.head_dim];
                let product = |(w, x): (&f32, &f32)| f64::from(*w) * f64::from(*x);
                row.iter().zip(&values[j]).map(product).sum::<f64>().abs()
            });
            let rows = (0..WINDOW_TOKENS).map(|row| example.probabilities(head, row)[j]);
            let attention = rows.sum::<f64>() / WINDOW_TOKENS as f64;
            let expected = (attention + 1e-4) * added.sum::<f64>();
            close(score, expected, &format!("head {head}, position {j}"));
        }
    }
}

#[test]
fn kvzip_is_the_most_that_a_row_of_the_repetition_attends() {
    // More rows than it looks at in one go.
    let (prompt, said) = (30, 150);
    let make = |heads, tokens| {
        Tensor::randn(0.2f32, 1.0, (heads, tokens, SHAPE.head_dim), &Device::Cpu).unwrap()
    };
    let (q, k) = (make(SHAPE.heads, said), make(SHAPE.kv_heads, prompt + said));
    let ranking = find("kvzip").unwrap().ranking.unwrap();
    let scores = ranking.scores(&Observed::new(&q, &k, &k, &SHAPE)).unwrap();
    let scores: Vec<Vec<f32>> = scores.to_vec2().unwrap();
    let (q, k): (Rows, Rows) = (q.to_vec3().unwrap(), k.to_vec3().unwrap());
    for (head, scores) in scores.iter().enumerate() {
        let stored = head / SHAPE.group();
        let mut most = vec![0f64; prompt];
        for of_group in 0..SHAPE.group() {
            for (row, q) in q[stored * SHAPE.group() + of_group].iter().enumerate() {
                let power = |k: &Vec<f32>| {
                    let dot: f32 = q.iter().zip(k).map(|(a, b)| a * b).sum();
                    f64::from(dot * SHAPE.scale).exp()
                };
                let powers: Vec<f64> = k[stored][..=prompt + row].iter().map(power).collect();
                let sum: f64 = powers.iter().sum();
                for (most, power) in most.iter_mut().zip(&powers) {
                    *most = most.max(power / sum);
                }
            }
        }
        for (j, &score) in scores.iter().enumerate() {
            let expected = most.get(j).copied().unwrap_or(0.0);
            close(score, expected, &format!("head {head}, position {j}"));
        }
    }
}

#[test]
fn keydiff_is_the_distance_to_the_mean_direction() {
    let example = Example::random();
    let (_, k, _) = example.rows();
    for (head, scores) in example.scores("keydiff").iter().enumerate() {
        let keys = &k[head / SHAPE.group()];
        let mean: Vec<f64> = (0..SHAPE.head_dim)
            .map(|e| keys.iter().map(|k| f64::from(k[e]) / norm(k)).sum::<f64>())
            .collect();
        let length = mean.iter().map(|x| x * x).sum::<f64>().sqrt();
        for (j, &score) in scores.iter().enumerate() {
            let dot: f64 = mean
                .iter()
                .zip(&keys[j])
                .map(|(m, k)| m * f64::from(*k))
                .sum();
            close(
                score,
                1.0 - dot / length / norm(&keys[j]),
                &format!("position {j}"),
            );
        }
    }
}

#[test]
fn tova_is_the_last_tokens_mean_attention() {
    let example = Example::random();
    for scores in example.scores("tova") {
        for (j, &score) in scores.iter().enumerate() {
            let last = |head| example.probabilities(head, WINDOW_TOKENS - 1)[j];
            let expected = (0..SHAPE.heads).map(last).sum::<f64>() / SHAPE.heads as f64;
            close(score, expected, &format!("position {j}"));
        }
    }
}

#[test]
fn the_windows_probabilities_are_its_scores() {
    let example = Example::random();
    let sinks = AttentionShape {
        sinks: Some([0.5, -1.0, 2.0, 1.0].into()),
        ..SHAPE
    };
    let mut weights = Vec::new();
    for shape in [SHAPE, sinks] {
        let observed = Observed::new(&example.q, &example.k, &example.v, &shape);
        let rows = observed
            .over_window(&observed.probabilities().unwrap())
            .unwrap();
        let rows: Vec<Vec<f32>> = rows.to_vec2().unwrap();
        let flat = |x: &Tensor| -> Vec<f32> { x.flatten_all().unwrap().to_vec1().unwrap() };
        let (q, k) = (flat(&example.q), flat(&example.k));
        let expected = crate::attention::window_scores(&q, &k, &shape);
        let candidates = TOKENS - WINDOW_TOKENS;
        for (row, expected) in rows.iter().zip(expected.chunks(candidates)) {
            for (a, b) in row.iter().zip(expected) {
                close(*a, f64::from(*b), "window");
            }
        }
        weights.push(rows.iter().flatten().sum::<f32>());
    }
    // Sinks take weight from the positions.
    assert!(weights[1] < weights[0], "{weights:?}");
}

#[test]
fn unknown_rankings_are_answered_with_the_known_ones() {
    let message = find("dorp").err().unwrap().to_string();
    assert!(
        message.contains("`dorp`") && message.contains("window, value-norm, drop"),
        "{message}"
    );
}
