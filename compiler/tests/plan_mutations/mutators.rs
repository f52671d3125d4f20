//! Ways to damage a plan, a row each.

use super::choices::*;
use hipc_ir::EntityRef;
use hipc_ir::dtype::{DType, KvType, Layout, Real};
use hipc_ir::fused::{FusedOp, ProgramKind, SegmentOut, Tail};
use hipc_ir::graph::{Cache, CacheKind, RopeStyle, Weight};
use hipc_ir::plan::{BufferDecl, BufferKind, Kernel, Plan, Space};

/// A kind of damage. One that finds nothing to damage leaves the plan as it is.
pub type Mutator = fn(&mut Plan, &Rng);

/// All kinds, by name.
pub const MUTATORS: &[(&str, Mutator)] = &[
    // Memory.
    ("offset + 256", |p, r| decl(p, r, |_| true).offset += 256),
    ("arena offset + 256", |p, r| decl(p, r, in_arena).offset += 256),
    ("offset − 256", |p, r| {
        let d = decl(p, r, |d| d.offset >= 256);
        d.offset = d.offset.wrapping_sub(256);
    }),
    ("offset ± a few", |p, r| {
        let d = decl(p, r, |_| true);
        d.offset = d.offset.wrapping_add(r.of(&[1, 16, 128, u64::MAX]));
    }),
    ("offset near 2^64", |p, r| decl(p, r, |_| true).offset = r.of(&[u64::MAX, u64::MAX - 255, 1 << 63])),
    ("offset of another", |p, r| {
        let a = buffer(p, r, in_arena);
        decl(p, r, in_arena).offset = p.buffers[a].offset;
    }),
    ("offsets exchanged", |p, r| {
        let (a, b) = (buffer(p, r, in_arena), buffer(p, r, in_arena));
        let offset = p.buffers[a].offset;
        p.buffers[a].offset = p.buffers[b].offset;
        p.buffers[b].offset = offset;
    }),
    ("place of another", |p, r| {
        let from = p.buffers[buffer(p, r, |_| true)].clone();
        let d = decl(p, r, |d| d.space == from.space);
        d.offset = from.offset;
    }),
    ("smaller", |p, r| {
        let d = decl(p, r, |d| d.bytes > 0);
        d.bytes -= r.of(&[1, 4, d.bytes / 2 + 1, d.bytes]).min(d.bytes);
    }),
    ("larger", |p, r| {
        let d = decl(p, r, |_| true);
        d.bytes += r.of(&[1, 256, 4096]);
    }),
    ("counters smaller", |p, r| {
        let d = decl(p, r, |d| d.kind == BufferKind::Counters);
        d.bytes = d.bytes.saturating_sub(r.of(&[1, 4, 8]));
    }),
    ("another space", |p, r| {
        let space = r.of(&Space::ALL);
        decl(p, r, |d| d.space != space).space = space;
    }),
    ("another kind", |p, r| {
        let kind = p.buffers[buffer(p, r, |_| true)].kind;
        decl(p, r, |d| d.kind != kind).kind = kind;
    }),
    ("length of a vector", |p, r| {
        let d = decl(p, r, |d| {
            matches!(d.kind, BufferKind::F32(_) | BufferKind::Q8(_) | BufferKind::Ssq(_) | BufferKind::Partials(_))
        });
        match &mut d.kind {
            BufferKind::F32(n) | BufferKind::Ssq(n) | BufferKind::Partials(n) => *n = r.other(*n),
            BufferKind::Q8(q) => q.n = r.other(q.n),
            _ => {}
        }
    }),
    ("int8 block", |p, r| {
        if let BufferKind::Q8(q) = &mut decl(p, r, |d| matches!(d.kind, BufferKind::Q8(_))).kind {
            q.block = r.of(&[0, 16, 64]);
        }
    }),
    ("another layout of a weight", |p, r| {
        let is_weight = |d: &BufferDecl| matches!(d.kind, BufferKind::Weight(..));
        let decl = decl(p, r, is_weight);
        if let BufferKind::Weight(w, layout) = decl.kind {
            let other = if layout == Layout::Gguf { Layout::Split } else { Layout::Gguf };
            decl.kind = BufferKind::Weight(w, other);
        }
    }),
    ("another layout of a kernel's weights", |p, r| {
        let kernel = r.change(&mut p.kernels.keys().collect::<Vec<_>>()).to_owned();
        let layout = r.of(&Layout::ALL);
        p.kernels[kernel].op = p.kernels[kernel].op.clone().with_layouts(|_, _| layout);
    }),
    // Loading.
    ("a weight not repacked", |p, r| {
        if !p.load.is_empty() {
            p.load.remove(r.below(p.load.len()));
        }
    }),
    ("a weight repacked twice", |p, r| {
        if !p.load.is_empty() {
            let launch = r.of(&p.load);
            p.load.push(launch);
        }
    }),
    ("another argument at load", |p, r| {
        let b = buffer(p, r, |_| true);
        if !p.load.is_empty() {
            *r.change(&mut r.change(&mut p.load).args) = b;
        }
    }),
    ("another kernel at load", |p, r| {
        let k = r.of(&p.kernels.keys().collect::<Vec<_>>());
        if !p.load.is_empty() {
            r.change(&mut p.load).kernel = k;
        }
    }),
    ("staging shrunk", |p, r| {
        let staging = decl(p, r, |d| d.kind == BufferKind::Staging);
        staging.bytes = staging.bytes.saturating_sub(1 + r.below(4096) as u64);
    }),
    ("another size of pieces", |p, r| {
        let kernels: Vec<Kernel> = p.load.iter().map(|l| l.kernel).collect();
        if let Some(&kernel) = kernels.first()
            && let FusedOp::Repack(op) = &mut p.kernels[kernel].op
        {
            r.number([&mut op.piece]);
        }
    }),
    // Arguments.
    ("two arguments exchanged", |p, r| {
        let args = &mut launch(p, r).args;
        let (a, b) = (r.below(args.len()), r.below(args.len()));
        args.swap(a, b);
    }),
    ("another argument", |p, r| {
        let b = buffer(p, r, |_| true);
        *r.change(&mut launch(p, r).args) = b;
    }),
    ("another value of the same shape", |p, r| exchange(p, r, |x, y| x.kind == y.kind)),
    ("weights exchanged", |p, r| {
        exchange(p, r, |x, y| matches!((x.kind, y.kind), (BufferKind::Weight(..), BufferKind::Weight(..))) && x.bytes == y.bytes);
    }),
    ("caches exchanged", |p, r| {
        exchange(p, r, |x, y| matches!((x.kind, y.kind), (BufferKind::Cache(_), BufferKind::Cache(_))));
    }),
    ("argument missing", |p, r| {
        launch(p, r).args.pop();
    }),
    ("argument too many", |p, r| {
        let b = buffer(p, r, |_| true);
        launch(p, r).args.push(b);
    }),
    ("dangling argument", |p, r| {
        let b = dangling(r, p.buffers.len());
        *r.change(&mut launch(p, r).args) = b;
    }),
    ("dangling kernel", |p, r| launch(p, r).kernel = dangling(r, p.kernels.len())),
    ("dangling contents", |p, r| {
        let (w, c, o) = (dangling(r, p.weights.len()), dangling(r, p.caches.len()), dangling(r, p.ropes.len()));
        decl(p, r, |_| true).kind = r.of(&[BufferKind::Weight(w, Layout::Gguf), BufferKind::Cache(c), BufferKind::Rope(o)]);
    }),
    ("dangling state or result", |p, r| {
        let b = dangling(r, p.buffers.len());
        let program = &mut p.programs[0];
        **r.change(&mut [
            &mut p.state,
            &mut p.tokens,
            &mut p.outbox,
            &mut p.sampling,
            &mut p.draws,
            &mut program.logits,
            &mut program.ids,
        ]) = b;
    }),
    // Launches.
    ("launch dropped", |p, r| {
        let list = launches(p, r);
        list.remove(r.below(list.len()));
    }),
    ("launch twice in a row", |p, r| {
        let list = launches(p, r);
        let i = r.below(list.len());
        list.insert(i, list[i].clone());
    }),
    ("launch once more elsewhere", |p, r| {
        let list = launches(p, r);
        let copy = r.of(list);
        list.insert(r.below(list.len()), copy);
    }),
    ("neighbours exchanged", |p, r| {
        let list = launches(p, r);
        let i = r.below(list.len() - 1);
        list.swap(i, i + 1);
    }),
    ("launch moved", |p, r| {
        let list = launches(p, r);
        let moved = list.remove(r.below(list.len()));
        list.insert(r.below(list.len() + 1), moved);
    }),
    ("another kernel", |p, r| launch(p, r).kernel = Kernel::new(r.below(p.kernels.len()))),
    ("grid x", |p, r| {
        let x = &mut launch(p, r).grid[0];
        *x = r.other(*x);
    }),
    ("grid y or z", |p, r| {
        let v = &mut launch(p, r).grid[1..];
        let v = r.change(v);
        *v = r.other(*v);
    }),
    // Kernels.
    ("parts read", |p, r| geometry(p, r, |g| &mut g.parts_in)),
    ("tile", |p, r| geometry(p, r, |g| &mut g.tile)),
    ("waves", |p, r| geometry(p, r, |g| &mut g.waves)),
    ("lanes of a wave", |p, r| geometry(p, r, |g| &mut g.wave)),
    ("rows of a wave", |p, r| geometry(p, r, |g| &mut g.rows_per_wave)),
    ("waves of K", |p, r| geometry(p, r, |g| &mut g.k_waves)),
    ("row steps", |p, r| geometry(p, r, |g| &mut g.row_steps)),
    ("tokens of a workgroup", |p, r| geometry(p, r, |g| &mut g.tokens)),
    ("splits", |p, r| {
        let splits = &mut kernel(p, r, is_attend).geometry.splits;
        *splits = r.other(*splits);
    }),
    ("kernel name", |p, r| {
        let taken = kernel(p, r, |_| true).name.clone();
        kernel(p, r, |_| true).name = r.of(&[taken, String::new(), "0k".into(), "k-1".into(), "größe".into()]);
    }),
    // Ops.
    ("length of a deferred norm", |p, r| {
        op(p, r, has_deferred, |op, r| with_deferred(op, |d| d.n = r.other(d.n)));
    }),
    ("epsilon or scale", |p, r| {
        op(
            p,
            r,
            |op| has_deferred(op) || is_attend(op),
            |op, _| match op {
                FusedOp::Attend(a) => a.scale = Real(a.scale.0 * 2.0),
                other => with_deferred(other, |d| d.eps = Real(d.eps.0 * 2.0)),
            },
        );
    }),
    ("context of an op", |p, r| {
        let is = |op: &FusedOp| !caches(&mut op.clone()).is_empty();
        op(p, r, is, |op, r| {
            let mut specs = caches(op);
            let spec = r.change(&mut specs);
            spec.ctx = r.other(spec.ctx);
        });
    }),
    ("heads of an op's cache", |p, r| {
        let is = |op: &FusedOp| !caches(&mut op.clone()).is_empty();
        op(p, r, is, |op, r| {
            let mut specs = caches(op);
            let spec = r.change(&mut specs);
            r.number([&mut spec.heads, &mut spec.head_dim]);
        });
    }),
    ("query heads", |p, r| {
        op(p, r, is_attend, |op, r| {
            if let FusedOp::Attend(a) = op {
                a.heads = r.other(a.heads)
            }
        });
    }),
    ("K of a matrix", |p, r| {
        op(p, r, is_gemv, |op, r| {
            if let FusedOp::Gemv(g) = op {
                g.k = r.other(g.k)
            }
        })
    }),
    ("rows of a segment", |p, r| {
        op(p, r, is_gemv, |op, r| {
            if let FusedOp::Gemv(g) = op {
                let s = r.change(&mut g.segments);
                s.rows = r.other(s.rows);
            }
        });
    }),
    ("type of a segment", |p, r| {
        let dtype = r.of(&DType::ALL);
        op(p, r, is_gemv, |op, r| {
            if let FusedOp::Gemv(g) = op {
                r.change(&mut g.segments).dtype = dtype
            }
        });
    }),
    ("append becomes a store", |p, r| {
        op(p, r, is_separate, |op, r| {
            if let FusedOp::Gemv(g) = op
                && let Tail::Separate(outs) = &mut g.tail
            {
                *r.change(outs) = SegmentOut::Store(None);
            }
        });
    }),
    ("rotation left out", |p, r| {
        op(p, r, is_separate, |op, r| {
            if let FusedOp::Gemv(g) = op
                && let Tail::Separate(outs) = &mut g.tail
            {
                match r.change(outs) {
                    SegmentOut::Store(rope) | SegmentOut::Append(rope, _) => *rope = None,
                }
            }
        });
    }),
    ("state advanced or not", |p, r| {
        op(p, r, is_choose, |op, _| {
            if let FusedOp::Choose(c) = op {
                c.advance = !c.advance
            }
        })
    }),
    ("values in a partial", |p, r| {
        let tile = &mut kernel(p, r, is_choose).geometry.tile;
        *tile = r.other(*tile);
    }),
    ("prologue left out", |p, r| {
        op(p, r, is_attend, |op, _| {
            if let FusedOp::Attend(a) = op {
                a.prologue = None
            }
        })
    }),
    // Declarations.
    ("context of the plan", |p, r| p.ctx = r.other(p.ctx)),
    ("type of the cache", |p, _| p.kv = if p.kv == KvType::F16 { KvType::F32 } else { KvType::F16 }),
    ("vocabulary", |p, r| p.model.vocab = r.other(p.model.vocab)),
    ("type of a weight", |p, r| {
        let dtype = r.of(&DType::ALL);
        let w = Weight::new(r.below(p.weights.len()));
        p.weights[w].dtype = dtype;
    }),
    ("shape of a weight", |p, r| {
        let w = Weight::new(r.below(p.weights.len()));
        let decl = &mut p.weights[w];
        r.number([&mut decl.rows, &mut decl.cols]);
    }),
    ("K declared as V", |p, r| {
        let c = Cache::new(r.below(p.caches.len()));
        let kind = &mut p.caches[c].kind;
        *kind = if *kind == CacheKind::K { CacheKind::V } else { CacheKind::K };
    }),
    ("layer or heads of a cache", |p, r| {
        let c = Cache::new(r.below(p.caches.len()));
        let decl = &mut p.caches[c];
        r.number([&mut decl.layer, &mut decl.heads, &mut decl.head_dim]);
    }),
    ("rotation table", |p, r| {
        for decl in p.ropes.values_mut() {
            match r.below(3) {
                0 => decl.style = if decl.style == RopeStyle::Norm { RopeStyle::Neox } else { RopeStyle::Norm },
                1 => decl.dims = r.other(decl.dims),
                _ => decl.factors = Some(Weight::new(r.below(p.weights.len()))),
            }
        }
    }),
    // Programs.
    ("results exchanged", |p, r| {
        let program = r.change(&mut p.programs);
        std::mem::swap(&mut program.logits, &mut program.ids);
    }),
    ("another result", |p, r| {
        let b = buffer(p, r, |_| true);
        let program = r.change(&mut p.programs);
        *if r.below(2) == 0 { &mut program.logits } else { &mut program.ids } = b;
    }),
    ("another state or token list", |p, r| {
        let b = buffer(p, r, |_| true);
        **r.change(&mut [&mut p.state, &mut p.tokens, &mut p.outbox, &mut p.sampling, &mut p.draws]) = b;
    }),
    ("programs exchanged", |p, r| match r.below(3) {
        0 => p.programs.swap(0, 1),
        1 => {
            let [a, b] = &mut p.programs[..] else { return };
            std::mem::swap(&mut a.launches, &mut b.launches);
        }
        _ => r.change(&mut p.programs).kind = r.of(&[ProgramKind::Decode, ProgramKind::Prompt]),
    }),
    ("program dropped", |p, r| drop(p.programs.remove(r.below(p.programs.len())))),
    ("tokens of a program", |p, r| {
        let tokens = &mut r.change(&mut p.programs).tokens;
        *tokens = r.other(*tokens);
    }),
    // Anything.
    ("any value", leaf),
];
