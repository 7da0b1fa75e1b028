//! Rows times a matrix in blocks.

use super::{
    PANEL, PART,
    activations::Part,
    codes::{Codes, GROUPS},
    formats::Format,
    isa::{Isa, Portable},
    scales::Scales,
};
use pulp::NullaryFnOnce;
use rayon::prelude::*;
use std::ops::Range;

/// Rows up to which the panels are spread over the cores; more are spread themselves.
const FEW: usize = 16;
/// Most rows that read the weights together, so that their activations stay in the cache.
const ROWS: usize = 32;
/// Rows that share codes while these are in registers.
const TILE: usize = 4;
/// Multiplications that are worth a task of their own.
const TASK: usize = 1 << 17;

/// A matrix in some format.
pub trait Matrix: Send + Sync {
    /// Bytes that it takes.
    fn bytes(&self) -> usize;

    /// `x`, `(rows, in)`, times it: `(rows, out)`.
    fn multiply(&self, x: &[f32], rows: usize) -> Vec<f32>;

    /// Appends an output's weights.
    fn row(&self, output: usize, to: &mut Vec<f32>);
}

/// Panels of eight outputs, block by block.
pub struct Store<F: Format> {
    /// `(out / 8, blocks)`.
    scales: Vec<F::Scales>,
    /// `(out / 8, in / 32)`.
    codes: Vec<F::Codes>,
    outputs: usize,
    /// Times 32 inputs.
    width: usize,
}

impl<F: Format> Store<F> {
    /// The blocks of a file, `(out, in)`.
    pub fn boxed(bytes: &[u8], outputs: usize, inputs: usize) -> Box<dyn Matrix> {
        Box::new(Self::new(bytes, outputs, inputs))
    }

    /// As [`Store::boxed`].
    pub fn new(bytes: &[u8], outputs: usize, inputs: usize) -> Self {
        let width = inputs / PART;
        let blocks = width / F::PARTS;
        // What is missing of the last panel is worth nothing.
        let nothing = vec![0; F::BYTES];
        let block = |output: usize, block: usize| match output < outputs {
            true => &bytes[(output * blocks + block) * F::BYTES..][..F::BYTES],
            false => &nothing[..],
        };
        let panel = |at: usize| -> [&[u8]; PANEL] {
            std::array::from_fn(|lane| block(at / blocks * PANEL + lane, at % blocks))
        };
        let all = 0..outputs.div_ceil(PANEL) * blocks;
        let scales = all.clone().into_par_iter();
        let codes = (0..all.end * F::PARTS).into_par_iter().map(|at| {
            let codes = panel(at / F::PARTS).map(|block| F::codes(block, at % F::PARTS));
            F::Codes::pack(std::array::from_fn(|group| {
                std::array::from_fn(|i| codes[i / 4][4 * group + i % 4])
            }))
        });
        Self {
            scales: scales.map(|at| F::Scales::pack(&panel(at))).collect(),
            codes: codes.collect(),
            outputs,
            width,
        }
    }

    /// Panel `panel` times `R` rows.
    #[inline(always)]
    fn tile<I: Isa, const R: usize>(&self, isa: I, panel: usize, x: &[Part]) -> [I::Floats; R] {
        let bits = F::Codes::BITS;
        let blocks = self.width / F::PARTS;
        let scales = &self.scales[panel * blocks..][..blocks];
        let codes = &self.codes[panel * self.width..][..self.width];
        let rows: [&[Part]; R] = std::array::from_fn(|row| &x[row * self.width..][..self.width]);
        let mut sums = [isa.splat(0.0); R];
        for (block, (scales, codes)) in scales.iter().zip(codes.chunks_exact(F::PARTS)).enumerate()
        {
            for (part, codes) in codes.iter().enumerate() {
                let worth = scales.worth(isa, part);
                let codes: [I::Codes; GROUPS] = codes.unpack(isa);
                for (sum, row) in sums.iter_mut().zip(&rows) {
                    let x = &row[block * F::PARTS + part];
                    let scale = isa.splat(x.scale);
                    if F::Scales::HALVES {
                        let (low, high) = codes.split_at(GROUPS / 2);
                        let (first, last) = x.codes.split_at(x.codes.len() / 2);
                        let (low, high) = (isa.dot(bits, low, first), isa.dot(bits, high, last));
                        let all = isa.mul(worth.scale[0], isa.float(low));
                        let all = isa.mul_add(worth.scale[1], isa.float(high), all);
                        *sum = isa.mul_add(all, scale, *sum);
                        for (offset, x) in worth.offset.iter().zip(x.sums) {
                            *sum = isa.mul_add(*offset, isa.splat(x), *sum);
                        }
                    } else {
                        let all = isa.float(isa.dot(bits, &codes, &x.codes));
                        *sum = isa.mul_add(isa.mul(worth.scale[0], scale), all, *sum);
                        if F::Scales::OFFSETS {
                            let all = isa.splat(x.sums[0] + x.sums[1]);
                            *sum = isa.mul_add(worth.offset[0], all, *sum);
                        }
                    }
                }
            }
        }
        sums
    }

    /// As [`Matrix::multiply`], by these instructions.
    pub fn product<I: Isa>(&self, isa: I, x: &[f32], rows: usize) -> Vec<f32> {
        let threads = rayon::current_num_threads();
        let panels = self.outputs.div_ceil(PANEL);
        let inputs = self.width * PART;
        let work = rows * panels * PANEL * inputs;
        let tasks = (work / TASK).clamp(1, 2 * threads);
        if rows > FEW {
            let mut out = vec![0.0; rows * self.outputs];
            let share = rows.div_ceil(tasks).next_multiple_of(TILE).min(ROWS);
            let pieces = out.par_chunks_mut(share * self.outputs);
            pieces
                .zip(x.par_chunks(share * inputs))
                .for_each(|(out, x)| {
                    isa.run(Run {
                        store: self,
                        isa,
                        x: &isa.run(Round(x)),
                        panels: 0..panels,
                        steps: [PANEL, self.outputs],
                        out,
                    });
                });
            return out;
        }
        let x = &isa.run(Round(x))[..];
        // A task's panels are a piece of their own: `(panels, rows, 8)`.
        let step = rows * PANEL;
        let mut out = vec![0.0; panels * step];
        let share = panels.div_ceil(tasks).max(1);
        let task = |(task, out): (usize, &mut [f32])| {
            let from = task * share;
            isa.run(Run {
                store: self,
                isa,
                x,
                panels: from..panels.min(from + share),
                steps: [step, PANEL],
                out,
            });
        };
        if tasks == 1 {
            task((0, &mut out));
        } else {
            out.par_chunks_mut(share * step).enumerate().for_each(task);
        }
        if rows > 1 {
            let row = |row: usize| out.chunks(PANEL).skip(row).step_by(rows).flatten();
            let of_row = |at| row(at).take(self.outputs).copied();
            return (0..rows).flat_map(of_row).collect();
        }
        out.truncate(rows * self.outputs);
        out
    }
}

impl<F: Format> Matrix for Store<F> {
    fn bytes(&self) -> usize {
        size_of_val(&self.scales[..]) + size_of_val(&self.codes[..])
    }

    fn multiply(&self, x: &[f32], rows: usize) -> Vec<f32> {
        #[cfg(target_arch = "x86_64")]
        if let Some(isa) = super::x86::Avx2::try_new() {
            return self.product(isa, x, rows);
        }
        self.product(Portable, x, rows)
    }

    fn row(&self, output: usize, to: &mut Vec<f32>) {
        let (panel, lane) = (output / PANEL, output % PANEL);
        for at in 0..self.width {
            let place = panel * self.width + at;
            let worth = self.scales[place / F::PARTS].worth(Portable, at % F::PARTS);
            let groups = self.codes[place].unpack(Portable);
            for (i, group) in groups.iter().enumerate() {
                let half = i / (GROUPS / 2);
                let (scale, offset) = (worth.scale[half][lane], worth.offset[half][lane]);
                to.extend(group[4 * lane..][..4].iter().map(|code| {
                    let code = match F::Codes::BITS {
                        8 => f32::from(*code as i8),
                        _ => f32::from(*code),
                    };
                    scale * code + offset
                }));
            }
        }
    }
}

/// Rounds activations.
struct Round<'a>(&'a [f32]);

impl NullaryFnOnce for Round<'_> {
    type Output = Vec<Part>;

    #[inline(always)]
    fn call(self) -> Vec<Part> {
        self.0.as_chunks().0.iter().map(Part::new).collect()
    }
}

/// The products of some panels with some rows.
struct Run<'a, F: Format, I> {
    store: &'a Store<F>,
    isa: I,
    x: &'a [Part],
    panels: Range<usize>,
    /// From a panel's place in `out` to the next one's, and from a row's.
    steps: [usize; 2],
    out: &'a mut [f32],
}

impl<F: Format, I: Isa> NullaryFnOnce for Run<'_, F, I> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self {
            store, isa, x, out, ..
        } = self;
        let rows = x.len() / store.width.max(1);
        for (i, panel) in self.panels.enumerate() {
            let lanes = PANEL.min(store.outputs - panel * PANEL);
            let mut put = |row: usize, sums| {
                let to = &mut out[i * self.steps[0] + row * self.steps[1]..][..lanes];
                to.copy_from_slice(&isa.store(sums)[..lanes]);
            };
            let mut row = 0;
            while row < rows {
                let x = &x[row * store.width..];
                if rows - row >= TILE {
                    for sums in store.tile::<I, TILE>(isa, panel, x) {
                        put(row, sums);
                        row += 1;
                    }
                } else {
                    let [sums] = store.tile::<I, 1>(isa, panel, x);
                    put(row, sums);
                    row += 1;
                }
            }
        }
    }
}
