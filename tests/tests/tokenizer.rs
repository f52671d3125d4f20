//! Token ids, detokenised bytes and chat prompts from GGUF files, against llama.cpp's; and hostile texts and templates.

use flate2::read::GzDecoder;
use hipc_ir::text::TokenizerData;
use hipc_models::{GgufFile, tokenizer};
use hipc_tests::shared::{demo_model, shared};
use hipfire_run::text::{ChatTemplate, Message, TextError, Tokenizer};
use proptest::prelude::*;
use serde_json::Value;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

/// `tokenizer.ggml.*` of a vocabulary-only file as llama.cpp publishes them, or of a whole model.
fn data(path: &Path) -> TokenizerData {
    let unpacked = tempfile::NamedTempFile::new().unwrap();
    let gguf = if path.extension().is_some_and(|e| e == "gz") {
        std::io::copy(&mut GzDecoder::new(File::open(path).unwrap()), &mut unpacked.as_file()).unwrap();
        GgufFile::open(unpacked.path())
    } else {
        GgufFile::open(path)
    };
    tokenizer::read(&gguf.unwrap()).unwrap().unwrap()
}

fn json(path: &Path) -> Value {
    serde_json::from_reader(std::io::BufReader::new(File::open(path).unwrap())).unwrap()
}

fn bytes(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().unwrap();
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

fn ids(list: &Value) -> Vec<u32> {
    list.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Every string in every mode, and every list of ids back to bytes. Strings that aren't UTF-8 are advisory: a prompt is
/// always text, so they can't be asked for; they are counted and their replacement by U+FFFD is tried for panics.
fn against_golden(name: &str, vocabulary: &str) {
    let Some(folder) = shared("golden/tokenizer") else { return };
    let Some(vocabulary) = shared(vocabulary) else { return };
    let golden = json(&folder.join(format!("{name}.json")));
    let strings = json(&folder.join("strings.json"));
    let tokenizer = Tokenizer::new(&data(&vocabulary)).unwrap();
    assert_eq!(tokenizer.vocab_size() as u64, golden["info"]["n_tokens"].as_u64().unwrap());

    let strings = strings.as_array().unwrap();
    let (mut compared, mut advisory, mut advisory_equal) = (0, 0, 0);
    for (mode, add_special, parse_special) in [
        ("bos_special", true, true),
        ("nobos_special", false, true),
        ("bos_nospecial", true, false),
        ("nobos_nospecial", false, false),
    ] {
        let wanted = golden[mode].as_array().unwrap();
        assert_eq!(wanted.len(), strings.len());
        for (string, wanted) in strings.iter().zip(wanted) {
            let bytes = bytes(&string["hex"]);
            let got = tokenizer.encode(&String::from_utf8_lossy(&bytes), add_special, parse_special);
            if string["utf8"] == true {
                assert_eq!(got, ids(wanted), "{name} {mode} string {}: {}", string["i"], string["text"]);
                compared += 1;
            } else {
                advisory += 1;
                advisory_equal += usize::from(wanted.is_array() && ids(wanted) == got);
            }
        }
    }
    let decode = golden["decode"].as_array().unwrap();
    for case in decode {
        let got = tokenizer.decode(&ids(&case["ids"]), true).unwrap();
        assert_eq!(got, bytes(&case["hex"]), "{name} decodes {}", case["ids"]);
    }
    println!("{name}: {compared} strings and {} decodings equal; {advisory_equal} of {advisory} advisory ones", decode.len());
    assert!(compared >= 4 * 250 && decode.len() >= 100);
}

#[test]
fn rustdoc_26m_chat() {
    against_golden("rustdoc-26m-chat", "models/rustdoc-26m-chat-Q4_K_M.gguf");
}

#[test]
fn rustdoc_7m() {
    against_golden("rustdoc-7m", "models/rustdoc-7m-Q4_K_M.gguf");
}

#[test]
fn llama_bpe() {
    against_golden("llama-bpe", "golden/tokenizer/vocab-llama-bpe.gguf.gz");
}

#[test]
fn qwen2() {
    against_golden("qwen2", "golden/tokenizer/vocab-qwen2.gguf.gz");
}

#[test]
fn gpt_2() {
    against_golden("gpt-2", "golden/tokenizer/vocab-gpt-2.gguf.gz");
}

#[test]
fn llama_spm() {
    against_golden("llama-spm", "golden/tokenizer/vocab-llama-spm.gguf.gz");
}

/// SPM whose special tokens swallow the white space behind them.
#[test]
fn phi_3() {
    against_golden("phi-3", "golden/tokenizer/vocab-phi-3.gguf.gz");
}

/// The prompt of the demo through its own template, and what the models generated, streamed.
#[test]
fn fixtures_stream_and_render() {
    let Some(folder) = shared("golden/fixtures") else { return };
    for (name, file) in
        [("rustdoc-26m-chat", "models/rustdoc-26m-chat-Q4_K_M.gguf"), ("rustdoc-7m", "models/rustdoc-7m-Q4_K_M.gguf")]
    {
        let Some(file) = shared(file) else { return };
        let data = data(&file);
        let tokenizer = Tokenizer::new(&data).unwrap();
        let golden = json(&folder.join(format!("{name}.json")));
        for prompt in golden["prompts"].as_array().unwrap() {
            if let Some(text) = prompt["text"].as_str() {
                assert_eq!(tokenizer.encode_chat(text).len() as u64, prompt["n_ids"].as_u64().unwrap(), "{name} {text}");
            }
        }
        for case in golden["files"].as_array().unwrap().iter().flat_map(|file| file["prompts"].as_array().unwrap()) {
            let mut stream = tokenizer.stream(true);
            let mut text: String = ids(&case["gen_ids_b"]).iter().map(|&id| stream.push(id).unwrap()).collect();
            text += &stream.finish();
            // The golden text is that of a whole text, whose first space SPM drops.
            let first = if text.starts_with(' ') && data.add_space_prefix { 1 } else { 0 };
            assert_eq!(&text[first..], case["gen_text_b"].as_str().unwrap(), "{name} {}", case["name"]);
        }
        if let Some(template) = ChatTemplate::of(&data).unwrap() {
            let rendered = template.render(&[Message::new("user", "What does `Vec::push` do?")], true).unwrap();
            assert_eq!(rendered, golden["prompts"][0]["text"].as_str().unwrap());
        }
    }
}

/// The end of a turn is known by its text, whatever the file says about EOS.
#[test]
fn generation_ends_at_the_end_of_a_turn() {
    let data = data(&demo_model());
    let tokenizer = Tokenizer::new(&data).unwrap();
    let ids = tokenizer.encode("<|im_end|>x", false, true);
    assert!(tokenizer.is_end_of_generation(ids[0]) && !tokenizer.is_end_of_generation(ids[1]));
    assert!(matches!(tokenizer.decode(&[data.tokens.len() as u32], true), Err(TextError::UnknownId { .. })));
}

/// Every text comes back from its ids, whole and streamed, through BPE and SPM. (Not so with special tokens parsed in SPM, which
/// puts a space behind them.)
#[test]
fn texts_come_back() {
    let spm = shared("models/rustdoc-7m-Q4_K_M.gguf");
    for path in [Some(demo_model()), spm].into_iter().flatten() {
        let tokenizer = Tokenizer::new(&data(&path)).unwrap();
        // U+2581 is SPM's own mark for a space.
        let text =
            "(\\PC|[ \n\t\u{0}]|<|[|]|im_end|s>|'s|é|語|😀|1){0,40}".prop_filter("mark", |text| !text.contains('\u{2581}'));
        let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
        proptest!(config, |(text in text)| {
            let ids = tokenizer.encode(&text, false, false);
            prop_assert_eq!(String::from_utf8(tokenizer.decode(&ids, true).unwrap()).unwrap(), text.clone());
            let mut stream = tokenizer.stream(true);
            let mut streamed: String = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
            streamed += &stream.finish();
            let same = streamed.strip_prefix(' ').unwrap_or(&streamed) == text || streamed == text;
            prop_assert!(same, "{:?}", streamed);
        });
    }
}

/// 100 KB take a fraction of a second whatever they consist of; in quadratic time they would take minutes.
#[test]
fn long_texts_of_anything_are_quick() {
    let vocabularies =
        ["qwen2", "llama-bpe", "gpt-2", "llama-spm"].map(|name| shared(&format!("golden/tokenizer/vocab-{name}.gguf.gz")));
    for path in vocabularies.into_iter().flatten() {
        let mut data = data(&path);
        // Special tokens that overlap each other as much as possible.
        for (id, length) in (1..100).enumerate() {
            data.tokens[1000 + id] = "<".repeat(length * 3);
            data.types[1000 + id] = hipc_ir::text::TokenType::UserDefined;
        }
        let start = Instant::now();
        let tokenizer = Tokenizer::new(&data).unwrap();
        println!("{}: indexed in {:?}", path.display(), start.elapsed());
        for part in [
            "a",
            "ab",
            " ",
            "\n",
            "\n ",
            "é",
            "語",
            "😀",
            "1",
            "'",
            "!",
            "<",
            "=-",
            "\u{200b}",
            "abcdefghijklmnopqrstuvwxyz",
            "<|im_end|>",
            "</s>",
        ] {
            let text = part.repeat(100_000 / part.len());
            let start = Instant::now();
            let ids = tokenizer.encode(&text, true, true);
            assert!(start.elapsed() < Duration::from_secs(2), "{} of {part:?}: {:?}", text.len(), start.elapsed());
            let decoded = tokenizer.decode(&ids, true).unwrap();
            assert!(decoded.len() >= text.len() / 2);
        }
    }
}

/// Files with hostile templates load, and rendering ends in an answer or a typed error.
#[test]
fn hostile_template_files() {
    let Some(folder) = shared("golden/bad") else { return };
    let mut tried = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.starts_with("template_") {
            continue;
        }
        let Some(data) = GgufFile::open(&path).ok().and_then(|gguf| tokenizer::read(&gguf).ok()).flatten() else {
            println!("{name}: refused by the loader");
            continue;
        };
        let start = Instant::now();
        let messages = [Message::new("user", "hi")];
        let outcome = ChatTemplate::of(&data).and_then(|template| template.map(|t| t.render(&messages, true)).transpose());
        println!("{name}: {:.100?} in {:?}", outcome, start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(1), "{name}");
        let harmless = ["empty", "huge_1MB", "nul", "not_utf8", "u32"].map(|what| format!("template_{what}.gguf"));
        assert!(outcome.is_err() || harmless.contains(&name), "{name}");
        tried += 1;
    }
    assert!(tried >= 12, "{tried}");
}
