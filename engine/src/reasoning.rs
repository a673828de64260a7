//! Tells a model's reasoning (`<think>…</think>` at the start of an answer) from its answer while
//! both stream.

use crate::text::Tokenizer;

/// What a model writes around its reasoning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReasoningTags {
    /// Opens the block.
    pub open: &'static str,
    /// Closes it.
    pub close: &'static str,
    /// The tokens within both; some vocabularies mark them as special, so that they had no text.
    tokens: [&'static str; 2],
}

impl ReasoningTags {
    /// Those of most models.
    pub const THINK: Self = Self { open: "<think>", close: "</think>", tokens: ["<think>", "</think>"] };
    /// Those of Gemma 4, a channel named `thought`.
    pub const CHANNEL: Self =
        Self { open: "<|channel>thought", close: "<channel|>", tokens: ["<|channel>", "<channel|>"] };

    /// Those of a model with this vocabulary.
    pub fn of(tokenizer: &Tokenizer) -> Self {
        let channel = Self::CHANNEL.tokens.iter().all(|token| tokenizer.token_to_id(token).is_some());
        if channel { Self::CHANNEL } else { Self::THINK }
    }

    /// Ids of the tokens that the tags are written with.
    pub fn token_ids(self, tokenizer: &Tokenizer) -> Vec<u32> {
        self.tokens.iter().filter_map(|token| tokenizer.token_to_id(token)).collect()
    }
}

/// A piece of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routed {
    /// Text of the reasoning block.
    pub reasoning: String,
    /// Text of the answer proper.
    pub content: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing but blanks or part of the opening tag has come.
    Start,
    /// Inside the block; `begun` once text other than blanks has come.
    Reasoning { begun: bool },
    /// After the closing tag; blanks are dropped until text comes.
    AfterReasoning,
    /// The answer proper.
    Content,
}

/// Splits a stream of text. Text that may be part of a tag is held back until it is known.
#[derive(Clone, Debug)]
pub struct ReasoningRouter {
    tags: ReasoningTags,
    state: State,
    held: String,
}

impl ReasoningRouter {
    /// A router for the answer to a prompt that ends in `prompt`, where the block may be open already.
    pub fn new(tags: ReasoningTags, prompt: &str) -> Self {
        let opened = prompt.trim_end().ends_with(tags.open);
        let state = if opened { State::Reasoning { begun: false } } else { State::Start };
        Self { tags, state, held: String::new() }
    }

    /// Whether what comes next belongs to the reasoning block, as far as is known.
    pub fn in_reasoning(&self) -> bool {
        matches!(self.state, State::Reasoning { .. })
    }

    /// Adds text; returns what is certain.
    pub fn push(&mut self, text: &str) -> Routed {
        self.held.push_str(text);
        let mut routed = Routed::default();
        while self.step(&mut routed) {}
        routed
    }

    /// The text still held back, at the answer's end.
    pub fn flush(&mut self) -> Routed {
        let held = std::mem::take(&mut self.held);
        match self.state {
            State::Reasoning { .. } => Routed { reasoning: held.trim_end().to_owned(), ..Routed::default() },
            State::AfterReasoning => Routed::default(),
            State::Start | State::Content => Routed { content: held, ..Routed::default() },
        }
    }

    /// Handles what is held in the present state; true when the state changed and there may be
    /// more to do.
    fn step(&mut self, routed: &mut Routed) -> bool {
        match self.state {
            State::Start => {
                let trimmed = self.held.trim_start();
                if let Some(rest) = trimmed.strip_prefix(self.tags.open) {
                    self.held = rest.to_owned();
                    self.state = State::Reasoning { begun: false };
                    return true;
                }
                if self.tags.open.starts_with(trimmed) {
                    return false;
                }
                self.state = State::Content;
                true
            }
            State::Reasoning { begun } => self.step_reasoning(begun, routed),
            State::AfterReasoning => {
                self.held = self.held.trim_start().to_owned();
                if self.held.is_empty() {
                    return false;
                }
                self.state = State::Content;
                true
            }
            State::Content => {
                routed.content.push_str(&std::mem::take(&mut self.held));
                false
            }
        }
    }

    fn step_reasoning(&mut self, begun: bool, routed: &mut Routed) -> bool {
        if !begun {
            self.held = self.held.trim_start().to_owned();
            if self.held.is_empty() {
                return false;
            }
            self.state = State::Reasoning { begun: true };
        }
        if let Some(at) = self.held.find(self.tags.close) {
            routed.reasoning.push_str(self.held[..at].trim_end());
            self.held = self.held[at + self.tags.close.len()..].to_owned();
            self.state = State::AfterReasoning;
            return true;
        }
        // Blanks are held too: those before the closing tag are not part of the reasoning.
        let tag = partial_suffix(&self.held, self.tags.close);
        let certain = self.held[..self.held.len() - tag].trim_end().len();
        let rest = self.held.split_off(certain);
        routed.reasoning.push_str(&std::mem::replace(&mut self.held, rest));
        false
    }
}

/// Bytes of the longest suffix of `text` that begins `tag` without being all of it.
fn partial_suffix(text: &str, tag: &str) -> usize {
    (1..tag.len()).rev().find(|&n| text.ends_with(&tag[..n])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Routes `text` cut into pieces of `size` characters.
    fn route(tags: ReasoningTags, prompt: &str, text: &str, size: usize) -> Routed {
        let mut router = ReasoningRouter::new(tags, prompt);
        let mut all = Routed::default();
        let characters: Vec<char> = text.chars().collect();
        let mut add = |routed: Routed| {
            all.reasoning.push_str(&routed.reasoning);
            all.content.push_str(&routed.content);
        };
        for piece in characters.chunks(size) {
            add(router.push(&piece.iter().collect::<String>()));
        }
        add(router.flush());
        all
    }

    fn check(tags: ReasoningTags, cases: &[(&str, &str, &str, &str)]) {
        for &(prompt, text, reasoning, content) in cases {
            for size in 1..=text.chars().count().max(1) {
                let routed = route(tags, prompt, text, size);
                assert_eq!(
                    (routed.reasoning.as_str(), routed.content.as_str()),
                    (reasoning, content),
                    "{text:?} by {size}"
                );
            }
        }
    }

    #[test]
    fn routes_alike_however_the_text_is_cut() {
        let open = "<|im_start|>assistant\n<think>\n";
        check(
            ReasoningTags::THINK,
            &[
                ("", "<think>\nwhy not </ think> <b>\n</think>\n\nyes <think>", "why not </ think> <b>", "yes <think>"),
                ("", "\n<think></think>ok", "", "ok"),
                (open, "because\n\n</think>\n\nso", "because", "so"),
                ("<think>\n\n</think>\n\n", "so", "", "so"),
                ("", "  plain <think>x</think>", "", "  plain <think>x</think>"),
                ("", "<thin", "", "<thin"),
                ("", "<think>cut off </thi", "cut off </thi", ""),
                (open, "héé</think> ñ ", "héé", "ñ "),
                (open, "", "", ""),
            ],
        );
    }

    #[test]
    fn gemma_reasons_in_a_channel() {
        check(
            ReasoningTags::CHANNEL,
            &[
                ("<|turn>model\n", "<|channel>thought\nwhy\n<channel|>yes", "why", "yes"),
                ("<|turn>model\n<|channel>thought\n<channel|>", "yes", "", "yes"),
                ("<|turn>model\n", "<|channel>thought\n<channel|>yes <think>", "", "yes <think>"),
                ("<|turn>model\n", "<|channel>th", "", "<|channel>th"),
            ],
        );
    }

    #[test]
    fn reasoning_is_not_held_until_its_end() {
        let mut router = ReasoningRouter::new(ReasoningTags::THINK, "<think>");
        assert_eq!(router.push("one two").reasoning, "one two");
        assert!(router.in_reasoning());
        assert_eq!(router.push("</think>").reasoning, "");
        assert_eq!(router.push("\n\nthree").content, "three");
        assert!(!router.in_reasoning());
    }
}
