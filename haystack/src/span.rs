//! Finds a needle in the token ids of a prompt.

use crate::Error;
use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    ops::Range,
};
use tokenizers::Tokenizer;

/// Where a needle stands in a prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Token positions.
    pub tokens: Range<usize>,
    /// The share of the needle's distinct tokens that occur there, 0 to 1.
    pub overlap: f64,
}

/// The window of the needle's length that shares the most distinct tokens with it, as in the head detection of
/// Wu et al. 2024 (which takes the first that shares more than 0.9): tokens at the needle's edges may differ inside the
/// text, so that an exact search would miss it. Of several windows, the one with the most tokens in their places, and
/// then the first. `None` if the needle is empty, longer than the prompt, or shares nothing with it.
pub fn locate(prompt: &[u32], needle: &[u32]) -> Option<Span> {
    let len = needle.len();
    let shared = shared(prompt, needle);
    let most = *shared.iter().max().filter(|&&most| most > 0)?;
    let in_place = |start: usize| {
        prompt[start..]
            .iter()
            .zip(needle)
            .filter(|(a, b)| a == b)
            .count()
    };
    let best = (0..shared.len()).filter(|&start| shared[start] == most);
    let start = best.max_by_key(|&start| (in_place(start), Reverse(start)))?;
    let distinct = needle.iter().collect::<HashSet<_>>().len();
    Some(Span {
        tokens: start..start + len,
        overlap: most as f64 / distinct as f64,
    })
}

/// How many of the needle's distinct tokens each window of its length holds.
fn shared(prompt: &[u32], needle: &[u32]) -> Vec<usize> {
    let len = needle.len();
    if len == 0 || len > prompt.len() {
        return Vec::new();
    }
    let mut inside: HashMap<u32, usize> = needle.iter().map(|&token| (token, 0)).collect();
    let mut distinct = 0;
    let mut shared = Vec::with_capacity(prompt.len() + 1 - len);
    for (at, entering) in prompt.iter().enumerate() {
        if let Some(count) = inside.get_mut(entering) {
            distinct += usize::from(*count == 0);
            *count += 1;
        }
        if let Some(count) = at
            .checked_sub(len)
            .and_then(|left| inside.get_mut(&prompt[left]))
        {
            *count -= 1;
            distinct -= usize::from(*count == 0);
        }
        if at + 1 >= len {
            shared.push(distinct);
        }
    }
    shared
}

/// [`locate`] for a text, which is tokenized both behind a space and as the start of a text; the better match counts.
///
/// # Errors
/// [`Error::Tokenizer`].
pub fn locate_text(
    prompt: &[u32],
    needle: &str,
    tokenizer: &Tokenizer,
) -> Result<Option<Span>, Error> {
    let needle = needle.trim();
    let mut best: Option<Span> = None;
    for text in [format!(" {needle}"), needle.to_string()] {
        let found = locate(prompt, tokenizer.encode(text, false)?.get_ids());
        if let Some(span) =
            found.filter(|span| best.as_ref().is_none_or(|b| span.overlap > b.overlap))
        {
            best = Some(span);
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Haystack, Inserter, Template, needle};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_sliding_count_equals_the_definition(
            prompt in prop::collection::vec(0u32..12, 0..60),
            needle in prop::collection::vec(0u32..12, 1..10),
        ) {
            let wanted: HashSet<_> = needle.iter().collect();
            let overlap = |window: &[u32]| {
                window.iter().collect::<HashSet<_>>().intersection(&wanted).count() as f64 / wanted.len() as f64
            };
            let best = prompt.windows(needle.len()).map(overlap).fold(0.0, f64::max);
            match locate(&prompt, &needle) {
                None => prop_assert_eq!(best, 0.0),
                Some(span) => {
                    prop_assert_eq!(span.overlap, best);
                    prop_assert_eq!(overlap(&prompt[span.tokens]), best);
                }
            }
        }

        #[test]
        fn an_inserted_needle_is_found(
            mut prompt in prop::collection::vec(100u32..200, 1..80),
            needle in prop::collection::vec(0u32..50, 1..12),
            at in any::<prop::sample::Index>(),
        ) {
            let at = at.index(prompt.len() + 1);
            prompt.splice(at..at, needle.iter().copied());
            let span = locate(&prompt, &needle).unwrap();
            prop_assert_eq!(span, Span { tokens: at..at + needle.len(), overlap: 1.0 });
        }
    }

    #[test]
    fn nothing_is_found_where_nothing_is() {
        assert_eq!(locate(&[1, 2, 3], &[4]), None);
        assert_eq!(locate(&[1], &[1, 2]), None);
        assert_eq!(locate(&[1], &[]), None);
    }

    #[test]
    fn the_answer_is_found_in_a_whole_prompt() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny/tokenizer.json");
        let tokenizer = Tokenizer::from_file(file).unwrap();
        let inserter = Inserter::new(&tokenizer, &Haystack::generated(3), 1500).unwrap();
        for (needle, depth) in [
            (needle::san_francisco(), 0.0),
            (needle::two_hops(), 50.0),
            (needle::two_hops(), 100.0),
        ] {
            let context = inserter.insert(&needle.needle, 1500, depth).unwrap();
            let prompt = Template::plain().fill(&context.text, &needle.question);
            let encoding = tokenizer.encode(prompt, false).unwrap();
            let span = locate_text(encoding.get_ids(), &needle.real_needle, &tokenizer)
                .unwrap()
                .unwrap();
            assert_eq!(span.overlap, 1.0);
            let found = tokenizer
                .decode(&encoding.get_ids()[span.tokens], false)
                .unwrap();
            assert_eq!(found.trim(), needle.real_needle);
        }
    }
}
