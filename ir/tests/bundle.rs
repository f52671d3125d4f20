//! Bundles in memory: whatever is changed in one is found; whatever isn't one is refused without a panic.

mod draw;

use draw::drawn;
use hipc_ir::bundle::{
    ArchEntry, Bundle, Digest, FormatError, Manifest, Provenance, SectionKind, TensorPlace, WeightsRef, encode, file_bytes,
    header, place, split_plan,
};
use hipc_ir::graph::{Graph, WeightDecl};
use hipc_ir::plan::{BufferDecl, BufferKind, ModelInfo, Plan, Space};
use hipc_ir::text::TokenizerData;
use hipc_ir::{DType, KvType, PrimaryMap};
use proptest::prelude::*;

fn model() -> ModelInfo {
    ModelInfo { name: "test".into(), arch: "llama".into(), layers: 1, vocab: 8, ctx_train: 16 }
}

fn plan(target: &str) -> Plan {
    let (mut weights, mut buffers) = (PrimaryMap::new(), PrimaryMap::new());
    weights.push(WeightDecl { name: "embd".into(), dtype: DType::F32, rows: 8, cols: 4 });
    let state = buffers.push(BufferDecl { kind: BufferKind::State, space: Space::Persistent, offset: 0, bytes: 16 });
    Plan {
        target: target.into(),
        model: model(),
        ctx: 16,
        kv: KvType::F16,
        weights,
        ropes: PrimaryMap::new(),
        caches: PrimaryMap::new(),
        buffers,
        kernels: PrimaryMap::new(),
        load: Vec::new(),
        programs: Vec::new(),
        state,
        tokens: state,
        outbox: state,
        sampling: state,
        draws: state,
    }
}

fn manifest(archs: &[&str], embedded: bool) -> Manifest {
    let mut tensors = PrimaryMap::new();
    tensors.push(TensorPlace { offset: 0, bytes: 128 });
    let hash = Digest::of(b"header");
    Manifest {
        model: model(),
        ctx: 16,
        kv: KvType::F16,
        provenance: Provenance {
            hipc: "0.1.0".into(),
            templates: Digest::of(b"templates"),
            model_header: hash,
            model_path: "m.gguf".into(),
            compilers: vec![],
            flags: vec![],
        },
        weights: WeightsRef {
            embedded,
            relative: Some("m.gguf".into()),
            absolute: "/m.gguf".into(),
            file_bytes: 256,
            header_bytes: 100,
            data_offset: 128,
            tensors,
        },
        archs: archs.iter().map(|a| ArchEntry { name: (*a).into(), ns: vec![], memory: vec![(16, 256)] }).collect(),
    }
}

type Contents<'a> = Vec<(SectionKind, &'a str, Vec<u8>)>;

fn assemble(contents: &Contents) -> Vec<u8> {
    let entries: Vec<_> = contents.iter().map(|(k, n, b)| (*k, *n, b.len() as u64, Digest::of(b))).collect();
    let sections = place(&entries).unwrap();
    let mut bytes = header(&sections);
    bytes.resize(file_bytes(&sections) as usize, 0);
    for (s, (_, _, contents)) in sections.iter().zip(contents) {
        bytes[s.offset as usize..][..contents.len()].copy_from_slice(contents);
    }
    bytes
}

fn contents(embedded: bool) -> Contents<'static> {
    let tokenizer: TokenizerData = drawn(7);
    let archs = ["gfx1100", "gfx1030"];
    let mut out = vec![
        (SectionKind::Manifest, "", encode(SectionKind::Manifest, &manifest(&archs, embedded)).unwrap()),
        (SectionKind::Tokenizer, "", encode(SectionKind::Tokenizer, &tokenizer).unwrap()),
        (SectionKind::Graph, "", encode(SectionKind::Graph, &Graph::default()).unwrap()),
    ];
    for arch in archs {
        out.push((SectionKind::Plan, arch, encode(SectionKind::Plan, &split_plan(&plan(arch)).0).unwrap()));
        out.push((SectionKind::Code, arch, format!("code of {arch}").into_bytes()));
    }
    if embedded {
        out.push((SectionKind::Weights, "", (0..128).collect()));
    }
    out
}

#[test]
fn reads_what_was_written() {
    let bundle = Bundle::parse(assemble(&contents(false))).unwrap();
    assert_eq!(bundle.archs().collect::<Vec<_>>(), ["gfx1100", "gfx1030"]);
    assert_eq!(bundle.plan("gfx1030").unwrap(), plan("gfx1030"));
    assert_eq!(bundle.code("gfx1100").unwrap(), b"code of gfx1100");
    assert_eq!(bundle.unit("gfx1100"), Ok(None));
    assert_eq!(bundle.tokenizer().unwrap(), Some(drawn(7)));
    assert_eq!(bundle.graph().unwrap(), Graph::default());
    assert!(bundle.embedded_weights().is_none());
    let places: Vec<u64> = bundle.sections().iter().filter(|s| s.kind == SectionKind::Plan).map(|s| s.offset).collect();
    assert_eq!(places[0], places[1], "equal plans are stored once");
    let missing = bundle.plan("gfx942").unwrap_err();
    assert_eq!(missing, FormatError::NoArch { wanted: "gfx942".into(), has: "gfx1100, gfx1030".into() });

    let embedded = Bundle::parse(assemble(&contents(true))).unwrap();
    assert_eq!(embedded.sections().last().unwrap().offset % 4096, 0);
    assert_eq!(embedded.embedded_weights().unwrap().len(), 128);
    embedded.check_weights().unwrap();
}

#[test]
fn every_flipped_bit_is_found() {
    let good = assemble(&contents(true));
    for at in 0..good.len() {
        for bit in if at < 2048 { 0..8 } else { 3..4 } {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            let found = Bundle::parse(bad).and_then(|b| b.check_weights());
            assert!(found.is_err(), "bit {bit} of byte {at} of {}", good.len());
        }
    }
}

#[test]
fn every_truncation_is_found() {
    let good = assemble(&contents(false));
    for len in 0..good.len() {
        let found = Bundle::parse(&good[..len]).unwrap_err();
        match len {
            0..8 => assert_eq!(found, FormatError::NotABundle),
            _ => assert!(matches!(found, FormatError::Length { .. }), "{len}: {found:?}"),
        }
    }
    let mut longer = good.clone();
    longer.push(0);
    assert!(matches!(Bundle::parse(longer).unwrap_err(), FormatError::Length { .. }));
}

#[test]
fn other_versions_are_named() {
    let mut future = assemble(&contents(false));
    future[8] = 9;
    let fault = Bundle::parse(future).unwrap_err();
    assert_eq!(fault, FormatError::Version { found: 9 });
    assert!(fault.to_string().contains("version 9") && fault.to_string().contains("newer hipfire-run"), "{fault}");
}

/// Sound hashes over contents that were never right.
#[test]
fn contradictions_are_found() {
    let malformed = |change: &dyn Fn(&mut Contents<'static>)| {
        let mut c = contents(false);
        change(&mut c);
        let found = Bundle::parse(assemble(&c)).and_then(|b| b.plan("gfx1100").map(drop)).unwrap_err();
        assert!(matches!(found, FormatError::Malformed { .. }), "{found:?}");
    };
    let manifest_with = |change: &dyn Fn(&mut Manifest)| {
        let mut m = manifest(&["gfx1100"], false);
        change(&mut m);
        encode(SectionKind::Manifest, &m).unwrap()
    };
    malformed(&|c| c[0].2 = manifest_with(&|m| m.weights.embedded = true));
    malformed(&|c| c[0].2 = manifest_with(&|m| m.weights.data_offset = u64::MAX));
    malformed(&|c| c[0].2 = manifest_with(&|m| m.weights.tensors.values_mut().for_each(|t| t.offset = u64::MAX - 3)));
    malformed(&|c| c[0].2 = manifest_with(&|m| m.weights.tensors.values_mut().for_each(|t| t.bytes = 100)));
    malformed(&|c| c[0].2 = manifest_with(&|m| m.archs[0].ns = vec![vec![1]]));
    malformed(&|c| c[0].2 = manifest_with(&|m| m.archs[0].name = "gfx90a".into()));
    malformed(&|c| c[0].2.push(0));
    malformed(&|c| drop(c.remove(0)));
    malformed(&|c| c[3].2.truncate(3));
    let plan_with = |change: &dyn Fn(&mut Plan)| {
        let mut p = plan("");
        change(&mut p);
        encode(SectionKind::Plan, &p).unwrap()
    };
    malformed(&|c| c[3].2 = plan_with(&|p| p.state = drawn(2)));
    malformed(&|c| c[3].2 = plan_with(&|p| p.buffers[p.state].offset = u64::MAX));
    malformed(&|c| c[3].2 = plan_with(&|p| p.weights.values_mut().for_each(|w| w.rows = u32::MAX)));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn random_bytes_are_refused(tail in prop::collection::vec(any::<u8>(), 0..600), magic: bool) {
        let start: &[u8] = if magic { b"HIPCBNDL\x01\0\0\0" } else { b"" };
        prop_assert!(Bundle::parse([start, &tail].concat()).is_err());
    }

    /// Random contents under sound hashes: decoding may fail but not panic, and lengths it claims cost no memory.
    #[test]
    fn random_sections_do_not_panic(section in 0usize..7, bytes in prop::collection::vec(any::<u8>(), 0..200), cut in any::<prop::sample::Index>()) {
        let mut c = contents(false);
        let keep = cut.index(c[section].2.len() + 1);
        c[section].2.truncate(keep);
        c[section].2.extend(bytes);
        if let Ok(bundle) = Bundle::parse(assemble(&c)) {
            let _ = (bundle.plan("gfx1100"), bundle.tokenizer(), bundle.graph());
        }
    }

    /// Any plan at all, right or wrong, is refused or can be used without a panic.
    #[test]
    fn random_plans_do_not_panic(seed: u64) {
        let plan: Plan = drawn(seed);
        if hipc_ir::verify::plan_references(&plan).is_ok() {
            for space in Space::ALL {
                plan.space_bytes(space);
            }
            for spec in plan.kernels.values() {
                let _ = (spec.op.params(), spec.grid(64), spec.scratch_bytes(64), spec.counter_bytes(64));
            }
        }
    }

    /// Likewise graphs.
    #[test]
    fn random_graphs_do_not_panic(seed: u64) {
        let graph: Graph = drawn(seed);
        let _ = (hipc_ir::verify::graph(&graph), hipc_ir::verify::fused(&drawn(seed ^ 1), &graph));
    }
}
