//! Rankings that ask no question, against their formulas in f64.

use super::*;
use crate::rotary::Rotary;

const BASE: f32 = 100.0;

/// A prompt longer than two of compactor's chunks, with all of its queries.
struct Whole {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rotary: Rotary,
}

impl Whole {
    fn random(tokens: usize) -> Self {
        let make = |heads| {
            Tensor::randn(0.2f32, 1.0, (heads, tokens, SHAPE.head_dim), &Device::Cpu).unwrap()
        };
        Self {
            q: make(SHAPE.heads),
            k: make(SHAPE.kv_heads),
            v: make(SHAPE.kv_heads),
            rotary: Rotary::new(BASE, SHAPE.head_dim),
        }
    }

    fn tokens(&self) -> usize {
        self.k.dim(1).unwrap()
    }

    fn scores(&self, name: &str) -> Vec<Vec<f32>> {
        let ranking = find(name).unwrap().ranking.unwrap();
        let window = self
            .q
            .narrow(1, self.tokens() - WINDOW_TOKENS, WINDOW_TOKENS)
            .unwrap();
        let observed = Observed::new(&window, &self.k, &self.v, &SHAPE)
            .with_all_queries(Some(&self.q))
            .with_rotary(Some(&self.rotary));
        ranking.scores(&observed).unwrap().to_vec2().unwrap()
    }
}

fn rows(x: &Tensor) -> Vec<Vec<Vec<f64>>> {
    x.to_dtype(DType::F64).unwrap().to_vec3().unwrap()
}

/// A row turned by so many positions, forwards or back.
fn turned(row: &[f64], positions: f64) -> Vec<f64> {
    let half = row.len() / 2;
    let mut out = row.to_vec();
    for pair in 0..half {
        let angle = positions * f64::from(BASE).powf(-2.0 * pair as f64 / row.len() as f64);
        let (a, b) = (row[pair], row[pair + half]);
        out[pair] = a * angle.cos() - b * angle.sin();
        out[pair + half] = b * angle.cos() + a * angle.sin();
    }
    out
}

fn without_positions(rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let back = |(at, row): (usize, &Vec<f64>)| turned(row, -(at as f64));
    rows.iter().enumerate().map(back).collect()
}

fn mean(rows: &[Vec<f64>]) -> Vec<f64> {
    let sum = |e: usize| rows.iter().map(|row| row[e]).sum::<f64>() / rows.len() as f64;
    (0..rows[0].len()).map(sum).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn length(x: &[f64]) -> f64 {
    dot(x, x).sqrt()
}

/// The solution of `matrix y = x` by elimination.
fn solve(matrix: &[Vec<f64>], x: &[f64]) -> Vec<f64> {
    let n = x.len();
    let mut rows: Vec<Vec<f64>> = matrix
        .iter()
        .zip(x)
        .map(|(row, x)| row.iter().copied().chain([*x]).collect())
        .collect();
    for at in 0..n {
        let pivot = (at..n)
            .max_by(|&a, &b| rows[a][at].abs().total_cmp(&rows[b][at].abs()))
            .unwrap();
        rows.swap(at, pivot);
        for other in (0..n).filter(|other| *other != at) {
            let factor = rows[other][at] / rows[at][at];
            let pivot = rows[at].clone();
            for (value, own) in rows[other].iter_mut().zip(&pivot).skip(at) {
                *value -= factor * own;
            }
        }
    }
    (0..n).map(|at| rows[at][n] / rows[at][at]).collect()
}

/// `x_j' (X'X)^-1 x_j` of centred keys without position, by KV head.
fn leverages(whole: &Whole) -> Vec<Vec<f64>> {
    let by_head = rows(&whole.k).into_iter().map(|keys| {
        let keys = without_positions(&keys);
        let mean = mean(&keys);
        let x: Vec<Vec<f64>> = keys
            .iter()
            .map(|key| key.iter().zip(&mean).map(|(a, b)| a - b).collect())
            .collect();
        let d = SHAPE.head_dim;
        let products: Vec<Vec<f64>> = (0..d)
            .map(|a| {
                (0..d)
                    .map(|b| x.iter().map(|row| row[a] * row[b]).sum())
                    .collect()
            })
            .collect();
        x.iter()
            .map(|row| dot(row, &solve(&products, row)))
            .collect()
    });
    by_head.collect()
}

#[test]
fn leverage_is_that_of_centred_keys_without_position() {
    let whole = Whole::random(90);
    let expected = leverages(&whole);
    for (head, scores) in whole.scores("leverage").iter().enumerate() {
        for (j, &score) in scores.iter().enumerate() {
            let expected = expected[head / SHAPE.group()][j];
            close(score, expected, &format!("head {head}, position {j}"));
        }
        // As many as there are directions.
        let sum: f32 = scores.iter().sum();
        close(sum, SHAPE.head_dim as f64, "the sum");
    }
}

#[test]
fn keys_that_are_all_alike_have_the_same_leverage() {
    let mut whole = Whole::random(40);
    whole.rotary = Rotary::new(BASE, 0);
    whole.k = whole.k.narrow(1, 0, 1).unwrap().repeat((1, 40, 1)).unwrap();
    let scores = whole.scores("leverage").concat();
    let alike = |score: &f32| (score - scores[0]).abs() < 1e-3;
    assert!(scores.iter().all(alike), "{scores:?}");
}

#[test]
fn expected_is_the_attention_of_normal_queries_to_come() {
    let whole = Whole::random(70);
    let (q, k, v) = (rows(&whole.q), rows(&whole.k), rows(&whole.v));
    let (tokens, d, scale) = (whole.tokens(), SHAPE.head_dim, f64::from(SHAPE.scale));
    for (head, scores) in whole.scores("expected").iter().enumerate() {
        let (keys, values) = (&k[head / SHAPE.group()], &v[head / SHAPE.group()]);
        let queries = &without_positions(&q[head])[4..];
        let m = mean(queries);
        // The mean rotation of a row over the positions to come.
        let to_come = |row: &[f64]| {
            let turns: Vec<_> = (tokens..tokens + 512)
                .map(|at| turned(row, at as f64))
                .collect();
            mean(&turns)
        };
        let m_to_come = to_come(&m);
        // k' R S R' k is the variance of q' R' k.
        let ahead: Vec<Vec<f64>> = queries
            .iter()
            .map(|query| {
                let centred: Vec<f64> = query.iter().zip(&m).map(|(a, b)| a - b).collect();
                to_come(&centred)
            })
            .collect();
        let power = |key: &Vec<f64>| {
            let spread =
                ahead.iter().map(|q| dot(q, key).powi(2)).sum::<f64>() / ahead.len() as f64;
            (dot(&m_to_come, key) * scale + spread * scale * scale / 2.0).exp()
        };
        let powers: Vec<f64> = keys[4..].iter().map(power).collect();
        let sum: f64 = powers.iter().sum();
        let expected: Vec<f64> = powers
            .iter()
            .zip(&values[4..])
            .map(|(power, value)| power / sum * length(value))
            .collect();
        for (j, (&score, expected)) in scores[4..].iter().zip(&expected).enumerate() {
            close(
                score,
                *expected,
                &format!("head {head}, position {}", j + 4),
            );
        }
        let most = expected.iter().copied().fold(0.0, f64::max);
        scores[..4]
            .iter()
            .for_each(|sink| close(*sink, most, "a sink"));
        assert_eq!(d, m.len());
    }
}

#[test]
fn compactor_adds_standard_leverage_and_the_attention_of_the_surroundings() {
    let whole = Whole::random(300);
    let (q, k, v) = (rows(&whole.q), rows(&whole.k), rows(&whole.v));
    let leverages = leverages(&whole);
    let standard = |x: &[f64]| {
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
        x.iter()
            .map(|x| (x - mean) / variance.sqrt())
            .collect::<Vec<_>>()
    };
    for (head, scores) in whole.scores("compactor").iter().enumerate() {
        let (keys, values) = (&k[head / SHAPE.group()], &v[head / SHAPE.group()]);
        let mut attended = vec![0.0; keys.len()];
        for from in [0, 256] {
            let chunk = from..(from + 256).min(keys.len());
            for i in chunk.clone() {
                let power = |j: usize| (dot(&q[head][i], &keys[j]) * f64::from(SHAPE.scale)).exp();
                let sum: f64 = chunk.clone().map(power).sum();
                for j in chunk.clone() {
                    attended[j] += power(j) / sum * length(&values[j]);
                }
            }
        }
        let pooled: Vec<f64> = (0..attended.len())
            .map(|j| {
                let near = j.saturating_sub(1)..(j + 2).min(attended.len());
                attended[near].iter().sum::<f64>() / 3.0
            })
            .collect();
        let sums: Vec<f64> = standard(&leverages[head / SHAPE.group()])
            .iter()
            .zip(standard(&pooled))
            .map(|(a, b)| a + b)
            .collect();
        let least = sums.iter().copied().fold(f64::INFINITY, f64::min);
        for (j, (&score, sum)) in scores.iter().zip(&sums).enumerate() {
            let difference = (f64::from(score) - (sum - least)).abs();
            assert!(
                difference < 2e-3,
                "position {j}: {score}, not {}",
                sum - least
            );
        }
    }
}
