//! The Porter stemmer (M. F. Porter, "An algorithm for suffix stripping", Program 14(3), 1980), with the extensions of
//! NLTK's default mode, which the rouge_score package uses.

/// Words whose stems NLTK lists.
const IRREGULAR: [(&str, &[&str]); 12] = [
    ("sky", &["sky", "skies"]),
    ("die", &["dying"]),
    ("lie", &["lying"]),
    ("tie", &["tying"]),
    ("news", &["news"]),
    ("inning", &["innings", "inning"]),
    ("outing", &["outings", "outing"]),
    ("canning", &["cannings", "canning"]),
    ("howe", &["howe"]),
    ("proceed", &["proceed"]),
    ("exceed", &["exceed"]),
    ("succeed", &["succeed"]),
];

/// The stem of a lower-case word.
pub fn stem(word: &str) -> String {
    if let Some((stem, _)) = IRREGULAR.iter().find(|(_, words)| words.contains(&word)) {
        return stem.to_string();
    }
    if word.len() <= 2 || !word.is_ascii() {
        return word.to_string();
    }
    let steps = [
        step_1a, step_1b, step_1c, step_2, step_3, step_4, step_5a, step_5b,
    ];
    steps.iter().fold(word.to_string(), |word, step| step(word))
}

fn is_consonant(word: &[u8], at: usize) -> bool {
    match word[at] {
        b'a' | b'e' | b'i' | b'o' | b'u' => false,
        b'y' => at == 0 || !is_consonant(word, at - 1),
        _ => true,
    }
}

/// The number of vowel-consonant changes, Porter's `m`.
fn measure(stem: &str) -> usize {
    let stem = stem.as_bytes();
    (1..stem.len())
        .filter(|&i| is_consonant(stem, i) && !is_consonant(stem, i - 1))
        .count()
}

fn has_vowel(stem: &str) -> bool {
    (0..stem.len()).any(|i| !is_consonant(stem.as_bytes(), i))
}

fn ends_in_double_consonant(word: &str) -> bool {
    let word = word.as_bytes();
    let n = word.len();
    n >= 2 && word[n - 1] == word[n - 2] && is_consonant(word, n - 1)
}

/// Porter's `*o`: consonant, vowel, consonant other than w, x, y; NLTK adds vowel, consonant for words of two letters.
fn ends_in_cvc(word: &str) -> bool {
    let word = word.as_bytes();
    let n = word.len();
    (n >= 3
        && is_consonant(word, n - 3)
        && !is_consonant(word, n - 2)
        && is_consonant(word, n - 1)
        && !matches!(word[n - 1], b'w' | b'x' | b'y'))
        || (n == 2 && !is_consonant(word, 0) && is_consonant(word, 1))
}

/// The first rule whose suffix fits decides: its replacement if the stem allows, else nothing changes.
fn replace(word: String, rules: &[(&str, &str)], allows: impl Fn(&str, &str) -> bool) -> String {
    for (suffix, replacement) in rules {
        if let Some(stem) = word.strip_suffix(suffix) {
            return if allows(stem, suffix) {
                format!("{stem}{replacement}")
            } else {
                word
            };
        }
    }
    word
}

fn step_1a(word: String) -> String {
    if word.ends_with("ies") && word.len() == 4 {
        return word[..3].to_string();
    }
    replace(
        word,
        &[("sses", "ss"), ("ies", "i"), ("ss", "ss"), ("s", "")],
        |_, _| true,
    )
}

fn step_1b(word: String) -> String {
    if let Some(stem) = word.strip_suffix("ied") {
        return if word.len() == 4 {
            format!("{stem}ie")
        } else {
            format!("{stem}i")
        };
    }
    if let Some(stem) = word.strip_suffix("eed") {
        return if measure(stem) > 0 {
            format!("{stem}ee")
        } else {
            word
        };
    }
    let stripped = ["ed", "ing"]
        .iter()
        .find_map(|suffix| word.strip_suffix(suffix).filter(|stem| has_vowel(stem)));
    let Some(stem) = stripped else { return word };
    if stem.ends_with("at") || stem.ends_with("bl") || stem.ends_with("iz") {
        return format!("{stem}e");
    }
    if ends_in_double_consonant(stem) {
        let last = &stem[stem.len() - 1..];
        return if matches!(last, "l" | "s" | "z") {
            stem.to_string()
        } else {
            stem[..stem.len() - 1].to_string()
        };
    }
    if measure(stem) == 1 && ends_in_cvc(stem) {
        format!("{stem}e")
    } else {
        stem.to_string()
    }
}

fn step_1c(word: String) -> String {
    // NLTK: only after a consonant that is not the word's first letter.
    let allows =
        |stem: &str, _: &str| stem.len() > 1 && is_consonant(stem.as_bytes(), stem.len() - 1);
    replace(word, &[("y", "i")], allows)
}

fn step_2(word: String) -> String {
    if let Some(stem) = word.strip_suffix("alli").filter(|stem| measure(stem) > 0) {
        return step_2(format!("{stem}al"));
    }
    if let Some(stem) = word.strip_suffix("logi") {
        return if measure(&format!("{stem}l")) > 0 {
            format!("{stem}log")
        } else {
            word
        };
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
    ];
    replace(word, &rules, |stem, _| measure(stem) > 0)
}

fn step_3(word: String) -> String {
    let rules = [
        ("icate", "ic"),
        ("ative", ""),
        ("alize", "al"),
        ("iciti", "ic"),
        ("ical", "ic"),
        ("ful", ""),
        ("ness", ""),
    ];
    replace(word, &rules, |stem, _| measure(stem) > 0)
}

fn step_4(word: String) -> String {
    let rules = [
        "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion",
        "ou", "ism", "ate", "iti", "ous", "ive", "ize",
    ]
    .map(|suffix| (suffix, ""));
    replace(word, &rules, |stem, suffix| {
        measure(stem) > 1 && (suffix != "ion" || stem.ends_with(['s', 't']))
    })
}

fn step_5a(word: String) -> String {
    match word.strip_suffix('e') {
        Some(stem) if measure(stem) > 1 || (measure(stem) == 1 && !ends_in_cvc(stem)) => {
            stem.to_string()
        }
        _ => word,
    }
}

fn step_5b(word: String) -> String {
    match word.strip_suffix('l') {
        Some(stem) if stem.ends_with('l') && measure(stem) > 1 => stem.to_string(),
        _ => word,
    }
}

#[cfg(test)]
mod tests {
    use super::stem;

    #[test]
    fn strips_suffixes() {
        let cases = [
            ("caresses", "caress"),
            ("ponies", "poni"),
            ("dies", "die"),
            ("cats", "cat"),
            ("feed", "feed"),
            ("agreed", "agre"),
            ("plastered", "plaster"),
            ("motoring", "motor"),
            ("conflated", "conflat"),
            ("hopping", "hop"),
            ("falling", "fall"),
            ("filing", "file"),
            ("happy", "happi"),
            ("enjoy", "enjoy"),
            ("relational", "relat"),
            ("formality", "formal"),
            ("sensibilities", "sensibl"),
            ("electrical", "electr"),
            ("goodness", "good"),
            ("adoption", "adopt"),
            ("effective", "effect"),
            ("probate", "probat"),
            ("rate", "rate"),
            ("controlling", "control"),
            ("roll", "roll"),
            ("sandwich", "sandwich"),
            ("sunny", "sunni"),
            ("skies", "sky"),
            ("tied", "tie"),
            ("cried", "cri"),
        ];
        for (word, expected) in cases {
            assert_eq!(stem(word), expected, "{word}");
        }
    }
}
