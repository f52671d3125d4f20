//! The demo's question, asked of the whole HIP path.

use crate::standin::StandIn;
use hipc::emit::emit_unit;
use hipc::pipeline::{self, Options};
use hipc::target::Target;
use hipc::toolchain::{CompileOptions, Emit, Toolchain, UnitSource};
use hipc_tests::file_weights::FileWeights;
use hipc_tests::shared::demo_model;
use hipfire_run::conversation::{Conversation, Limits};
use hipfire_run::device::hip::{HipDriver, HipRuntime};
use hipfire_run::device::{DeviceError, DriverBackend, Placement};
use hipfire_run::engine::{EngineError, PlanEngine};
use hipfire_run::generate::{Chooser, GenerateError};
use hipfire_run::text::{ChatTemplate, SamplerParams, Tokenizer};
use std::sync::atomic::AtomicBool;

/// The demo's model, compiled for gfx1100, answers the demo's question through the whole HIP path: the code object's metadata
/// bounds every launch, and the same kernels in the same plan, for this machine, execute it.
#[test]
fn the_demo_question_is_answered() {
    let model = hipc_models::load(demo_model()).unwrap_or_else(|e| panic!("{e}"));
    let toolchain = Toolchain::from_env();
    let gpu = Target::parse("gfx1100").expect("a known target");
    let built = pipeline::build(&model, &[gpu], &Options::default(), &toolchain, &CompileOptions::default(), &|_| ());
    let [built] = <[_; 1]>::try_from(built.unwrap_or_else(|e| panic!("{e}"))).unwrap_or_else(|_| panic!("one target"));
    let plan = built.planned.plan;
    let host = Target::parse("host").expect("a known target");
    let source = emit_unit(&model.name, host, &plan.kernels);
    let unit = UnitSource { name: "unit", source: &source, headers: hipc_templates::HEADERS };
    let unit =
        toolchain.compile(&unit, host, Emit::HostSharedObject, &CompileOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    let Some(standin) = StandIn::with_unit(&[], built.code, &unit.bytes) else { return };

    let data = model.tokenizer.expect("a chat model has a tokenizer");
    let template = ChatTemplate::of(&data).unwrap().expect("a chat model has a template");
    let tokenizer = Tokenizer::new(&data).unwrap();
    let weights = FileWeights::new(model.gguf, &model.graph);
    let interrupted = AtomicBool::new(false);
    let ask = |fail: &str, questions: &[&str]| {
        standin.configure(fail, "gfx1100", 0);
        let runtime = HipRuntime::open(Some(&standin.path())).unwrap();
        let driver = HipDriver::new(&runtime, 0).unwrap();
        let backend = DriverBackend::new(driver, plan.clone(), &standin.code, &weights, Placement::Planned, &mut |_| {}).unwrap();
        let mut engine = PlanEngine::new(backend, false);
        let mut chooser = Chooser::new(SamplerParams::greedy()).unwrap();
        let mut conversation = Conversation::new(template.clone(), None);
        let mut said = Vec::new();
        for question in questions {
            let mut answer = String::new();
            let mut emit = |piece: &str| {
                answer.push_str(piece);
                Ok(())
            };
            let limits = Limits { max_tokens: 64, stop: &[], interrupted: &interrupted };
            let summary = conversation.ask(question, &mut engine, &tokenizer, &mut chooser, limits, &mut emit)?;
            said.push((answer, summary.ids.len()));
        }
        Ok::<_, GenerateError>(said)
    };
    let right = "Removes the last element from a vector and returns it, or `None` if it is empty.";
    let question = "What does Vec::pop do?";
    let said = ask("", &[question]).unwrap();
    assert_eq!(said[0].0, right);
    assert_eq!(standin.report(), "");
    // One graph for the prompt, which chooses the first token, then groups of 1, 1, 2, 4, 8, 8, … steps up to the end of the turn: while
    // that is waited for, at least two steps too many are on their way.
    let (mut steps, mut graphs) = (0, 1);
    while steps < said[0].1 + 2 {
        steps += match steps {
            0 | 1 => 1,
            2 | 3 => 2,
            4..8 => 4,
            _ => 8,
        };
        graphs += 1;
    }
    assert_eq!(standin.graph_launches() as usize, graphs);
    println!("{} tokens, {} graphs, {} launches", said[0].1 + 1, standin.graph_launches(), standin.launches());

    // A device that is lost, or a call that fails, on the way: the call's error and nothing left behind.
    for fault in [
        "hipGraphLaunch:719:1",
        "hipGraphLaunch:719:3",
        "hipStreamQuery:700:3",
        "hipStreamQuery:1:200",
        "hipGraphInstantiateWithFlags:2:1",
    ] {
        let error = ask(fault, &[question]).unwrap_err();
        let call = fault.split(':').next().unwrap();
        let device = matches!(&error, GenerateError::Engine(EngineError::Device(DeviceError::Call { call: c, .. })) if c == call);
        assert!(device, "{fault}: {error}");
        assert_eq!(standin.report(), "", "{fault}");
    }

    // Without graphs, launch by launch.
    assert_eq!(ask("hipStreamBeginCapture:801:0", &[question]).unwrap()[0].0, right);
    assert_eq!((standin.graph_launches(), standin.report().as_str()), (0, ""));
}
