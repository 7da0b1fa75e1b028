//! The share of expected values that an answer names.

/// How many of the values occur in the prediction, letter case aside, over how many there are (RULER, Hsieh et al. 2024,
/// arXiv 2404.06654, "string match all").
pub fn recall(prediction: &str, values: &[String]) -> f64 {
    let prediction = prediction.to_lowercase();
    let found = values
        .iter()
        .filter(|value| prediction.contains(&value.to_lowercase()))
        .count();
    found as f64 / values.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_counts_once() {
        let values = ["X1".to_string(), "Y2".into()];
        assert_eq!(recall("x1 and x1", &values), 0.5);
        assert_eq!(recall("y2, x1", &values), 1.0);
    }
}
