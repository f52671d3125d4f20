//! A plan for the stand-in library: one addition.

use hipc_ir::fused::{Finish, FusedOp, ProgramKind, Row, RowExpr};
use hipc_ir::graph::{RopeDecl, RopeStyle, Weight, WeightDecl};
use hipc_ir::plan::{
    BufferDecl, BufferKind, Cost, Geometry, KernelSpec, Launch, ModelInfo, Plan, Program, SamplingState, Space, StepState,
};
use hipc_ir::{DType, EntityRef, KvType, Layout, PrimaryMap, Real};
pub use hipc_tests::standin::{HEADER, StandIn, compile};
use hipfire_run::device::WeightSource;

/// Values that are added.
pub const N: u32 = 192;

/// One launch, `out = x + w`, in two programs' worth of steps; a table that only has to be uploaded.
pub fn plan() -> Plan {
    let op = FusedOp::Row(Row { n: N, expr: RowExpr::Add, residual: false, finish: Finish::RAW });
    let geometry = Geometry::plain(32, 2, 64);
    let (mut weights, mut ropes, mut kernels) = (PrimaryMap::new(), PrimaryMap::new(), PrimaryMap::new());
    let weight = weights.push(WeightDecl { name: "w".into(), dtype: DType::F32, rows: 1, cols: N });
    let rope = ropes.push(RopeDecl { style: RopeStyle::Norm, dims: 8, base: Real(1e4), freq_scale: Real(1.0), factors: None });
    let kernel = kernels.push(KernelSpec { name: "add".into(), op, geometry });
    let mut buffers = PrimaryMap::new();
    let mut offsets = [0; Space::ALL.len()];
    let mut buffer = |kind, space: Space, bytes: u64| {
        let offset = &mut offsets[Space::ALL.iter().position(|&s| s == space).expect("listed")];
        let decl = BufferDecl { kind, space, offset: *offset, bytes };
        *offset += bytes.next_multiple_of(Plan::ALIGN);
        buffers.push(decl)
    };
    let state = buffer(BufferKind::State, Space::Persistent, StepState::BYTES);
    let tokens = buffer(BufferKind::Tokens, Space::Persistent, 4 * 1025);
    let outbox = buffer(BufferKind::Outbox, Space::Pinned, 4 * 1025);
    let sampling = buffer(BufferKind::Sampling, Space::Persistent, SamplingState::BYTES);
    let draws = buffer(BufferKind::Draws, Space::Persistent, 8 * 1025);
    let w = buffer(BufferKind::Weight(weight, Layout::Gguf), Space::Weights, u64::from(4 * N));
    let x = buffer(BufferKind::F32(N), Space::Arena, u64::from(4 * N));
    let out = buffer(BufferKind::Logits, Space::Persistent, u64::from(4 * N));
    let ids = buffer(BufferKind::Ids, Space::Persistent, 4);
    buffer(BufferKind::Rope(rope), Space::Persistent, 1024 * 4 * 8);
    let launch =
        Launch { kernel, args: vec![state, x, w, out], grid: [3, 1, 1], layer: None, label: "add".into(), cost: Cost::default() };
    Plan {
        target: "gfx1100".into(),
        model: ModelInfo { name: "adder".into(), arch: "none".into(), layers: 0, vocab: N, ctx_train: 1024 },
        ctx: 1024,
        kv: KvType::F16,
        weights,
        ropes,
        caches: PrimaryMap::new(),
        buffers,
        kernels,
        load: Vec::new(),
        programs: vec![Program { kind: ProgramKind::Decode, tokens: 1, launches: vec![launch], logits: out, ids }],
        state,
        tokens,
        outbox,
        sampling,
        draws,
    }
}

/// The one weight.
pub struct Halves(pub Vec<u8>);

impl WeightSource for Halves {
    fn weight(&self, weight: Weight) -> &[u8] {
        assert_eq!(weight.index(), 0);
        &self.0
    }
}

/// As a device has them.
pub fn bytes_of(values: impl Iterator<Item = f32>) -> Vec<u8> {
    values.flat_map(f32::to_le_bytes).collect()
}
