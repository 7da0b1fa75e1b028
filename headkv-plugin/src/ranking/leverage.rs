//! `leverage`: how far a key stands out from all others, whatever will be asked: the statistical leverage of its centred key
//! without position, `x_j' (X'X)^-1 x_j`, `X` being all of them (Compactor, Chari and Van Durme, arXiv 2507.08143).
//!
//! It asks no query, so that it ranks a document before its questions are known. It favours what is unlike the rest of the
//! text, and so a fact in an essay, less one among a hundred others.

use super::{Needs, Observed, Ranking};
use candle_core::{Result, Tensor};

/// The part of the mean variance that is added to each direction, so that directions without any stay finite.
const RIDGE: f64 = 1e-6;

pub struct Leverage;

impl Ranking for Leverage {
    fn needs(&self) -> Needs {
        Needs {
            rotary: true,
            ..Needs::default()
        }
    }

    fn scores(&self, prompt: &Observed<'_>) -> Result<Tensor> {
        prompt.per_query_head(&leverage(&prompt.keys_without_position()?)?)
    }
}

/// The leverage of each row of `(heads, tokens, elements)`, centred first: `(heads, tokens)`, 0 to 1.
pub(super) fn leverage(rows: &Tensor) -> Result<Tensor> {
    let x = rows.broadcast_sub(&rows.mean_keepdim(1)?)?.contiguous()?;
    let products: Vec<Vec<Vec<f32>>> = x.transpose(1, 2)?.contiguous()?.matmul(&x)?.to_vec3()?;
    let (heads, elements) = (x.dim(0)?, x.dim(2)?);
    // With X'X = L L', a row's leverage is the squared length of L^-1 x. The factor is small, and wants f64.
    let mut whitening = Vec::with_capacity(heads * elements * elements);
    for product in products {
        let inverse = inverse_factor(&product);
        for row in 0..elements {
            whitening.extend((0..elements).map(|column| inverse[column * elements + row] as f32));
        }
    }
    let whitening = Tensor::from_vec(whitening, (heads, elements, elements), x.device())?;
    x.matmul(&whitening)?.sqr()?.sum(2)
}

/// The inverse of the lower Cholesky factor of a symmetric matrix, row by row.
fn inverse_factor(matrix: &[Vec<f32>]) -> Vec<f64> {
    let n = matrix.len();
    let trace: f64 = (0..n).map(|i| f64::from(matrix[i][i])).sum();
    let ridge = (RIDGE * trace / n as f64).max(f64::MIN_POSITIVE.sqrt());
    let mut factor = vec![0f64; n * n];
    for i in 0..n {
        for j in 0..=i {
            let known: f64 = (0..j).map(|k| factor[i * n + k] * factor[j * n + k]).sum();
            let rest = f64::from(matrix[i][j]) - known;
            factor[i * n + j] = if i == j {
                // Rounding must not make a direction of next to no variance one of less than none.
                (rest + ridge).max(ridge).sqrt()
            } else {
                rest / factor[j * n + j]
            };
        }
    }
    let mut inverse = vec![0f64; n * n];
    for j in 0..n {
        inverse[j * n + j] = 1.0 / factor[j * n + j];
        for i in j + 1..n {
            let known: f64 = (j..i).map(|k| factor[i * n + k] * inverse[k * n + j]).sum();
            inverse[i * n + j] = -known / factor[i * n + i];
        }
    }
    inverse
}
