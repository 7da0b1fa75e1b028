//! Codes of 32 inputs and eight outputs, by how many bits they have.

use super::{PANEL, PART, isa::Isa};

/// Codes of four inputs and eight outputs, an output's four side by side.
pub type Group = [u8; 4 * PANEL];
/// Groups of 32 inputs.
pub const GROUPS: usize = PART / 4;

/// Codes as they lie in memory.
pub trait Codes: Copy + Send + Sync {
    /// Bits of a code; 8 means that it has a sign.
    const BITS: u32;

    /// Codes of a byte each.
    fn pack(groups: [Group; GROUPS]) -> Self;

    /// The codes as bytes again.
    fn unpack<I: Isa>(&self, isa: I) -> [I::Codes; GROUPS];
}

/// A byte's bits `BITS` by `BITS`, from the lowest on, each of another group: `per` groups from `groups`.
fn stack(groups: &[Group], bits: u32, from: u32) -> Group {
    std::array::from_fn(|i| {
        let bit = |(at, group): (usize, &Group)| {
            (group[i] >> from & ((1 << bits) - 1)) << (at as u32 * bits)
        };
        groups.iter().enumerate().map(bit).sum()
    })
}

/// Two bits: four groups in each of two vectors.
#[derive(Clone, Copy)]
pub struct Two([Group; 2]);

impl Two {
    fn of(groups: &[Group; GROUPS], from: u32) -> Self {
        let (first, last) = groups.split_at(GROUPS / 2);
        Self([first, last].map(|groups| stack(groups, 2, from)))
    }

    /// The bits, from bit `TO` on.
    #[inline(always)]
    fn bits<I: Isa, const TO: i32>(&self, isa: I) -> [I::Codes; GROUPS] {
        let [a, b] = self.0.map(|group| isa.load(&group));
        [
            isa.bits::<0, TO>(a, 3),
            isa.bits::<2, TO>(a, 3),
            isa.bits::<4, TO>(a, 3),
            isa.bits::<6, TO>(a, 3),
            isa.bits::<0, TO>(b, 3),
            isa.bits::<2, TO>(b, 3),
            isa.bits::<4, TO>(b, 3),
            isa.bits::<6, TO>(b, 3),
        ]
    }
}

impl Codes for Two {
    const BITS: u32 = 2;

    fn pack(groups: [Group; GROUPS]) -> Self {
        Self::of(&groups, 0)
    }

    #[inline(always)]
    fn unpack<I: Isa>(&self, isa: I) -> [I::Codes; GROUPS] {
        self.bits::<I, 0>(isa)
    }
}

/// One bit of every group.
#[derive(Clone, Copy)]
struct One(Group);

impl One {
    fn of(groups: &[Group; GROUPS], from: u32) -> Self {
        Self(stack(groups, 1, from))
    }

    /// The bits, from bit `TO` on.
    #[inline(always)]
    fn bits<I: Isa, const TO: i32>(&self, isa: I) -> [I::Codes; GROUPS] {
        let a = isa.load(&self.0);
        [
            isa.bits::<0, TO>(a, 1),
            isa.bits::<1, TO>(a, 1),
            isa.bits::<2, TO>(a, 1),
            isa.bits::<3, TO>(a, 1),
            isa.bits::<4, TO>(a, 1),
            isa.bits::<5, TO>(a, 1),
            isa.bits::<6, TO>(a, 1),
            isa.bits::<7, TO>(a, 1),
        ]
    }
}

/// Three bits: the lower two, the highest.
#[derive(Clone, Copy)]
pub struct Three(Two, One);

impl Codes for Three {
    const BITS: u32 = 3;

    fn pack(groups: [Group; GROUPS]) -> Self {
        Self(Two::of(&groups, 0), One::of(&groups, 2))
    }

    #[inline(always)]
    fn unpack<I: Isa>(&self, isa: I) -> [I::Codes; GROUPS] {
        let (low, high) = (self.0.bits::<I, 0>(isa), self.1.bits::<I, 2>(isa));
        std::array::from_fn(|i| isa.join(low[i], high[i]))
    }
}

/// Four bits: two groups in each of four vectors.
#[derive(Clone, Copy)]
pub struct Four([Group; 4]);

impl Codes for Four {
    const BITS: u32 = 4;

    fn pack(groups: [Group; GROUPS]) -> Self {
        Self(std::array::from_fn(|i| stack(&groups[2 * i..][..2], 4, 0)))
    }

    #[inline(always)]
    fn unpack<I: Isa>(&self, isa: I) -> [I::Codes; GROUPS] {
        let [a, b, c, d] = self.0.map(|group| isa.load(&group));
        [
            isa.bits::<0, 0>(a, 15),
            isa.bits::<4, 0>(a, 15),
            isa.bits::<0, 0>(b, 15),
            isa.bits::<4, 0>(b, 15),
            isa.bits::<0, 0>(c, 15),
            isa.bits::<4, 0>(c, 15),
            isa.bits::<0, 0>(d, 15),
            isa.bits::<4, 0>(d, 15),
        ]
    }
}

/// Five bits: the lower four, the highest.
#[derive(Clone, Copy)]
pub struct Five(Four, One);

impl Codes for Five {
    const BITS: u32 = 5;

    fn pack(groups: [Group; GROUPS]) -> Self {
        Self(Four::pack(groups), One::of(&groups, 4))
    }

    #[inline(always)]
    fn unpack<I: Isa>(&self, isa: I) -> [I::Codes; GROUPS] {
        let (low, high) = (self.0.unpack(isa), self.1.bits::<I, 4>(isa));
        std::array::from_fn(|i| isa.join(low[i], high[i]))
    }
}

/// Six bits: the lower four, the higher two.
#[derive(Clone, Copy)]
pub struct Six(Four, Two);

impl Codes for Six {
    const BITS: u32 = 6;

    fn pack(groups: [Group; GROUPS]) -> Self {
        Self(Four::pack(groups), Two::of(&groups, 4))
    }

    #[inline(always)]
    fn unpack<I: Isa>(&self, isa: I) -> [I::Codes; GROUPS] {
        let (low, high) = (self.0.unpack(isa), self.1.bits::<I, 4>(isa));
        std::array::from_fn(|i| isa.join(low[i], high[i]))
    }
}

/// Eight bits with a sign.
#[derive(Clone, Copy)]
pub struct Eight([Group; GROUPS]);

impl Codes for Eight {
    const BITS: u32 = 8;

    fn pack(groups: [Group; GROUPS]) -> Self {
        Self(groups)
    }

    #[inline(always)]
    fn unpack<I: Isa>(&self, isa: I) -> [I::Codes; GROUPS] {
        std::array::from_fn(|i| isa.load(&self.0[i]))
    }
}
