//! Generated filler: grammatical English about village life, in paragraphs.
//!
//! It names no person, city or number, and nothing in it is "the best" or "secret", so that it cannot answer a needle's
//! question by accident.

use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

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

const ADJECTIVES: &[&str] = &[
    "ancient", "anxious", "bright", "broken", "careful", "cheerful", "clever", "crooked",
    "curious", "dusty", "early", "eager", "empty", "faded", "faithful", "famous", "foreign",
    "friendly", "gentle", "graceful", "heavy", "honest", "humble", "hungry", "idle", "lonely",
    "modest", "narrow", "noisy", "ordinary", "patient", "pale", "playful", "polite", "proud",
    "quick", "restless", "rough", "rusty", "serious", "shy", "silent", "sleepy", "slow", "small",
    "solemn", "stubborn", "sturdy", "tired", "uneasy", "useful", "weary", "wide", "wise",
];

const PERSONS: &[&str] = &[
    "apprentice",
    "architect",
    "beekeeper",
    "blacksmith",
    "bookkeeper",
    "bricklayer",
    "carpenter",
    "cartographer",
    "choirmaster",
    "clerk",
    "cobbler",
    "cook",
    "courier",
    "dressmaker",
    "editor",
    "ferryman",
    "fiddler",
    "fisherman",
    "florist",
    "forester",
    "glassblower",
    "grandmother",
    "guest",
    "innkeeper",
    "inspector",
    "interpreter",
    "judge",
    "landlord",
    "locksmith",
    "merchant",
    "messenger",
    "miller",
    "notary",
    "nurse",
    "painter",
    "pharmacist",
    "physician",
    "pilgrim",
    "plumber",
    "porter",
    "potter",
    "printer",
    "professor",
    "quarryman",
    "roofer",
    "scholar",
    "sculptor",
    "shepherd",
    "shopkeeper",
    "stonemason",
    "stranger",
    "student",
    "surveyor",
    "tailor",
    "translator",
    "traveller",
    "watchmaker",
    "weaver",
    "widow",
    "witness",
];

const THINGS: &[&str] = &[
    "almanac",
    "anvil",
    "barrel",
    "bench",
    "blanket",
    "bucket",
    "cabinet",
    "candle",
    "carriage",
    "cart",
    "catalogue",
    "chandelier",
    "compass",
    "curtain",
    "diary",
    "drawing",
    "engine",
    "envelope",
    "fence",
    "fireplace",
    "gate",
    "hammer",
    "harness",
    "hedge",
    "kettle",
    "ladder",
    "lantern",
    "ledger",
    "loom",
    "map",
    "mirror",
    "organ",
    "oven",
    "parcel",
    "pendulum",
    "piano",
    "plough",
    "portrait",
    "pulley",
    "ribbon",
    "rope",
    "saddle",
    "sail",
    "shelf",
    "shutter",
    "staircase",
    "statue",
    "stove",
    "telescope",
    "tapestry",
    "trunk",
    "umbrella",
    "violin",
    "wagon",
    "wheel",
    "whistle",
    "workbench",
];

const PLACES: &[&str] = &[
    "at the crossroads",
    "at the edge of the orchard",
    "at the foot of the stairs",
    "behind the barn",
    "behind the mill",
    "beside the canal",
    "beside the chapel",
    "beside the well",
    "beyond the meadow",
    "in the attic",
    "in the cellar",
    "in the corridor",
    "in the courtyard",
    "in the dining room",
    "in the workshop",
    "inside the granary",
    "near the ferry",
    "near the lighthouse stairs",
    "near the quarry",
    "next to the stable",
    "on the balcony",
    "on the hillside",
    "on the landing",
    "on the other side of the valley",
    "on the terrace",
    "outside the theatre",
    "under the archway",
    "under the chestnut trees",
    "under the eaves",
    "up in the loft",
];

/// Verbs whose past tense is also their participle, so that one list serves all forms.
const DEEDS: &[&str] = &[
    "admired",
    "adjusted",
    "borrowed",
    "carried",
    "cleaned",
    "collected",
    "copied",
    "covered",
    "delivered",
    "described",
    "discovered",
    "examined",
    "exchanged",
    "forgot about",
    "guarded",
    "inherited",
    "inspected",
    "lifted",
    "lost",
    "mended",
    "measured",
    "misplaced",
    "noticed",
    "packed",
    "painted",
    "polished",
    "purchased",
    "recognized",
    "refused",
    "rented",
    "repaired",
    "replaced",
    "restored",
    "returned",
    "saved",
    "sketched",
    "sold",
    "studied",
    "tested",
    "touched",
    "unlocked",
    "unwrapped",
    "varnished",
    "weighed",
    "wrapped",
];

const MOODS: &[&str] = &[
    "began to hum",
    "fell asleep",
    "felt relieved",
    "grew impatient",
    "had nothing to add",
    "kept quiet",
    "laughed aloud",
    "lost patience",
    "nodded slowly",
    "refused to leave",
    "said very little",
    "seemed pleased",
    "shook with laughter",
    "smiled politely",
    "stayed indoors",
    "started to pack",
    "thought it over",
    "turned away",
    "waited outside",
    "walked home alone",
    "went on working",
    "whispered something",
    "wondered what to do",
];

const TIMES: &[&str] = &[
    "a little later",
    "after a long silence",
    "after the harvest",
    "all through the autumn",
    "as soon as it was dark",
    "before the bells rang",
    "by the time the rain stopped",
    "during the long frost",
    "earlier that week",
    "every now and then",
    "from time to time",
    "in those days",
    "late in the season",
    "long before dawn",
    "more than once",
    "not long ago",
    "on market days",
    "on the way back",
    "one windy morning",
    "shortly afterwards",
    "that same night",
    "toward the end of the month",
    "until the lamps were lit",
    "when nobody was looking",
    "while the others slept",
];

const MANNERS: &[&str] = &[
    "with both hands",
    "without any hurry",
    "without being asked",
    "with some difficulty",
    "almost by accident",
    "against all advice",
    "for no clear reason",
    "as carefully as possible",
    "in the usual manner",
    "out of pure habit",
    "with a short nod",
    "rather proudly",
    "to everyone's surprise",
    "with visible reluctance",
    "out of kindness",
];

const REMARKS: &[&str] = &[
    "Nobody spoke for a while.",
    "It hardly mattered.",
    "The weather did not help.",
    "Such mornings were rare.",
    "That was how it had always been done.",
    "Some called it luck, others patience.",
    "The explanation was simple.",
    "There was no hurry.",
    "What happened next was less clear.",
    "It was not much, but it was enough.",
    "The rest could wait.",
    "Opinions differed.",
    "Little else was said about it.",
    "The smell of bread filled the house.",
    "Snow lay on the roofs.",
    "The wind had turned.",
    "Nothing was written down.",
    "This went on for weeks.",
];

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

/// What is done to a thing in the passive.
const DEEDS_DONE: &[&str] = &[
    "adjusted",
    "carried away",
    "cleaned",
    "covered",
    "examined",
    "left behind",
    "lifted",
    "mended",
    "measured",
    "painted over",
    "polished",
    "put together",
    "replaced",
    "taken apart",
    "unwrapped",
    "varnished",
    "weighed",
];

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
