//! How far a file is: a bar on a terminal, one line where there is none.

use headkv_files::terminal;
use indicatif::{ProgressBar, ProgressStyle};

/// Shows the progress of one file on stderr; taken away once it is dropped.
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// Of a file of that name.
    pub fn new(name: &str) -> Self {
        let bar = ProgressBar::no_length();
        if bar.is_hidden() {
            terminal::say(&format!("fetching {name}"));
        }
        bar.set_message(terminal::one_line(name));
        Self(bar)
    }

    /// Bytes go on from that one, to that many if it is known.
    pub fn begin(&self, start: u64, total: Option<u64>) {
        let template = match total {
            Some(_) => {
                "{bar:24.cyan/blue} {bytes}/{total_bytes}, {eta} left, {bytes_per_sec}, {msg}"
            }
            None => "{spinner} {bytes}, {bytes_per_sec}, {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.0.set_style(style);
        }
        if let Some(total) = total {
            self.0.set_length(total);
        }
        self.0.set_position(start);
        // What was there before says nothing of the speed.
        self.0.reset_eta();
    }

    /// So many bytes are there.
    pub fn at(&self, bytes: u64) {
        self.0.set_position(bytes);
    }

    /// A line that stays.
    pub fn say(&self, line: &str) {
        self.0.suspend(|| terminal::say(line));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
