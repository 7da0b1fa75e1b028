//! The prompt around a context and a question.

use crate::Error;

/// A text with `{context}` and `{question}` in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(String);

/// Named templates.
const NAMED: [(&str, &str); 3] = [
    ("plain", "{context}Based on the content of the book, Question: {question}\nAnswer:"),
    (
        "book",
        "<|im_start|> This is a very long story book: <book>{context} </book>.\n Based on the content of the book, \
         Question: {question}\nAnswer:",
    ),
    // The user's message where the model's own chat template is used.
    ("chat", "{context}\nBased on the content of the book, answer briefly. Question: {question}"),
];

impl Template {
    /// A named template (plain, book, chat) or a text of one's own; `\n` in it is a line break.
    ///
    /// # Errors
    /// [`Error::Template`] if a part is missing.
    pub fn new(name_or_text: &str) -> Result<Self, Error> {
        let named = NAMED.iter().find(|(name, _)| *name == name_or_text);
        let text = named.map_or_else(|| name_or_text.replace("\\n", "\n"), |(_, text)| text.to_string());
        for part in ["{context}", "{question}"] {
            if !text.contains(part) {
                return Err(Error::Template(part));
            }
        }
        Ok(Self(text))
    }

    /// The prompt.
    pub fn fill(&self, context: &str, question: &str) -> String {
        // The question first: a context may hold braces, a template's question part must not be found in it.
        let (before, after) = self.0.split_once("{context}").unwrap_or((&self.0, ""));
        let ask = |text: &str| text.replace("{question}", question);
        format!("{}{context}{}", ask(before), ask(after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_named_and_own_templates() {
        let filled = Template::new("plain").unwrap().fill("C {question}", "Q?");
        assert_eq!(filled, "C {question}Based on the content of the book, Question: Q?\nAnswer:");
        assert_eq!(Template::new("{context}\\n{question}").unwrap().fill("C", "Q"), "C\nQ");
        assert_eq!(Template::new("{context}").unwrap_err().to_string(), Template::new("x {context}").unwrap_err().to_string());
    }
}
