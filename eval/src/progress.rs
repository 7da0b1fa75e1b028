//! How far a run is: a bar on a terminal, and a line now and then where there is none, as in a cluster's log.

use crate::{Error, Variant};
use headkv_files::terminal;
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The time between two lines in a log.
const PAUSE: Duration = Duration::from_secs(30);

/// What is told about a run after each answer.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// Prompts answered by this run.
    pub done: usize,
    /// Prompts that it has to answer.
    pub total: usize,
    /// Tokens of these prompts and answers.
    pub tokens: usize,
    /// Since the run began.
    pub elapsed: Duration,
    /// The variant that is being run.
    pub variant: &'a Variant,
    /// Its mean score so far, in percent.
    pub score: f64,
}

impl Standing<'_> {
    /// The time left if the other prompts take as long as these did.
    fn left(&self) -> Duration {
        let missing = self.total.saturating_sub(self.done) as f64;
        self.elapsed.mul_f64(missing / self.done.max(1) as f64)
    }
}

/// `12/60 prompts, 3 minutes left, 1250 tokens/s, snapkv@16 scores 41.7`
impl fmt::Display for Standing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let speed = self.tokens as f64 / self.elapsed.as_secs_f64().max(1e-3);
        write!(
            f,
            "{}/{} prompts, {} left, {speed:.0} tokens/s, {} scores {:.1}",
            self.done,
            self.total,
            HumanDuration(self.left()),
            self.variant,
            self.score
        )
    }
}

/// Shows the progress of one run on stderr.
pub struct Progress {
    bar: ProgressBar,
    started: Instant,
    /// When the last line was written, since the start.
    told: Mutex<Duration>,
}

impl Progress {
    /// Of a run with that many prompts.
    ///
    /// # Errors
    /// A bar that cannot be laid out, which any run would show.
    pub fn new(total: usize) -> Result<Self, Error> {
        let style = ProgressStyle::with_template("{bar:24.cyan/blue} {msg}");
        let bar = ProgressBar::new(total as u64);
        bar.set_style(style.map_err(|e| Error::Option(e.to_string()))?);
        bar.enable_steady_tick(Duration::from_millis(500));
        Ok(Self {
            bar,
            started: Instant::now(),
            told: Mutex::default(),
        })
    }

    /// Since the run began.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// One more answer.
    pub fn show(&self, standing: &Standing) {
        if self.bar.is_hidden() {
            if self.due(standing.elapsed) {
                terminal::say(&standing.to_string());
            }
        } else {
            self.bar.set_message(standing.to_string());
            self.bar.inc(1);
        }
    }

    /// A line that stays.
    pub fn say(&self, line: String) {
        if self.bar.is_hidden() {
            terminal::say(&line);
        } else {
            self.bar.println(terminal::plain(&line));
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Whether the last line is long enough ago; this one counts as written then.
    fn due(&self, elapsed: Duration) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let due = elapsed >= *told + PAUSE;
        if due {
            *told = elapsed;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_time_left_speed_and_score() {
        let variant = Variant::new("snapkv").capacity(16);
        let standing = Standing {
            done: 12,
            total: 60,
            tokens: 50_000,
            elapsed: Duration::from_secs(40),
            variant: &variant,
            score: 41.666,
        };
        assert_eq!(
            standing.to_string(),
            "12/60 prompts, 3 minutes left, 1250 tokens/s, snapkv@16 scores 41.7"
        );
        let begun = Standing {
            done: 0,
            tokens: 0,
            elapsed: Duration::ZERO,
            ..standing
        };
        assert!(
            begun
                .to_string()
                .starts_with("0/60 prompts, 0 seconds left, 0 tokens/s")
        );
    }

    #[test]
    fn a_log_gets_a_line_now_and_then() {
        let progress = Progress::new(9).unwrap();
        let seconds = [1, 29, 31, 45, 60, 62, 500];
        let due = seconds.map(|at| progress.due(Duration::from_secs(at)));
        assert_eq!(due, [false, false, true, false, false, true, true]);
    }
}
