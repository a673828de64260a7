//! Sentencepiece BPE as ranked merges.
//!
//! Sentencepiece joins, of all neighbouring pieces, the two whose union has the best score. Listing
//! every way to cut every token into two others, best score first, gives a BPE merge list that
//! does the same; ties are ordered as Hugging Face's converter orders them
//! (`convert_slow_tokenizer.generate_merges`), so that the ids are equal too.

use std::cmp::Ordering;

use super::vocabulary::Vocabulary;
use crate::{Error, Result};

/// Longest token in characters; sentencepiece's own limit is 16 unless raised, Gemma's 31. The
/// work grows with the square.
const MAX_TOKEN_CHARS: usize = 512;

struct Merge<'a> {
    score: f32,
    /// Lengths in characters: at equal scores the longer left part comes first, then the longer
    /// right part.
    lengths: (usize, usize),
    pair: (&'a str, &'a str),
}

/// The merges of `vocabulary` in order of rank; `scores` are by id and finite.
pub(super) fn merges(vocabulary: &Vocabulary<'_>, scores: &[f32]) -> Result<Vec<(String, String)>> {
    let mut merges = Vec::new();
    for ((id, token), &score) in vocabulary.iter().filter_map(|entry| Some((entry, scores.get(entry.0 as usize)?))) {
        let length = token.chars().count();
        if length > MAX_TOKEN_CHARS {
            let problem = format!("token {id} holds {length} characters; at most {MAX_TOKEN_CHARS}");
            return Err(Error::Tokenizer(format!("tokenizer.ggml.tokens: {problem}")));
        }
        let mut cuts: Vec<(u32, u32, Merge<'_>)> = token
            .char_indices()
            .enumerate()
            .skip(1)
            .filter_map(|(left, (byte, _))| {
                let pair = token.split_at(byte);
                let merge = Merge { score, lengths: (left, length - left), pair };
                Some((vocabulary.id(pair.0)?, vocabulary.id(pair.1)?, merge))
            })
            .collect();
        cuts.sort_by_key(|(left, right, _)| (*left, *right));
        merges.extend(cuts.into_iter().map(|(_, _, merge)| merge));
    }
    // Stable: equal merges stay in the order of the vocabulary.
    let by_score = |a: &Merge<'_>, b: &Merge<'_>| b.score.partial_cmp(&a.score).unwrap_or(Ordering::Equal);
    merges.sort_by(|a, b| by_score(a, b).then_with(|| b.lengths.cmp(&a.lengths)));
    Ok(merges.into_iter().map(|Merge { pair: (left, right), .. }| (left.to_owned(), right.to_owned())).collect())
}
