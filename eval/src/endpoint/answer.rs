//! What a server answered.

use crate::Completion;
use serde_json::Value;

/// The completion in an answer's body: of a conversation if `chat`, of a text otherwise. Of several choices it is the first;
/// a server that counts no tokens answers 0 of them.
///
/// # Errors
/// What is wrong with it.
pub fn read(body: &[u8], chat: bool) -> Result<Completion, String> {
    let value: Value =
        serde_json::from_slice(body).map_err(|e| format!("answer is not JSON: {e}"))?;
    let choice = &value["choices"][0];
    let text = if chat {
        &choice["message"]["content"]
    } else {
        &choice["text"]
    };
    let text = text
        .as_str()
        .ok_or("answer has no choice with a text")?
        .into();
    let count = |field| value["usage"][field].as_u64().unwrap_or(0) as usize;
    Ok(Completion {
        text,
        prompt_tokens: count("prompt_tokens"),
        tokens: count("completion_tokens"),
        ..Completion::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_both_kinds() {
        let text = br#"{"choices": [{"text": "eat"}], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}"#;
        let read_text = read(text, false).unwrap();
        assert_eq!(
            (read_text.text.as_str(), read_text.prompt_tokens),
            ("eat", 7)
        );
        assert_eq!(read_text.tokens, 2);
        let chat =
            br#"{"choices": [{"message": {"content": "eat"}}], "usage": {"prompt_tokens": -7}}"#;
        let read_chat = read(chat, true).unwrap();
        assert_eq!(
            (read_chat.text.as_str(), read_chat.prompt_tokens),
            ("eat", 0)
        );
    }

    #[test]
    fn what_is_no_answer_is_named() {
        for (body, why) in [
            ("<html>", "is not JSON"),
            ("[]", "no choice"),
            (r#"{"choices": []}"#, "no choice"),
            (r#"{"choices": [{"text": null}]}"#, "no choice"),
            (
                r#"{"choices": [{"message": {"content": "x"}}]}"#,
                "no choice",
            ),
        ] {
            let message = read(body.as_bytes(), false).unwrap_err();
            assert!(message.contains(why), "{body}: {message}");
        }
    }
}
