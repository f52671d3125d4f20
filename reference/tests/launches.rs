//! Every kind of launch on random operands: the fast form against the exact one, within the bounds that devices are held to.

#[path = "launches/rounding.rs"]
mod rounding;

use hipc_ir::dtype::{DType, KvType, Layout, Q8Layout, Real};
use hipc_ir::fused::{
    Access, Attend, CacheSpec, Choose, Combine, Deferred, Embed, Finish, FusedOp, Gemv, HeadOut, HeadPart, Heads, Input,
    QkPrologue, RopeSpec, Row, RowExpr, Segment, SegmentOut, Shape, Tail,
};
use hipc_ir::graph::{Act, RopeStyle};
use hipc_ir::plan::{Geometry, KernelSpec, StepState};
use hipc_reference::blocks::{quantize, split_row};
use hipc_reference::launch::{Arg, LaunchError, check, exec};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const CTX: u32 = 48;
const VOCAB: u32 = 96;

type Words = (Vec<u64>, usize);

fn words(bytes: &[u8]) -> Words {
    let mut words = vec![0u64; bytes.len().div_ceil(8)];
    bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
    (words, bytes.len())
}

fn bytes((words, len): &Words) -> &[u8] {
    &bytemuck::cast_slice(words)[..*len]
}

fn matrix(dtype: DType, rows: u32, cols: u32, rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = vec![0u8; dtype.row_bytes(cols).unwrap() as usize * rows as usize];
    rng.fill(&mut bytes[..]);
    let d = |rng: &mut ChaCha8Rng| half::f16::from_f32(rng.random_range(0.001..0.02)).to_le_bytes();
    for block in bytes.chunks_exact_mut(dtype.block_bytes() as usize) {
        let value: f32 = rng.random_range(-0.5..0.5);
        match dtype {
            DType::F32 => block.copy_from_slice(&value.to_le_bytes()),
            DType::F16 => block.copy_from_slice(&half::f16::from_f32(value).to_le_bytes()),
            DType::BF16 => block.copy_from_slice(&half::bf16::from_f32(value).to_le_bytes()),
            DType::Q4_K => [0, 2].into_iter().for_each(|at| block[at..at + 2].copy_from_slice(&d(rng))),
            DType::Q6_K => block[208..].copy_from_slice(&d(rng)),
            DType::Q4_0 | DType::Q8_0 => block[..2].copy_from_slice(&d(rng)),
        }
    }
    bytes
}

fn layout(dtype: DType, split: bool) -> Layout {
    if split && dtype.is_quantized() { Layout::Split } else { Layout::Gguf }
}

fn floats(n: usize, rng: &mut ChaCha8Rng) -> Vec<u8> {
    (0..n).flat_map(|_| rng.random_range(-1.0f32..1.0).to_le_bytes()).collect()
}

fn operand(spec: &KernelSpec, access: Access, shape: Shape, tokens: usize, rng: &mut ChaCha8Rng) -> Vec<u8> {
    let parts = if access == Access::Read { spec.geometry.parts_in } else { spec.parts_out() } as usize;
    match shape {
        Shape::State => vec![0; 16],
        Shape::Sampling => vec![0; 64],
        Shape::Draws => vec![0; 8 * (CTX as usize + 1)],
        Shape::Tokens => (0..=CTX).flat_map(|_| rng.random_range(0..VOCAB as i32).to_le_bytes()).collect(),
        Shape::Outbox => (0..=CTX).flat_map(|_| rng.random::<u64>().to_le_bytes()).collect(),
        Shape::Ids => vec![0xab; 4 * tokens],
        Shape::F32(n) => floats(n as usize * tokens, rng),
        Shape::Q8(n) => {
            let layout = Q8Layout { n, block: Q8Layout::DEFAULT_BLOCK };
            let mut all = vec![0u8; layout.stride() as usize * tokens];
            for token in all.chunks_exact_mut(layout.stride() as usize) {
                let x: Vec<f32> = (0..n).map(|_| rng.random_range(-2.0..2.0)).collect();
                quantize(layout, &x, token);
            }
            all
        }
        Shape::Ssq => (0..parts * tokens).flat_map(|_| rng.random_range(1.0f32..50.0).to_le_bytes()).collect(),
        Shape::Partials => (0..parts * tokens)
            .flat_map(|i| [rng.random_range(-9.0f32..9.0).to_le_bytes(), (i as i32 % parts as i32 * 7).to_le_bytes()])
            .flatten()
            .collect(),
        Shape::Weight { dtype: DType::F32, rows: 1, cols, .. } => {
            (0..cols).flat_map(|_| rng.random_range(0.5f32..1.5).to_le_bytes()).collect()
        }
        Shape::Weight { dtype, layout: Layout::Gguf, rows, cols } => matrix(dtype, rows, cols, rng),
        Shape::Weight { dtype, layout: Layout::Split, rows, cols } => {
            let [from, to] = Layout::ALL.map(|l| l.row_bytes(dtype, cols).unwrap() as usize);
            let mut split = vec![0xff; rows as usize * to];
            let blocks = matrix(dtype, rows, cols, rng);
            blocks.chunks_exact(from).zip(split.chunks_exact_mut(to)).for_each(|(row, out)| split_row(dtype, row, out));
            split
        }
        Shape::RopeTable(rope) => (0..CTX * rope.dims / 2)
            .flat_map(|_| {
                let angle: f32 = rng.random_range(-3.0..3.0);
                [angle.cos().to_le_bytes(), angle.sin().to_le_bytes()]
            })
            .flatten()
            .collect(),
        Shape::Cache(cache) => {
            let values = (0..cache.bytes() / u64::from(cache.kv.bytes())).map(|_| rng.random_range(-1.0f32..1.0));
            match cache.kv {
                KvType::F16 => values.flat_map(|v| half::f16::from_f32(v).to_le_bytes()).collect(),
                KvType::F32 => values.flat_map(f32::to_le_bytes).collect(),
            }
        }
        Shape::Scratch | Shape::Counters => vec![0; 64],
    }
}

fn compare(op: FusedOp, tile: u32, state: StepState, seed: u64) -> Result<(), TestCaseError> {
    let rng = &mut ChaCha8Rng::seed_from_u64(seed);
    let geometry = Geometry { parts_in: 5, ..Geometry::plain(32, 1, tile) };
    let spec = KernelSpec { name: "test".into(), op, geometry };
    let params = spec.op.params();
    let before: Vec<Words> = params.iter().map(|p| words(&operand(&spec, p.access, p.shape, state.n as usize, rng))).collect();
    let mut after = before.clone();
    let args = params.iter().zip(&mut after).map(|(param, (words, len))| match param.access {
        Access::Read => Arg::Read(&bytemuck::cast_slice(words)[..*len]),
        Access::Write | Access::Update => Arg::Write(&mut bytemuck::cast_slice_mut(words)[..*len]),
    });
    exec(&spec, state, args.collect()).unwrap();
    let refs = |all: &'_ Vec<Words>| all.iter().map(|w| bytes(w).to_vec()).collect::<Vec<_>>();
    let (before, after) = (refs(&before).into_iter().map(|b| words(&b)).collect::<Vec<_>>(), refs(&after));
    let before: Vec<&[u8]> = before.iter().map(bytes).collect();
    let after: Vec<&[u8]> = after.iter().map(Vec::as_slice).collect();
    let findings = check(&spec, state, &before, &after).unwrap();
    prop_assert!(!findings.is_empty());
    for finding in findings {
        prop_assert!(finding.passes(), "{:?}: {finding:?}", spec.op);
    }
    Ok(())
}

fn state() -> impl Strategy<Value = StepState> {
    (0..40i32, 1..6i32)
        .prop_flat_map(|(pos, n)| (0..=n).prop_map(move |head_from| StepState { pos, n, head_from, generation: 0 }))
}

fn finish(ssq: bool) -> impl Strategy<Value = Finish> {
    (any::<[bool; 4]>()).prop_map(move |[raw, gain, q8, s]| Finish { raw: raw || !q8, gain, f32: gain && raw, q8, ssq: s && ssq })
}

fn act() -> impl Strategy<Value = Act> {
    prop::sample::select(vec![Act::Silu, Act::Gelu])
}

fn kv() -> impl Strategy<Value = KvType> {
    prop::sample::select(vec![KvType::F16, KvType::F32])
}

fn dtype() -> impl Strategy<Value = DType> {
    prop::sample::select(DType::ALL.to_vec())
}

fn rope(head_dim: u32) -> impl Strategy<Value = Option<RopeSpec>> {
    let style = prop::sample::select(vec![RopeStyle::Norm, RopeStyle::Neox]);
    prop::option::of(style.prop_map(move |style| RopeSpec { style, dims: head_dim / 2, head_dim }))
}

fn input(dtype: DType) -> Input {
    if dtype.is_quantized() { Input::Q8 } else { Input::F32 }
}

const DEFERRED: Deferred = Deferred { n: 256, eps: Real(1e-5) };

#[test]
fn a_wrong_result_does_not_pass() {
    let finish = Finish { raw: true, gain: true, f32: true, q8: true, ssq: true };
    let op = FusedOp::Row(Row { n: 64, expr: RowExpr::Norm { eps: Real(1e-5), group: 64 }, residual: false, finish });
    let geometry = Geometry { parts_in: 1, ..Geometry::plain(32, 1, 32) };
    let spec = KernelSpec { name: "test".into(), op, geometry };
    let params = spec.op.params();
    let rng = &mut ChaCha8Rng::seed_from_u64(1);
    let state = StepState { pos: 0, n: 1, head_from: 0, generation: 0 };
    let before: Vec<Words> = params.iter().map(|p| words(&operand(&spec, p.access, p.shape, 1, rng))).collect();
    let mut after = before.clone();
    let args = params.iter().zip(&mut after).map(|(param, (words, len))| match param.access {
        Access::Read => Arg::Read(&bytemuck::cast_slice(words)[..*len]),
        Access::Write | Access::Update => Arg::Write(&mut bytemuck::cast_slice_mut(words)[..*len]),
    });
    exec(&spec, state, args.collect()).unwrap();
    let before: Vec<&[u8]> = before.iter().map(bytes).collect();
    let verdicts = |after: &[Words]| {
        let after: Vec<&[u8]> = after.iter().map(bytes).collect();
        check(&spec, state, &before, &after).unwrap().iter().map(|f| f.passes()).collect::<Vec<_>>()
    };
    let written: Vec<usize> = (0..params.len()).filter(|&i| params[i].access != Access::Read).collect();
    assert!(verdicts(&after).iter().all(|&pass| pass));
    for (position, &i) in written.iter().enumerate() {
        // An exponent's or a quant's high bit, at the operand's end and beginning.
        let last = if matches!(params[i].shape, Shape::Q8(_)) { 64 } else { after[i].1 };
        for at in [last - 1, 3] {
            let mut wrong = after.clone();
            bytemuck::cast_slice_mut::<u64, u8>(&mut wrong[i].0)[at] ^= 0x40;
            let expected: Vec<bool> = (0..written.len()).map(|p| p != position).collect();
            assert_eq!(verdicts(&wrong), expected, "byte {at} of {:?}", params[i].role);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn gemv_vector(dtype in dtype(), combine in 0..3usize, act in act(), bias: bool, residual: bool, deferred: bool, finish in finish(true), state in state(), seed: u64) {
        let combine = [Combine::One, Combine::Act(act), Combine::Gated(act)][combine];
        let segments = if matches!(combine, Combine::Gated(_)) { 2 } else { 1 };
        let op = Gemv {
            k: 256,
            input: input(dtype),
            deferred: deferred.then_some(DEFERRED),
            segments: vec![Segment { dtype, layout: Layout::Gguf, rows: 96, bias }; segments],
            tail: Tail::Vector { combine, residual, finish },
        };
        compare(FusedOp::Gemv(op), 32, state, seed)?;
    }

    #[test]
    fn gemv_separate(q in dtype(), v in dtype(), split: bool, bias: bool, kv in kv(), rope in rope(32), state in state(), seed: u64) {
        let v = if v.is_quantized() == q.is_quantized() { v } else { q };
        let cache = CacheSpec { heads: 2, head_dim: 32, ctx: CTX, kv };
        let segment = |dtype, rows| Segment { dtype, layout: layout(dtype, split), rows, bias };
        let op = Gemv {
            k: 256,
            input: input(q),
            deferred: Some(DEFERRED),
            segments: vec![segment(q, 128), segment(q, 64), segment(v, 64)],
            tail: Tail::Separate(vec![SegmentOut::Store(rope), SegmentOut::Append(rope, cache), SegmentOut::Append(None, cache)]),
        };
        compare(FusedOp::Gemv(op), 16, state, seed)?;
    }

    #[test]
    fn gemv_head(dtype in dtype(), state in state(), seed: u64) {
        let op = Gemv { k: 256, input: input(dtype), deferred: Some(DEFERRED), segments: vec![Segment { dtype, layout: Layout::Gguf, rows: 323, bias: false }], tail: Tail::Head };
        compare(FusedOp::Gemv(op), 64, state, seed)?;
    }

    #[test]
    fn embed(dtype in dtype(), split: bool, finish in finish(true), state in state(), seed: u64) {
        compare(FusedOp::Embed(Embed { vocab: VOCAB, n: 256, dtype, layout: layout(dtype, split), finish }), 64, state, seed)?;
    }

    #[test]
    fn attend(group in 1..4u32, kv in kv(), finish in finish(false), state in state(), seed: u64) {
        let cache = CacheSpec { heads: 2, head_dim: 32, ctx: CTX, kv };
        compare(FusedOp::Attend(Attend { heads: 2 * group, cache, scale: Real(0.177), prologue: None, finish }), 1, state, seed)?;
    }

    #[test]
    fn attend_with_prologue(norm: bool, rope in rope(48), kv in kv(), finish in finish(false), pos in 0..40i32, seed: u64) {
        let cache = CacheSpec { heads: 2, head_dim: 48, ctx: CTX, kv };
        let prologue = Some(QkPrologue { norm: norm.then_some(Real(1e-6)), rope });
        let op = Attend { heads: 4, cache, scale: Real(0.144), prologue, finish };
        let state = StepState { pos, n: 1, head_from: 0, generation: 0 };
        compare(FusedOp::Attend(op), 1, state, seed)?;
    }

    #[test]
    fn heads(norm: bool, rope in rope(32), kv in kv(), state in state(), seed: u64) {
        let cache = CacheSpec { heads: 2, head_dim: 32, ctx: CTX, kv };
        let part = |heads, out| HeadPart { heads, head_dim: 32, norm: norm.then_some(Real(1e-6)), rope, out };
        compare(FusedOp::Heads(Heads { parts: vec![part(6, HeadOut::Store), part(2, HeadOut::Append(cache))] }), 1, state, seed)?;
    }

    #[test]
    fn row(expr in 0..8usize, act in act(), residual: bool, finish in finish(true), state in state(), seed: u64) {
        let expr = [
            RowExpr::Copy,
            RowExpr::Add,
            RowExpr::Mul,
            RowExpr::Act(act),
            RowExpr::Gated(act),
            RowExpr::Bias,
            RowExpr::Norm { eps: Real(1e-5), group: 64 },
            RowExpr::Scale(DEFERRED),
        ][expr];
        compare(FusedOp::Row(Row { n: 192, expr, residual, finish }), 64, state, seed)?;
    }

    #[test]
    fn choose(partials: bool, advance: bool, state in state(), seed: u64) {
        compare(FusedOp::Choose(Choose { n: 64, partials, advance }), 1, state, seed)?;
    }

    #[test]
    fn operands_of_any_length_are_refused_not_read(len in 0..200usize, which in 0..9usize, seed: u64) {
        let op = FusedOp::Row(Row { n: 64, expr: RowExpr::Add, residual: true, finish: Finish { raw: true, gain: true, f32: true, q8: true, ssq: true } });
        let geometry = Geometry { parts_in: 1, ..Geometry::plain(32, 1, 64) };
        let spec = KernelSpec { name: "test".into(), op, geometry };
        let params = spec.op.params();
        prop_assume!(which > 0 && which < params.len());
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let mut all: Vec<Words> = params.iter().map(|p| words(&operand(&spec, p.access, p.shape, 1, rng))).collect();
        let short = len.min(all[which].1.saturating_sub(1));
        all[which].1 = short;
        let args = params.iter().zip(&mut all).map(|(param, (words, len))| match param.access {
            Access::Read => Arg::Read(&bytemuck::cast_slice(words)[..*len]),
            Access::Write | Access::Update => Arg::Write(&mut bytemuck::cast_slice_mut(words)[..*len]),
        });
        let result = exec(&spec, StepState { pos: 0, n: 1, head_from: 0, generation: 0 }, args.collect());
        let refused = matches!(result, Err(LaunchError::Operand { .. }));
        prop_assert!(refused);
    }
}
