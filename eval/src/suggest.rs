//! Names that a mistyped one may have meant.

/// An error text for an unknown name: the nearest known ones, or all where none is near.
pub fn unknown<'a>(what: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let mut ranked: Vec<_> = known
        .into_iter()
        .map(|k| {
            (
                strsim::jaro_winkler(&name.to_lowercase(), &k.to_lowercase()),
                k,
            )
        })
        .collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    let near: Vec<_> = ranked
        .iter()
        .filter(|(likeness, _)| *likeness > 0.75)
        .take(3)
        .map(|(_, k)| *k)
        .collect();
    if near.is_empty() {
        let mut all: Vec<_> = ranked.into_iter().map(|(_, k)| k).collect();
        all.sort_unstable();
        return format!("unknown {what} `{name}`; known are {}", all.join(", "));
    }
    format!("unknown {what} `{name}`; did you mean {}?", near.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_offered_and_all_otherwise() {
        let known = ["snapkv", "headkv", "full"];
        assert_eq!(
            unknown("method", "snpkv", known),
            "unknown method `snpkv`; did you mean snapkv?"
        );
        assert_eq!(
            unknown("method", "zzz", known),
            "unknown method `zzz`; known are full, headkv, snapkv"
        );
    }
}
