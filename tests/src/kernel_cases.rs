//! Kernels to compile and to compare with the reference: every skeleton, weight type, epilogue and rule of geometry.

use hipc_ir::dtype::{DType, KvType, Layout, Real};
use hipc_ir::fused::{
    Attend, CacheSpec, Choose, Combine, Deferred, Embed, Finish, FusedOp, Gemv, HeadOut, HeadPart, Heads, Input, QkPrologue,
    Repack, RopeSpec, Row, RowExpr, Segment, SegmentOut, Tail,
};
use hipc_ir::graph::{Act, RopeStyle};
use hipc_ir::plan::{Geometry, KernelSpec, StepState};

/// Everything a result can be written as.
pub const ALL: Finish = Finish { raw: true, gain: true, f32: true, q8: true, ssq: true };

/// Positions of every cache and table but those of [`LONG`] attention.
pub const CTX: u32 = 96;
/// Positions that are worth several workgroups to attention, which joins their results.
pub const LONG: u32 = 400;
const DEFERRED: Deferred = Deferred { n: 256, eps: Real(1e-5) };

/// How a GEMV is spread in a case: waves that share rows, waves that split K, rows at a time, outputs, tokens.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    row_waves: u32,
    k_waves: u32,
    rows: u32,
    tile: u32,
    tokens: u32,
}

const fn spread(row_waves: u32, k_waves: u32, rows: u32, tile: u32, tokens: u32) -> Spread {
    Spread { row_waves, k_waves, rows, tile, tokens }
}

impl Spread {
    fn geometry(self, wave: u32, op: &Gemv) -> Geometry {
        let gated = matches!(op.tail, Tail::Vector { combine: Combine::Gated(_), .. });
        let rows = if gated { 2 * self.tile } else { self.tile };
        Geometry {
            rows_per_wave: self.rows,
            k_waves: self.k_waves,
            row_steps: rows / (self.rows * self.row_waves),
            tokens: self.tokens,
            parts_in: if op.deferred.is_some() { 16 } else { 0 },
            ..Geometry::plain(wave, self.row_waves * self.k_waves, self.tile)
        }
    }
}

/// Number and label, as kernels are named.
fn named(cases: Vec<(String, FusedOp, Geometry)>) -> Vec<KernelSpec> {
    let name = |(i, (label, op, geometry))| KernelSpec { name: format!("k{i:03}_{label}"), op, geometry };
    cases.into_iter().enumerate().map(name).collect()
}

/// Small kernels that together use every path, for waves of this many lanes. `tokens` is 1 (decode) or more.
pub fn small(wave: u32, tokens: u32) -> Vec<KernelSpec> {
    let mut cases = Vec::new();
    let layouts = |dtype: DType| Layout::ALL.into_iter().filter(move |l| l.row_bytes(dtype, 256).is_some());
    for (dtype, layout) in DType::ALL.into_iter().flat_map(|d| layouts(d).map(move |l| (d, l))) {
        gemvs(dtype, layout, wave, tokens, &mut cases);
        let finish = if dtype == DType::F16 { Finish::RAW } else { ALL };
        for n in [256, 1536] {
            let embed = Embed { vocab: 323, n, dtype, layout, finish };
            cases.push((format!("embed_{n}_{}", label(dtype, layout)), FusedOp::Embed(embed), Geometry::plain(wave, 2, 128)));
        }
    }
    if tokens == 1 {
        repacks(wave, &mut cases);
    }
    mixed(wave, tokens, &mut cases);
    attention(wave, tokens, &mut cases);
    others(wave, tokens, &mut cases);
    named(cases)
}

fn label(dtype: DType, layout: Layout) -> String {
    let split = if layout == Layout::Split { "_split" } else { "" };
    dtype.name().to_ascii_lowercase() + split
}

fn input(dtype: DType) -> Input {
    if dtype.is_quantized() { Input::Q8 } else { Input::F32 }
}

fn rope(style: RopeStyle, dims: u32, head_dim: u32) -> Option<RopeSpec> {
    Some(RopeSpec { style, dims, head_dim })
}

fn cache(heads: u32, head_dim: u32, kv: KvType) -> CacheSpec {
    CacheSpec { heads, head_dim, ctx: CTX, kv }
}

fn gemvs(dtype: DType, layout: Layout, wave: u32, tokens: u32, cases: &mut Vec<(String, FusedOp, Geometry)>) {
    let segment = |rows, bias| Segment { dtype, layout, rows, bias };
    let mut add = |what: &str, k, segments: Vec<Segment>, deferred, tail, s: Spread| {
        let op = Gemv { k, input: input(dtype), deferred, segments, tail };
        let s = Spread { tokens: if tokens > 1 { s.tokens } else { 1 }, ..s };
        let geometry = s.geometry(wave, &op);
        cases.push((format!("{what}_{}", label(dtype, layout)), FusedOp::Gemv(op), geometry));
    };
    let vector = |combine, residual, finish| Tail::Vector { combine, residual, finish };
    let q8_gain = Finish { raw: true, gain: true, f32: false, q8: true, ssq: true };
    let ssq = Finish { ssq: true, ..Finish::RAW };
    // Rows that end in a part of a tile, one chunk or less per wave, several chunks, several steps.
    add("one", 256, vec![segment(323, false)], None, vector(Combine::One, false, Finish::RAW), spread(2, 1, 2, 8, 4));
    add("down", 1536, vec![segment(96, true)], None, vector(Combine::One, true, q8_gain), spread(2, 4, 2, 32, 2));
    add("wide", 4096, vec![segment(40, false)], Some(DEFERRED), vector(Combine::One, true, ssq), spread(1, 2, 4, 16, 1));
    add("deep", 14336, vec![segment(12, false)], None, vector(Combine::One, false, Finish::RAW), spread(2, 2, 2, 12, 2));
    add(
        "gelu",
        512,
        vec![segment(64, true)],
        Some(DEFERRED),
        vector(Combine::Act(Act::Gelu), false, ALL),
        spread(4, 1, 1, 64, 3),
    );
    let pair = vec![segment(96, false), segment(96, true)];
    add("gate_up", 256, pair, Some(DEFERRED), vector(Combine::Gated(Act::Silu), false, Finish::Q8), spread(4, 2, 2, 32, 4));
    add("head", 256, vec![segment(323, false)], Some(DEFERRED), Tail::Head, spread(2, 2, 4, 40, 4));
    let qkv = vec![segment(128, true), segment(64, true), segment(64, false)];
    let norm = rope(RopeStyle::Norm, 24, 32);
    let append = SegmentOut::Append(None, cache(2, 32, KvType::F32));
    let tail = vec![SegmentOut::Store(norm), SegmentOut::Append(norm, cache(2, 32, KvType::F16)), append];
    add("qkv", 512, qkv.clone(), Some(DEFERRED), Tail::Separate(tail), spread(2, 2, 2, 8, 4));
    for (what, dims, tile) in [("neox", 64, 64), ("neox_tiled", 64, 16), ("neox_part", 32, 16)] {
        let neox = rope(RopeStyle::Neox, dims, 64);
        let tail = vec![SegmentOut::Store(neox), SegmentOut::Append(neox, cache(1, 64, KvType::F16)), SegmentOut::Store(None)];
        add(what, 512, qkv.clone(), None, Tail::Separate(tail), spread(4, 1, 2, tile, 4));
    }
}

/// Rows that are one block, that end in padding, and that a workgroup goes over several times.
fn repacks(wave: u32, cases: &mut Vec<(String, FusedOp, Geometry)>) {
    for dtype in DType::ALL.into_iter().filter(|t| t.is_quantized()) {
        for cols in [dtype.block_len(), 256, 768, 1536, 4096] {
            let op = Repack { dtype, layout: Layout::Split, rows: 9, cols, piece: 4 };
            cases.push((
                format!("repack_{cols}_{}", label(dtype, Layout::Gguf)),
                FusedOp::Repack(op),
                Geometry::plain(wave, 2, 1),
            ));
        }
    }
}

/// Launches that hold matrices of several types, as *_M files have them.
fn mixed(wave: u32, tokens: u32, cases: &mut Vec<(String, FusedOp, Geometry)>) {
    // Types meet in the layouts that they have on some target.
    let layout = |dtype| if matches!(dtype, DType::Q4_0 | DType::Q8_0 | DType::Q6_K) { Layout::Split } else { Layout::Gguf };
    let segment = |dtype, rows| Segment { dtype, layout: layout(dtype), rows, bias: false };
    for (what, types) in [
        ("k_quants", [DType::Q4_K, DType::Q4_K, DType::Q6_K]),
        ("quants", [DType::Q4_0, DType::Q8_0, DType::Q4_0]),
        ("floats", [DType::F32, DType::F16, DType::BF16]),
    ] {
        let [q, k, v] = types;
        let norm = rope(RopeStyle::Norm, 32, 32);
        let of = cache(2, 32, KvType::F16);
        let tail = Tail::Separate(vec![SegmentOut::Store(norm), SegmentOut::Append(norm, of), SegmentOut::Append(None, of)]);
        let segments = vec![segment(q, 128), segment(k, 64), segment(v, 64)];
        let op = Gemv { k: 512, input: input(q), deferred: Some(DEFERRED), segments, tail };
        let geometry = spread(2, 2, 2, 8, tokens.min(4)).geometry(wave, &op);
        cases.push((format!("mixed_{what}"), FusedOp::Gemv(op), geometry));

        let tail = Tail::Vector { combine: Combine::Gated(Act::Gelu), residual: true, finish: ALL };
        let op = Gemv { k: 512, input: input(q), deferred: None, segments: vec![segment(q, 96), segment(v, 96)], tail };
        let geometry = spread(2, 1, 2, 32, tokens.min(2)).geometry(wave, &op);
        cases.push((format!("gated_{what}"), FusedOp::Gemv(op), geometry));
    }
}

fn attention(wave: u32, tokens: u32, cases: &mut Vec<(String, FusedOp, Geometry)>) {
    // Query heads, KV heads, head_dim, waves, splits.
    let shapes = [
        (4, 2, 32, 2, 1),
        (3, 1, 48, 4, 2),
        (8, 2, 64, 4, 4),
        (2, 2, 80, 1, 2),
        (5, 1, 96, 8, 3),
        (8, 8, 112, 2, 2),
        (7, 1, 128, 4, 8),
        (16, 2, 128, 8, 2),
        (2, 1, 144, 4, 2),
        (4, 2, 160, 4, 2),
        (6, 2, 176, 2, 2),
        (2, 2, 192, 4, 1),
        (4, 1, 208, 8, 2),
        (3, 3, 224, 4, 3),
        (8, 4, 240, 2, 2),
        (2, 1, 256, 4, 4),
        (16, 1, 256, 8, 2),
    ];
    for (i, &(heads, kv_heads, head_dim, waves, splits)) in shapes.iter().enumerate() {
        for kv in [KvType::F16, KvType::F32] {
            let kv_name = if kv == KvType::F16 { "f16" } else { "f32" };
            let whole = (heads / kv_heads * head_dim) % 32 == 0;
            let finish = match (i % 3, whole) {
                (0, true) => Finish { raw: true, ..Finish::Q8 },
                (1, true) => Finish { ssq: false, ..ALL },
                (2, true) => Finish::Q8,
                _ => Finish::RAW,
            };
            let scale = Real(1.0 / f64::from(head_dim).sqrt());
            let cache = cache(kv_heads, head_dim, kv);
            let geometry = Geometry { splits, ..Geometry::plain(wave, waves, 1) };
            let mut add = |what: &str, prologue| {
                let op = Attend { heads, cache, scale, prologue, finish };
                cases.push((format!("{what}_{heads}_{kv_heads}_{head_dim}_{kv_name}"), FusedOp::Attend(op), geometry));
            };
            add("attend", None);
            if tokens == 1 {
                let style = if i % 2 == 0 { RopeStyle::Neox } else { RopeStyle::Norm };
                let dims = if i % 3 == 2 { head_dim / 2 } else { head_dim };
                let norm = (i % 4 != 3).then_some(Real(1e-6));
                let rope = if i % 4 == 1 { None } else { rope(style, dims, head_dim) };
                add("prologue", Some(QkPrologue { norm, rope }));
            }
        }
    }
    for (heads, kv_heads, head_dim, waves, splits, kv) in [(4, 2, 64, 2, 3, KvType::F16), (3, 1, 48, 4, 2, KvType::F32)] {
        let cache = CacheSpec { ctx: LONG, ..cache(kv_heads, head_dim, kv) };
        let norm = QkPrologue { norm: Some(Real(1e-6)), rope: rope(RopeStyle::Neox, head_dim, head_dim) };
        for prologue in [None, Some(norm)].into_iter().take(if tokens == 1 { 2 } else { 1 }) {
            let op = Attend { heads, cache, scale: Real(0.125), prologue, finish: Finish::RAW };
            let what = if prologue.is_some() { "prologue" } else { "attend" };
            let geometry = Geometry { splits, ..Geometry::plain(wave, waves, 1) };
            cases.push((format!("{what}_long_{heads}_{kv_heads}_{head_dim}"), FusedOp::Attend(op), geometry));
        }
    }
}

fn others(wave: u32, tokens: u32, cases: &mut Vec<(String, FusedOp, Geometry)>) {
    for (i, (what, n, tile, expr)) in [
        ("copy", 256, 128, RowExpr::Copy),
        ("add", 320, 128, RowExpr::Add),
        ("mul", 256, 64, RowExpr::Mul),
        ("silu", 256, 256, RowExpr::Act(Act::Silu)),
        ("geglu", 256, 96, RowExpr::Gated(Act::Gelu)),
        ("bias", 288, 96, RowExpr::Bias),
        ("norm", 512, 512, RowExpr::Norm { eps: Real(1e-5), group: 512 }),
        ("norm_heads", 512, 256, RowExpr::Norm { eps: Real(1e-6), group: 64 }),
        ("norm_odd", 240, 96, RowExpr::Norm { eps: Real(1e-6), group: 48 }),
        ("scale", 256, 128, RowExpr::Scale(DEFERRED)),
    ]
    .into_iter()
    .enumerate()
    {
        for finish in [Finish::RAW, if n % 32 == 0 { ALL } else { Finish { q8: false, ..ALL } }] {
            let op = Row { n, expr, residual: i % 2 == 1, finish };
            let parts_in = if matches!(expr, RowExpr::Scale(_)) { 16 } else { 0 };
            let all = if finish == Finish::RAW { "" } else { "_all" };
            cases.push((format!("row_{what}{all}"), FusedOp::Row(op), Geometry { parts_in, ..Geometry::plain(wave, 2, tile) }));
        }
    }
    // A place of LDS for each of many waves.
    let norm = Row { n: 512, expr: RowExpr::Norm { eps: Real(1e-5), group: 512 }, residual: false, finish: Finish::RAW };
    cases.push(("row_norm_waves".into(), FusedOp::Row(norm), Geometry::plain(wave, 8, 512)));
    let part = |heads, head_dim, norm: Option<f64>, rope, out| HeadPart { heads, head_dim, norm: norm.map(Real), rope, out };
    let neox = rope(RopeStyle::Neox, 64, 64);
    let parts = vec![
        part(8, 64, Some(1e-6), neox, HeadOut::Store),
        part(2, 64, Some(1e-6), neox, HeadOut::Append(cache(2, 64, KvType::F16))),
        part(2, 64, None, None, HeadOut::Append(cache(2, 64, KvType::F32))),
    ];
    cases.push(("heads".into(), FusedOp::Heads(Heads { parts }), Geometry::plain(wave, 4, 4)));
    let parts = vec![part(3, 80, None, rope(RopeStyle::Norm, 48, 80), HeadOut::Store)];
    cases.push(("heads_part".into(), FusedOp::Heads(Heads { parts }), Geometry::plain(wave, 2, 2)));
    let choose = |partials, advance| FusedOp::Choose(Choose { n: 323, partials, advance });
    cases.push(("choose_partials".into(), choose(true, false), Geometry { parts_in: 41, ..Geometry::plain(wave, 2, 8) }));
    if tokens == 1 {
        cases.push(("choose_advance".into(), choose(true, true), Geometry { parts_in: 41, ..Geometry::plain(wave, 8, 8) }));
    }
    cases.push(("choose_logits".into(), choose(false, false), Geometry::plain(wave, 4, 1)));
    // So many that LDS can't hold all that are equal.
    let many = FusedOp::Choose(Choose { n: 4999, partials: true, advance: false });
    cases.push(("choose_many".into(), many, Geometry { parts_in: 1250, ..Geometry::plain(wave, 4, 4) }));
}

/// Positions of the caches and tables of a case.
pub fn positions(op: &FusedOp) -> u32 {
    match op {
        FusedOp::Attend(a) => a.cache.ctx,
        _ => CTX,
    }
}

/// The steps that a kernel is tried at: for attention, around the edges of waves, blocks and splits.
pub fn states(op: &FusedOp, tokens: u32) -> Vec<StepState> {
    let ctx = positions(op) as i32;
    let state = |pos, n, head_from| StepState { pos, n, head_from, generation: 0 };
    match (op, tokens) {
        // First, middle and last rows, whole pieces and parts of them.
        (&FusedOp::Repack(Repack { rows, piece, .. }), _) => {
            let (rows, piece) = (rows as i32, piece as i32);
            vec![state(0, piece, 0), state(1, 1, 0), state(rows - piece, piece, 0), state(rows - 1, 1, 0)]
        }
        // A workgroup's part is at least 128 positions, and a whole number of what it takes at a time.
        (FusedOp::Attend(a), 1) if a.cache.ctx == LONG => {
            [0, 127, 128, 129, 143, 144, 255, 256, 257, 300, ctx - 1].map(|pos| state(pos, 1, 0)).to_vec()
        }
        (FusedOp::Attend(a), _) if a.cache.ctx == LONG => {
            [(0, 1), (125, 6), (254, 5), (ctx - 6, 6)].map(|(p, n)| state(p, n, n)).to_vec()
        }
        (FusedOp::Attend(_), 1) => [0, 1, 15, 16, 31, 32, 33, 47, 63, 64, ctx - 1].map(|pos| state(pos, 1, 0)).to_vec(),
        (FusedOp::Attend(_), _) => {
            [(0, 1), (0, 6), (29, 5), (31, 2), (60, 6), (ctx - 6, 6)].map(|(p, n)| state(p, n, n)).to_vec()
        }
        (_, 1) => vec![state(0, 1, 0), state(ctx - 1, 1, 0), state(7, 1, 1)],
        (_, _) => vec![state(0, 6, 0), state(5, 5, 4), state(ctx - 1, 1, 0), state(10, 3, 3)],
    }
}
