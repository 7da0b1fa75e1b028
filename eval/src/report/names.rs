//! Names of variants in tables and pictures.

use crate::{Variant, row::short};
use std::collections::HashMap;

/// Each variant as it is displayed; those that differ in their score files only get the files' names, and where these
/// are equal too, their digests.
pub fn names(variants: &[&Variant]) -> Vec<String> {
    let mut names: Vec<String> = variants.iter().map(|variant| variant.to_string()).collect();
    let tellers: [fn(&Variant) -> Option<String>; 2] = [Variant::scores_name, digest];
    for teller in tellers {
        let mut taken: HashMap<String, usize> = HashMap::new();
        for name in &names {
            *taken.entry(name.clone()).or_default() += 1;
        }
        for (name, variant) in names.iter_mut().zip(variants) {
            let shared = taken.get(name).is_some_and(|count| *count > 1);
            if let Some(more) = teller(variant).filter(|_| shared) {
                *name = format!("{name} {more}");
            }
        }
    }
    names
}

fn digest(variant: &Variant) -> Option<String> {
    variant.scores_digest.as_deref().map(short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_said() {
        let headkv = |path: &str, digest: &str| Variant {
            scores: Some(path.into()),
            scores_digest: Some(digest.into()),
            ..Variant::new("headkv").capacity(16)
        };
        let (a, b, c) = (
            headkv("x/a.json", "1"),
            headkv("x/b.json", "2"),
            headkv("y/b.json", "3"),
        );
        assert_eq!(names(&[&a]), ["headkv@16"]);
        assert_eq!(
            names(&[&Variant::new("full"), &a, &b, &c]),
            ["full", "headkv@16 a", "headkv@16 b 2", "headkv@16 b 3"]
        );
    }
}
