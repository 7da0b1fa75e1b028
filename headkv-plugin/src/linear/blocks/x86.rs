//! x86-64 with AVX2: vectors of 256 bits, products of bytes.

use super::{PANEL, isa::Isa};
use pulp::{NullaryFnOnce, cast};
use std::arch::x86_64::{__m128i, __m256, __m256i, _mm256_cvtph_ps};

pulp::simd_type! {
    /// AVX2 and what came with it.
    pub struct Avx2 {
        pub sse: "sse",
        pub sse2: "sse2",
        pub ssse3: "ssse3",
        pub sse4_1: "sse4.1",
        pub avx: "avx",
        pub avx2: "avx2",
        pub fma: "fma",
        pub f16c: "f16c",
    }
}

impl Isa for Avx2 {
    type Codes = __m256i;
    type Sums = __m256i;
    type Floats = __m256;

    #[inline(always)]
    fn run<T: NullaryFnOnce>(self, task: T) -> T::Output {
        self.vectorize(task)
    }

    #[inline(always)]
    fn load(self, codes: &[u8; 4 * PANEL]) -> Self::Codes {
        cast(*codes)
    }

    #[inline(always)]
    fn bits<const FROM: i32, const TO: i32>(self, bytes: Self::Codes, mask: u8) -> Self::Codes {
        let mask = self.avx._mm256_set1_epi8((mask << TO) as i8);
        // What a shift brings in from the byte beside is masked out.
        let moved = match FROM - TO {
            0 => bytes,
            1 => self.avx2._mm256_srli_epi16::<1>(bytes),
            2 => self.avx2._mm256_srli_epi16::<2>(bytes),
            3 => self.avx2._mm256_srli_epi16::<3>(bytes),
            4 => self.avx2._mm256_srli_epi16::<4>(bytes),
            5 => self.avx2._mm256_srli_epi16::<5>(bytes),
            6 => self.avx2._mm256_srli_epi16::<6>(bytes),
            -1 => self.avx2._mm256_slli_epi16::<1>(bytes),
            -2 => self.avx2._mm256_slli_epi16::<2>(bytes),
            -3 => self.avx2._mm256_slli_epi16::<3>(bytes),
            -4 => self.avx2._mm256_slli_epi16::<4>(bytes),
            _ => unreachable!("no format moves bits that far"),
        };
        self.avx2._mm256_and_si256(moved, mask)
    }

    #[inline(always)]
    fn join(self, a: Self::Codes, b: Self::Codes) -> Self::Codes {
        self.avx2._mm256_or_si256(a, b)
    }

    #[inline(always)]
    fn half(self, bits: &[u16; PANEL]) -> Self::Floats {
        let bits: __m128i = cast(*bits);
        // SAFETY: a value of this type exists only where the processor has F16C, one of its fields.
        unsafe { _mm256_cvtph_ps(bits) }
    }

    #[inline(always)]
    fn unsigned(self, numbers: &[u8; PANEL]) -> Self::Floats {
        let numbers = cast([u64::from_le_bytes(*numbers), 0]);
        self.float(self.avx2._mm256_cvtepu8_epi32(numbers))
    }

    #[inline(always)]
    fn signed(self, numbers: &[i8; PANEL]) -> Self::Floats {
        let numbers = cast([cast::<_, u64>(*numbers), 0]);
        self.float(self.avx2._mm256_cvtepi8_epi32(numbers))
    }

    #[inline(always)]
    fn float(self, sums: Self::Sums) -> Self::Floats {
        self.avx._mm256_cvtepi32_ps(sums)
    }

    #[inline(always)]
    fn splat(self, number: f32) -> Self::Floats {
        self.avx._mm256_set1_ps(number)
    }

    #[inline(always)]
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        self.avx._mm256_mul_ps(a, b)
    }

    #[inline(always)]
    fn mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        self.fma._mm256_fmadd_ps(a, b, c)
    }

    #[inline(always)]
    fn store(self, numbers: Self::Floats) -> [f32; PANEL] {
        cast(numbers)
    }

    #[inline(always)]
    fn dot(self, bits: u32, codes: &[__m256i], x: &[i8]) -> __m256i {
        let ones = self.avx._mm256_set1_epi16(1);
        let wide = |pairs| self.avx2._mm256_madd_epi16(pairs, ones);
        let mut sums = self.avx._mm256_setzero_si256();
        // Sums of 16 bits are exact up to 2^15 - 1, and each product adds two of at most `(2^bits - 1) * 127`; with a
        // sign, of 128 * 127.
        let exact = match bits {
            0..=4 => 8,
            5 => 4,
            6 => 2,
            _ => 1,
        };
        for (codes, x) in codes.chunks(exact).zip(x.chunks(4 * exact)) {
            let mut pairs = self.avx._mm256_setzero_si256();
            for (code, x) in codes.iter().zip(x.chunks_exact(4)) {
                let x = i32::from_le_bytes([x[0], x[1], x[2], x[3]].map(|x| x as u8));
                let x = self.avx._mm256_set1_epi32(x);
                let products = match bits {
                    // Unsigned by signed is what there is: the sign goes over to the activation.
                    8 => self.avx2._mm256_maddubs_epi16(
                        self.avx2._mm256_abs_epi8(*code),
                        self.avx2._mm256_sign_epi8(x, *code),
                    ),
                    _ => self.avx2._mm256_maddubs_epi16(*code, x),
                };
                pairs = self.avx2._mm256_add_epi16(pairs, products);
            }
            sums = self.avx2._mm256_add_epi32(sums, wide(pairs));
        }
        sums
    }
}
