//! What a program says: results on stdout, messages on stderr, and nothing that would command the terminal.

use crate::Error;
use std::{
    borrow::Cow,
    io::{self, ErrorKind, Write},
};

/// The most characters of a message.
const MOST: usize = 2000;

/// A text in which characters that command a terminal, or turn its writing around, stand as their code; line breaks stay.
pub fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(commands) {
        return text.into();
    }
    let mut plain = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if commands(c) {
            plain.extend(c.escape_default());
        } else {
            plain.push(c);
        }
    }
    plain.into()
}

fn commands(c: char) -> bool {
    let turns =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    (c.is_control() && c != '\n') || turns
}

/// A message as one line of bounded length; of a long one, the beginning and the end stay.
pub fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = plain(&words.join(" ")).into_owned();
    let count = line.chars().count();
    if count <= MOST {
        return line;
    }
    let half = MOST / 2;
    let head: String = line.chars().take(half).collect();
    let tail: String = line.chars().skip(count - half).collect();
    format!("{head} ... {tail}")
}

/// Prints results. A reader that went away, such as `head`, is no error.
///
/// # Errors
/// [`Error::Io`] if stdout cannot be written for another reason.
pub fn print(text: &str) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(plain(text).as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        Err(why) if why.kind() != ErrorKind::BrokenPipe => Err(Error::io("write", "stdout")(why)),
        _ => Ok(()),
    }
}

/// Says something to whoever listens; nobody has to.
pub fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", plain(text));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes_are_shown_and_not_sent() {
        assert_eq!(
            plain("a\x1b[2Jb\r\nc\u{9b}\u{202e}"),
            "a\\u{1b}[2Jb\\r\nc\\u{9b}\\u{202e}"
        );
        assert_eq!(plain("äöü 世界 █\n"), "äöü 世界 █\n");
        assert_eq!(one_line("a\n  b\tc\x07"), "a b c\\u{7}");
    }

    proptest! {
        #[test]
        fn a_message_is_one_short_line(text in ".{0,40}", times in 1usize..400) {
            let line = one_line(&text.repeat(times));
            prop_assert!(!line.contains(|c: char| c.is_control()));
            prop_assert!(line.chars().count() <= MOST + 5);
        }
    }
}
