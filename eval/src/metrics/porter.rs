//! Porter's stemmer (Porter 1980, "An algorithm for suffix stripping") with the changes of NLTK's default mode.
//!
//! Words are lower-case ASCII. `m` is the paper's measure: how often a vowel is followed by a consonant. The changes
//! are marked "NLTK".

/// The stem of a lower-case ASCII word.
///
/// ```
/// assert_eq!(headkv_eval::metrics::porter::stem("relational"), "relat");
/// ```
pub fn stem(word: &str) -> String {
    if let Some(irregular) = irregular(word) {
        return irregular.into();
    }
    if word.len() <= 2 || !word.is_ascii() {
        return word.into();
    }
    let steps = [step1a, step1b, step1c, step2, step3, step4, step5a, step5b];
    steps
        .iter()
        .fold(word.to_string(), |word, step| step(&word))
}

/// NLTK: words that are looked up.
fn irregular(word: &str) -> Option<&'static str> {
    Some(match word {
        "sky" | "skies" => "sky",
        "dying" => "die",
        "lying" => "lie",
        "tying" => "tie",
        "news" => "news",
        "innings" | "inning" => "inning",
        "outings" | "outing" => "outing",
        "cannings" | "canning" => "canning",
        "howe" => "howe",
        "proceed" => "proceed",
        "exceed" => "exceed",
        "succeed" => "succeed",
        _ => return None,
    })
}

/// Whether the letter at `at` is a consonant: no vowel, and no y behind a consonant.
fn is_consonant(word: &[u8], at: usize) -> bool {
    match word[at] {
        b'a' | b'e' | b'i' | b'o' | b'u' => false,
        b'y' => at == 0 || !is_consonant(word, at - 1),
        _ => true,
    }
}

fn measure(word: &str) -> usize {
    let word = word.as_bytes();
    (1..word.len())
        .filter(|&at| !is_consonant(word, at - 1) && is_consonant(word, at))
        .count()
}

fn has_vowel(word: &str) -> bool {
    (0..word.len()).any(|at| !is_consonant(word.as_bytes(), at))
}

/// The paper's condition `*d`.
fn ends_double_consonant(word: &str) -> bool {
    let bytes = word.as_bytes();
    let n = bytes.len();
    n >= 2 && bytes[n - 1] == bytes[n - 2] && is_consonant(bytes, n - 1)
}

/// The paper's condition `*o`: consonant, vowel, consonant, the last not w, x or y. NLTK: or just vowel and consonant.
fn ends_cvc(word: &str) -> bool {
    let bytes = word.as_bytes();
    let n = bytes.len();
    let consonant = |back: usize| is_consonant(bytes, n - back);
    (n >= 3
        && consonant(3)
        && !consonant(2)
        && consonant(1)
        && !matches!(bytes[n - 1], b'w' | b'x' | b'y'))
        || (n == 2 && !consonant(2) && consonant(1))
}

/// Replaces the first suffix of the list that the word has, if the rest passes the test; later suffixes are not tried.
fn replace(word: &str, rules: &[(&str, &str)], test: impl Fn(&str, &str) -> bool) -> String {
    for (suffix, replacement) in rules {
        if let Some(rest) = word.strip_suffix(suffix) {
            return if test(rest, suffix) {
                format!("{rest}{replacement}")
            } else {
                word.into()
            };
        }
    }
    word.into()
}

/// Plurals.
fn step1a(word: &str) -> String {
    // NLTK: `dies` keeps its e.
    if word.len() == 4 && word.ends_with("ies") {
        return word[..3].into();
    }
    replace(
        word,
        &[("sses", "ss"), ("ies", "i"), ("ss", "ss"), ("s", "")],
        |_, _| true,
    )
}

/// -ed and -ing.
fn step1b(word: &str) -> String {
    // NLTK: `died` and `cried`.
    if let Some(rest) = word.strip_suffix("ied") {
        return format!("{rest}{}", if word.len() == 4 { "ie" } else { "i" });
    }
    if let Some(rest) = word.strip_suffix("eed") {
        return if measure(rest) > 0 {
            format!("{rest}ee")
        } else {
            word.into()
        };
    }
    let stripped = ["ed", "ing"]
        .iter()
        .find_map(|suffix| word.strip_suffix(suffix).filter(|rest| has_vowel(rest)));
    let Some(rest) = stripped else {
        return word.into();
    };
    for suffix in ["at", "bl", "iz"] {
        if rest.ends_with(suffix) {
            return format!("{rest}e");
        }
    }
    if ends_double_consonant(rest) {
        return if rest.ends_with(['l', 's', 'z']) {
            rest.into()
        } else {
            rest[..rest.len() - 1].into()
        };
    }
    if measure(rest) == 1 && ends_cvc(rest) {
        format!("{rest}e")
    } else {
        rest.into()
    }
}

/// -y. NLTK: only behind a consonant that is not the first letter.
fn step1c(word: &str) -> String {
    replace(word, &[("y", "i")], |rest, _| {
        rest.len() > 1 && is_consonant(rest.as_bytes(), rest.len() - 1)
    })
}

/// Double suffixes. NLTK: `bli`, `fulli` and `logi`, and `alli` is taken off before the rest is looked at again.
fn step2(word: &str) -> String {
    if word
        .strip_suffix("alli")
        .is_some_and(|rest| measure(rest) > 0)
    {
        return step2(&word[..word.len() - 2]);
    }
    let rules = [
        ("ational", "ate"),
        ("tional", "tion"),
        ("enci", "ence"),
        ("anci", "ance"),
        ("izer", "ize"),
        ("bli", "ble"),
        ("alli", "al"),
        ("entli", "ent"),
        ("eli", "e"),
        ("ousli", "ous"),
        ("ization", "ize"),
        ("ation", "ate"),
        ("ator", "ate"),
        ("alism", "al"),
        ("iveness", "ive"),
        ("fulness", "ful"),
        ("ousness", "ous"),
        ("aliti", "al"),
        ("iviti", "ive"),
        ("biliti", "ble"),
        ("fulli", "ful"),
        ("logi", "log"),
    ];
    // The l of -logi belongs to what is measured.
    replace(word, &rules, |rest, suffix| match suffix {
        "logi" => measure(&word[..word.len() - 3]) > 0,
        _ => measure(rest) > 0,
    })
}

/// -ful, -ness and the like.
fn step3(word: &str) -> String {
    let rules = [
        ("icate", "ic"),
        ("ative", ""),
        ("alize", "al"),
        ("iciti", "ic"),
        ("ical", "ic"),
        ("ful", ""),
        ("ness", ""),
    ];
    replace(word, &rules, |rest, _| measure(rest) > 0)
}

/// Single suffixes behind long stems.
fn step4(word: &str) -> String {
    let suffixes = [
        "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion",
        "ou", "ism", "ate", "iti", "ous", "ive", "ize",
    ];
    replace(
        word,
        &suffixes.map(|suffix| (suffix, "")),
        |rest, suffix| measure(rest) > 1 && (suffix != "ion" || rest.ends_with(['s', 't'])),
    )
}

/// The last e.
fn step5a(word: &str) -> String {
    replace(word, &[("e", "")], |rest, _| {
        measure(rest) > 1 || (measure(rest) == 1 && !ends_cvc(rest))
    })
}

/// The last double l.
fn step5b(word: &str) -> String {
    replace(word, &[("ll", "l")], |_, _| {
        measure(&word[..word.len() - 1]) > 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The examples of the paper's steps, carried through to the end.
    #[test]
    fn examples_of_the_paper() {
        let cases = [
            ("caresses", "caress"),
            ("ponies", "poni"),
            ("cats", "cat"),
            ("feed", "feed"),
            ("agreed", "agre"),
            ("plastered", "plaster"),
            ("bled", "bled"),
            ("motoring", "motor"),
            ("sing", "sing"),
            ("conflated", "conflat"),
            ("troubled", "troubl"),
            ("sized", "size"),
            ("hopping", "hop"),
            ("falling", "fall"),
            ("hissing", "hiss"),
            ("failing", "fail"),
            ("filing", "file"),
            ("happy", "happi"),
            ("relational", "relat"),
            ("conditional", "condit"),
            ("rational", "ration"),
            ("digitizer", "digit"),
            ("radically", "radic"),
            ("vietnamization", "vietnam"),
            ("operator", "oper"),
            ("hopefulness", "hope"),
            ("sensibility", "sensibl"),
            ("triplicate", "triplic"),
            ("formative", "form"),
            ("electrical", "electr"),
            ("goodness", "good"),
            ("revival", "reviv"),
            ("allowance", "allow"),
            ("adjustable", "adjust"),
            ("replacement", "replac"),
            ("adoption", "adopt"),
            ("effective", "effect"),
            ("probate", "probat"),
            ("rate", "rate"),
            ("cease", "ceas"),
            ("controlling", "control"),
            ("rolling", "roll"),
            ("generalizations", "gener"),
            ("oscillators", "oscil"),
        ];
        for (word, expected) in cases {
            assert_eq!(stem(word), expected, "{word}");
        }
    }

    #[test]
    fn nltk_differs_here() {
        let cases = [
            ("dies", "die"),
            ("died", "die"),
            ("cried", "cri"),
            ("skies", "sky"),
            ("dying", "die"),
            ("enjoy", "enjoy"),
            ("shy", "shi"),
            ("by", "by"),
            ("geologically", "geolog"),
            ("geology", "geolog"),
            ("possibly", "possibl"),
            ("hopefully", "hope"),
            ("succeed", "succeed"),
        ];
        for (word, expected) in cases {
            assert_eq!(stem(word), expected, "{word}");
        }
    }

    proptest! {
        #[test]
        fn any_word_has_a_stem_no_longer_than_itself(word in "[a-z0-9]{1,14}") {
            let stem = stem(&word);
            prop_assert!(!stem.is_empty() && stem.len() <= word.len(), "{stem}");
        }
    }
}
