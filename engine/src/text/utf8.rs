//! Bytes to text in pieces: a character whose bytes are not all there yet is held back.

/// Decodes a byte stream as [`String::from_utf8_lossy`] decodes it in one go.
///
/// Invalid bytes become U+FFFD; an incomplete character at the end waits for the bytes to come.
#[derive(Clone, Debug, Default)]
pub(super) struct Utf8Stream {
    /// The bytes of an incomplete character; at most 3 between calls.
    held: Vec<u8>,
}

impl Utf8Stream {
    /// Adds `bytes` and appends to `out` the text that is now certain.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut String) {
        if self.held.is_empty()
            && let Ok(text) = std::str::from_utf8(bytes)
        {
            out.push_str(text);
            return;
        }
        self.held.extend_from_slice(bytes);
        let bytes = std::mem::take(&mut self.held);
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            out.push_str(chunk.valid());
            let invalid = chunk.invalid();
            if invalid.is_empty() {
                continue;
            }
            // `error_len` is `None` for the beginning of a character that more bytes may complete.
            let incomplete = std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
            if incomplete && chunks.peek().is_none() {
                self.held.extend_from_slice(invalid);
            } else {
                out.push(char::REPLACEMENT_CHARACTER);
            }
        }
    }

    /// Ends the stream: a character that stayed incomplete becomes U+FFFD.
    pub(super) fn flush(&mut self, out: &mut String) {
        if !self.held.is_empty() {
            self.held.clear();
            out.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Utf8Stream;

    #[test]
    fn equals_the_lossy_decoding_of_the_whole_for_every_split() {
        let samples: [&[u8]; 6] = [
            "a é 日本 🙂".as_bytes(),
            b"\xF0\x9F\x99",
            b"\xF0\x9F\x99x\xE6\x97",
            b"\xFF\xFE\xC0\x80a",
            b"\xED\xA0\x80\xF4\x90\x80\x80",
            b"\xE2\x82\xE2\x82\xAC",
        ];
        for sample in samples {
            let whole = String::from_utf8_lossy(sample);
            for first in 0..=sample.len() {
                for second in first..=sample.len() {
                    let (mut stream, mut out) = (Utf8Stream::default(), String::new());
                    for part in [&sample[..first], &sample[first..second], &sample[second..]] {
                        stream.push(part, &mut out);
                        assert!(whole.starts_with(&out), "{sample:?} gave {out:?} early");
                    }
                    stream.flush(&mut out);
                    assert_eq!(out, whole, "{sample:?} split at {first} and {second}");
                }
            }
        }
    }
}
