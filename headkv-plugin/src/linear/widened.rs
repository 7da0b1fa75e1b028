//! Linear layers on the CPU, fast for the few rows that a decode step brings.
//!
//! Such a step reads every weight once and does little with it, so its time is the weights' bytes over the memory's speed.
//! Weights that bf16 holds exactly (most models are published in bf16 and loaded as f32) are therefore kept in bf16: half
//! the bytes, and the same product, because they are widened again before they are multiplied.
//!
//! The weights of 32 outputs lie in a panel, input by input: the sums of a product are then lanes of vectors that need no
//! adding up, and a panel's row fills a line of the cache.

use candle_core::{DType, Device, Module, Result, Tensor};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Outputs of a panel.
const PANEL: usize = 32;
/// Rows up to which the weights are multiplied as they are stored, every row's sums in the same order; more are worth
/// widening them.
pub const FEW: usize = 16;
/// Multiplications that are worth a task of their own.
const TASK: usize = 1 << 15;

/// A matrix of weights `(out, in)` that multiplies rows from the left.
pub struct Linear {
    weights: Weights,
    outputs: usize,
    inputs: usize,
}

/// Panels of rows, a row per input: `(out / 32, in)`.
enum Weights {
    /// Output `i` in the lower half of word `i`, output `i + 16` in its upper half.
    Bf16(Vec<[u32; PANEL / 2]>),
    F32(Vec<[f32; PANEL]>),
}

impl Linear {
    /// Takes `weight`, `(out, in)`, if it lies on the CPU as f32 or bf16; `None` if not.
    ///
    /// # Errors
    /// A tensor that is not a matrix.
    pub fn new(weight: &Tensor) -> Result<Option<Self>> {
        let known = matches!(weight.dtype(), DType::F32 | DType::BF16);
        if !weight.device().is_cpu() || !known {
            return Ok(None);
        }
        let (outputs, inputs) = weight.dims2()?;
        let values = weight
            .to_dtype(DType::F32)?
            .flatten_all()?
            .to_vec1::<f32>()?;
        // What is missing of the last panel is zero.
        let at = |input: usize, output: usize| match output < outputs {
            true => values[output * inputs + input],
            false => 0.0,
        };
        let places = (0..outputs.div_ceil(PANEL)).flat_map(|p| (0..inputs).map(move |i| (p, i)));
        let weights = if values.iter().all(|x| x.to_bits() & 0xffff == 0) {
            let word = |panel: usize, input: usize, i: usize| {
                let [low, high] = [i, i + PANEL / 2].map(|i| at(input, panel * PANEL + i));
                low.to_bits() >> 16 | high.to_bits()
            };
            let row = |(panel, input)| std::array::from_fn(|i| word(panel, input, i));
            Weights::Bf16(places.map(row).collect())
        } else {
            let row = |(panel, input)| std::array::from_fn(|i| at(input, panel * PANEL + i));
            Weights::F32(places.map(row).collect())
        };
        Ok(Some(Self {
            weights,
            outputs,
            inputs,
        }))
    }

    /// Bytes that the weights take.
    pub fn bytes(&self) -> usize {
        match &self.weights {
            Weights::Bf16(rows) => size_of_val(&rows[..]),
            Weights::F32(rows) => size_of_val(&rows[..]),
        }
    }

    /// The weights in f32, `(in, out)`.
    fn widen(&self) -> Result<Tensor> {
        let mut values = vec![0.0; self.inputs * self.outputs];
        let lines = values.par_chunks_mut(self.outputs.max(1)).enumerate();
        lines.for_each(|(input, line)| {
            for (panel, to) in line.chunks_mut(PANEL).enumerate() {
                let at = panel * self.inputs + input;
                match &self.weights {
                    Weights::F32(rows) => to.copy_from_slice(&rows[at][..to.len()]),
                    Weights::Bf16(rows) => {
                        let (low, high) = to.split_at_mut(to.len().min(PANEL / 2));
                        for (to, word) in low.iter_mut().zip(rows[at]) {
                            *to = f32::from_bits(word << 16);
                        }
                        for (to, word) in high.iter_mut().zip(rows[at]) {
                            *to = f32::from_bits(word & UPPER);
                        }
                    }
                }
            }
        });
        Tensor::from_vec(values, (self.inputs, self.outputs), &Device::Cpu)
    }

    /// `x`, `(rows, in)`, times the weights, as `(rows, out)`.
    fn multiply_few(&self, x: &[f32], rows: usize) -> Vec<f32> {
        let panels = self.outputs.div_ceil(PANEL);
        // A task's panels are a piece of their own: `(panels, rows, 32)`.
        let mut out = vec![0.0; panels * rows * PANEL];
        let tasks = (out.len() * self.inputs / TASK).clamp(1, 2 * rayon::current_num_threads());
        // Two panels at least, because that is what the product takes at a time.
        let share = panels.div_ceil(tasks).next_multiple_of(2);
        let arch = Arch::new();
        let task = |(task, out): (usize, &mut [f32])| {
            let from = task * share * self.inputs;
            match &self.weights {
                Weights::Bf16(weights) => arch.dispatch(Product {
                    weights: &weights[from..],
                    x,
                    rows,
                    out,
                }),
                Weights::F32(weights) => arch.dispatch(Product {
                    weights: &weights[from..],
                    x,
                    rows,
                    out,
                }),
            }
        };
        if tasks == 1 {
            task((0, &mut out));
        } else {
            let pieces = out.par_chunks_mut(share * rows * PANEL);
            pieces.enumerate().for_each(task);
        }
        if rows > 1 {
            let row = |row: usize| out.chunks(PANEL).skip(row).step_by(rows).flatten();
            let of_row = |at| row(at).take(self.outputs).copied();
            return (0..rows).flat_map(of_row).collect();
        }
        out.truncate(self.outputs);
        out
    }
}

impl Module for Linear {
    /// `x`, `(rows, in)` in f32 or bf16, times the weights: `(rows, out)` in the same type.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (rows, inputs) = x.dims2()?;
        if inputs != self.inputs {
            candle_core::bail!(
                "headkv: a linear layer for {} inputs got {inputs}",
                self.inputs
            );
        }
        let wide = x.to_dtype(DType::F32)?;
        let out = if rows <= FEW {
            let out = self.multiply_few(&wide.flatten_all()?.to_vec1::<f32>()?, rows);
            Tensor::from_vec(out, (rows, self.outputs), &Device::Cpu)?
        } else {
            wide.matmul(&self.widen()?)?
        };
        out.to_dtype(x.dtype())
    }
}

/// The bf16 in the upper half of a word.
const UPPER: u32 = 0xffff_0000;

/// The weights of a panel's outputs for one input.
trait Row {
    /// The first and second 16 of them, in `V` vectors each.
    fn widen<S: Simd, const V: usize>(&self, simd: S) -> [[S::f32s; V]; 2];
}

impl Row for [u32; PANEL / 2] {
    #[inline(always)]
    fn widen<S: Simd, const V: usize>(&self, simd: S) -> [[S::f32s; V]; 2] {
        let words: [S::u32s; V] = std::array::from_fn(|i| S::as_simd_u32s(self).0[i]);
        [
            words.map(|w| {
                simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(w, simd.splat_u32s(16)))
            }),
            words.map(|w| simd.transmute_f32s_u32s(simd.and_u32s(w, simd.splat_u32s(UPPER)))),
        ]
    }
}

impl Row for [f32; PANEL] {
    #[inline(always)]
    fn widen<S: Simd, const V: usize>(&self, _: S) -> [[S::f32s; V]; 2] {
        let values = S::as_simd_f32s(self).0;
        [0, V].map(|from| std::array::from_fn(|i| values[from + i]))
    }
}

/// The products of some panels with every row of `x`, `(panels, rows, 32)`.
struct Product<'a, R> {
    weights: &'a [R],
    x: &'a [f32],
    rows: usize,
    out: &'a mut [f32],
}

impl<R: Row> WithSimd for Product<'_, R> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // Eight sums at least: an addition takes four cycles, of which two can begin in each.
        match S::F32_LANES {
            16 => self.run::<S, 4, 1>(simd),
            8 => self.run::<S, 2, 2>(simd),
            4 => self.run::<S, 1, 4>(simd),
            _ => self.run::<S, 1, 16>(simd),
        }
    }
}

impl<R: Row> Product<'_, R> {
    /// `N` panels at a time, whose rows are `2 V` vectors.
    #[inline(always)]
    fn run<S: Simd, const N: usize, const V: usize>(self, simd: S) {
        let inputs = self.x.len() / self.rows;
        let (mut weights, mut out) = (self.weights, self.out);
        while !out.is_empty() {
            let panels = N.min(out.len() / (self.rows * PANEL));
            let (now, later) = out.split_at_mut(panels * self.rows * PANEL);
            for (row, x) in self.x.chunks(inputs).enumerate() {
                if panels == N {
                    sums::<S, R, N, V>(simd, weights, x, now, (row, self.rows));
                } else {
                    for (panel, now) in now.chunks_mut(self.rows * PANEL).enumerate() {
                        let weights = &weights[panel * inputs..];
                        sums::<S, R, 1, V>(simd, weights, x, now, (row, self.rows));
                    }
                }
            }
            weights = &weights[panels * inputs..];
            out = later;
        }
    }
}

/// `N` panels times one row of inputs.
#[inline(always)]
fn sums<S: Simd, R: Row, const N: usize, const V: usize>(
    simd: S,
    weights: &[R],
    x: &[f32],
    out: &mut [f32],
    (row, rows): (usize, usize),
) {
    let panels: [&[R]; N] = std::array::from_fn(|i| &weights[i * x.len()..][..x.len()]);
    let mut sums = [[[simd.splat_f32s(0.0); V]; 2]; N];
    for (input, x) in x.iter().enumerate() {
        let x = simd.splat_f32s(*x);
        for (sums, panel) in sums.iter_mut().zip(&panels) {
            for (sums, weights) in sums.iter_mut().zip(panel[input].widen::<S, V>(simd)) {
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum = simd.mul_add_e_f32s(weight, x, *sum);
                }
            }
        }
    }
    for (panel, sums) in sums.iter().enumerate() {
        let out = &mut out[(panel * rows + row) * PANEL..][..PANEL];
        let out = S::as_mut_simd_f32s(out).0;
        for (out, sum) in out.iter_mut().zip(sums.iter().flatten()) {
            *out = *sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers in -1..1, of which bf16 holds every one if `exact`.
    fn numbers(count: usize, seed: u32, exact: bool) -> Vec<f32> {
        let mut state = seed;
        let next = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let x = (state >> 8) as f32 / (1 << 23) as f32 - 1.0;
            if exact {
                f32::from_bits(x.to_bits() & 0xffff_0000)
            } else {
                x
            }
        };
        (0..count).map(next).collect()
    }

    fn product(rows: usize, outputs: usize, inputs: usize, exact: bool) {
        let (w, x) = (
            numbers(outputs * inputs, 1, exact),
            numbers(rows * inputs, 2, false),
        );
        let weight = Tensor::from_slice(&w, (outputs, inputs), &Device::Cpu).unwrap();
        let linear = Linear::new(&weight).unwrap().unwrap();
        let padded = outputs.next_multiple_of(PANEL) * inputs;
        assert_eq!(linear.bytes(), padded * if exact { 2 } else { 4 });
        let input = Tensor::from_slice(&x, (rows, inputs), &Device::Cpu).unwrap();
        let out = linear.forward(&input).unwrap().to_vec2::<f32>().unwrap();
        for (row, x) in out.iter().zip(x.chunks(inputs)) {
            for (out, w) in row.iter().zip(w.chunks(inputs)) {
                let exact: f64 = w.iter().zip(x).map(|(w, x)| *w as f64 * *x as f64).sum();
                assert!((*out as f64 - exact).abs() < 1e-4, "{out} for {exact}");
            }
        }
    }

    #[test]
    fn products_equal_double_precision() {
        for exact in [true, false] {
            for (rows, outputs, inputs) in [
                (1, 1, 1),
                (1, 5, 33),
                (1, 704, 256),
                (2, 300, 258),
                (7, 130, 96),
                (16, 64, 64),
                (17, 66, 130),
                (40, 9, 32),
            ] {
                product(rows, outputs, inputs, exact);
            }
        }
    }

    #[test]
    fn another_type_or_width_is_refused() {
        let weight = Tensor::zeros((4, 6), DType::F16, &Device::Cpu).unwrap();
        assert!(Linear::new(&weight).unwrap().is_none());
        let weight = Tensor::zeros((4, 6), DType::BF16, &Device::Cpu).unwrap();
        let linear = Linear::new(&weight).unwrap().unwrap();
        let x = Tensor::zeros((1, 8), DType::BF16, &Device::Cpu).unwrap();
        let error = linear.forward(&x).unwrap_err().to_string();
        assert!(error.contains("for 6 inputs got 8"), "{error}");
        let x = Tensor::ones((2, 6), DType::BF16, &Device::Cpu).unwrap();
        assert_eq!(linear.forward(&x).unwrap().dtype(), DType::BF16);
    }
}
