//! Text: tokenizer, streamed decoding, chat template, sampling, stop strings.
//!
//! The tokenizer is our own and not the `tokenizers` crate, because the ids have to be those that llama.cpp gives for the
//! same GGUF. llama.cpp's special-token cut (longest token first, also inside other text), its SPM merging order, its
//! splitters and what it does with strings outside the vocabulary differ in detail from Hugging Face's, and a GGUF holds
//! no tokenizer.json that would state the latter. All passes take n log n steps in the length of the text.

mod bpe;
mod error;
mod sampler;
mod special;
mod split;
mod spm;
mod stop;
mod stream;
mod template;
mod tokenizer;
mod unicode;

pub use error::TextError;
pub use sampler::{Sampler, SamplerParams};
pub use stop::{StopMatcher, StopOutput};
pub use stream::StreamDecoder;
pub use template::{ChatTemplate, Message};
pub use tokenizer::Tokenizer;
