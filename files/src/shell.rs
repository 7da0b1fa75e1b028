//! Command lines as they can be typed.

use std::ffi::OsString;

/// A program and its arguments in a shell's notation. Bytes that are no UTF-8 cannot be typed, and are replaced.
pub fn command_line(program: &str, args: impl IntoIterator<Item = OsString>) -> String {
    let words = args.into_iter().map(|arg| {
        // No argument can hold a zero byte, the only thing that cannot be quoted.
        let arg = arg.to_string_lossy().replace('\0', "");
        shlex::try_quote(&arg).map_or_else(|_| String::new(), |word| word.into_owned())
    });
    words.fold(program.to_string(), |line, word| line + " " + &word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_shell_reads_the_same_words(words in prop::collection::vec("[^\0]*", 0..6)) {
            let line = command_line("program", words.iter().map(OsString::from));
            let read = shlex::split(&line).unwrap();
            prop_assert_eq!(&read[1..], &words);
        }
    }

    #[cfg(unix)]
    #[test]
    fn words_that_are_not_utf8_do_not_end_it() {
        use std::os::unix::ffi::OsStringExt;
        let line = command_line("p", [OsString::from_vec(b"a\xff".to_vec()), "b".into()]);
        assert!(line.starts_with("p ") && line.ends_with(" b"), "{line}");
    }
}
