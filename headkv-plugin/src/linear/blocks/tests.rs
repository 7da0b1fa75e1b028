//! Every format and every kind of instructions against sums in double precision.

use super::{
    PART, Quantized,
    activations::Part,
    formats::*,
    isa::Portable,
    product::{Matrix, Store},
};
use candle_core::{
    DType, Device, Module, Tensor,
    quantized::{GgmlDType, QStorage, QTensor},
};
use std::borrow::Cow;

const DTYPES: [GgmlDType; 10] = [
    GgmlDType::Q4_0,
    GgmlDType::Q4_1,
    GgmlDType::Q5_0,
    GgmlDType::Q5_1,
    GgmlDType::Q8_0,
    GgmlDType::Q2K,
    GgmlDType::Q3K,
    GgmlDType::Q4K,
    GgmlDType::Q5K,
    GgmlDType::Q6K,
];

/// Numbers in -1..1.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(next).collect()
}

/// Weights that use every code, in blocks of different sizes, and what they stand for.
fn weights(dtype: GgmlDType, outputs: usize, inputs: usize) -> (QTensor, Vec<f32>) {
    let mut values = numbers(outputs * inputs, 1);
    for (i, block) in values.chunks_mut(16).enumerate() {
        let (size, shift) = ((i % 5) as f32 + 0.1, (i % 3) as f32 - 1.0);
        block.iter_mut().for_each(|x| *x = *x * size + shift);
    }
    let weight = Tensor::from_vec(values, (outputs, inputs), &Device::Cpu).unwrap();
    let weight = QTensor::quantize(&weight, dtype).unwrap();
    let values = weight.dequantize(&Device::Cpu).unwrap();
    let values = values.flatten_all().unwrap().to_vec1().unwrap();
    (weight, values)
}

/// Outputs, rows and times the format's blocks of inputs.
const SHAPES: [(usize, usize, usize); 7] = [
    (1, 1, 1),
    (8, 1, 2),
    (5, 3, 1),
    (77, 6, 3),
    (130, 16, 2),
    (21, 17, 2),
    (300, 70, 1),
];

/// Calls `check` for the kinds of instructions that this processor has.
fn each<F: Format>(weight: &QTensor, x: &[f32], rows: usize, check: impl Fn(&str, Vec<f32>)) {
    let (outputs, inputs) = weight.shape().dims2().unwrap();
    let store = Store::<F>::new(&weight.data().unwrap(), outputs, inputs);
    check("portable", store.product(Portable, x, rows));
    #[cfg(target_arch = "x86_64")]
    if let Some(isa) = super::x86::Avx2::try_new() {
        check("AVX2", store.product(isa, x, rows));
    }
    check("chosen", store.multiply(x, rows));
}

fn any(weight: &QTensor, x: &[f32], rows: usize, check: impl Fn(&str, Vec<f32>)) {
    let each = match weight.dtype() {
        GgmlDType::Q4_0 => each::<Q4_0>,
        GgmlDType::Q4_1 => each::<Q4_1>,
        GgmlDType::Q5_0 => each::<Q5_0>,
        GgmlDType::Q5_1 => each::<Q5_1>,
        GgmlDType::Q8_0 => each::<Q8_0>,
        GgmlDType::Q2K => each::<Q2K>,
        GgmlDType::Q3K => each::<Q3K>,
        GgmlDType::Q4K => each::<Q4K>,
        GgmlDType::Q5K => each::<Q5K>,
        _ => each::<Q6K>,
    };
    each(weight, x, rows, check);
}

#[test]
fn products_are_those_of_the_rounded_activations_and_near_the_exact_ones() {
    for dtype in DTYPES {
        for (outputs, rows, blocks) in SHAPES {
            let inputs = blocks * dtype.block_size();
            let (weight, values) = weights(dtype, outputs, inputs);
            let x = numbers(rows * inputs, 2);
            any(&weight, &x, rows, |isa, out| {
                assert_eq!(out.len(), rows * outputs);
                for (out, x) in out.chunks(outputs).zip(x.chunks(inputs)) {
                    for (out, w) in out.iter().zip(values.chunks(inputs)) {
                        let (mut exact, mut rounded, mut sizes, mut bound) = (0.0, 0.0, 0.0, 0.0);
                        for (w, x) in w.as_chunks::<PART>().0.iter().zip(x.as_chunks().0) {
                            let part = Part::new(x);
                            for i in 0..PART {
                                let (w, scale) = (f64::from(w[i]), f64::from(part.scale));
                                exact += w * f64::from(x[i]);
                                rounded += w * f64::from(part.codes[i]) * scale;
                                sizes += w.abs();
                                bound += w.abs() * scale / 2.0;
                            }
                        }
                        let out = f64::from(*out);
                        // Scales and offsets cancel out in part.
                        let least = 1e-5 * sizes;
                        let far = (out - rounded).abs();
                        assert!(
                            far < least,
                            "{dtype:?} {isa} {outputs} {rows}: {out} for {rounded}"
                        );
                        let far = (out - exact).abs();
                        assert!(
                            far < bound * 1.001 + least,
                            "{dtype:?} {isa}: {out} for {exact}"
                        );
                    }
                }
            });
        }
    }
}

#[test]
fn the_largest_codes_and_activations_do_not_overflow() {
    for dtype in DTYPES {
        let inputs = 4 * dtype.block_size().max(64);
        let (weight, _) = weights(dtype, 8, inputs);
        // Every bit of the codes set, or the least code with a sign; scales are any.
        for byte in [0xff, 0x80] {
            let mut data = weight.data().unwrap().into_owned();
            let size = dtype.type_size();
            for block in data.chunks_mut(size) {
                let fill = match dtype {
                    GgmlDType::Q2K => 16..80,
                    GgmlDType::Q3K => 0..96,
                    GgmlDType::Q4K | GgmlDType::Q5K => 16..size,
                    GgmlDType::Q6K => 0..192,
                    GgmlDType::Q4_1 | GgmlDType::Q5_1 => 4..size,
                    _ => 2..size,
                };
                block[fill].fill(byte);
            }
            let storage = QStorage::from_data(Cow::Borrowed(&data), &Device::Cpu, dtype).unwrap();
            let weight = QTensor::new(storage, (8, inputs)).unwrap();
            let values = weight
                .dequantize(&Device::Cpu)
                .unwrap()
                .to_vec2::<f32>()
                .unwrap();
            for sign in [1.0, -1.0] {
                let x = vec![sign; inputs];
                any(&weight, &x, 1, |isa, out| {
                    for (out, w) in out.iter().zip(&values) {
                        let exact: f64 = w.iter().map(|w| f64::from(*w) * f64::from(sign)).sum();
                        let sizes: f64 = w.iter().map(|w| f64::from(w.abs())).sum();
                        let far = (f64::from(*out) - exact).abs();
                        assert!(far <= 1e-5 * sizes, "{dtype:?} {isa}: {out} for {exact}");
                    }
                });
            }
        }
    }
}

#[test]
fn a_row_is_the_same_in_any_company() {
    for dtype in DTYPES {
        let inputs = 2 * dtype.block_size();
        let (weight, _) = weights(dtype, 19, inputs);
        let x = numbers(40 * inputs, 3);
        let alone = std::cell::RefCell::new(Vec::new());
        for x in x.chunks(inputs) {
            any(&weight, x, 1, |isa, out| {
                if isa == "chosen" {
                    alone.borrow_mut().extend(out);
                }
            });
        }
        for rows in [2, 7, 16, 40] {
            any(&weight, &x[..rows * inputs], rows, |isa, out| {
                if isa == "chosen" {
                    assert_eq!(out, alone.borrow()[..out.len()], "{dtype:?}, {rows} rows");
                }
            });
        }
    }
}

#[test]
fn rows_of_weights_are_what_the_file_stands_for() {
    for dtype in DTYPES {
        let inputs = 3 * dtype.block_size();
        let (weight, values) = weights(dtype, 21, inputs);
        let quantized = Quantized::new(&weight).unwrap().unwrap();
        let ids = [20_u32, 0, 7, 8, 7, 1];
        let ids_tensor = Tensor::new(&[ids], &Device::Cpu).unwrap();
        let rows = quantized.rows(&ids_tensor).unwrap();
        assert_eq!(rows.dims(), [1, 6, inputs]);
        let rows = rows.squeeze(0).unwrap().to_vec2::<f32>().unwrap();
        for (row, id) in rows.iter().zip(ids) {
            for (out, w) in row.iter().zip(&values[id as usize * inputs..]) {
                assert!(
                    (out - w).abs() <= 1e-5 * w.abs().max(1.0),
                    "{dtype:?}: {out} for {w}"
                );
            }
        }
        let beyond = Tensor::new(&[21_u32], &Device::Cpu).unwrap();
        let error = quantized.rows(&beyond).unwrap_err().to_string();
        assert!(error.contains("row 21 of a matrix of 21"), "{error}");
    }
}

#[test]
fn weights_take_what_the_file_takes() {
    for dtype in DTYPES {
        let inputs = 4 * dtype.block_size();
        let (weight, _) = weights(dtype, 64, inputs);
        let quantized = Quantized::new(&weight).unwrap().unwrap();
        let (bytes, file) = (quantized.bytes(), weight.storage_size_in_bytes());
        assert!(
            bytes >= file && bytes * 100 <= file * 104,
            "{dtype:?}: {bytes} for {file}"
        );
    }
}

#[test]
fn what_is_not_finite_stays_so() {
    let (weight, _) = weights(GgmlDType::Q4_1, 8, 64);
    for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = numbers(64, 4);
        x[40] = wrong;
        any(&weight, &x, 1, |isa, out| {
            assert!(out.iter().all(|x| !x.is_finite()), "{isa}: {out:?}");
        });
    }
}

#[test]
fn rows_may_lie_anywhere_and_have_16_bits() {
    let (weight, _) = weights(GgmlDType::Q4_1, 8, 64);
    let quantized = Quantized::new(&weight).unwrap().unwrap();
    let x = Tensor::from_vec(numbers(5 * 64, 2), (5, 64), &Device::Cpu).unwrap();
    let all = quantized.forward(&x).unwrap();
    let values = |x: &Tensor| x.to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap();
    let part = quantized.forward(&x.narrow(0, 2, 3).unwrap()).unwrap();
    assert_eq!(values(&part), values(&all)[2..]);
    let turned = x.t().unwrap().contiguous().unwrap().t().unwrap();
    assert_eq!(values(&quantized.forward(&turned).unwrap()), values(&all));
    let short = quantized
        .forward(&x.to_dtype(DType::BF16).unwrap())
        .unwrap();
    assert_eq!((short.dtype(), short.dims()), (DType::BF16, all.dims()));
}

#[test]
fn another_width_is_refused_and_another_format_left_alone() {
    let (weight, _) = weights(GgmlDType::Q4_1, 8, 64);
    let quantized = Quantized::new(&weight).unwrap().unwrap();
    let x = Tensor::zeros((1, 32), DType::F32, &Device::Cpu).unwrap();
    let error = quantized.forward(&x).unwrap_err().to_string();
    assert!(error.contains("for 64 inputs got 32"), "{error}");
    let (weight, _) = weights(GgmlDType::F16, 8, 64);
    assert!(Quantized::new(&weight).unwrap().is_none());
}

#[test]
#[ignore = "a measurement: cargo test --release -p headkv-plugin -- --ignored --nocapture speed_of_blocks"]
fn speed_of_blocks() {
    for dtype in DTYPES {
        let (outputs, inputs) = (1536, 1536);
        let (weight, _) = weights(dtype, outputs, inputs);
        let quantized = Quantized::new(&weight).unwrap().unwrap();
        for rows in [1, 4, 16, 512] {
            let x = numbers(rows * inputs, 2);
            let x = Tensor::from_vec(x, (rows, inputs), &Device::Cpu).unwrap();
            let mut best = f64::MAX;
            for _ in 0..30 {
                let start = std::time::Instant::now();
                quantized.forward(&x).unwrap();
                best = best.min(start.elapsed().as_secs_f64());
            }
            let rate = (outputs * inputs * rows) as f64 / best / 1e9;
            let read = quantized.bytes() as f64 / best / 1e9;
            println!("{dtype:?} {rows}: {rate:.1} GMAC/s, {read:.1} GB/s");
        }
    }
}
