//! Generation and conversations over an engine that follows a script and remembers what it was fed.

use hipc_ir::text::{PreTokenizer, TokenType, TokenizerData, TokenizerKind};
use hipfire_run::conversation::{Conversation, Limits};
use hipfire_run::engine::{Engine, EngineError, Want};
use hipfire_run::generate::{Chooser, Ended, GenerateError, Request, Summary, generate};
use hipfire_run::text::{ChatTemplate, SamplerParams, Tokenizer};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

const END: u32 = 0;
const CTX: usize = 24;
/// Ids: 0 is the end of a turn, 1…26 are letters, 27 a question mark, 28 the beginning of a turn.
const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz";

fn data() -> TokenizerData {
    let mut tokens: Vec<String> = vec!["<end>".into()];
    tokens.extend(LETTERS.chars().map(String::from));
    tokens.extend(["?".into(), "<turn>".into()]);
    let mut types = vec![TokenType::Normal; tokens.len()];
    (types[0], types[28]) = (TokenType::Control, TokenType::Control);
    TokenizerData {
        kind: TokenizerKind::Bpe(PreTokenizer::Gpt2),
        types,
        tokens,
        scores: Vec::new(),
        merges: Vec::new(),
        bos: None,
        eos: Some(END),
        end_of_generation: vec![END],
        unk: None,
        add_bos: false,
        add_eos: false,
        add_space_prefix: false,
        clean_spaces: false,
        lstrip: Vec::new(),
        rstrip: Vec::new(),
        chat_template: Some(
            "{% for m in messages %}{% if m.role == 'user' %}<turn>{% endif %}{{ m.content }}{% if m.role == 'assistant' %}<end>{% endif %}{% endfor %}"
                .into(),
        ),
    }
}

/// Answers with the ids of a script, whatever it is fed.
struct Scripted {
    answers: VecDeque<u32>,
    cache: Vec<u32>,
    /// Sizes of the steps, and what they were asked for.
    steps: Vec<(usize, Want)>,
    interrupt: Option<(usize, &'static AtomicBool)>,
}

impl Scripted {
    fn new(answers: &str) -> Self {
        let ids = answers.chars().map(|c| LETTERS.find(c).map_or(END, |i| i as u32 + 1));
        Self { answers: ids.collect(), cache: Vec::new(), steps: Vec::new(), interrupt: None }
    }
}

impl Engine for Scripted {
    fn describe(&self) -> String {
        "script".into()
    }
    fn vocab(&self) -> usize {
        29
    }
    fn ctx(&self) -> usize {
        CTX
    }
    fn tokens(&self) -> &[u32] {
        &self.cache
    }
    fn chunk(&self) -> usize {
        4
    }
    fn truncate(&mut self, pos: usize) {
        self.cache.truncate(pos);
    }
    fn feed(&mut self, ids: &[u32], want: Want, logits: &mut dyn FnMut(&[f32])) -> Result<Option<u32>, EngineError> {
        assert!(!ids.is_empty() && self.cache.len() + ids.len() <= CTX);
        self.cache.extend(ids);
        self.steps.push((ids.len(), want));
        if let Some((step, flag)) = self.interrupt {
            flag.store(self.steps.len() >= step, Ordering::Relaxed);
        }
        if want == Want::Nothing {
            return Ok(None);
        }
        let next = self.answers.pop_front().expect("the script ends");
        if want == Want::Last {
            let mut row = [0.0; 29];
            row[next as usize] = 9.0;
            logits(&row);
        }
        Ok(Some(next))
    }
}

fn run(engine: &mut Scripted, prompt: &str, max_tokens: usize, stop: &[&str], params: SamplerParams) -> (String, Summary) {
    let tokenizer = Tokenizer::new(&data()).unwrap();
    let stop: Vec<String> = stop.iter().map(|s| s.to_string()).collect();
    let idle = AtomicBool::new(false);
    let interrupted = engine.interrupt.map_or(&idle, |i| i.1);
    let prompt = tokenizer.encode(prompt, true, false);
    let request = Request { prompt: &prompt, max_tokens, stop: &stop, interrupted };
    let mut text = String::new();
    let mut chooser = Chooser::new(params).unwrap();
    let summary = generate(engine, &tokenizer, &mut chooser, &request, &mut |piece| {
        text.push_str(piece);
        Ok(())
    });
    (text, summary.unwrap())
}

#[test]
fn ends_where_the_model_does() {
    let mut engine = Scripted::new("hello.");
    let (text, summary) = run(&mut engine, "abcdefghij", usize::MAX, &[], SamplerParams::greedy());
    assert_eq!((text.as_str(), summary.ended), ("hello", Ended::EndOfTurn));
    assert_eq!((summary.ids.len(), summary.prompt_tokens, summary.decode_steps), (5, 10, 5));
    // Whole steps first, the logits only where a token is chosen.
    assert_eq!(engine.steps[..4], [(4, Want::Nothing), (4, Want::Nothing), (2, Want::Next), (1, Want::Next)]);
    assert_eq!(engine.pos(), 15);
}

#[test]
fn ends_where_it_is_told_to() {
    let (text, summary) = run(&mut Scripted::new("hello."), "a", 3, &[], SamplerParams::greedy());
    assert_eq!((text.as_str(), summary.ended, summary.ids.len()), ("hel", Ended::Length, 3));
    let (text, summary) = run(&mut Scripted::new("hello."), "a", 9, &["lo", "x"], SamplerParams::greedy());
    assert_eq!((text.as_str(), summary.ended, summary.ids.len()), ("hel", Ended::StopString, 5));
    // What might have become a stop string comes out at the end.
    let (text, summary) = run(&mut Scripted::new("hello."), "a", 9, &["ox"], SamplerParams::greedy());
    assert_eq!((text.as_str(), summary.ended), ("hello", Ended::EndOfTurn));
    let (text, summary) = run(&mut Scripted::new(&"z".repeat(40)), "abcdefghijklmnopqrst", 99, &[], SamplerParams::greedy());
    assert_eq!((text.len(), summary.ended), (CTX - 20 + 1, Ended::ContextFull));
}

#[test]
fn sampling_reads_logits() {
    let mut engine = Scripted::new("hello.");
    let params = SamplerParams { temperature: 0.01, ..SamplerParams::greedy() };
    assert_eq!(run(&mut engine, "abcd", 9, &[], params).0, "hello");
    assert!(engine.steps.iter().all(|s| s.1 == Want::Last));
}

#[test]
fn an_interrupt_is_seen_between_steps() {
    static FLAG: AtomicBool = AtomicBool::new(false);
    for (step, text, prompt_tokens, pos) in [(2, "", 8, 8), (5, "hel", 10, 12)] {
        FLAG.store(false, Ordering::Relaxed);
        let mut engine = Scripted { interrupt: Some((step, &FLAG)), ..Scripted::new("hello.") };
        let (got, summary) = run(&mut engine, "abcdefghij", 9, &[], SamplerParams::greedy());
        assert_eq!((got.as_str(), summary.ended, summary.prompt_tokens), (text, Ended::Interrupted, prompt_tokens));
        assert_eq!(engine.pos(), pos);
    }
}

fn ask(chat: &mut Conversation, engine: &mut Scripted, question: &str, max_tokens: usize) -> Result<Summary, GenerateError> {
    let tokenizer = Tokenizer::new(&data()).unwrap();
    let idle = AtomicBool::new(false);
    let limits = Limits { max_tokens, stop: &[], interrupted: &idle };
    let mut chooser = Chooser::new(SamplerParams::greedy()).unwrap();
    chat.ask(question, engine, &tokenizer, &mut chooser, limits, &mut |_| Ok(()))
}

#[test]
fn a_conversation_feeds_only_what_is_new() {
    let tokenizer = Tokenizer::new(&data()).unwrap();
    let template = ChatTemplate::of(&data()).unwrap().unwrap();
    let mut chat = Conversation::new(template, Some("sys".into()));
    let mut engine = Scripted::new("yes.no.maybe");
    assert_eq!(ask(&mut chat, &mut engine, "ab?", 9).unwrap().prompt_tokens, 7);
    // Of the next turn the cache lacks the end of the answer and the question.
    assert_eq!(ask(&mut chat, &mut engine, "cd?", 9).unwrap().prompt_tokens, 5);
    assert_eq!(engine.cache, tokenizer.encode("sys<turn>ab?yes<end><turn>cd?no", false, true));
    // Cut short by a limit, the last token hasn't been asked after and is fed with the next turn.
    assert_eq!(ask(&mut chat, &mut engine, "e", 1).unwrap().prompt_tokens, 3);
    let full = engine.pos();

    // Too much: refused, and nothing has changed.
    let error = ask(&mut chat, &mut engine, "abcdefghijkl", 9).unwrap_err();
    assert!(matches!(error, GenerateError::Engine(EngineError::ContextFull { needed: 35, ctx: CTX })), "{error}");
    assert_eq!(engine.pos(), full);
    // One position is left for the question, none for a second token of the answer.
    engine.answers = Scripted::new("xx.").answers;
    assert_eq!(ask(&mut chat, &mut engine, "f", 9).unwrap().ended, Ended::ContextFull);
    assert_eq!(engine.pos(), CTX);

    // A new conversation keeps the system message.
    chat.forget();
    engine.answers = Scripted::new("x.").answers;
    assert_eq!(ask(&mut chat, &mut engine, "f", 9).unwrap().prompt_tokens, 1);
    assert_eq!(engine.cache, tokenizer.encode("sys<turn>fx", false, true));
}

#[test]
fn nothing_to_continue_is_refused() {
    let tokenizer = Tokenizer::new(&data()).unwrap();
    let idle = AtomicBool::new(false);
    let request = Request { prompt: &[], max_tokens: 1, stop: &[], interrupted: &idle };
    let mut chooser = Chooser::new(SamplerParams::greedy()).unwrap();
    let outcome = generate(&mut Scripted::new("a"), &tokenizer, &mut chooser, &request, &mut |_| Ok(()));
    assert!(matches!(outcome, Err(GenerateError::EmptyPrompt)));
    assert!(Chooser::new(SamplerParams { top_p: 2.0, ..SamplerParams::greedy() }).is_err());
}
