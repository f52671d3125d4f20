//! A machine that executes plans on symbols: the judge of what a damaged plan still means.
//!
//! Memory is cells of [`Plan::ALIGN`] bytes that hold a symbol (a hash of how it came about) and the layout it was written
//! in. A launch reads its operands' cells and writes symbols made of its op and everything it read. What would be undefined
//! (unwritten cells, another layout, bytes beyond a buffer, workgroups in each other's way, a grid that doesn't fit) stops
//! the machine. Two plans that end with equal symbols compute the same.

use hipc_ir::dtype::{Layout, Q8Layout};
use hipc_ir::fused::{Access, Combine, FusedOp, Param, Shape, Tail};
use hipc_ir::plan::{Buffer, BufferKind, KernelSpec, Launch, Plan, Program, Space};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

/// What a plan leaves behind: results of each program, caches, the token list, the outbox and the state.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome(Vec<(String, u64)>);

fn symbol(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

#[derive(Default)]
struct Machine {
    cells: HashMap<(Space, u64), (u64, String)>,
}

/// Executes every program after the other; `None` where a step is undefined.
pub fn run(plan: &Plan) -> Option<Outcome> {
    let mut machine = Machine::default();
    // What the runtime fills in at load.
    for (b, decl) in &plan.buffers {
        let (name, layout) = match decl.kind {
            BufferKind::Weight(w, layout) => {
                repacked(plan, b, layout)?;
                let w = plan.weights.get(w)?;
                (w.name.clone(), format!("{:?}", Shape::Weight { dtype: w.dtype, layout, rows: w.rows, cols: w.cols }))
            }
            BufferKind::Rope(r) => {
                let decl = plan.ropes.get(r)?;
                let factors = decl.factors.map(|w| plan.weights.get(w));
                (format!("{decl:?} {factors:?}"), format!("{:?} {}", decl.style, decl.dims))
            }
            BufferKind::Cache(c) => {
                let c = plan.caches.get(c)?;
                (format!("cache {} {:?}", c.layer, c.kind), format!("{} {} {} {:?}", c.heads, c.head_dim, plan.ctx, plan.kv))
            }
            BufferKind::Tokens => ("tokens".into(), "tokens".into()),
            BufferKind::State => ("state".into(), "state".into()),
            BufferKind::Outbox => ("outbox".into(), "outbox".into()),
            BufferKind::Sampling => ("sampling".into(), "sampling".into()),
            BufferKind::Draws => ("draws".into(), "draws".into()),
            BufferKind::Counters => ("zero".into(), "counters".into()),
            _ => continue,
        };
        machine.write(decl.space, span(decl.offset, decl.bytes)?, &layout, symbol(name));
    }
    let mut left = Vec::new();
    for program in &plan.programs {
        machine.cells.retain(|(space, _), _| *space != Space::Arena);
        for launch in &program.launches {
            machine.launch(plan, program, launch)?;
        }
        for buffer in [program.logits, program.ids] {
            let decl = plan.buffers.get(buffer)?;
            let per_token = if decl.kind == BufferKind::Ids { 4 } else { 4 * u64::from(plan.model.vocab) };
            let bytes = u64::from(program.tokens) * per_token;
            let content = machine.read(decl.space, span(decl.offset, bytes)?, None)?;
            left.push((format!("{:?} {:?} of {}", program.kind, decl.kind, program.tokens), content));
        }
    }
    let kept = |kind| matches!(kind, BufferKind::Cache(_) | BufferKind::Tokens | BufferKind::Outbox | BufferKind::State);
    for decl in plan.buffers.values().filter(|d| kept(d.kind)) {
        let name = match decl.kind {
            BufferKind::Cache(c) => format!("{:?}", plan.caches.get(c)?),
            kind => format!("{kind:?}"),
        };
        left.push((name, machine.read(decl.space, span(decl.offset, decl.bytes)?, None)?));
    }
    left.sort();
    Some(Outcome(left))
}

/// Cells of these bytes.
fn span(offset: u64, bytes: u64) -> Option<Range<u64>> {
    let end = offset.checked_add(bytes)?;
    (offset.is_multiple_of(Plan::ALIGN) && end <= 1 << 47).then(|| offset / Plan::ALIGN..end.div_ceil(Plan::ALIGN))
}

impl Machine {
    fn write(&mut self, space: Space, cells: Range<u64>, layout: &str, content: u64) {
        for (i, cell) in cells.enumerate() {
            self.cells.insert((space, cell), (symbol((content, i)), layout.to_owned()));
        }
    }

    fn read(&self, space: Space, cells: Range<u64>, layout: Option<&str>) -> Option<u64> {
        let cell =
            |cell| self.cells.get(&(space, cell)).filter(|(_, l)| layout.is_none_or(|layout| l == layout)).map(|(s, _)| *s);
        cells.map(cell).collect::<Option<Vec<u64>>>().map(symbol)
    }

    fn launch(&mut self, plan: &Plan, program: &Program, launch: &Launch) -> Option<()> {
        let spec = plan.kernels.get(launch.kernel)?;
        let params = spec.op.params();
        if launch.args.len() != params.len() || !covers(spec, program.tokens, launch.grid) {
            return None;
        }
        let mut inputs = vec![symbol(format!("{:?} {:?}", spec.op, program.kind))];
        let mut used: Vec<(bool, Space, Range<u64>)> = Vec::new();
        let mut outputs = Vec::new();
        for (param, &buffer) in params.iter().zip(&launch.args) {
            let decl = plan.buffers.get(buffer)?;
            let (bytes, layout) = place(plan, spec, program.tokens, param, buffer)?;
            if bytes > decl.bytes {
                return None;
            }
            let cells = span(decl.offset, bytes)?;
            let writes = param.access != Access::Read;
            let meets = |(w, space, other): &(bool, Space, Range<u64>)| {
                (*w || writes) && *space == decl.space && other.start < cells.end && cells.start < other.end
            };
            if used.iter().any(meets) {
                return None;
            }
            used.push((writes, decl.space, cells.clone()));
            // Of a cache that is appended to, only the new rows are a result; they don't depend on what is there.
            let appends =
                param.access == Access::Update && matches!(param.shape, Shape::Cache(_) | Shape::Tokens | Shape::Outbox);
            let content = self.read(decl.space, cells.clone(), Some(&layout));
            match param.access {
                Access::Read => inputs.push(content?),
                Access::Update if !appends => inputs.push(content?),
                Access::Update => content.map(drop)?,
                Access::Write => {}
            }
            // Counters are left as they were.
            if writes && param.shape != Shape::Counters {
                outputs.push((decl.space, cells, layout));
            }
        }
        let result = symbol(inputs);
        for (i, (space, cells, layout)) in outputs.into_iter().enumerate() {
            self.write(space, cells, &layout, symbol((result, i)));
        }
        Some(())
    }
}

/// Whether the weight in a buffer comes into its layout.
fn repacked(plan: &Plan, buffer: Buffer, layout: Layout) -> Option<()> {
    let mut launches = plan.load.iter().filter(|l| l.args.contains(&buffer));
    let Some(launch) = launches.next() else { return (layout == Layout::Gguf).then_some(()) };
    let spec = plan.kernels.get(launch.kernel)?;
    let FusedOp::Repack(op) = &spec.op else { return None };
    let BufferKind::Weight(w, _) = plan.buffers.get(buffer)?.kind else { return None };
    let w = plan.weights.get(w)?;
    let &[state, staging, to] = launch.args.as_slice() else { return None };
    let staging = plan.buffers.get(staging)?;
    let fits = u64::from(op.piece) * w.dtype.row_bytes(w.cols)? <= staging.bytes;
    let meant = (op.dtype, op.layout, op.rows, op.cols) == (w.dtype, layout, w.rows, w.cols);
    let all = launches.next().is_none() && state == plan.state && to == buffer && staging.kind == BufferKind::Staging;
    (all && fits && meant && layout != Layout::Gguf && op.piece > 0 && covers(spec, 1, launch.grid)).then_some(())
}

/// Bytes of an operand, and the layout in which both sides must see them.
fn place(plan: &Plan, spec: &KernelSpec, tokens: u32, param: &Param, buffer: Buffer) -> Option<(u64, String)> {
    let t = u64::from(tokens);
    let parts = if param.access == Access::Write { spec.parts_out() } else { spec.geometry.parts_in };
    let shape = format!("{:?}", param.shape);
    Some(match param.shape {
        Shape::F32(n) => (4 * t * u64::from(n), shape),
        Shape::Q8(n) => (t * u64::from(Q8Layout { n, block: 32 }.stride()), shape),
        Shape::Ssq => (4 * t * u64::from(parts), format!("ssq {parts}")),
        Shape::Partials => (8 * t * u64::from(parts), format!("partials {parts}")),
        Shape::Ids => (4 * t, shape),
        Shape::Weight { dtype, layout, rows, cols } => (u64::from(rows) * layout.row_bytes(dtype, cols)?, shape),
        Shape::RopeTable(r) => (4 * u64::from(plan.ctx) * u64::from(r.dims), format!("{:?} {}", r.style, r.dims)),
        Shape::Cache(c) => (c.bytes(), format!("{} {} {} {:?}", c.heads, c.head_dim, c.ctx, c.kv)),
        Shape::State => (16, "state".into()),
        Shape::Tokens => (4 * (u64::from(plan.ctx) + 1), "tokens".into()),
        Shape::Outbox => (8 * (u64::from(plan.ctx) + 1), "outbox".into()),
        Shape::Sampling => (64, "sampling".into()),
        Shape::Draws => (8 * (u64::from(plan.ctx) + 1), "draws".into()),
        Shape::Scratch => (spec.scratch_bytes(tokens), format!("scratch of {buffer}")),
        Shape::Counters => (spec.counter_bytes(tokens), "counters".into()),
    })
}

/// Whether the workgroups compute every output exactly once.
fn covers(spec: &KernelSpec, tokens: u32, grid: [u32; 3]) -> bool {
    let (g, [x, y, z]) = (&spec.geometry, grid.map(u64::from));
    let tiles = |lengths: &[u32]| -> u64 { lengths.iter().map(|&n| u64::from(n).div_ceil(u64::from(g.tile))).sum() };
    let wanted = match &spec.op {
        FusedOp::Gemv(op) if matches!(op.tail, Tail::Vector { combine: Combine::Gated(_), .. }) => tiles(&[op.segments[0].rows]),
        FusedOp::Gemv(op) => tiles(&op.segments.iter().map(|s| s.rows).collect::<Vec<_>>()),
        FusedOp::Embed(e) => tiles(&[e.n]),
        FusedOp::Row(r) => tiles(&[r.n]),
        FusedOp::Heads(h) => tiles(&h.parts.iter().map(|p| p.heads).collect::<Vec<_>>()),
        FusedOp::Attend(a) => u64::from(a.cache.heads * g.splits),
        FusedOp::Choose(_) => 1,
        FusedOp::Repack(r) => u64::from(r.piece),
    };
    let each = u64::from(g.tokens);
    x == wanted && z == 1 && y * each >= tokens.into() && (y - 1) * each < tokens.into()
}
