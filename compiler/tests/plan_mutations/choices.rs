//! What damage is made of: seeded choices, parts of a plan by what they are, and changes to them.

use hipc_ir::EntityRef;
use hipc_ir::fused::{CacheSpec, Deferred, FusedOp, HeadOut, RowExpr, SegmentOut, Tail};
use hipc_ir::plan::{Buffer, BufferDecl, Geometry, Kernel, KernelSpec, Launch, Plan, Space};
use serde_json::Value;
use std::cell::Cell;

/// Numbers that look random, the same for the same seed (SplitMix64).
pub struct Rng(Cell<u64>);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }
    pub fn below(&self, n: usize) -> usize {
        let mut z = self.0.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.0.set(z);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
    pub fn of<T: Clone>(&self, list: &[T]) -> T {
        list[self.below(list.len())].clone()
    }
    /// A number near or far from `v`.
    pub fn other(&self, v: u32) -> u32 {
        let near = [v.wrapping_add(1), v.wrapping_sub(1), v.wrapping_mul(2), v / 2, v.wrapping_add(32)];
        self.of(&[&near[..], &near[..], &[0, 1, 7, u32::MAX, 1 << 31]].concat())
    }
    /// Changes a list's element.
    pub fn change<'a, T>(&self, list: &'a mut [T]) -> &'a mut T {
        let i = self.below(list.len());
        &mut list[i]
    }
    /// Changes one of some numbers.
    pub fn number<const N: usize>(&self, mut of: [&mut u32; N]) {
        let value = self.change(&mut of);
        **value = self.other(**value);
    }
}

/// A buffer that holds what `is` asks for; any, if none does.
pub fn buffer(p: &Plan, r: &Rng, is: impl Fn(&BufferDecl) -> bool) -> Buffer {
    let mut found: Vec<Buffer> = p.buffers.iter().filter(|(_, d)| is(d)).map(|(b, _)| b).collect();
    if found.is_empty() {
        found.extend(p.buffers.keys());
    }
    r.of(&found)
}

pub fn decl<'a>(p: &'a mut Plan, r: &Rng, is: impl Fn(&BufferDecl) -> bool) -> &'a mut BufferDecl {
    let b = buffer(p, r, is);
    &mut p.buffers[b]
}

pub fn in_arena(d: &BufferDecl) -> bool {
    d.space == Space::Arena && d.bytes > 0
}

pub fn launches<'a>(p: &'a mut Plan, r: &Rng) -> &'a mut Vec<Launch> {
    &mut r.change(&mut p.programs).launches
}

pub fn launch<'a>(p: &'a mut Plan, r: &Rng) -> &'a mut Launch {
    let list = launches(p, r);
    r.change(list)
}

/// A kernel whose op `is` asks for; any, if there is none.
pub fn kernel<'a>(p: &'a mut Plan, r: &Rng, is: impl Fn(&FusedOp) -> bool) -> &'a mut KernelSpec {
    let mut found: Vec<Kernel> = p.kernels.iter().filter(|(_, s)| is(&s.op)).map(|(k, _)| k).collect();
    if found.is_empty() {
        found.extend(p.kernels.keys());
    }
    let k = r.of(&found);
    &mut p.kernels[k]
}

pub fn geometry(p: &mut Plan, r: &Rng, field: fn(&mut Geometry) -> &mut u32) {
    let value = field(&mut kernel(p, r, |_| true).geometry);
    *value = r.other(*value);
}

pub fn op(p: &mut Plan, r: &Rng, is: fn(&FusedOp) -> bool, change: impl FnOnce(&mut FusedOp, &Rng)) {
    change(&mut kernel(p, r, is).op, r);
}

pub fn is_gemv(op: &FusedOp) -> bool {
    matches!(op, FusedOp::Gemv(_))
}

/// A GEMV with a result per matrix.
pub fn is_separate(op: &FusedOp) -> bool {
    matches!(op, FusedOp::Gemv(g) if matches!(g.tail, Tail::Separate(_)))
}

pub fn has_deferred(op: &FusedOp) -> bool {
    matches!(op, FusedOp::Gemv(g) if g.deferred.is_some()) || matches!(op, FusedOp::Row(r) if matches!(r.expr, RowExpr::Scale(_)))
}

pub fn is_attend(op: &FusedOp) -> bool {
    matches!(op, FusedOp::Attend(_))
}

pub fn is_choose(op: &FusedOp) -> bool {
    matches!(op, FusedOp::Choose(_))
}

pub fn with_deferred(op: &mut FusedOp, change: impl FnMut(&mut Deferred)) {
    let deferred = match op {
        FusedOp::Gemv(g) => g.deferred.as_mut(),
        FusedOp::Row(row) => match &mut row.expr {
            RowExpr::Scale(d) => Some(d),
            _ => None,
        },
        _ => None,
    };
    deferred.into_iter().for_each(change);
}

pub fn caches(op: &mut FusedOp) -> Vec<&mut CacheSpec> {
    match op {
        FusedOp::Attend(a) => vec![&mut a.cache],
        FusedOp::Heads(h) => {
            h.parts.iter_mut().filter_map(|part| if let HeadOut::Append(c) = &mut part.out { Some(c) } else { None }).collect()
        }
        FusedOp::Gemv(g) => {
            let Tail::Separate(outs) = &mut g.tail else { return Vec::new() };
            outs.iter_mut().filter_map(|out| if let SegmentOut::Append(_, c) = out { Some(c) } else { None }).collect()
        }
        _ => Vec::new(),
    }
}

/// Exchanges two arguments of one program whose buffers are `alike`, if there are any.
pub fn exchange(p: &mut Plan, r: &Rng, alike: fn(&BufferDecl, &BufferDecl) -> bool) {
    let program = r.change(&mut p.programs);
    let args = |(l, launch): (usize, &Launch)| (0..launch.args.len()).map(move |a| (l, a)).collect::<Vec<_>>();
    let places: Vec<(usize, usize)> = program.launches.iter().enumerate().flat_map(args).collect();
    let buffer = |&(l, a): &(usize, usize)| program.launches[l].args[a];
    let differ =
        |x: &(usize, usize), y: &(usize, usize)| buffer(x) != buffer(y) && alike(&p.buffers[buffer(x)], &p.buffers[buffer(y)]);
    let pairs: Vec<_> =
        places.iter().flat_map(|x| places.iter().filter(move |y| x < *y && differ(x, y)).map(move |y| (*x, *y))).collect();
    if !pairs.is_empty() {
        let ((l, a), (m, b)) = r.of(&pairs);
        (program.launches[l].args[a], program.launches[m].args[b]) = (program.launches[m].args[b], program.launches[l].args[a]);
    }
}

pub fn dangling<T: EntityRef>(r: &Rng, len: usize) -> T {
    let index = r.of(&[len, len + 1, 1 << 30]);
    T::new(index)
}

/// Changes one number, string or flag anywhere in the plan's data.
pub fn leaf(p: &mut Plan, r: &Rng) {
    fn leaves<'a>(v: &'a mut Value, found: &mut Vec<&'a mut Value>) {
        match v {
            Value::Array(items) => items.iter_mut().for_each(|v| leaves(v, found)),
            Value::Object(items) => {
                items.iter_mut().filter(|(k, _)| *k != "cost" && *k != "label").for_each(|(_, v)| leaves(v, found))
            }
            leaf => found.push(leaf),
        }
    }
    let mut json = serde_json::to_value(&*p).unwrap();
    let mut found = Vec::new();
    leaves(&mut json, &mut found);
    let leaf = r.change(&mut found);
    **leaf = match &**leaf {
        Value::Number(n) if n.is_u64() => {
            let n = n.as_u64().unwrap();
            u32::try_from(n).map_or(n / 2, |n| r.other(n).into()).into()
        }
        Value::Bool(b) => (!b).into(),
        Value::String(s) => r
            .of(&[
                format!("{s}_"),
                String::new(),
                "gfx906".into(),
                "Prompt".into(),
                "F16".into(),
                "F32".into(),
                "Arena".into(),
                "V".into(),
            ])
            .into(),
        other => other.clone(),
    };
    // Text that is no plan any more is no damaged plan either.
    if let Ok(plan) = serde_json::from_value(json) {
        *p = plan;
    }
}
