//! F1 over the words that prediction and reference share: the English one is head scoring's too, the Chinese one cuts
//! words by a dictionary.

pub use headkv_haystack::answer::qa_f1;

use headkv_haystack::answer::f1;
use jieba_rs::Jieba;
use std::sync::LazyLock;

/// Chinese words, with jieba's own dictionary and its hidden Markov model for words that it lacks.
pub(super) static JIEBA: LazyLock<Jieba> = LazyLock::new(Jieba::new);

/// The punctuation that LongBench drops from Chinese answers, besides the ASCII marks.
const CHINESE_PUNCTUATION: &str = "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏.";

/// F1 over the words that jieba finds: lower case, no punctuation, no white space.
pub fn qa_f1_zh(prediction: &str, reference: &str) -> f64 {
    f1(&words_zh(prediction), &words_zh(reference))
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
    fn chinese_is_cut_into_words() {
        assert_eq!(
            words_zh("我来到北京， 清华大学。"),
            ["我", "来到", "北京", "清华大学"]
        );
        assert_eq!(qa_f1_zh("北京。", "《北京"), 2.0 / 3.0);
    }
}
