//! A stream filter that ends a text at the first stop string.

use crate::{Error, Result};

/// Most stop strings a request may name.
const MAX_STOPS: usize = 64;
/// Most bytes of one stop string.
const MAX_STOP_BYTES: usize = 4096;

/// What [`StopStrings::push`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopOutcome {
    /// Text that may be sent on; never part of a stop string.
    pub emit: String,
    /// A stop string was found; what follows it is dropped.
    pub stopped: bool,
}

/// Holds back text that may be the beginning of a stop string, and ends at the first that is
/// complete. Takes constant time per byte and stop string, however the text is cut into pieces.
#[derive(Clone, Debug)]
pub struct StopStrings {
    matchers: Vec<Matcher>,
    held: String,
    stopped: bool,
}

impl StopStrings {
    /// A filter for `stops`; with none, text passes unchanged.
    ///
    /// # Errors
    /// [`Error::Parameter`] for an empty stop string, one above 4,096 bytes, or more than 64.
    pub fn new(stops: Vec<String>) -> Result<Self> {
        let refuse = |problem: String| Err(Error::Parameter { name: "stop", problem });
        if stops.len() > MAX_STOPS {
            return refuse(format!("holds {} strings; at most {MAX_STOPS}", stops.len()));
        }
        if stops.iter().any(String::is_empty) {
            return refuse("holds an empty string".into());
        }
        if let Some(stop) = stops.iter().find(|stop| stop.len() > MAX_STOP_BYTES) {
            return refuse(format!("holds a string of {} bytes; at most {MAX_STOP_BYTES}", stop.len()));
        }
        let matchers = stops.into_iter().map(Matcher::new).collect();
        Ok(Self { matchers, held: String::new(), stopped: false })
    }

    /// Adds text; after a stop everything is dropped.
    ///
    /// Of several stop strings the one that is complete first counts, and of those that end at
    /// the same byte the longest.
    pub fn push(&mut self, text: &str) -> StopOutcome {
        if self.stopped {
            return StopOutcome { emit: String::new(), stopped: true };
        }
        let old = self.held.len();
        self.held.push_str(text);
        for (index, &byte) in text.as_bytes().iter().enumerate() {
            let found = self.matchers.iter_mut().filter_map(|matcher| matcher.step(byte)).max();
            if let Some(length) = found {
                self.stopped = true;
                self.held.truncate(old + index + 1 - length);
                return StopOutcome { emit: std::mem::take(&mut self.held), stopped: true };
            }
        }
        // A matched beginning starts with the first byte of a character, so this cuts between two.
        let keep = self.matchers.iter().map(|matcher| matcher.matched).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        StopOutcome { emit: std::mem::replace(&mut self.held, rest), stopped: false }
    }

    /// Ends the text: what was held back, no stop string having come of it.
    pub fn flush(&mut self) -> String {
        for matcher in &mut self.matchers {
            matcher.matched = 0;
        }
        std::mem::take(&mut self.held)
    }
}

/// Knuth-Morris-Pratt search for one string over a stream of bytes.
#[derive(Clone, Debug)]
struct Matcher {
    pattern: Vec<u8>,
    /// For every prefix, the length of its longest proper prefix that is also its suffix.
    borders: Vec<usize>,
    /// Bytes of the pattern that the text seen so far ends with.
    matched: usize,
}

impl Matcher {
    fn new(pattern: String) -> Self {
        let pattern = pattern.into_bytes();
        let mut borders = vec![0; pattern.len()];
        let mut border = 0;
        for index in 1..pattern.len() {
            while border > 0 && pattern[index] != pattern[border] {
                border = borders[border - 1];
            }
            border += usize::from(pattern[index] == pattern[border]);
            borders[index] = border;
        }
        Self { pattern, borders, matched: 0 }
    }

    /// Adds a byte; the pattern's length when it is complete.
    fn step(&mut self, byte: u8) -> Option<usize> {
        while self.matched > 0 && self.pattern[self.matched] != byte {
            self.matched = self.borders[self.matched - 1];
        }
        self.matched += usize::from(self.pattern[self.matched] == byte);
        if self.matched < self.pattern.len() {
            return None;
        }
        self.matched = self.borders[self.matched - 1];
        Some(self.pattern.len())
    }
}
