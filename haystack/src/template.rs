//! Prompt templates: how context and question become one prompt.

use crate::Error;
use std::{fmt, str::FromStr};

const CONTEXT: &str = "{context}";
const QUESTION: &str = "{question}";
const CHAT: &str = "chat:";

/// A text with `{context}` and, after it, `{question}`.
///
/// Parsed from and written as `plain`, `book`, `chat`, a text with both places, or `chat:` and such a text; `\n` in a
/// text is a line break, so that it can be typed on a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    before: String,
    between: String,
    after: String,
    chat: bool,
}

impl Template {
    /// Context and question without any frame, as in head detection (Wu et al. 2024).
    pub fn plain() -> Self {
        Self {
            before: String::new(),
            between: "Based on the content of the book, Question: ".into(),
            after: "\nAnswer:".into(),
            chat: false,
        }
    }

    /// The context as a book, as in the needle test of the original project.
    pub fn book() -> Self {
        Self {
            before: "<|im_start|> This is a very long story book: <book>".into(),
            between: " </book>.\n Based on the content of the book, Question: ".into(),
            after: "\nAnswer:".into(),
            chat: false,
        }
    }

    /// A message of the user; the caller puts it into the model's own chat template.
    pub fn chat() -> Self {
        Self {
            before: String::new(),
            between: "\nBased on the content of the book, answer briefly. Question: ".into(),
            after: String::new(),
            chat: true,
        }
    }

    /// Whether [`Template::fill`] gives a user's message that still needs the model's chat template.
    pub fn is_chat(&self) -> bool {
        self.chat
    }

    /// A prompt that was answered, and a further question behind the answer.
    pub fn go_on(&self, prompt: &str, answer: &str, question: &str) -> String {
        [
            prompt,
            " ",
            answer,
            "\n",
            &self.between,
            question,
            &self.after,
        ]
        .concat()
    }

    /// Where in [`Template::fill`]'s text that context ends, in bytes: what follows is the question with its frame.
    pub fn context_end(&self, context: &str) -> usize {
        self.before.len() + context.len()
    }

    /// The prompt, or for a chat the user's message.
    pub fn fill(&self, context: &str, question: &str) -> String {
        [&self.before, context, &self.between, question, &self.after].concat()
    }
}

impl FromStr for Template {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "plain" => return Ok(Self::plain()),
            "book" => return Ok(Self::book()),
            "chat" => return Ok(Self::chat()),
            _ => {}
        }
        let (body, chat) = text
            .strip_prefix(CHAT)
            .map_or((text, false), |body| (body, true));
        let body = body.replace("\\n", "\n");
        let parts = body
            .split_once(CONTEXT)
            .and_then(|(before, rest)| Some((before, rest.split_once(QUESTION)?)));
        let (before, (between, after)) = parts.ok_or_else(|| Error::Template(text.into()))?;
        Ok(Self {
            before: before.into(),
            between: between.into(),
            after: after.into(),
            chat,
        })
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, template) in [
            ("plain", Self::plain()),
            ("book", Self::book()),
            ("chat", Self::chat()),
        ] {
            if *self == template {
                return f.write_str(name);
            }
        }
        let chat = if self.chat { CHAT } else { "" };
        write!(
            f,
            "{chat}{}",
            self.fill(CONTEXT, QUESTION).replace('\n', "\\n")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_once() {
        let prompt = Template::plain().fill("Text with {question}.", "What {context}?");
        assert_eq!(
            prompt,
            "Text with {question}.Based on the content of the book, Question: What {context}?\nAnswer:"
        );
        let book = Template::book();
        let end = book.context_end("Text.");
        assert!(book.fill("Text.", "What?")[..end].ends_with("<book>Text."));
    }

    #[test]
    fn a_further_question_leaves_what_came_before_as_it_was() {
        let template = Template::book();
        let first = template.fill("Text.", "Who?");
        let second = template.go_on(&first, "Ada.", "Where?");
        let rest = second.strip_prefix(&first).unwrap();
        assert_eq!(
            rest,
            " Ada.\n </book>.\n Based on the content of the book, Question: Where?\nAnswer:"
        );
    }

    #[test]
    fn names_and_custom_texts_survive_the_round_trip() {
        for text in [
            "plain",
            "book",
            "chat",
            "<{context}|\\n{question}>",
            "chat:{context} {question}",
        ] {
            let template: Template = text.parse().unwrap();
            assert_eq!(template.to_string(), text);
            assert_eq!(template.is_chat(), text.starts_with("chat"));
        }
        for text in ["novel", "{context}", "{question}{context}"] {
            let message = text.parse::<Template>().unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("unknown template `{text}`; use plain")),
                "{message}"
            );
        }
    }
}
