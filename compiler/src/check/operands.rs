//! Each launch by itself: its arguments are what the operands of its op must be, large enough for all tokens of its program,
//! and its grid covers the outputs exactly.

use super::broken;
use super::error::{CheckError, Site};
use super::geometry::parts;
use hipc_ir::Layout;
use hipc_ir::fused::{Access, FusedOp, Param, ProgramKind, Role, Shape};
use hipc_ir::graph::{Cache, CacheKind};
use hipc_ir::plan::{Buffer, BufferKind, KernelSpec, Launch, Plan, Program};

/// Faults of all launches; kernels and declarations are sound.
pub(super) fn faults(plan: &Plan) -> Vec<CheckError> {
    let mut faults = Vec::new();
    for (i, program) in plan.programs.iter().enumerate() {
        for (at, launch) in Site::all(i, program) {
            one(plan, Some(program), &at, launch, &mut faults);
        }
    }
    for (at, launch) in Site::load(plan) {
        one(plan, None, &at, launch, &mut faults);
    }
    faults.extend(unfilled(plan));
    faults
}

/// Weights that nothing brings into their layout, or more than one launch does.
fn unfilled(plan: &Plan) -> impl Iterator<Item = CheckError> {
    plan.buffers.iter().filter_map(|(buffer, decl)| {
        let BufferKind::Weight(_, layout) = decl.kind else { return None };
        let launches = plan.load.iter().filter(|l| l.args.last() == Some(&buffer)).count();
        let expected = usize::from(layout != Layout::Gguf);
        let rule = "one launch at load brings a weight into its layout, none into GGUF's";
        (launches != expected).then_some(CheckError::Buffer { buffer, kind: decl.kind, rule })
    })
}

/// A launch of a program, or one at load.
fn one(plan: &Plan, program: Option<&Program>, at: &Site, launch: &Launch, faults: &mut Vec<CheckError>) {
    let tokens = program.map_or(1, |p| p.tokens);
    let spec = &plan.kernels[launch.kernel];
    let params = spec.op.params();
    if params.len() != launch.args.len() {
        faults.push(CheckError::Arguments { at: at.clone(), found: launch.args.len(), expected: params.len() });
        return;
    }
    for (index, (param, &buffer)) in params.iter().zip(&launch.args).enumerate() {
        let (role, shape, decl) = (param.role, param.shape, &plan.buffers[buffer]);
        match bytes_touched(plan, spec, tokens, param, buffer) {
            None => faults.push(CheckError::Operand { at: at.clone(), index, role, shape, buffer, kind: decl.kind }),
            Some(needs) if needs > decl.bytes => {
                faults.push(CheckError::Small { at: at.clone(), index, role, buffer, has: decl.bytes, needs });
            }
            Some(_) => {}
        }
    }
    let groups = u64::from(tokens).div_ceil(u64::from(spec.geometry.tokens));
    let expected = [parts(spec), groups, 1];
    if launch.grid.map(u64::from) != expected {
        faults.push(CheckError::Grid { at: at.clone(), found: launch.grid, expected });
    }
    let threads = u64::from(spec.geometry.wave) * u64::from(spec.geometry.waves);
    let [k, v] = attended(plan, spec, &launch.args).map(|c| c.map(|c| &plan.caches[c]));
    let prologue = matches!(&spec.op, FusedOp::Attend(a) if a.prologue.is_some());
    let advance = matches!(&spec.op, FusedOp::Choose(c) if c.advance);
    let one = program.is_some_and(|p| p.tokens == 1 && p.kind == ProgramKind::Decode);
    let last = program.is_some_and(|p| at.launch + 1 == p.launches.len());
    let rules = [
        // The dispatch packet counts work-items of x in 32 bits; HIP allows 65,535 workgroups along y.
        (expected[0].checked_mul(threads).is_some_and(|t| t <= u32::MAX.into()), "the grid has more than 2^32 − 1 threads"),
        (groups <= 65_535, "the grid has more than 65,535 groups of tokens"),
        (!prologue || one, "a prologue of q and k is for one token"),
        (!advance || (one && last), "the state is advanced before the end of a decode step"),
        (
            k.is_none_or(|k| k.kind == CacheKind::K) && v.is_none_or(|v| v.kind == CacheKind::V),
            "K is read from V's cache, or V from K's",
        ),
        (k.map(|k| k.layer) == v.map(|v| v.layer), "K and V are of different layers"),
        (
            matches!(spec.op, FusedOp::Repack(_)) == program.is_none(),
            "weights are brought into their layout at load, and nothing else is done then",
        ),
    ];
    faults.extend(broken(&rules).map(|rule| CheckError::Launch { at: at.clone(), rule }));
}

/// The caches of K and V that an attention launch reads.
fn attended(plan: &Plan, spec: &KernelSpec, args: &[Buffer]) -> [Option<Cache>; 2] {
    [Role::CacheK, Role::CacheV].map(|role| {
        let at = spec.op.params().iter().position(|p| p.role == role)?;
        cache_of(plan, *args.get(at)?)
    })
}

/// The cache that a buffer holds.
pub(super) fn cache_of(plan: &Plan, buffer: Buffer) -> Option<Cache> {
    match plan.buffers[buffer].kind {
        BufferKind::Cache(cache) => Some(cache),
        _ => None,
    }
}

fn product(factors: &[u64]) -> u64 {
    factors.iter().fold(1, |p, &f| p.saturating_mul(f))
}

/// Bytes of an argument that the kernel may touch in a step of `tokens` tokens, or `None` if the buffer holds something else
/// than the operand must be.
pub(super) fn bytes_touched(plan: &Plan, spec: &KernelSpec, tokens: u32, param: &Param, buffer: Buffer) -> Option<u64> {
    let (g, t) = (&spec.geometry, u64::from(tokens));
    let own_parts = if param.access == Access::Write { parts(spec) } else { u64::from(g.parts_in) };
    let attend = if let FusedOp::Attend(a) = &spec.op { Some(a) } else { None };
    let (fits, bytes) = match (param.shape, plan.buffers[buffer].kind) {
        (Shape::F32(n), BufferKind::F32(m)) => (n == m, product(&[4, t, n.into()])),
        (Shape::F32(n), BufferKind::Logits) => (n == plan.model.vocab, product(&[4, t, n.into()])),
        // Quants, then a scale and a sum of 4 bytes per block; tokens begin at multiples of 128.
        (Shape::Q8(n), BufferKind::Q8(q8)) => {
            (n == q8.n, product(&[t, (u64::from(n) + u64::from(n / q8.block) * 8).next_multiple_of(128)]))
        }
        (Shape::Ssq, BufferKind::Ssq(m)) => (own_parts == u64::from(m), product(&[4, t, own_parts])),
        (Shape::Partials, BufferKind::Partials(m)) => (own_parts == u64::from(m), product(&[8, t, own_parts])),
        (Shape::Ids, BufferKind::Ids) => (true, product(&[4, t])),
        (Shape::Weight { dtype, layout, rows, cols }, BufferKind::Weight(w, found)) if param.role != Role::Staging => {
            let w = &plan.weights[w];
            ((w.dtype, found, w.rows, w.cols) == (dtype, layout, rows, cols), super::declarations::weight_bytes(w, found)?)
        }
        // What is uploaded to be repacked has its own place.
        (Shape::Weight { dtype, layout, rows, cols }, BufferKind::Staging) if param.role == Role::Staging => {
            (layout == Layout::Gguf, product(&[rows.into(), (cols / dtype.block_len()).into(), dtype.block_bytes().into()]))
        }
        (Shape::RopeTable(spec), BufferKind::Rope(r)) => {
            let r = &plan.ropes[r];
            ((r.style, r.dims) == (spec.style, spec.dims), product(&[4, plan.ctx.into(), spec.dims.into()]))
        }
        (Shape::Cache(spec), BufferKind::Cache(c)) => {
            let c = &plan.caches[c];
            let fits = (c.heads, c.head_dim, plan.ctx, plan.kv) == (spec.heads, spec.head_dim, spec.ctx, spec.kv);
            (fits, product(&[spec.heads.into(), spec.ctx.into(), spec.head_dim.into(), spec.kv.bytes().into()]))
        }
        (Shape::State, BufferKind::State) => (buffer == plan.state, 16),
        (Shape::Tokens, BufferKind::Tokens) => (buffer == plan.tokens, 4 * (u64::from(plan.ctx) + 1)),
        (Shape::Outbox, BufferKind::Outbox) => (buffer == plan.outbox, 8 * (u64::from(plan.ctx) + 1)),
        (Shape::Sampling, BufferKind::Sampling) => (buffer == plan.sampling, 64),
        (Shape::Draws, BufferKind::Draws) => (buffer == plan.draws, 8 * (u64::from(plan.ctx) + 1)),
        // Per token, query head and split: maximum, sum and weighted values. One split needs no combination.
        (Shape::Scratch, BufferKind::Scratch) => {
            let a = attend.filter(|_| g.splits > 1);
            let bytes = |head_dim| 4 * (u64::from(head_dim) + 2);
            (true, a.map_or(0, |a| product(&[t, a.heads.into(), g.splits.into(), bytes(a.cache.head_dim)])))
        }
        // A u32 per token and KV head.
        (Shape::Counters, BufferKind::Counters) => (true, attend.map_or(0, |a| product(&[4, t, a.cache.heads.into()]))),
        _ => return None,
    };
    fits.then_some(bytes)
}
