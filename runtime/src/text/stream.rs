//! Text out of ids that come one by one.

use super::error::TextError;
use super::tokenizer::Tokenizer;

/// Turns ids into text without ever splitting a UTF-8 character: bytes of a character that isn't complete are held back.
/// Bytes that can't become a character any more are replaced by U+FFFD, as `String::from_utf8_lossy` does for the whole.
#[derive(Debug)]
pub struct StreamDecoder<'t> {
    tokenizer: &'t Tokenizer,
    special: bool,
    /// An unfinished character: at most three bytes between calls.
    held: Vec<u8>,
}

impl<'t> StreamDecoder<'t> {
    pub(super) fn new(tokenizer: &'t Tokenizer, special: bool) -> StreamDecoder<'t> {
        StreamDecoder { tokenizer, special, held: Vec::new() }
    }

    /// The text that this id completes; often empty within a character of several tokens.
    ///
    /// # Errors
    /// [`TextError::UnknownId`] for an id outside the vocabulary.
    pub fn push(&mut self, id: u32) -> Result<String, TextError> {
        self.tokenizer.piece(id, self.special, &mut self.held)?;
        let (text, used) = complete(&self.held);
        self.held.drain(..used);
        Ok(text)
    }

    /// What is still held back, as U+FFFD. The decoder may be used again afterwards.
    pub fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.held).into_owned();
        self.held.clear();
        text
    }
}

/// The text at the front of some bytes, up to a character that more bytes could complete, and its length in bytes.
fn complete(bytes: &[u8]) -> (String, usize) {
    let mut text = String::new();
    let mut at = 0;
    loop {
        match std::str::from_utf8(&bytes[at..]) {
            Ok(rest) => {
                text.push_str(rest);
                return (text, bytes.len());
            }
            Err(error) => {
                let valid = at + error.valid_up_to();
                text.push_str(&String::from_utf8_lossy(&bytes[at..valid]));
                match error.error_len() {
                    None => return (text, valid),
                    Some(len) => {
                        text.push(char::REPLACEMENT_CHARACTER);
                        at = valid + len;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stream(chunks: &[Vec<u8>]) -> String {
        let (mut text, mut held) = (String::new(), Vec::new());
        for chunk in chunks {
            held.extend_from_slice(chunk);
            let (part, used) = complete(&held);
            held.drain(..used);
            assert!(held.len() < 4);
            text.push_str(&part);
        }
        text + &String::from_utf8_lossy(&held)
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_chunks_are_lossy_utf8(chunks in prop::collection::vec(
            prop::collection::vec(prop_oneof![any::<u8>(), Just(0xf0), Just(0x9f), Just(0x98), Just(0x80), Just(0xe2)], 0..5), 0..12)) {
            prop_assert_eq!(stream(&chunks), String::from_utf8_lossy(&chunks.concat()).into_owned());
        }

        #[test]
        fn characters_survive_byte_by_byte(text in "\\PC{0,20}") {
            let chunks: Vec<Vec<u8>> = text.bytes().map(|b| vec![b]).collect();
            prop_assert_eq!(stream(&chunks), text);
        }
    }
}
