//! Whether the right class is named, divided by how many are.

/// 1 / n if the right class is among the n classes that the prediction names, else 0.
///
/// A named class that is a part of the right one's name does not count. As in LongBench, the class behind one that was
/// dropped for that reason is not looked at (its loop removes from the list that it walks).
pub fn classification(prediction: &str, reference: &str, classes: &[String]) -> f64 {
    let mut named: Vec<&String> = classes
        .iter()
        .filter(|class| prediction.contains(class.as_str()))
        .collect();
    let mut at = 0;
    while let Some(&class) = named.get(at) {
        if reference.contains(class.as_str()) && class != reference {
            named.retain({
                let mut first = true;
                move |other| !(*other == class && std::mem::take(&mut first))
            });
        }
        at += 1;
    }
    if named.iter().any(|class| *class == reference) {
        1.0 / named.len() as f64
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| n.to_string()).collect()
    }

    #[test]
    fn only_the_right_class_counts() {
        let known = classes(&["Food", "Date", "Other location", "location"]);
        assert_eq!(classification("Food or Date", "Date", &known), 0.5);
        assert_eq!(classification("food", "Food", &known), 0.0);
        assert_eq!(
            classification("Other location", "Other location", &known),
            1.0
        );
    }

    #[test]
    fn the_class_behind_a_dropped_one_is_skipped() {
        let known = classes(&["a", "b", "a b"]);
        assert_eq!(classification("a b", "a b", &known), 0.5);
    }
}
