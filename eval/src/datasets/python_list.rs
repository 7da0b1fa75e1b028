//! Lists of texts in Python's notation, which some exports of LongBench carry in the place of JSON lists.

/// The items of `['a', "b"]`; `None` if the text is anything else.
pub fn parse(text: &str) -> Option<Vec<String>> {
    let inner = text.trim().strip_prefix('[')?.strip_suffix(']')?;
    let mut rest = inner.trim_start();
    let mut items = Vec::new();
    while !rest.is_empty() {
        let (item, behind) = string(rest)?;
        items.push(item);
        let behind = behind.trim_start();
        rest = match behind.strip_prefix(',') {
            Some(behind) => behind.trim_start(),
            None if behind.is_empty() => behind,
            None => return None,
        };
    }
    Some(items)
}

/// A quoted text at the start, and what is behind it; `None` if there is none.
pub(crate) fn string(text: &str) -> Option<(String, &str)> {
    let mut chars = text.chars();
    let quote = chars.next().filter(|c| matches!(c, '\'' | '"'))?;
    let mut item = String::new();
    loop {
        match chars.next()? {
            '\\' => item.push(escape(&mut chars)?),
            c if c == quote => return Some((item, chars.as_str())),
            c => item.push(c),
        }
    }
}

/// The character behind a backslash (Python's language reference, "escape sequences"); unknown ones stand for themselves.
fn escape(chars: &mut std::str::Chars) -> Option<char> {
    let digits = match chars.next()? {
        'n' => return Some('\n'),
        't' => return Some('\t'),
        'r' => return Some('\r'),
        'x' => 2,
        'u' => 4,
        'U' => 8,
        other => return Some(other),
    };
    let code: String = chars.by_ref().take(digits).collect();
    u32::from_str_radix(&code, 16).ok().and_then(char::from_u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        assert_eq!(
            parse(r#"['it\'s', "a \"b\"", 'x\ny\xa0é\u4e2d']"#).unwrap(),
            ["it's", "a \"b\"", "x\ny\u{a0}é中"]
        );
        assert_eq!(parse("[]").unwrap(), Vec::<String>::new());
        assert_eq!(parse("['a',]").unwrap(), ["a"]);
    }

    #[test]
    fn anything_else_is_none() {
        for text in ["a", "['a'", "['a' 'b']", "[1]", "[a]", "['\\u12']"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
