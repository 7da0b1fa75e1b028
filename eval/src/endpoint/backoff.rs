//! How long to wait before a request is sent again.

use std::{
    thread,
    time::{Duration, Instant, SystemTime},
};

/// How often a wait looks whether it is to end.
pub const TICK: Duration = Duration::from_millis(50);

/// Waits that double, or last as long as the server asks for; none is longer than `longest`.
pub struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    /// Starts at `first`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self {
            next: first.min(longest),
            longest,
        }
    }

    /// The next wait, at least `asked` if the server named a time.
    pub fn wait(&mut self, asked: Option<Duration>) -> Duration {
        let wait = self.next.max(asked.unwrap_or_default()).min(self.longest);
        self.next = (self.next * 2).min(self.longest);
        wait
    }
}

/// Waits; false if `stopped` says that it is to end.
pub fn pause(time: Duration, stopped: impl Fn() -> bool) -> bool {
    let end = Instant::now() + time;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if stopped() || left.is_zero() {
            return !stopped();
        }
        thread::sleep(left.min(TICK));
    }
}

/// The value of a `Retry-After` header (RFC 9110, section 10.2.3): seconds or a date.
pub fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value.trim()).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waits_double_up_to_the_longest() {
        let mut backoff = Backoff::new(SECOND, 5 * SECOND);
        let waits = [(); 5].map(|()| backoff.wait(None).as_secs());
        assert_eq!(waits, [1, 2, 4, 5, 5]);
    }

    #[test]
    fn the_server_is_heeded_up_to_the_longest() {
        let mut backoff = Backoff::new(SECOND, 30 * SECOND);
        assert_eq!(backoff.wait(Some(3 * SECOND)), 3 * SECOND);
        assert_eq!(backoff.wait(Some(SECOND)), 2 * SECOND);
        assert_eq!(backoff.wait(Some(3600 * SECOND)), 30 * SECOND);
    }

    #[test]
    fn both_forms_of_the_header_are_read() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let read = |value| retry_after(value, now);
        assert_eq!(read("120"), Some(120 * SECOND));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:40 GMT"), Some(3 * SECOND));
        assert_eq!(read("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(read("soon"), None);
    }
}
