//! Texts that end an answer. They are looked for here and not in the engine, which sends them along when it streams.

/// Passes text on, but for what may be the beginning of a stop text.
#[derive(Clone, Debug, Default)]
pub struct Stops {
    stops: Vec<String>,
    held: String,
}

impl Stops {
    /// A scan for those texts; empty ones are none.
    pub fn new(stops: &[String]) -> Self {
        let stops = stops.iter().filter(|stop| !stop.is_empty()).cloned();
        Self {
            stops: stops.collect(),
            held: String::new(),
        }
    }

    /// Takes in text: what can be passed on, and whether a stop text came, which is then left out with all that follows.
    pub fn push(&mut self, text: &str) -> (String, bool) {
        if self.stops.is_empty() {
            return (text.into(), false);
        }
        self.held.push_str(text);
        let first = self
            .stops
            .iter()
            .filter_map(|stop| self.held.find(stop))
            .min();
        if let Some(at) = first {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let keep = self.stops.iter().map(|stop| self.begun(stop)).max();
        let rest = self.held.split_off(self.held.len() - keep.unwrap_or(0));
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// What was held back, when the answer ends otherwise.
    pub fn rest(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Bytes at the end of what is held that may be the beginning of `stop`.
    fn begun(&self, stop: &str) -> usize {
        let lengths = (1..stop.len().min(self.held.len() + 1)).rev();
        let mut lengths = lengths.filter(|n| stop.is_char_boundary(*n));
        lengths
            .find(|n| self.held.ends_with(&stop[..*n]))
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let stops: Vec<String> = stops.iter().map(|s| s.to_string()).collect();
        let mut scan = Stops::new(&stops);
        let mut text = String::new();
        for piece in pieces {
            let (new, stopped) = scan.push(piece);
            text += &new;
            if stopped {
                return (text, true);
            }
        }
        (text + &scan.rest(), false)
    }

    #[test]
    fn stops_are_found_across_pieces() {
        assert_eq!(run(&["END"], &["a E", "N", "D b"]), ("a ".into(), true));
        assert_eq!(run(&["END"], &["a E", "N"]), ("a EN".into(), false));
        assert_eq!(run(&["aab"], &["a", "a", "a", "b"]), ("a".into(), true));
        assert_eq!(run(&["x", "\n\n"], &["q\n", "\nx"]), ("q".into(), true));
        assert_eq!(run(&["é!"], &["caf", "é", "?"]), ("café?".into(), false));
        assert_eq!(run(&[""], &["ab"]), ("ab".into(), false));
    }

    #[test]
    fn only_a_possible_beginning_is_held_back() {
        let mut scan = Stops::new(&["END".into()]);
        assert_eq!(scan.push("one E"), ("one ".into(), false));
        assert_eq!(scan.push("x"), ("Ex".into(), false));
    }
}
