//! Runs one request to its end or to Ctrl-C.

use atelico_engine::handle::{FinishReason, ModelHandle, Request, Timings, TokenLogprobs};
use atelico_engine::text_stream::{TextEvent, TextOptions, TextStream};

use crate::error::CliError;
use crate::interrupt::Watch;

/// An answer as far as it came.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// The generated ids that have made it into the text.
    pub(crate) ids: Vec<u32>,
    /// The answer's text.
    pub(crate) text: String,
    /// Per id, when the request asked for them.
    pub(crate) logprobs: Vec<TokenLogprobs>,
    /// The logits after the prompt, when the request asked for them.
    pub(crate) prompt_logits: Option<Vec<f32>>,
    /// How it ended; `None` when Ctrl-C did.
    pub(crate) end: Option<(FinishReason, Timings)>,
}

/// Runs `request`, handing each piece of text to `on_text` as it comes.
pub(crate) fn run(
    model: &ModelHandle,
    request: Request,
    options: TextOptions,
    mut on_text: impl FnMut(&str) -> Result<(), CliError>,
) -> Result<Answer, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|error| CliError::System { what: "event loop", problem: error.to_string() })?;
    let watch = Watch::start();
    let mut stream = TextStream::start(model, request, options)?;
    let mut answer = Answer::default();
    runtime.block_on(async {
        loop {
            // Leaving drops the stream, which cancels the generation.
            let event = tokio::select! {
                biased;
                () = watch.pressed() => return Ok(answer),
                event = stream.next() => event,
            };
            match event.transpose()? {
                Some(TextEvent::PromptLogits(logits)) => answer.prompt_logits = Some(logits),
                Some(TextEvent::Delta { text, tokens }) => {
                    for token in tokens {
                        answer.ids.push(token.id);
                        answer.logprobs.extend(token.logprobs);
                    }
                    answer.text.push_str(&text);
                    on_text(&text)?;
                }
                Some(TextEvent::Done { reason, timings, .. }) => {
                    answer.end = Some((reason, timings));
                    return Ok(answer);
                }
                None => return Err(atelico_engine::Error::Stopped.into()),
            }
        }
    })
}
