//! F1 over the words that prediction and reference share, after SQuAD's normalization (Rajpurkar et al. 2016).

use super::{f_measure, overlap};
use jieba_rs::Jieba;
use std::sync::LazyLock;

/// Chinese words, with jieba's own dictionary and its hidden Markov model for words that it lacks.
pub(super) static JIEBA: LazyLock<Jieba> = LazyLock::new(Jieba::new);

/// The punctuation that LongBench drops from Chinese answers, besides the ASCII marks.
const CHINESE_PUNCTUATION: &str = "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏.";

/// F1 over words: lower case, no ASCII punctuation, no articles.
pub fn qa_f1(prediction: &str, reference: &str) -> f64 {
    f1(&words(prediction), &words(reference))
}

/// F1 over the words that jieba finds: lower case, no punctuation, no white space.
pub fn qa_f1_zh(prediction: &str, reference: &str) -> f64 {
    f1(&words_zh(prediction), &words_zh(reference))
}

fn f1(prediction: &[String], reference: &[String]) -> f64 {
    let same = overlap(prediction, reference) as f64;
    if same == 0.0 {
        return 0.0;
    }
    f_measure(
        same / prediction.len() as f64,
        same / reference.len() as f64,
    )
}

fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let plain: String = lower
        .chars()
        .filter(|c| !c.is_ascii_punctuation())
        .collect();
    without_articles(&plain)
        .split_whitespace()
        .map(String::from)
        .collect()
}

/// Replaces `a`, `an` and `the` by a space wherever they are a whole word; a word is letters and digits in a row, so
/// that the `a` in `a–b` is one too.
fn without_articles(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let inside = |c: char| c.is_alphanumeric();
        let word = rest.find(|c| !inside(c)).unwrap_or(rest.len());
        out.push_str(if matches!(&rest[..word], "a" | "an" | "the") {
            " "
        } else {
            &rest[..word]
        });
        let next = rest[word..].find(inside).map_or(rest.len(), |at| word + at);
        out.push_str(&rest[word..next]);
        rest = &rest[next..];
    }
    out
}

fn words_zh(text: &str) -> Vec<String> {
    let kept = |c: &char| {
        !(c.is_ascii_punctuation() || CHINESE_PUNCTUATION.contains(*c) || c.is_whitespace())
    };
    let cut = JIEBA.cut(text, true).into_iter();
    let words = cut.map(|word| word.to_lowercase().chars().filter(kept).collect::<String>());
    words.filter(|word| !word.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_punctuation_and_articles_do_not_count() {
        assert_eq!(qa_f1("The cat, a DOG!", "cat dog"), 1.0);
        assert_eq!(words("a–b of the_thing"), ["–b", "of", "thething"]);
        assert_eq!(qa_f1("", "the"), 0.0);
    }

    #[test]
    fn repeated_words_count_as_often_as_in_both() {
        let (p, r) = (2.0 / 3.0, 2.0 / 2.0);
        assert_eq!(qa_f1("red red red", "red red"), 2.0 * p * r / (p + r));
    }

    #[test]
    fn chinese_is_cut_into_words() {
        assert_eq!(
            words_zh("我来到北京， 清华大学。"),
            ["我", "来到", "北京", "清华大学"]
        );
        assert_eq!(qa_f1_zh("北京。", "《北京"), 2.0 / 3.0);
    }
}
