//! Which parts of a prompt's text compression kept: bytes of text, and the percent of the heads that kept them.

/// Text from the prompt's beginning on: so many bytes, which that percent of the heads kept, then the next ones.
pub type Runs = Vec<(usize, u8)>;

/// Steps of percents, so that neighbours mostly share one.
const STEP: f32 = 5.0;

/// The runs of a text whose tokens end at these bytes, in order, each kept by that part of the heads, 0 to 1.
pub fn runs(tokens: impl IntoIterator<Item = (usize, f32)>) -> Runs {
    let (mut runs, mut begins) = (Runs::new(), 0);
    for (end, share) in tokens {
        let bytes = end.saturating_sub(begins);
        // What any head kept is not nothing.
        let percent = (share * 100.0 / STEP).ceil() * STEP;
        match runs.last_mut() {
            Some((length, last)) if *last == percent as u8 => *length += bytes,
            _ => runs.push((bytes, percent as u8)),
        }
        begins = begins.max(end);
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_join_and_little_is_not_nothing() {
        let tokens = [(3, 0.0), (5, 0.0), (5, 0.001), (9, 0.04), (12, 1.0)];
        assert_eq!(runs(tokens), [(5, 0), (4, 5), (3, 100)]);
        assert!(runs([]).is_empty());
    }
}
