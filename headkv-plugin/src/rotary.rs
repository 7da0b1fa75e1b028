//! Rotary position embeddings (RoFormer, arXiv 2104.09864), for rankings that want keys and queries without their positions.

use candle_core::{DType, Device, Result, Tensor};
use std::ops::Range;

/// How a model turns its keys and queries: element `i` of the first half of the elements that turn, paired with the same one
/// of the second half, turns by its frequency with every position.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotary {
    /// Radians a position, by pair. As models compute them, in f32.
    frequencies: Vec<f32>,
}

/// How LLaMA 3.1 and later slow the low frequencies down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Llama3 {
    /// By how much.
    pub factor: f32,
    /// Wavelengths above the original context divided by this are slowed down fully.
    pub low: f32,
    /// Wavelengths below the original context divided by this are left alone.
    pub high: f32,
    /// The original context in tokens.
    pub context: f32,
}

impl Rotary {
    /// The first `elements` of a head turn, pair `i` by `base^(-2 i / elements)`.
    pub fn new(base: f32, elements: usize) -> Self {
        let frequency = |pair: usize| 1.0 / base.powf((2 * pair) as f32 / elements as f32);
        Self {
            frequencies: (0..elements / 2).map(frequency).collect(),
        }
    }

    /// The same with LLaMA 3.1's scaling.
    pub fn llama3(mut self, scaling: Llama3) -> Self {
        let Llama3 {
            factor,
            low,
            high,
            context,
        } = scaling;
        for frequency in &mut self.frequencies {
            let wavelength = std::f32::consts::TAU / *frequency;
            if wavelength > context / low {
                *frequency /= factor;
            } else if wavelength >= context / high {
                let smooth = (context / wavelength - low) / (high - low);
                *frequency = (1.0 - smooth) * *frequency / factor + smooth * *frequency;
            }
        }
        self
    }

    /// Turns `(heads, tokens, head_dim)` back, whose first token stands at position `first`; in f32.
    ///
    /// # Errors
    /// Heads with fewer elements than turn, and those of the tensor's device.
    pub fn undo(&self, x: &Tensor, first: usize) -> Result<Tensor> {
        let (_, tokens, head_dim) = x.dims3()?;
        let half = self.frequencies.len();
        if 2 * half > head_dim {
            candle_core::bail!(
                "headkv: the rotary embedding turns {} elements, but heads have {head_dim}; correct rope settings in config.json",
                2 * half
            );
        }
        let x = x.to_dtype(DType::F32)?;
        let at = (first..first + tokens).map(|at| at as f32);
        let at = Tensor::from_iter(at, x.device())?.reshape((tokens, 1))?;
        let frequencies = Tensor::from_slice(&self.frequencies, (1, half), x.device())?;
        let angles = at.broadcast_mul(&frequencies)?;
        let (cos, sin) = (angles.cos()?, angles.sin()?);
        let (a, b) = (x.narrow(2, 0, half)?, x.narrow(2, half, half)?);
        let first = (a.broadcast_mul(&cos)? + b.broadcast_mul(&sin)?)?;
        let second = (b.broadcast_mul(&cos)? - a.broadcast_mul(&sin)?)?;
        let mut parts = vec![first, second];
        if 2 * half < head_dim {
            parts.push(x.narrow(2, 2 * half, head_dim - 2 * half)?);
        }
        Tensor::cat(&parts, 2)
    }

    /// The mean of the rotations to these positions as a matrix, transposed: `q (head_dim) -> q R'`, `(head_dim, head_dim)`.
    ///
    /// # Errors
    /// Those of the device.
    pub fn mean(
        &self,
        positions: Range<usize>,
        head_dim: usize,
        device: &Device,
    ) -> Result<Tensor> {
        let half = self.frequencies.len();
        let count = positions.len().max(1) as f64;
        let mut matrix = vec![0f32; head_dim * head_dim];
        for element in 2 * half..head_dim {
            matrix[element * head_dim + element] = 1.0;
        }
        for (pair, frequency) in self.frequencies.iter().enumerate() {
            let angles = positions.clone().map(|at| f64::from(at as f32 * frequency));
            let cos = (angles.clone().map(f64::cos).sum::<f64>() / count) as f32;
            let sin = (angles.map(f64::sin).sum::<f64>() / count) as f32;
            let (a, b) = (pair, pair + half);
            matrix[a * head_dim + a] = cos;
            matrix[b * head_dim + b] = cos;
            matrix[a * head_dim + b] = sin;
            matrix[b * head_dim + a] = -sin;
        }
        Tensor::from_vec(matrix, (head_dim, head_dim), device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_turned_is_turned_back() {
        let (tokens, head_dim, elements, first) = (6, 10, 8, 37);
        let rotary = Rotary::new(100.0, elements);
        let plain = Tensor::randn(0f32, 1.0, (2, tokens, head_dim), &Device::Cpu).unwrap();
        let mut rows: Vec<Vec<Vec<f32>>> = plain.to_vec3().unwrap();
        for head in &mut rows {
            for (at, row) in head.iter_mut().enumerate() {
                for pair in 0..elements / 2 {
                    let angle =
                        (first + at) as f32 * 100f32.powf(-2.0 * pair as f32 / elements as f32);
                    let (a, b) = (row[pair], row[pair + elements / 2]);
                    row[pair] = a * angle.cos() - b * angle.sin();
                    row[pair + elements / 2] = b * angle.cos() + a * angle.sin();
                }
            }
        }
        let turned = Tensor::new(rows, &Device::Cpu).unwrap();
        let back = rotary.undo(&turned, first).unwrap();
        let off = (back - &plain).unwrap().abs().unwrap().max_all().unwrap();
        assert!(off.to_scalar::<f32>().unwrap() < 1e-5);
        // The mean over one position is the rotation itself.
        let one = rotary
            .mean(first..first + 1, head_dim, &Device::Cpu)
            .unwrap();
        let row = plain
            .narrow(1, 0, 1)
            .unwrap()
            .squeeze(1)
            .unwrap()
            .matmul(&one)
            .unwrap();
        let off = (row - turned.narrow(1, 0, 1).unwrap().squeeze(1).unwrap()).unwrap();
        let off = off.abs().unwrap().max_all().unwrap();
        assert!(off.to_scalar::<f32>().unwrap() < 1e-5);
    }

    #[test]
    fn only_low_frequencies_are_slowed_down() {
        let plain = Rotary::new(500_000.0, 64);
        let scaled = plain.clone().llama3(Llama3 {
            factor: 8.0,
            low: 1.0,
            high: 4.0,
            context: 8192.0,
        });
        assert_eq!(plain.frequencies[0], scaled.frequencies[0]);
        assert_eq!(plain.frequencies[31] / 8.0, scaled.frequencies[31]);
        let pairs = plain.frequencies.iter().zip(&scaled.frequencies);
        assert!(pairs.clone().all(|(a, b)| b <= a && *b >= a / 8.0));
        assert!(pairs.clone().any(|(a, b)| b < a && *b > a / 8.0));
    }
}
