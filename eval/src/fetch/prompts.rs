//! babilong's prompts, which are published as Python source: the dictionary `DEFAULT_PROMPTS` of babilong/prompts.py, read as
//! data. Nothing of the source is run: texts, texts side by side, brackets and dictionaries are all that is known of Python.

use crate::datasets::python_list;
use serde_json::{Map, Value};

const NAME: &str = "DEFAULT_PROMPTS";

/// The parts of each task's prompt.
const PARTS: [&str; 3] = ["instruction", "examples", "post_prompt"];

/// The deepest that dictionaries and brackets may lie in each other.
const DEEPEST: usize = 16;

/// `prompts.json` as babilong's reader reads it, from the source.
///
/// # Errors
/// What is not as it should be.
pub(super) fn read(source: &str) -> Result<String, String> {
    let mut lines = source.split_inclusive('\n');
    let behind = loop {
        let line = lines
            .next()
            .ok_or_else(|| format!("there is no dictionary {NAME}"))?;
        let assigned = line.strip_prefix(NAME).map(str::trim_start);
        if assigned.is_some_and(|behind| behind.starts_with('=') && !behind.starts_with("==")) {
            let at = line.as_ptr() as usize - source.as_ptr() as usize;
            break &source[at..];
        }
    };
    let (_, value) = behind.split_once('=').unwrap_or_default();
    let mut parser = Parser { rest: value };
    let prompts = parser.value(0).ok_or_else(|| {
        let read = source.len() - parser.rest.len();
        let line = source[..read].matches('\n').count() + 1;
        format!("{NAME} is more than texts and dictionaries at line {line}")
    })?;
    check(&prompts)?;
    let text = serde_json::to_string_pretty(&prompts).map_err(|e| e.to_string())?;
    Ok(text + "\n")
}

/// Whether every task has its parts.
fn check(prompts: &Value) -> Result<(), String> {
    let tasks = prompts.as_object().filter(|tasks| !tasks.is_empty());
    let tasks = tasks.ok_or_else(|| format!("{NAME} holds no tasks"))?;
    for (task, prompt) in tasks {
        for part in PARTS {
            if !prompt.get(part).is_some_and(Value::is_string) {
                return Err(format!("{NAME} has no `{part}` for `{task}`"));
            }
        }
    }
    Ok(())
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    /// A text or a dictionary.
    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > DEEPEST {
            return None;
        }
        self.skip();
        match self.rest.chars().next()? {
            '{' => self.dictionary(depth + 1),
            _ => self.text(depth + 1).map(Value::String),
        }
    }

    fn dictionary(&mut self, depth: usize) -> Option<Value> {
        let mut entries = Map::new();
        self.take('{').then_some(())?;
        while !self.take('}') {
            let key = self.text(depth)?;
            self.take(':').then_some(())?;
            entries.insert(key, self.value(depth)?);
            if !self.take(',') {
                self.take('}').then_some(())?;
                break;
            }
        }
        Some(Value::Object(entries))
    }

    /// Texts side by side are one text, in brackets or not.
    fn text(&mut self, depth: usize) -> Option<String> {
        if depth > DEEPEST {
            return None;
        }
        let mut text = self.piece(depth)?;
        while {
            self.skip();
            self.rest.starts_with(['\'', '"'])
        } {
            text += &self.piece(depth)?;
        }
        Some(text)
    }

    fn piece(&mut self, depth: usize) -> Option<String> {
        if self.take('(') {
            let text = self.text(depth + 1)?;
            return self.take(')').then_some(text);
        }
        let (text, behind) = python_list::string(self.rest)?;
        self.rest = behind;
        Some(text)
    }

    /// Takes that character, should it come next.
    fn take(&mut self, c: char) -> bool {
        self.skip();
        let behind = self.rest.strip_prefix(c);
        self.rest = behind.unwrap_or(self.rest);
        behind.is_some()
    }

    /// Takes spaces, line ends and comments.
    fn skip(&mut self) {
        loop {
            self.rest = self.rest.trim_start();
            match self.rest.strip_prefix('#') {
                Some(comment) => self.rest = comment.find('\n').map_or("", |end| &comment[end..]),
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SOURCE: &str = r#"
# DEFAULT_PROMPTS = {'not': 'this'}
TEMPLATE = '{instruction}'


DEFAULT_PROMPTS = {
    'qa1': {
        # said first
        'instruction':
            'Where is '
            "it?",
        'examples': ('a\n' 'it\'s b'),
        'post_prompt': '’x’ # y',
    },
    "qa2": {'instruction': '', 'examples': '{', 'post_prompt': '}'}
}

print('more')
"#;

    #[test]
    fn the_dictionary_is_read() {
        let prompts: Value = serde_json::from_str(&read(SOURCE).unwrap()).unwrap();
        assert_eq!(
            prompts,
            serde_json::json!({
                "qa1": {"instruction": "Where is it?", "examples": "a\nit's b", "post_prompt": "’x’ # y"},
                "qa2": {"instruction": "", "examples": "{", "post_prompt": "}"},
            })
        );
    }

    #[test]
    fn what_is_no_data_is_refused_with_its_line() {
        for (source, why) in [
            ("", "there is no dictionary"),
            ("DEFAULT_PROMPTS = {}", "holds no tasks"),
            (
                "DEFAULT_PROMPTS = {'qa1': {'instruction': 'a'}}",
                "no `examples` for `qa1`",
            ),
            ("a\nDEFAULT_PROMPTS = {\n'qa1': load('x')}", "at line 3"),
            ("DEFAULT_PROMPTS = {'qa1': f'{x}'}", "at line 1"),
            ("DEFAULT_PROMPTS = {'qa1': 'a' + 'b'}", "at line 1"),
            ("DEFAULT_PROMPTS = {'qa1': 'a", "at line 1"),
        ] {
            let message = read(source).unwrap_err();
            assert!(message.contains(why), "{source}: {message}");
        }
        let deep = format!("DEFAULT_PROMPTS = {}", "{'a': ".repeat(100_000));
        assert!(read(&deep).is_err());
        let deep = format!("DEFAULT_PROMPTS = {}", "(".repeat(100_000));
        assert!(read(&deep).is_err());
    }

    proptest! {
        #[test]
        fn no_source_is_too_strange(source in "[{}()'\":,#a\\\\\n ]{0,60}") {
            let _ = read(&format!("DEFAULT_PROMPTS = {source}"));
        }
    }
}
