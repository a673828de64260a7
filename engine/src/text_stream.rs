//! A generation as text: ids become text deltas that never hold half a character or part of a
//! stop string, each with the tokens that made it.

use std::collections::VecDeque;
use std::time::Instant;

use crate::handle::{Event, FinishReason, Generation, ModelHandle, Request, Timings, TokenLogprobs};
use crate::reasoning::ReasoningTags;
use crate::text::{Detokenizer, StopStrings};
use crate::{Error, Result};

/// A generated token that has been sent on as text.
#[derive(Clone, Debug, PartialEq)]
pub struct TextToken {
    /// Its id.
    pub id: u32,
    /// Its log-probabilities, when asked for.
    pub logprobs: Option<TokenLogprobs>,
}

/// What comes out of a [`TextStream`].
#[derive(Clone, Debug)]
pub enum TextEvent {
    /// The float32 logits after the prompt, `[vocab_size]`; only with [`Request::prompt_logits`].
    PromptLogits(Vec<f32>),
    /// More of the answer.
    Delta {
        /// Whole characters; empty when the tokens have no text (special tokens).
        text: String,
        /// The tokens that made it: those whose text begins within what has been sent so far.
        tokens: Vec<TextToken>,
    },
    /// The answer ended; nothing follows.
    Done {
        /// Why.
        reason: FinishReason,
        /// Whether a stop string ended it.
        stop_string: bool,
        /// What it took; as the engine measured it, or, after a stop string, as seen from here.
        timings: Timings,
    },
}

/// How a [`TextStream`] makes text of tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextOptions {
    /// The first of these ends the answer; neither it nor what follows is sent.
    pub stop_strings: Vec<String>,
    /// The answer continues the prompt's text (a completion), so a leading blank is part of it; a
    /// chat's answer begins a text of its own.
    pub continues_prompt: bool,
}

/// A running generation as text. Dropping it cancels the request.
#[derive(Debug)]
pub struct TextStream {
    /// `None` once the answer has ended.
    generation: Option<Generation>,
    detokenizer: Option<Detokenizer>,
    stops: StopStrings,
    /// Bytes that came out of the detokenizer.
    detokenized: usize,
    /// Bytes sent on.
    sent: usize,
    /// Tokens not sent yet, each with the number of bytes detokenized before it.
    held: VecDeque<(usize, TextToken)>,
    ready: VecDeque<TextEvent>,
    clock: Clock,
}

impl TextStream {
    /// Submits `request` and decodes its answer; special tokens have no text, but for those that
    /// enclose a chat's reasoning. A checkpoint without tokenizer gives deltas without text.
    ///
    /// # Errors
    /// Those of [`ModelHandle::submit`], [`Error::Parameter`] for invalid stop strings or for any
    /// when the checkpoint has no tokenizer, [`Error::Tokenizer`] when it can't decode.
    pub fn start(model: &ModelHandle, request: Request, options: TextOptions) -> Result<Self> {
        let detokenizer = match model.tokenizer() {
            Err(_) if !options.stop_strings.is_empty() => {
                let problem = "needs a tokenizer; the checkpoint has none".into();
                return Err(Error::Parameter { name: "stop", problem });
            }
            Err(_) => None,
            Ok(tokenizer) if options.continues_prompt => {
                Some(Detokenizer::after_prompt(tokenizer.clone(), true, &request.prompt)?)
            }
            Ok(tokenizer) => {
                let reasoning = ReasoningTags::of(tokenizer).token_ids(tokenizer);
                Some(Detokenizer::new(tokenizer.clone(), true)?.showing(reasoning))
            }
        };
        let stops = StopStrings::new(options.stop_strings)?;
        let prompt_tokens = request.prompt.len();
        Ok(Self {
            generation: Some(model.submit(request)?),
            detokenizer,
            stops,
            detokenized: 0,
            sent: 0,
            held: VecDeque::new(),
            ready: VecDeque::new(),
            clock: Clock { prompt_tokens, cached_tokens: 0, generated_tokens: 0, start: Instant::now(), first: None },
        })
    }

    /// The next event; `None` after [`TextEvent::Done`] or an error. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<TextEvent>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            let event = self.generation.as_mut()?.next().await;
            if let Err(error) = self.take(event) {
                return Some(Err(error));
            }
        }
    }

    /// [`Self::next`] for callers outside an async runtime.
    pub fn next_blocking(&mut self) -> Option<Result<TextEvent>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            let event = self.generation.as_mut()?.next_blocking();
            if let Err(error) = self.take(event) {
                return Some(Err(error));
            }
        }
    }

    /// Turns an event of the engine into those of this stream, in `ready`.
    fn take(&mut self, event: Option<Result<Event>>) -> Result<()> {
        let taken = match event {
            // The engine ends each generation with `Done` or an error, unless its thread is gone.
            None => Err(Error::Stopped),
            Some(Err(error)) => Err(error),
            Some(Ok(Event::Started { cached_tokens })) => {
                (self.clock.cached_tokens, self.clock.start) = (cached_tokens, Instant::now());
                Ok(())
            }
            Some(Ok(Event::PromptLogits(logits))) => {
                self.ready.push_back(TextEvent::PromptLogits(logits));
                Ok(())
            }
            Some(Ok(Event::Token { id, logprobs })) => self.take_token(TextToken { id, logprobs }),
            Some(Ok(Event::Done { reason, timings })) => self.finish(reason, timings),
        };
        if taken.is_err() {
            self.generation = None;
        }
        taken
    }

    fn take_token(&mut self, token: TextToken) -> Result<()> {
        self.clock.tick();
        let id = token.id;
        self.held.push_back((self.detokenized, token));
        let Some(detokenizer) = &mut self.detokenizer else {
            self.send(String::new(), true);
            return Ok(());
        };
        let Some(text) = detokenizer.push(id)? else { return Ok(()) };
        self.filter(&text);
        Ok(())
    }

    /// Passes text through the stop strings; a hit ends the answer and cancels the generation.
    fn filter(&mut self, text: &str) {
        self.detokenized += text.len();
        let outcome = self.stops.push(text);
        self.send(outcome.emit, false);
        if outcome.stopped {
            self.end(FinishReason::Stop, true, self.clock.timings());
        }
    }

    fn finish(&mut self, reason: FinishReason, timings: Timings) -> Result<()> {
        let rest = match &mut self.detokenizer {
            Some(detokenizer) => detokenizer.flush()?.unwrap_or_default(),
            None => String::new(),
        };
        self.filter(&rest);
        // A stop string may have been completed by the rest.
        if self.generation.is_some() {
            let rest = self.stops.flush();
            self.send(rest, true);
            self.end(reason, false, timings);
        }
        Ok(())
    }

    fn end(&mut self, reason: FinishReason, stop_string: bool, timings: Timings) {
        self.ready.push_back(TextEvent::Done { reason, stop_string, timings });
        self.held.clear();
        self.generation = None;
    }

    /// Queues `text` with the tokens that begin within what is then sent, or with all.
    fn send(&mut self, text: String, all_tokens: bool) {
        self.sent += text.len();
        let mut tokens = Vec::new();
        while self.held.front().is_some_and(|(start, _)| all_tokens || *start < self.sent) {
            tokens.extend(self.held.pop_front().map(|(_, token)| token));
        }
        if !text.is_empty() || !tokens.is_empty() {
            self.ready.push_back(TextEvent::Delta { text, tokens });
        }
    }
}

/// Counts and times tokens for answers that end here rather than in the engine.
#[derive(Debug)]
struct Clock {
    prompt_tokens: usize,
    cached_tokens: usize,
    generated_tokens: usize,
    start: Instant,
    first: Option<Instant>,
}

impl Clock {
    fn tick(&mut self) {
        self.generated_tokens += 1;
        self.first.get_or_insert_with(Instant::now);
    }

    fn timings(&self) -> Timings {
        let first = self.first.unwrap_or_else(Instant::now);
        Timings {
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached_tokens,
            prompt_ms: (first - self.start).as_secs_f64() * 1e3,
            generated_tokens: self.generated_tokens,
            decode_ms: first.elapsed().as_secs_f64() * 1e3,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use tokio::sync::mpsc;

    use super::*;
    use crate::handle::{EngineThread, Job, ModelInfo, SamplingParams, Shared};
    use crate::text::Tokenizer;

    /// A byte-level BPE vocabulary, so that characters can be cut between tokens.
    fn tokenizer() -> Arc<Tokenizer> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/llm_dense/qwen3_a");
        Arc::new(Tokenizer::from_folder(&folder).unwrap().unwrap())
    }

    fn model(tokenizer: Option<Arc<Tokenizer>>) -> (ModelHandle, mpsc::UnboundedReceiver<Job>) {
        let (jobs, queue) = mpsc::unbounded_channel();
        let info = ModelInfo {
            architecture: "qwen3".into(),
            parameters: 0,
            format: "F32".into(),
            weight_bytes: 0,
            vocab_size: 640,
            context_length: 2048,
            max_context_length: 2048,
            device: "none".into(),
            load_ms: 0.0,
            captured: false,
        };
        let shared = Shared {
            info,
            tokenizer,
            chat_template: None,
            eos_token_ids: Vec::new(),
            generation_defaults: SamplingParams::default(),
            waiting: Arc::default(),
            failure: Arc::default(),
            engine: EngineThread::new(jobs, std::thread::spawn(|| {})),
        };
        (ModelHandle { shared: Arc::new(shared) }, queue)
    }

    fn request() -> Request {
        Request {
            prompt: vec![1],
            max_tokens: None,
            sampling: SamplingParams::greedy(),
            stop_tokens: Vec::new(),
            ignore_eos: false,
            logprobs: None,
            prompt_logits: false,
            reuse_prefix: false,
        }
    }

    /// Streams an answer of `ids`; what came: deltas as text and ids, and whether a stop string
    /// ended it. The engine's side must be cancelled then.
    fn stream(ids: &[u32], stops: &[&str]) -> (Vec<(String, Vec<u32>)>, bool) {
        let (model, mut queue) = model(Some(tokenizer()));
        let stop_strings = stops.iter().map(|&stop| stop.to_owned()).collect();
        let options = TextOptions { stop_strings, continues_prompt: false };
        let mut stream = TextStream::start(&model, request(), options).unwrap();
        let events = queue.try_recv().unwrap().events;
        for &id in ids {
            events.try_send(Ok(Event::Token { id, logprobs: None })).unwrap();
        }
        let timings = Timings { generated_tokens: ids.len(), ..Timings::default() };
        events.try_send(Ok(Event::Done { reason: FinishReason::Length, timings })).unwrap();
        let mut deltas = Vec::new();
        loop {
            match stream.next_blocking().unwrap().unwrap() {
                TextEvent::PromptLogits(_) => panic!("no logits were asked for"),
                TextEvent::Delta { text, tokens } => deltas.push((text, tokens.iter().map(|t| t.id).collect())),
                TextEvent::Done { reason, stop_string, .. } => {
                    assert_eq!(reason, if stop_string { FinishReason::Stop } else { FinishReason::Length });
                    assert!(events.is_closed() || !stop_string, "the generation goes on after a stop string");
                    assert!(stream.next_blocking().is_none());
                    return (deltas, stop_string);
                }
            }
        }
    }

    #[test]
    fn deltas_hold_whole_characters_with_their_tokens() {
        let text = "naïve 漢字 🦀 end";
        let ids = tokenizer().encode(text, false).unwrap();
        let (deltas, _) = stream(&ids, &[]);
        assert!(deltas.len() < ids.len(), "no character was cut between tokens: the test needs another text");
        assert_eq!(deltas.iter().map(|(text, _)| text.as_str()).collect::<String>(), text);
        assert_eq!(deltas.iter().flat_map(|(_, ids)| ids.clone()).collect::<Vec<_>>(), ids);
        assert!(deltas.iter().all(|(text, _)| !text.contains('\u{fffd}')));
    }

    #[test]
    fn a_stop_string_cuts_text_and_tokens_and_cancels() {
        let ids = tokenizer().encode("one two three four", false).unwrap();
        let (deltas, stopped) = stream(&ids, &["thr", "never"]);
        assert!(stopped);
        assert_eq!(deltas.iter().map(|(text, _)| text.as_str()).collect::<String>(), "one two ");
        let sent: Vec<u32> = deltas.into_iter().flat_map(|(_, ids)| ids).collect();
        assert!(ids.starts_with(&sent) && sent.len() < ids.len());
    }

    #[test]
    fn text_held_back_for_a_stop_string_comes_at_the_end() {
        let ids = tokenizer().encode("one two", false).unwrap();
        let (deltas, stopped) = stream(&ids, &["two three"]);
        assert!(!stopped);
        assert_eq!(deltas.iter().map(|(text, _)| text.as_str()).collect::<String>(), "one two");
        assert_eq!(deltas.into_iter().flat_map(|(_, ids)| ids).collect::<Vec<_>>(), ids);
    }

    #[test]
    fn without_a_tokenizer_tokens_come_without_text() {
        let (model, mut queue) = model(None);
        let stops = TextOptions { stop_strings: vec!["x".into()], ..TextOptions::default() };
        assert!(matches!(TextStream::start(&model, request(), stops), Err(Error::Parameter { name: "stop", .. })));
        let mut stream = TextStream::start(&model, request(), TextOptions::default()).unwrap();
        queue.try_recv().unwrap().events.try_send(Ok(Event::Token { id: 7, logprobs: None })).unwrap();
        let Some(Ok(TextEvent::Delta { text, tokens })) = stream.next_blocking() else { panic!("no delta") };
        assert_eq!((text.as_str(), tokens[0].id), ("", 7));
    }

    #[test]
    fn an_engine_that_goes_away_is_an_error() {
        let (model, mut queue) = model(Some(tokenizer()));
        let mut stream = TextStream::start(&model, request(), TextOptions::default()).unwrap();
        drop(queue.try_recv().unwrap());
        assert!(matches!(stream.next_blocking(), Some(Err(Error::Stopped))));
        assert!(stream.next_blocking().is_none());
    }
}
