//! `atelico chat`.

use std::io::{BufRead, IsTerminal, Write};

use atelico_engine::Error;
use atelico_engine::handle::{FinishReason, ModelHandle, Request};
use atelico_engine::reasoning::{ReasoningRouter, ReasoningTags, Routed};
use atelico_engine::text_stream::TextOptions;
use clap::Args;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use serde_json::{Map, Value, json};

use crate::args::{ModelArgs, SamplingArgs, TemplateArgs};
use crate::error::CliError;
use crate::model::Located;
use crate::{answer, model, output};

const EXAMPLES: &str = "\
Examples:
  atelico chat
  atelico chat Qwen/Qwen3-0.6B --system \"Answer in one sentence.\"
  atelico chat ./model-Q4_K_M.gguf --temperature 0.7 --top-p 0.9
  atelico chat Qwen/Qwen3-0.6B --chat-template-kwargs '{\"enable_thinking\": false}'
  echo \"Who are you?\" | atelico chat

Ctrl-C stops an answer; at the prompt it leaves. In a pipe every line is one message, and only
the answers are printed, without the model's reasoning.";

const HELP: &str = "\
/clear  forget the conversation
/help   this list
/exit   leave (also Ctrl-D)
";

const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

/// Arguments of `atelico chat`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    model: ModelArgs,

    /// The system message
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,

    /// Most tokens of one answer [default: to the end of the context]
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,

    #[command(flatten)]
    template: TemplateArgs,

    #[command(flatten)]
    sampling: SamplingArgs,
}

pub(crate) fn run(args: &ChatArgs) -> Result<(), CliError> {
    args.sampling.check()?;
    let located = model::locate(args.model.model.as_deref())?;
    let model = model::load(&located, &args.model.placement)?;
    // Without these no message can be sent at all.
    model.tokenizer()?;
    model.chat_template()?;
    let mut session = Session { args, model: &model, messages: Vec::new(), style: Style::of_stdout() };
    session.clear();
    if std::io::stdin().is_terminal() { session.interact(&located) } else { session.read_lines() }
}

/// A rendered conversation.
pub(crate) struct Rendered {
    /// Its ids.
    pub(crate) ids: Vec<u32>,
    /// Tells the reasoning of an answer to it.
    router: ReasoningRouter,
}

/// Puts `messages` (an array) into the model's chat template, ready for the assistant's answer.
pub(crate) fn render(model: &ModelHandle, messages: &Value, kwargs: &Map<String, Value>) -> Result<Rendered, Error> {
    let tokenizer = model.tokenizer()?;
    let template = model.chat_template()?;
    let (bos, eos) = (tokenizer.bos_token(), tokenizer.eos_token());
    let text = template.render(messages, None, kwargs, true, bos, eos)?;
    // The template has put the special tokens in.
    let ids = tokenizer.encode(&text, false)?;
    let router = ReasoningRouter::new(ReasoningTags::of(tokenizer), &text);
    Ok(Rendered { ids, router })
}

/// What to do after an input line.
enum Next {
    Continue,
    Leave,
}

/// A conversation.
struct Session<'a> {
    args: &'a ChatArgs,
    model: &'a ModelHandle,
    messages: Vec<Value>,
    style: Style,
}

impl Session<'_> {
    fn clear(&mut self) {
        self.messages = self.args.system.iter().map(|text| json!({"role": "system", "content": text})).collect();
    }

    fn interact(&mut self, located: &Located) -> Result<(), CliError> {
        let info = self.model.info();
        output::print(&format!(
            "{} on {}, {} tokens of context; /help lists the commands\n",
            located.name, info.device, info.context_length
        ))?;
        let mut editor = DefaultEditor::new()?;
        loop {
            let line = match editor.readline("> ") {
                Ok(line) => line,
                Err(ReadlineError::Interrupted | ReadlineError::Eof) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            if !line.trim().is_empty() {
                editor.add_history_entry(line.as_str())?;
            }
            match self.take(&line) {
                Ok(Next::Continue) => {}
                Ok(Next::Leave) => return Ok(()),
                // The conversation can go on after what a shorter or other message avoids.
                Err(CliError::Engine(error @ (Error::ContextExceeded { .. } | Error::Template(_)))) => {
                    output::print(&format!("error: {error}; /clear forgets the conversation\n"))?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn read_lines(&mut self) -> Result<(), CliError> {
        for line in std::io::stdin().lock().lines() {
            match self.take(&line.map_err(CliError::Input)?)? {
                Next::Continue => {}
                Next::Leave => break,
            }
        }
        Ok(())
    }

    fn take(&mut self, line: &str) -> Result<Next, CliError> {
        match line.trim() {
            "" => {}
            "/exit" => return Ok(Next::Leave),
            "/clear" => self.clear(),
            "/help" => output::print(HELP)?,
            command if command.starts_with('/') && !command.contains(char::is_whitespace) => {
                output::print(&format!("unknown command {command}\n{HELP}"))?;
            }
            message => self.send(message)?,
        }
        Ok(Next::Continue)
    }

    /// Sends a message and prints the answer; a message that fails leaves the conversation as it was.
    fn send(&mut self, message: &str) -> Result<(), CliError> {
        let before = self.messages.len();
        self.messages.push(json!({"role": "user", "content": message}));
        let sent = self.answer();
        match &sent {
            Ok(content) => self.messages.push(json!({"role": "assistant", "content": content})),
            Err(_) => self.messages.truncate(before),
        }
        sent.map(drop)
    }

    fn answer(&mut self) -> Result<String, CliError> {
        let rendered = render(self.model, &Value::Array(self.messages.clone()), &self.args.template.kwargs())?;
        let request = Request {
            prompt: rendered.ids,
            max_tokens: self.args.max_tokens,
            sampling: self.args.sampling.over(self.model.generation_defaults()),
            stop_tokens: Vec::new(),
            ignore_eos: false,
            logprobs: None,
            prompt_logits: false,
            reuse_prefix: true,
        };
        let mut router = rendered.router;
        let mut printer = Printer { style: self.style, in_reasoning: false };
        let mut content = String::new();
        let options = TextOptions { stop_strings: self.args.sampling.stop.clone(), continues_prompt: false };
        let answer = answer::run(self.model, request, options, |text| {
            let routed = router.push(text);
            content.push_str(&routed.content);
            printer.print(&routed)
        })?;
        let rest = router.flush();
        content.push_str(&rest.content);
        printer.print(&rest)?;
        output::print("\n")?;
        let interactive = std::io::stdin().is_terminal();
        match answer.end {
            Some((FinishReason::Stop, _)) => {}
            Some((FinishReason::Length, _)) => note("the answer was cut: no tokens are left for it"),
            None if interactive => note("stopped"),
            // In a pipe nobody is there to go on with the conversation.
            None => return Err(CliError::Interrupted),
        }
        Ok(content)
    }
}

/// Tells the user something that is not part of the answer.
fn note(text: &str) {
    // Only a courtesy: the answer itself has been printed.
    let _ = writeln!(std::io::stderr(), "[{text}]");
}

/// How reasoning is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    /// Not at all: standard output is no terminal.
    Hidden,
    /// Like the answer: the user asked for no colours.
    Plain,
    Dimmed,
}

impl Style {
    fn of_stdout() -> Self {
        if !std::io::stdout().is_terminal() {
            Self::Hidden
        } else if std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
            Self::Plain
        } else {
            Self::Dimmed
        }
    }
}

/// Prints an answer as it comes.
struct Printer {
    style: Style,
    in_reasoning: bool,
}

impl Printer {
    fn print(&mut self, routed: &Routed) -> Result<(), CliError> {
        let mut text = String::new();
        if self.style != Style::Hidden && !routed.reasoning.is_empty() {
            self.in_reasoning = true;
            // Each piece ends plain, so that stopping leaves the terminal as it was.
            let (before, after) = if self.style == Style::Dimmed { (DIM, PLAIN) } else { ("", "") };
            text.extend([before, &routed.reasoning, after]);
        }
        if !routed.content.is_empty() {
            if std::mem::take(&mut self.in_reasoning) {
                text.push_str("\n\n");
            }
            text.push_str(&routed.content);
        }
        output::print(&text)
    }
}
