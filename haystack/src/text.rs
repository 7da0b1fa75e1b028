//! Generated filler: grammatical English about village life, in paragraphs.
//!
//! It names no person, city or number, and nothing in it is "the best" or "secret", so that it cannot answer a needle's
//! question by accident.

mod words;

use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use words::{
    ADJECTIVES, DEEDS, DEEDS_DONE, MANNERS, MOODS, PERSONS, PLACES, REMARKS, THINGS, TIMES,
};

/// Sentences of a paragraph.
const PARAGRAPH: std::ops::RangeInclusive<usize> = 3..=8;

/// At least `bytes` bytes of text, in whole paragraphs that end with a line break.
///
/// The same seed gives the same text on every machine, and a longer text begins with the shorter one.
pub fn generate(seed: u64, bytes: usize) -> String {
    let mut writer = Writer(ChaCha8Rng::seed_from_u64(seed));
    let mut text = String::with_capacity(bytes + 1024);
    while text.len() < bytes {
        let sentences: Vec<String> = (0..writer.0.random_range(PARAGRAPH))
            .map(|_| writer.sentence())
            .collect();
        text.push_str(&sentences.join(" "));
        text.push('\n');
    }
    text
}

struct Writer(ChaCha8Rng);

impl Writer {
    fn pick(&mut self, words: &[&'static str]) -> &'static str {
        words.choose(&mut self.0).copied().unwrap_or_default()
    }

    fn sentence(&mut self) -> String {
        let sentence = match self.0.random_range(0..14) {
            0 | 1 => format!(
                "{} {} {} {}.",
                self.person(),
                self.pick(DEEDS),
                self.thing(),
                self.pick(PLACES)
            ),
            2 => format!(
                "{}, {} {} {}.",
                self.pick(TIMES),
                self.person(),
                self.pick(DEEDS),
                self.thing()
            ),
            3 => format!(
                "{} {} {} {}.",
                self.person(),
                self.pick(DEEDS),
                self.thing(),
                self.pick(MANNERS)
            ),
            4 => format!(
                "{} {} {}, and {} {}.",
                self.person(),
                self.pick(DEEDS),
                self.thing(),
                self.person(),
                self.pick(MOODS)
            ),
            5 => format!(
                "although {} {}, {} {} {}.",
                self.person(),
                self.pick(MOODS),
                self.person(),
                self.pick(DEEDS),
                self.thing()
            ),
            6 => format!(
                "there was {} {}, and {} {}.",
                self.some_thing(),
                self.pick(PLACES),
                self.person(),
                self.pick(MOODS)
            ),
            7 => format!(
                "nobody knew why {} had {} {}.",
                self.person(),
                self.pick(DEEDS),
                self.thing()
            ),
            8 => format!(
                "when {} {}, {} {}.",
                self.person(),
                self.pick(MOODS),
                self.person(),
                self.pick(MOODS)
            ),
            9 => format!(
                "had {} really {} {} {}?",
                self.person(),
                self.pick(DEEDS),
                self.thing(),
                self.pick(TIMES)
            ),
            10 => format!(
                "{}, {} was {} {}.",
                self.pick(PLACES),
                self.thing(),
                self.pick(DEEDS_DONE),
                self.pick(MANNERS)
            ),
            11 => format!(
                "{} that {} had {} was {} and {}.",
                self.thing(),
                self.person(),
                self.pick(DEEDS),
                self.pick(ADJECTIVES),
                self.pick(ADJECTIVES)
            ),
            12 => format!(
                "{} {} {}, {}.",
                self.person(),
                self.pick(MOODS),
                self.pick(TIMES),
                self.pick(MANNERS)
            ),
            _ => self.pick(REMARKS).to_string(),
        };
        capitalized(&sentence)
    }

    fn person(&mut self) -> String {
        let person = self.pick(PERSONS);
        self.the(person)
    }

    fn thing(&mut self) -> String {
        let thing = self.pick(THINGS);
        if self.0.random_bool(0.3) {
            return self.some_thing();
        }
        self.the(thing)
    }

    fn the(&mut self, noun: &str) -> String {
        if self.0.random_bool(0.5) {
            format!("the {} {noun}", self.pick(ADJECTIVES))
        } else {
            format!("the {noun}")
        }
    }

    fn some_thing(&mut self) -> String {
        let (adjective, thing) = (self.pick(ADJECTIVES), self.pick(THINGS));
        let article = if adjective.starts_with(['a', 'e', 'i', 'o', 'u']) {
            "an"
        } else {
            "a"
        };
        // "useful" begins with a consonant's sound.
        let article = if adjective == "useful" { "a" } else { article };
        format!("{article} {adjective} {thing}")
    }
}

fn capitalized(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{needle, pattern};
    use std::collections::HashSet;

    #[test]
    fn a_longer_text_begins_with_the_shorter() {
        let long = generate(1, 20_000);
        assert!(long.len() >= 20_000 && long.starts_with(&generate(1, 3000)));
        assert_ne!(long, generate(2, 20_000));
    }

    #[test]
    fn sentences_are_varied_and_whole() {
        let text = generate(0, 200_000);
        let sentences: Vec<&str> = text
            .split_inclusive(['.', '?'])
            .map(str::trim)
            .filter(|s| !s.is_empty())
            .collect();
        let distinct: HashSet<_> = sentences.iter().collect();
        assert!(
            distinct.len() * 100 > sentences.len() * 85,
            "{} of {}",
            distinct.len(),
            sentences.len()
        );
        for sentence in sentences {
            assert!(
                sentence.starts_with(char::is_uppercase) && sentence.ends_with(['.', '?']),
                "{sentence}"
            );
            assert!(!sentence.contains("  "), "{sentence}");
        }
    }

    #[test]
    fn it_holds_no_answers() {
        let text = generate(0, 400_000).to_lowercase();
        assert!(!text.contains(|c: char| c.is_ascii_digit()));
        for kind in [pattern::Builtin::Retrieval, pattern::Builtin::Reasoning] {
            for needle in pattern::Patterns::builtin(kind).draw(0, 200).unwrap() {
                assert!(
                    !text.contains(&needle.real_needle.to_lowercase()),
                    "{}",
                    needle.real_needle
                );
                // The words in capitals are the names of the needle; none of them may occur.
                let inner = needle.needle.split(". ").flat_map(|s| s.split(' ').skip(1));
                for name in inner.filter(|w| w.starts_with(char::is_uppercase)) {
                    let name = name
                        .trim_end_matches(|c: char| !c.is_alphabetic())
                        .to_lowercase();
                    let name = name.trim_end_matches("'s");
                    assert!(
                        !text.split(|c: char| !c.is_alphabetic()).any(|w| w == name),
                        "{name}"
                    );
                }
            }
        }
        for phrase in [
            "best", "secret", "dolores", "sandwich", "lives in", "live in", "magic",
        ] {
            assert!(!text.contains(phrase), "{phrase}");
        }
        assert!(!text.contains(&needle::two_hops().answer));
    }
}
