//! What the check of a launch lets pass where results are rounded coarsely, and what not: scales of int8 blocks, f16 in a cache.

use super::{CTX, Words, bytes, operand, words};
use half::f16;
use hipc_ir::dtype::{DType, KvType, Q8Layout, Real};
use hipc_ir::fused::{
    Access, Attend, CacheSpec, Combine, Finish, FusedOp, Gemv, HeadOut, HeadPart, Heads, Input, QkPrologue, Role, Row, RowExpr,
    Segment, Tail,
};
use hipc_ir::plan::{Geometry, KernelSpec, StepState};
use hipc_reference::blocks::quantize;
use hipc_reference::launch::{Arg, Finding, check, exec};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// A launch of one token at position 3.
struct Launch {
    spec: KernelSpec,
    before: Vec<Words>,
}

const STATE: StepState = StepState { pos: 3, n: 1, head_from: 0, generation: 0 };

impl Launch {
    fn new(op: FusedOp) -> Self {
        let geometry = Geometry { parts_in: 1, ..Geometry::plain(32, 1, 64) };
        let spec = KernelSpec { name: "test".into(), op, geometry };
        let rng = &mut ChaCha8Rng::seed_from_u64(5);
        let before = spec.op.params().iter().map(|p| words(&operand(&spec, p.access, p.shape, 1, rng))).collect();
        Self { spec, before }
    }

    fn at(&self, role: Role) -> usize {
        self.spec.op.params().iter().position(|p| p.role == role).expect("the op has it")
    }

    /// An operand's bytes from before the launch.
    fn operand(&mut self, role: Role) -> &mut [u8] {
        let at = self.at(role);
        let (words, len) = &mut self.before[at];
        &mut bytemuck::cast_slice_mut(words)[..*len]
    }

    /// All operands behind the launch on `cpu`.
    fn done(&self) -> Vec<Words> {
        let mut after = self.before.clone();
        let args = self.spec.op.params().into_iter().zip(&mut after).map(|(param, (words, len))| match param.access {
            Access::Read => Arg::Read(&bytemuck::cast_slice(words)[..*len]),
            Access::Write | Access::Update => Arg::Write(&mut bytemuck::cast_slice_mut(words)[..*len]),
        });
        exec(&self.spec, STATE, args.collect()).unwrap();
        after
    }

    fn check(&self, after: &[Words], role: Role) -> Finding {
        let [before, after] = [&self.before[..], after].map(|all| all.iter().map(bytes).collect::<Vec<_>>());
        let findings = check(&self.spec, STATE, &before, &after).unwrap();
        findings.into_iter().find(|f| f.role == role).expect("it is written")
    }

    /// The finding on the int8 result with its scales changed, number by number.
    fn with_scales(&self, change: impl Fn(usize, f32) -> f32) -> Finding {
        let (mut after, at) = (self.done(), self.at(Role::Quantized));
        let scales = &mut bytemuck::cast_slice_mut::<u64, f32>(&mut after[at].0)[N / 4..][..N / 32];
        scales.iter_mut().enumerate().for_each(|(i, s)| *s = change(i, *s));
        self.check(&after, Role::Quantized)
    }
}

/// Values of the int8 results.
const N: usize = 64;
/// Inputs of the products.
const K: usize = 256;

fn product(dtype: DType) -> Launch {
    let tail = Tail::Vector { combine: Combine::One, residual: false, finish: Finish::Q8 };
    let segments = vec![Segment { dtype, layout: hipc_ir::Layout::Gguf, rows: N as u32, bias: false }];
    Launch::new(FusedOp::Gemv(Gemv { k: K as u32, input: Input::Q8, deferred: None, segments, tail }))
}

/// Products of numbers above zero: every sum is as large as its terms.
fn positive_product() -> Launch {
    let mut launch = product(DType::Q8_0);
    launch.operand(Role::Weight(0)).chunks_exact_mut(34).for_each(|block| block[2..].iter_mut().for_each(|q| *q &= 0x7f));
    let x: Vec<f32> = (0..K).map(|i| 1.0 + (i * 37 % 64) as f32 / 64.0).collect();
    quantize(Q8Layout { n: K as u32, block: Q8Layout::DEFAULT_BLOCK }, &x, launch.operand(Role::X(0)));
    launch
}

fn norm() -> Launch {
    let expr = RowExpr::Norm { eps: Real(1e-5), group: N as u32 };
    Launch::new(FusedOp::Row(Row { n: N as u32, expr, residual: false, finish: Finish::Q8 }))
}

#[test]
fn a_scale_that_is_off_by_five_millionths_is_found() {
    for launch in [positive_product(), norm()] {
        assert!(launch.with_scales(|_, s| s).passes());
        for factor in [1.0 + 5e-6, 1.0 - 5e-6] {
            let finding = launch.with_scales(|i, s| if i == 1 { s * factor } else { s });
            assert!(!finding.passes() && finding.strain > 2.0 && finding.fault.is_none(), "{finding:?}");
        }
    }
}

#[test]
fn scales_that_are_all_off_are_found_where_each_could_be() {
    // Quants of one sign and a minimum: the products cancel the offsets, and f32 has little left.
    let launch = product(DType::Q4_K);
    assert!(launch.with_scales(|_, s| s).passes());
    let one = launch.with_scales(|i, s| if i == 0 { s * (1.0 + 1.1e-6) } else { s });
    assert!(one.strain < 1.0, "{one:?}");
    let all = launch.with_scales(|_, s| s * (1.0 + 2e-6));
    assert!(!all.passes() && all.fault.is_none(), "{all:?}");
}

#[test]
fn a_term_that_is_missing_is_found() {
    let mut launch = positive_product();
    // One of eight activation blocks is so small that all it gives is a hundred-thousandth of the result.
    let scale = |launch: &mut Launch, factor: f32| {
        let scales = &mut bytemuck::cast_slice_mut::<u8, f32>(launch.operand(Role::X(0)))[K / 4..];
        scales[5] *= factor;
    };
    scale(&mut launch, 1e-4);
    let whole = launch.done();
    assert!(launch.check(&whole, Role::Quantized).passes());
    let mut less = Launch { spec: launch.spec.clone(), before: launch.before.clone() };
    scale(&mut less, 0.0);
    let finding = launch.check(&less.done(), Role::Quantized);
    assert!(!finding.passes() && finding.strain > 5.0, "{finding:?}");
}

#[test]
fn scales_that_are_no_numbers_or_of_the_other_sign_are_found() {
    for wrong in [f32::NAN, f32::INFINITY, 0.0] {
        assert!(!norm().with_scales(|i, s| if i == 1 { wrong } else { s }).passes(), "{wrong}");
    }
    assert!(!norm().with_scales(|i, s| if i == 1 { -s } else { s }).passes());
}

const CACHE: CacheSpec = CacheSpec { heads: 1, head_dim: 32, ctx: CTX, kv: KvType::F16 };

/// A launch that appends its input as it is, and that input's first value.
fn appended(value: f32) -> Launch {
    let part = HeadPart { heads: 1, head_dim: 32, norm: None, rope: None, out: HeadOut::Append(CACHE) };
    let mut launch = Launch::new(FusedOp::Heads(Heads { parts: vec![part] }));
    launch.operand(Role::X(0))[..4].copy_from_slice(&value.to_le_bytes());
    launch
}

/// Moves the first appended value by so many f16.
fn moved(launch: &Launch, role: Role, by: i16) -> Vec<Words> {
    let (mut after, at) = (launch.done(), launch.at(role));
    let value = &mut bytemuck::cast_slice_mut::<u64, u16>(&mut after[at].0)[STATE.pos as usize * 32];
    *value = value.wrapping_add_signed(by);
    after
}

#[test]
fn a_half_is_rounded_the_other_way_only_at_a_tie() {
    let ulp = f16::EPSILON.to_f32();
    // Just above the middle between 1 and its successor, so rounded up; the other way is down.
    let launch = appended(1.0 + 0.5 * ulp + f32::EPSILON);
    let finding = |launch: &Launch, by| launch.check(&moved(launch, Role::Cache(0), by), Role::Cache(0));
    assert!(finding(&launch, 0).passes() && finding(&launch, 0).ties == 0);
    assert!(finding(&launch, -1).passes() && finding(&launch, -1).ties == 1);
    assert!(!finding(&launch, 1).passes() && !finding(&launch, -2).passes());
    // A hundredth of the distance from the tie.
    let launch = appended(1.0 + 0.51 * ulp);
    assert!(finding(&launch, 0).passes() && !finding(&launch, -1).passes());
}

#[test]
fn attention_is_judged_by_the_key_it_stored() {
    let prologue = Some(QkPrologue { norm: None, rope: None });
    let op = Attend { heads: 1, cache: CACHE, scale: Real(0.1), prologue, finish: Finish { raw: true, ..Finish::Q8 } };
    let mut launch = Launch::new(FusedOp::Attend(op));
    launch.operand(Role::Q)[..4].copy_from_slice(&1f32.to_le_bytes());
    let tie = 1.0 + 0.5 * f16::EPSILON.to_f32();
    launch.operand(Role::K)[..4].copy_from_slice(&(tie + f32::EPSILON).to_le_bytes());
    // The device rounds the key down where the reference rounds it up, and goes on with that.
    let mut other = Launch { spec: launch.spec.clone(), before: launch.before.clone() };
    other.operand(Role::K)[..4].copy_from_slice(&(tie - f32::EPSILON).to_le_bytes());
    let after = other.done();
    assert_eq!(launch.check(&after, Role::CacheK).ties, 1);
    for role in [Role::CacheK, Role::Raw, Role::Quantized] {
        let finding = launch.check(&after, role);
        assert!(finding.passes(), "{finding:?}");
    }
    // With the key of the reference in the cache, the same result is wrong.
    let at = launch.at(Role::CacheK);
    let mut mixed = after;
    mixed[at] = launch.done()[at].clone();
    assert!(!launch.check(&mixed, Role::Quantized).passes());
}
