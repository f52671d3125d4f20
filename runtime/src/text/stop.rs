//! Stop strings in streamed text.

/// Watches a stream of text for stop strings. Text that may turn out to be the beginning of one is held back, so that no
/// piece of a stop string is ever given out. The outcome doesn't depend on how the text is cut into pieces: it ends before
/// the stop string that is complete first (the longest, if several are complete at the same character).
#[derive(Clone, Debug)]
pub struct StopMatcher {
    stops: Vec<Stop>,
    held: String,
    stopped: bool,
}

/// What a piece of text led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopOutput {
    /// Text that may be shown.
    pub text: String,
    /// Whether a stop string is complete: generation ends, and nothing comes out any more.
    pub stopped: bool,
}

/// A stop string and how much of it the end of the text matches (Knuth, Morris, Pratt).
#[derive(Clone, Debug)]
struct Stop {
    text: Vec<u8>,
    /// For each length of a match, the next shorter match that is a suffix of it.
    shorter: Vec<usize>,
    matched: usize,
}

impl Stop {
    fn new(text: &str) -> Stop {
        let text = text.as_bytes().to_vec();
        let mut shorter = vec![0; text.len() + 1];
        let mut matched = 0;
        for at in 1..text.len() {
            while matched > 0 && text[at] != text[matched] {
                matched = shorter[matched];
            }
            matched += usize::from(text[at] == text[matched]);
            shorter[at + 1] = matched;
        }
        Stop { text, shorter, matched: 0 }
    }

    /// Whether this byte completes the string.
    fn push(&mut self, byte: u8) -> bool {
        while self.matched > 0 && byte != self.text[self.matched] {
            self.matched = self.shorter[self.matched];
        }
        self.matched += usize::from(byte == self.text[self.matched]);
        self.matched == self.text.len()
    }
}

impl StopMatcher {
    /// A matcher for these strings; empty ones are ignored.
    pub fn new<S: AsRef<str>>(stops: impl IntoIterator<Item = S>) -> StopMatcher {
        let stops = stops.into_iter().filter(|s| !s.as_ref().is_empty()).map(|s| Stop::new(s.as_ref())).collect();
        StopMatcher { stops, held: String::new(), stopped: false }
    }

    /// Takes a piece of text and gives what is certain not to belong to a stop string.
    pub fn push(&mut self, text: &str) -> StopOutput {
        if self.stopped {
            return StopOutput { text: String::new(), stopped: true };
        }
        let before = self.held.len();
        self.held.push_str(text);
        for (at, byte) in text.bytes().enumerate() {
            let mut complete = 0;
            for stop in &mut self.stops {
                if stop.push(byte) {
                    complete = complete.max(stop.text.len());
                }
            }
            if complete > 0 {
                self.stopped = true;
                let mut text = std::mem::take(&mut self.held);
                text.truncate(before + at + 1 - complete);
                return StopOutput { text, stopped: true };
            }
        }
        let partial = self.stops.iter().map(|stop| stop.matched).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - partial);
        StopOutput { text: std::mem::replace(&mut self.held, rest), stopped: false }
    }

    /// The end of the text: what was held back turned out not to be a stop string. Empty after a stop.
    pub fn finish(&mut self) -> String {
        self.stops.iter_mut().for_each(|stop| stop.matched = 0);
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut matcher = StopMatcher::new(stops);
        let mut shown = String::new();
        for piece in pieces {
            let out = matcher.push(piece);
            shown.push_str(&out.text);
            if out.stopped {
                return (shown, true);
            }
        }
        shown.push_str(&matcher.finish());
        (shown, false)
    }

    #[test]
    fn holds_back_and_releases() {
        let mut matcher = StopMatcher::new(["</s>", ""]);
        assert_eq!(matcher.push("Hi <").text, "Hi ");
        assert_eq!(matcher.push("/").text, "");
        assert_eq!(matcher.push("b> </").text, "</b> ");
        assert_eq!(matcher.push("s> more"), StopOutput { text: String::new(), stopped: true });
        assert_eq!(matcher.push("x").text, "");
        assert_eq!(matcher.finish(), "");
        assert_eq!(run(&["ende"], &["das en"]), ("das en".into(), false));
        assert_eq!(run(&["öß"], &["aö", "öß"]), ("aö".into(), true));
        assert_eq!(run(&["aab"], &["aaa", "b"]), ("a".into(), true));
    }

    proptest! {
        #[test]
        fn equals_a_search_in_the_whole_text(stops in prop::collection::vec("[abé]{1,4}", 0..4), pieces in prop::collection::vec("[abcé]{0,4}", 0..8)) {
            let text = pieces.concat();
            let ends = stops.iter().filter_map(|s| text.find(s.as_str()).map(|at| (at + s.len(), std::cmp::Reverse(s.len()))));
            let expected = match ends.min() {
                Some((end, len)) => (text[..end - len.0].to_string(), true),
                None => (text.clone(), false),
            };
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            prop_assert_eq!(run(&stops, &pieces), expected);
        }
    }
}
