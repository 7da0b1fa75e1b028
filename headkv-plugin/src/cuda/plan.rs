//! How a batch's heads are cut into equal pieces of work, on the device.
//!
//! A sequence is cut by itself, and keeps its pieces until its tail gets another block; a plan puts those of a batch
//! together. So a sequence that grows, comes or goes costs the others a copy, and the device nothing that it waits for.

use super::{
    device::{start, uninitialized},
    ffi,
};
use candle_core::{CudaDevice, Result};
use cudarc::driver::{CudaSlice, PinnedHostSlice, sys::CUdevice_attribute};

/// The pieces of one sequence in one layer.
pub struct Cut {
    items: Vec<ffi::Item>,
    units: usize,
    slots: i32,
    piece: i32,
}

impl Cut {
    /// Cuts a sequence's units, whose segments are ranges of `segments`, into pieces of about `piece` tokens.
    ///
    /// # Errors
    /// A tail of more blocks than one launch can attend to.
    pub fn new(
        units: &[ffi::Unit],
        segments: &[ffi::Segment],
        head_dim: usize,
        piece: i32,
    ) -> Result<Self> {
        let mut slots = 0;
        let mut cut = |items: &mut [ffi::Item]| {
            // SAFETY: units name segments of the slice, and at most `items.len()` items are written.
            unsafe {
                ffi::headkv_decode_cut(
                    units.as_ptr(),
                    units.len() as i32,
                    segments.as_ptr(),
                    head_dim as i32,
                    piece,
                    items.as_mut_ptr(),
                    items.len() as i32,
                    &mut slots,
                )
            }
        };
        // Mostly enough, so that it is cut once.
        let mut items = vec![ffi::Item([0; 96]); 2 * units.len()];
        let mut needed = cut(&mut items);
        if needed > items.len() as i32 {
            items.resize(needed as usize, ffi::Item([0; 96]));
            needed = cut(&mut items);
        }
        let Ok(count) = usize::try_from(needed) else {
            candle_core::bail!(
                "headkv: more tokens were generated than one launch can attend to; shorten the answer"
            );
        };
        items.truncate(count);
        Ok(Self {
            items,
            units: units.len(),
            slots,
            piece,
        })
    }

    /// Whether it has that many units, in pieces of about `piece` tokens.
    pub fn is(&self, units: usize, piece: i32) -> bool {
        (self.units, self.piece) == (units, piece)
    }

    fn as_ffi(&self) -> ffi::Cut {
        ffi::Cut {
            items: self.items.as_ptr(),
            count: self.items.len() as i32,
            units: self.units as i32,
            slots: self.slots,
        }
    }
}

/// Puts cuts together, longest piece first; gives the number of slots for partial results.
///
/// # Safety
/// There is room for all of their items behind `items`.
unsafe fn join(cuts: &[&Cut], items: *mut ffi::Item) -> i32 {
    let cuts: Vec<_> = cuts.iter().map(|cut| cut.as_ffi()).collect();
    // SAFETY: the cuts outlive the call, and the caller has room for their items.
    unsafe { ffi::headkv_decode_join(cuts.as_ptr(), cuts.len() as i32, items) }
}

/// The pieces of a batch in one layer; lengths of tails travel with each launch.
pub struct Plan {
    /// `ffi::Item`s as bytes, here and on the device.
    staged: PinnedHostSlice<u8>,
    items: CudaSlice<u8>,
    count: usize,
    slots: i32,
    /// Blocks that are done, by unit: zero between launches.
    arrived: CudaSlice<i32>,
}

impl Plan {
    /// Puts the cuts of a batch together, in the memory of an earlier plan if that is large enough.
    ///
    /// # Errors
    /// Memory that runs out.
    pub fn new(earlier: Option<Self>, cuts: &[&Cut], device: &CudaDevice) -> Result<Self> {
        let count: usize = cuts.iter().map(|cut| cut.items.len()).sum();
        let units = cuts.iter().map(|cut| cut.units).sum();
        let bytes = count * size_of::<ffi::Item>();
        let wrap = candle_core::Error::wrap;
        let stream = device.cuda_stream();
        let fits = |plan: &Self| plan.items.len() >= bytes && plan.arrived.len() >= units;
        let mut plan = match earlier.filter(fits) {
            Some(plan) => plan,
            None => {
                // Room to grow: page-locked memory takes long to get.
                let room = (bytes + bytes / 2).max(1);
                Self {
                    // SAFETY: what is read is written first.
                    staged: unsafe { stream.context().alloc_pinned_with_flags(room, 0) }
                        .map_err(wrap)?,
                    items: uninitialized(device, room)?,
                    count: 0,
                    slots: 0,
                    arrived: device.alloc_zeros((units + units / 2).max(1))?,
                }
            }
        };
        // It waits for the copy of the plan before, if that is still under way.
        let staged = plan.staged.as_mut_ptr().map_err(wrap)?;
        // SAFETY: pages are aligned for items, of which `count` have room.
        plan.slots = unsafe { join(cuts, staged.cast()) };
        plan.count = count;
        let mut items = plan.items.slice_mut(..plan.staged.len());
        stream.memcpy_htod(&plan.staged, &mut items).map_err(wrap)?;
        Ok(plan)
    }

    /// The plan as a launch takes it: the items' and the counters' addresses, how many items and slots there are.
    pub fn arguments(&self, device: &CudaDevice) -> (ffi::Address, ffi::Address, i32, i32) {
        let (items, arrived) = (start(&self.items, device), start(&self.arrived, device));
        (items, arrived, self.count as i32, self.slots)
    }
}

/// Tokens of a piece for a batch whose units have so many tokens together; what it was before, if that is about as good.
///
/// # Errors
/// A device that does not answer.
pub fn piece(tokens: usize, before: Option<i32>, device: &CudaDevice) -> Result<i32> {
    let attribute = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
    let stream = device.cuda_stream();
    let processors = stream.context().attribute(attribute);
    let processors = processors.map_err(candle_core::Error::wrap)?;
    // SAFETY: it only computes.
    let best = unsafe { ffi::headkv_decode_piece(tokens as i64, processors) };
    Ok(about(best, before))
}

/// The best piece, or the one before if they differ by a third at most: another one cuts all sequences anew.
fn about(best: i32, before: Option<i32>) -> i32 {
    match before {
        Some(before) if 3 * best <= 4 * before && 3 * before <= 4 * best => before,
        _ => best,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sequence with one kept run of each length and a tail of those blocks; a unit's keys begin at its number times 2^32.
    fn cut(kept: &[i32], blocks: &[i32], piece: i32) -> Cut {
        let (mut units, mut segments) = (Vec::new(), Vec::new());
        for (n, &tokens) in kept.iter().enumerate() {
            units.push(ffi::Unit {
                head: n as i32,
                rows: 1,
                kv_head: n as i32,
                appends: 1,
                first_segment: segments.len() as i32,
                segments: 1 + blocks.len() as i32,
            });
            let mut at = (n as u64) << 32;
            let mut push = |tokens: i32, tail_first| {
                segments.push(ffi::Segment {
                    keys: at,
                    values: at,
                    tokens,
                    tail_first,
                });
                at += 2 * 64 * tokens as u64;
            };
            push(tokens, -1);
            let mut first = 0;
            for &tokens in blocks {
                push(tokens, first);
                first += tokens;
            }
        }
        Cut::new(&units, &segments, 64, piece).unwrap()
    }

    fn word(item: &ffi::Item, at: usize) -> i32 {
        i32::from_le_bytes(item.0[at..at + 4].try_into().unwrap())
    }

    /// The tokens that an item's runs hold, by their places.
    fn tokens(item: &ffi::Item) -> Vec<u64> {
        let run = |at: usize| {
            let keys = u64::from_le_bytes(item.0[at..at + 8].try_into().unwrap());
            (0..word(item, at + 16) as u64).map(move |t| keys + 128 * t)
        };
        run(0).chain(run(24)).collect()
    }

    #[test]
    fn every_token_is_in_one_piece_of_its_sequence() {
        let (blocks, none): (&[i32], &[i32]) = (&[64, 64, 128, 7], &[]);
        let all = [
            (vec![512, 0, 33, 1], blocks),
            (vec![5000, 16], none),
            (vec![0, 0, 0, 900, 31], blocks),
        ];
        let cuts: Vec<Cut> = all
            .iter()
            .map(|(kept, tail)| cut(kept, tail, 100))
            .collect();
        let cuts: Vec<&Cut> = cuts.iter().collect();
        let mut items = vec![ffi::Item([0; 96]); cuts.iter().map(|cut| cut.items.len()).sum()];
        // SAFETY: there is room for all of them.
        let slots = unsafe { join(&cuts, items.as_mut_ptr()) };
        let sequence = |item: &ffi::Item| word(item, 48) as usize;
        for (n, (kept, tail)) in all.iter().enumerate() {
            let mine = items.iter().filter(|item| sequence(item) == n);
            let mut found: Vec<u64> = mine.flat_map(tokens).collect();
            found.sort_unstable();
            let held = kept.iter().enumerate().flat_map(|(unit, &kept)| {
                let count = (kept + tail.iter().sum::<i32>()) as u64;
                (0..count).map(move |t| ((unit as u64) << 32) + 128 * t)
            });
            assert_eq!(found, held.collect::<Vec<_>>(), "sequence {n}");
        }
        let lengths: Vec<_> = items
            .iter()
            .map(|item| tokens(item).len().div_ceil(16))
            .collect();
        assert!(lengths.is_sorted_by(|a, b| a >= b), "{lengths:?}");
        // Units and slots are numbered over the whole batch: no two units share any.
        let units: std::collections::BTreeSet<_> = items
            .iter()
            .map(|item| (word(item, 68), sequence(item), word(item, 52)))
            .collect();
        assert_eq!(
            units.iter().map(|unit| unit.0).collect::<Vec<_>>(),
            (0..11).collect::<Vec<_>>()
        );
        let mut used: Vec<_> = items
            .iter()
            .filter(|item| word(item, 76) > 1)
            .map(|item| word(item, 80) + word(item, 72))
            .collect();
        used.sort_unstable();
        assert_eq!(used, (0..slots).collect::<Vec<_>>());
    }

    #[test]
    fn a_piece_stays_while_it_is_about_the_best() {
        assert_eq!(about(100, None), 100);
        assert_eq!(about(100, Some(76)), 76);
        assert_eq!(about(100, Some(74)), 100);
        assert_eq!(about(100, Some(133)), 133);
        assert_eq!(about(100, Some(134)), 100);
    }
}
