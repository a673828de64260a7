//! Text to tokens and back: [`Tokenizer`], streaming [`Detokenizer`], [`ChatTemplate`] and
//! [`StopStrings`].

mod detokenizer;
mod stop_strings;
mod template;
mod tokenizer;
mod utf8;

pub use detokenizer::Detokenizer;
pub use stop_strings::{StopOutcome, StopStrings};
pub use template::ChatTemplate;
pub use tokenizer::Tokenizer;
