//! The chat model of the repository answers word for word, through its own chat template.

use hipc_ir::dtype::KvType;
use hipc_tests::parity::chat::{ask, questions};
use hipc_tests::parity::device::{compile, exact};
use hipc_tests::shared::{demo_model, shared};
use hipfire_run::conversation::{Conversation, Limits};
use hipfire_run::device::host::Order;
use hipfire_run::engine::{Engine, PlanEngine};
use hipfire_run::generate::Chooser;
use hipfire_run::text::{ChatTemplate, SamplerParams, Tokenizer};
use serde_json::Value;
use std::sync::atomic::AtomicBool;

/// Longer than any question with its answer.
const CTX: u32 = 128;

#[test]
fn the_questions_are_those_of_the_reference_data() {
    let Some(fixture) = shared("golden/fixtures/chat_questions.json") else { return };
    let fixture: Value = serde_json::from_slice(&std::fs::read(fixture).unwrap()).unwrap();
    let ours: Value = serde_json::from_str(include_str!("../../data/chat_questions.json")).unwrap();
    assert_eq!(ours, fixture["questions"]);
}

#[test]
fn all_questions_are_answered_on_cpu() {
    let compiled = compile(&demo_model(), "gfx1100", CTX, KvType::F16);
    assert_eq!(questions().len(), 14);
    ask("cpu", &mut PlanEngine::new(compiled.cpu(), false), &questions());
}

#[test]
fn all_questions_are_answered_exactly() {
    ask("cpu --exact", &mut exact(&demo_model(), CTX as usize, false), &questions());
}

#[test]
fn questions_are_answered_on_host() {
    let compiled = compile(&demo_model(), "gfx1100", CTX, KvType::F16);
    // What the demo asks, the shortest answer, and one that isn't ASCII.
    let chosen: Vec<_> = questions().into_iter().enumerate().filter(|(i, _)| [0, 2, 10].contains(i)).map(|(_, q)| q).collect();
    assert_eq!(chosen[2].0, "What does `Vec::pop` do?");
    ask("host", &mut PlanEngine::new(compiled.host(Order::Ascending), false), &chosen);
    // And the shortest once more while AddressSanitizer and UBSan look on.
    if let Some(sanitized) = compiled.sanitized(Order::Ascending) {
        ask("host, sanitized", &mut PlanEngine::new(sanitized, false), &chosen[1..2]);
    }
}

/// Three turns with this chooser; the ids of each answer. What the conversation before began with alike stays in the cache.
fn talk(
    engine: &mut dyn Engine,
    conversation: &mut Conversation,
    tokenizer: &Tokenizer,
    mut chooser: Chooser,
    tokens: usize,
) -> Vec<Vec<u32>> {
    conversation.forget();
    let mut turn = |question: &str, max_tokens, stop: &[String]| {
        let limits = Limits { max_tokens, stop, interrupted: &AtomicBool::new(false) };
        conversation.ask(question, engine, tokenizer, &mut chooser, limits, &mut |_| Ok(())).unwrap()
    };
    // Ended by a limit, by a stop string or the model, and by a limit of a single token.
    let turns = [
        turn("What does `Vec::pop` do?", tokens, &[]),
        turn("And `Vec::push`?", tokens, &["a".to_owned()]),
        turn("Why?", 1, &[]),
    ];
    turns.map(|summary| summary.ids).into()
}

/// The same seed gives the same text, whether the device draws or the sampler does from the device's logits.
fn draws_are_the_samplers(device: &str, mut engine: impl Engine, seeds: u64, tokens: usize) {
    // The model is sure of itself: what is to differ must be hot, and keep what is unlikely.
    let warm = SamplerParams { temperature: 0.9, ..SamplerParams::default() };
    let hot = SamplerParams { temperature: 4.0, top_p: 1.0, min_p: 0.0, ..warm };
    let data = hipc_models::load(demo_model()).unwrap().tokenizer.unwrap();
    let (tokenizer, template) = (Tokenizer::new(&data).unwrap(), ChatTemplate::of(&data).unwrap().unwrap());
    let mut conversation = Conversation::new(template, None);
    let mut talk = |chooser, tokens| talk(&mut engine, &mut conversation, &tokenizer, chooser, tokens);
    // The first question comes as one chunk this time and from the cache ever after: all that are compared begin alike.
    talk(Chooser::new(SamplerParams::greedy()).unwrap(), 1);
    let mut texts = std::collections::BTreeSet::new();
    for seed in 0..seeds {
        for params in [
            SamplerParams { seed, ..warm },
            SamplerParams { seed, ..hot },
            SamplerParams { seed, repeat_penalty: 1.4, repeat_last_n: 12, top_p: 0.999, ..hot },
            SamplerParams { seed, top_k: 5, min_p: 1e-6, ..hot },
            SamplerParams { repeat_penalty: 1.3, ..SamplerParams::greedy() },
            SamplerParams::greedy(),
            // Not for devices.
            SamplerParams { seed, top_k: 0, ..warm },
        ] {
            let by_device = talk(Chooser::new(params).unwrap(), tokens);
            let by_host = talk(Chooser::new(params).unwrap().on_host(), tokens);
            assert_eq!(by_device, by_host, "{device}: {params:?}");
            texts.insert(by_device);
        }
    }
    assert!(texts.len() >= 4, "{device}: {texts:?}");
}

#[test]
fn the_device_draws_what_the_sampler_draws() {
    let compiled = compile(&demo_model(), "gfx1100", CTX, KvType::F16);
    draws_are_the_samplers("cpu", PlanEngine::new(compiled.cpu(), false), 2, 24);
    draws_are_the_samplers("host", PlanEngine::new(compiled.host(Order::Ascending), false), 1, 5);
}
