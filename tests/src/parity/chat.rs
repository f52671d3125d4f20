//! Questions to the chat model of the repository, and the answers that it must give word for word.

use crate::shared::demo_model;
use hipfire_run::conversation::{Conversation, Limits};
use hipfire_run::engine::Engine;
use hipfire_run::generate::{Chooser, Ended};
use hipfire_run::text::{ChatTemplate, SamplerParams, Tokenizer};
use serde_json::Value;
use std::sync::atomic::AtomicBool;

/// Questions, with the answers that llama.cpp gives greedily for Q4_K_M, Q8_0 and F16 alike.
///
/// # Panics
/// If the file isn't what it is.
pub fn questions() -> Vec<(String, String)> {
    let all: Value = serde_json::from_str(include_str!("../../data/chat_questions.json")).unwrap();
    let text = |q: &Value, key: &str| q[key].as_str().unwrap().to_owned();
    all.as_array().unwrap().iter().map(|q| (text(q, "question"), text(q, "answer"))).collect()
}

/// Asks each by itself, through the model's own template.
///
/// # Panics
/// If an answer has another word, or comes as one piece.
pub fn ask(device: &str, engine: &mut dyn Engine, questions: &[(String, String)]) {
    let wrong = wrong_answers(engine, questions);
    println!("{device}: {} of {} questions answered word for word", questions.len() - wrong.len(), questions.len());
    assert!(wrong.is_empty(), "{device}:\n{}", wrong.join("\n"));
}

/// The same: what was answered otherwise, and what was expected.
///
/// # Panics
/// If the engine fails, or an answer comes as one piece.
pub fn wrong_answers(engine: &mut dyn Engine, questions: &[(String, String)]) -> Vec<String> {
    let data = hipc_models::load(demo_model()).unwrap().tokenizer.unwrap();
    let (tokenizer, template) = (Tokenizer::new(&data).unwrap(), ChatTemplate::of(&data).unwrap().unwrap());
    let mut conversation = Conversation::new(template, None);
    let mut wrong = Vec::new();
    for (question, answer) in questions {
        conversation.forget();
        let mut chooser = Chooser::new(SamplerParams::greedy()).unwrap();
        let limits = Limits { max_tokens: 64, stop: &[], interrupted: &AtomicBool::new(false) };
        let (mut pieces, mut text) = (0, String::new());
        let mut emit = |piece: &str| {
            text.push_str(piece);
            pieces += usize::from(!piece.is_empty());
            Ok(())
        };
        let summary = conversation.ask(question, engine, &tokenizer, &mut chooser, limits, &mut emit).unwrap();
        assert!(pieces > 1, "the answer came as one piece");
        if &text != answer || summary.ended != Ended::EndOfTurn {
            wrong.push(format!("{question}\n  {text} ({:?})\n  expected: {answer}", summary.ended));
        }
    }
    wrong
}
