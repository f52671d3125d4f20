//! Matrix × vector launches with their epilogues.

use super::arith::{Arithmetic, Num, Table, act, deferred, rotate};
use super::depth;
use super::finish::Finisher;
use super::operands::{CacheMut, Operands};
use super::{LaunchError, Step, Witness};
use crate::blocks::{Matrix, Quants, WideToken};
use hipc_ir::fused::{Combine, Gemv, Input, Role, RopeSpec, Segment, SegmentOut, Tail};
use hipc_ir::plan::KernelSpec;
use rayon::prelude::*;

/// Fewest bytes of weights worth a task of their own: some microseconds of work, far above the price of a hand-over.
const TASK_BYTES: usize = 16 << 10;

enum Activations<'a, T> {
    Q8(Vec<WideToken<'a>>),
    Floats { values: Vec<T>, k: usize },
}

/// Results of the segments after deferred norm and bias, `[rows of all segments, tokens]`.
struct Products<T> {
    values: Vec<T>,
    tokens: usize,
}

impl<T: Num> Products<T> {
    fn at(&self, row: usize, token: usize) -> T {
        self.values[row * self.tokens + token]
    }
}

pub(super) fn gemv<A: Arithmetic>(
    spec: &KernelSpec,
    op: &Gemv,
    step: Step,
    mut operands: Operands<'_, '_>,
    witness: Option<&mut Witness<'_>>,
) -> Result<(), LaunchError> {
    let x = match op.input {
        Input::Q8 => Activations::Q8(operands.q8(Role::X(0), op.k, step.tokens)?),
        Input::F32 => {
            let x: &[f32] = operands.read(Role::X(0), op.k as usize * step.tokens)?;
            Activations::Floats { values: x.iter().map(|&x| A::T::of(x)).collect(), k: op.k as usize }
        }
    };
    let r = match op.deferred {
        Some(d) => {
            let parts = spec.geometry.parts_in as usize;
            Some(deferred::<A::T>(d, operands.read(Role::Ssq, parts * step.tokens)?, &spec.geometry))
        }
        None => None,
    };
    // The head is wanted for some tokens only.
    let first = if op.tail == Tail::Head { step.head_from } else { 0 };
    let mut segments = Vec::with_capacity(op.segments.len());
    for (i, s) in (0..).zip(&op.segments) {
        let matrix = operands.matrix(Role::Weight(i), s.dtype, s.layout, s.rows, op.k)?;
        let bias = if s.bias { Some(operands.read::<f32>(Role::Bias(i), s.rows as usize)?) } else { None };
        segments.push((matrix, bias));
    }
    let products =
        products::<A>(&segments, &x, r.as_deref(), first, step.tokens, depth::row(&spec.geometry, op.input, op.k as usize));
    match &op.tail {
        Tail::Separate(outs) => separate(&op.segments, outs, &products, step, &mut operands, witness),
        Tail::Vector { combine, residual, finish } => {
            let n = op.segments.first().map_or(0, |s| s.rows);
            let len = n as usize;
            let residual: Option<&[f32]> = if *residual { Some(operands.read(Role::Residual, len * step.tokens)?) } else { None };
            let finisher = Finisher::take(&mut operands, *finish, n, spec.geometry.tile, step)?;
            finisher.write::<A::T>(step.tokens, witness, |t, y| {
                for (i, y) in y.iter_mut().enumerate() {
                    let p = products.at(i, t);
                    *y = match combine {
                        Combine::One => p,
                        Combine::Act(a) => act(*a, p),
                        Combine::Gated(a) => act(*a, p) * products.at(len + i, t),
                    };
                }
                if let Some(residual) = residual {
                    y.iter_mut().zip(&residual[t * len..]).for_each(|(y, &r)| *y += A::T::of(r));
                }
            });
            Ok(())
        }
        Tail::Head => head(spec, op, &products, step, &mut operands),
    }
}

fn products<A: Arithmetic>(
    segments: &[(Matrix<'_>, Option<&[f32]>)],
    x: &Activations<'_, A::T>,
    r: Option<&[A::T]>,
    first: usize,
    tokens: usize,
    depth: u32,
) -> Products<A::T> {
    let wanted = tokens - first;
    let rows: usize = segments.iter().map(|(m, _)| m.rows()).sum();
    let mut values = vec![A::T::default(); rows * wanted];
    if values.is_empty() {
        return Products { values, tokens: wanted };
    }
    let row_bytes = segments.iter().map(|(m, _)| m.row_bytes()).max().unwrap_or(1);
    let even = rows.div_ceil(4 * rayon::current_num_threads());
    let task = even.max(TASK_BYTES.div_ceil(row_bytes * wanted.min(16))).max(1);
    values.par_chunks_mut(task * wanted).enumerate().for_each(|(i, out)| {
        let (mut quants, mut floats) = (Quants::default(), Vec::new());
        for (row, out) in (i * task..).zip(out.chunks_exact_mut(wanted)) {
            let (mut segment, mut local) = (0, row);
            while local >= segments[segment].0.rows() {
                local -= segments[segment].0.rows();
                segment += 1;
            }
            let (matrix, bias) = &segments[segment];
            match x {
                Activations::Q8(x) => {
                    matrix.unpack(local, &mut quants);
                    out.iter_mut().zip(&x[first..]).for_each(|(o, x)| *o = A::dot_q8(&quants, x, depth));
                }
                Activations::Floats { values, k } => {
                    floats.resize(*k, 0.0);
                    matrix.dequantize(local, &mut floats);
                    out.iter_mut().zip(values.chunks_exact(*k).skip(first)).for_each(|(o, x)| *o = A::dot(x, &floats, depth));
                }
            }
            if let Some(r) = r {
                out.iter_mut().zip(&r[first..]).for_each(|(o, &r)| *o = *o * r);
            }
            if let Some(bias) = bias {
                out.iter_mut().for_each(|o| *o += A::T::of(bias[local]));
            }
        }
    });
    Products { values, tokens: wanted }
}

enum Destination<'a> {
    Store(&'a mut [f32]),
    Cache(CacheMut<'a>, usize),
}

fn separate<T: Num>(
    segments: &[Segment],
    outs: &[SegmentOut],
    products: &Products<T>,
    step: Step,
    operands: &mut Operands<'_, '_>,
    mut witness: Option<&mut Witness<'_>>,
) -> Result<(), LaunchError> {
    let rope_of = |out: &SegmentOut| match out {
        SegmentOut::Store(rope) | SegmentOut::Append(rope, _) => *rope,
    };
    let table = outs.iter().find_map(rope_of).map(|rope| Table::take(rope, step, operands)).transpose()?;
    let mut from = 0;
    for ((i, out), segment) in (0..).zip(outs).zip(segments) {
        let rows = segment.rows as usize;
        let mut destination = match out {
            SegmentOut::Store(_) => Destination::Store(operands.write(Role::Out(i), rows * step.tokens)?),
            SegmentOut::Append(_, cache) => {
                Destination::Cache(operands.cache_mut(Role::Cache(i), *cache, step)?, cache.head_dim as usize)
            }
        };
        let mut y = vec![T::default(); rows];
        for t in 0..step.tokens {
            y.iter_mut().enumerate().for_each(|(row, y)| *y = products.at(from + row, t));
            if let (Some(rope), Some(table)) = (rope_of(out), &table) {
                rotate_heads(&mut y, rope, table, t);
            }
            match &mut destination {
                Destination::Store(out) => out[t * rows..][..rows].iter_mut().zip(&y).for_each(|(o, y)| *o = y.f32()),
                Destination::Cache(cache, head_dim) => {
                    for (h, head) in y.chunks_exact(*head_dim).enumerate() {
                        cache.store(h, step.pos + t, head.iter().map(|y| y.f32()));
                    }
                    if let Some(witness) = &mut witness {
                        witness.append(Role::Cache(i), y.iter().map(|y| y.tracked()));
                    }
                }
            }
        }
        from += rows;
    }
    Ok(())
}

fn rotate_heads<T: Num>(y: &mut [T], rope: RopeSpec, table: &Table<'_>, t: usize) {
    for head in y.chunks_exact_mut(rope.head_dim as usize) {
        rotate(head, rope, table.token(t));
    }
}

/// An arg-max partial in device memory: the bits of the value, and the index.
pub(super) type Partial = [u32; 2];

fn head<T: Num>(
    spec: &KernelSpec,
    op: &Gemv,
    products: &Products<T>,
    step: Step,
    operands: &mut Operands<'_, '_>,
) -> Result<(), LaunchError> {
    let n = op.segments.first().map_or(0, |s| s.rows as usize);
    let (tile, parts) = (spec.geometry.tile.max(1) as usize, spec.parts_out() as usize);
    let logits: &mut [f32] = operands.write(Role::Logits, n * step.tokens)?;
    let partials: &mut [Partial] = operands.write(Role::Partials, parts * step.tokens)?;
    for t in step.head_from..step.tokens {
        let logits = &mut logits[t * n..][..n];
        logits.iter_mut().enumerate().for_each(|(i, o)| *o = products.at(i, t - step.head_from).f32());
        for (i, (part, out)) in logits.chunks(tile).zip(&mut partials[t * parts..][..parts]).enumerate() {
            let best = largest(part.iter().copied());
            *out = [part[best].to_bits(), (i * tile + best) as u32];
        }
    }
    Ok(())
}

/// Index of the largest value, the lowest on ties.
pub(super) fn largest(values: impl Iterator<Item = f32>) -> usize {
    let (mut best, mut max) = (0, f32::NEG_INFINITY);
    for (i, v) in values.enumerate() {
        if v > max {
            (best, max) = (i, v);
        }
    }
    best
}
