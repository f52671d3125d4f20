//! What every operator and every launch means, in f64, for one token: the oracle of the property tests. It shares nothing with the rules.

use hipc::egraph::language::{Attr, Lang, Leaf, Ty};
use hipc_ir::fused::{
    Attend, Combine, Deferred, Finish, FusedOp, Gemv, HeadOut, Heads, Role, RopeSpec, Row, RowExpr, SegmentOut, Tail,
};
use hipc_ir::graph::{Act, RopeStyle};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};

/// Earlier positions in the caches.
pub const POS: usize = 3;
/// Values per scale.
const BLOCK: usize = 32;

/// A value. Int8 blocks are what they stand for; a cache is `[heads, POS + 1, head_dim]`.
#[derive(Clone, Debug, PartialEq)]
pub enum V {
    Vec(Vec<f64>),
    Scalar(f64),
    Index(usize),
    Attr(Attr),
    Launch(BTreeMap<Role, V>),
    Wrong,
}

impl V {
    pub fn vec(&self) -> &[f64] {
        match self {
            V::Vec(v) => v,
            other => panic!("no vector: {other:?}"),
        }
    }
    fn scalar(&self) -> f64 {
        match self {
            V::Scalar(s) => *s,
            other => panic!("no scalar: {other:?}"),
        }
    }
    fn index(&self) -> usize {
        match self {
            V::Index(i) => *i,
            other => panic!("no index: {other:?}"),
        }
    }
}

/// Random operands, and how `quantize` is meant.
pub struct Oracle {
    seed: u64,
    /// Real int8 or the identity.
    pub int8: bool,
    /// Set when a value to be rounded was so near a tie that f64 rounding decides.
    pub tie: Cell<bool>,
    leaves: RefCell<HashMap<Leaf, V>>,
}

impl Oracle {
    pub fn new(seed: u64, int8: bool) -> Self {
        Self { seed, int8, tie: Cell::new(false), leaves: RefCell::default() }
    }

    /// The value of a node from those of its children.
    pub fn node(&self, node: &Lang, types: &[Ty], child: &[V]) -> V {
        let v = |i: usize| child[i].vec();
        match node {
            Lang::Leaf(leaf) => self.leaf(*leaf),
            Lang::Attr(attr) => V::Attr(*attr),
            Lang::Ssq(_) => V::Scalar(v(0).iter().map(|x| x * x).sum()),
            Lang::Rms(_) => match (&child[0], types[1]) {
                (V::Attr(Attr::Real(eps)), Ty::Ssq(n)) => V::Scalar(rms(child[1].scalar(), n, eps.0)),
                _ => V::Wrong,
            },
            Lang::Scale(_) => V::Vec(v(1).iter().map(|x| child[0].scalar() * x).collect()),
            Lang::Gain(_) | Lang::Mul(_) => V::Vec(zip(v(0), v(1), |x, y| x * y)),
            Lang::Norm(_) => match &child[0] {
                V::Attr(Attr::Real(eps)) => V::Vec(norm(v(1), v(2), eps.0)),
                _ => V::Wrong,
            },
            Lang::MatVec(_) => V::Vec(product(v(0), v(1))),
            Lang::Bias(_) | Lang::Add(_) => V::Vec(zip(v(0), v(1), |x, y| x + y)),
            Lang::Act(_) => match child[0] {
                V::Attr(Attr::Act(f)) => V::Vec(v(1).iter().map(|x| act(f, *x)).collect()),
                _ => V::Wrong,
            },
            Lang::Rope(_) => match child[0] {
                V::Attr(Attr::Rope(spec)) => V::Vec(rotate(spec, v(1), v(2))),
                _ => V::Wrong,
            },
            Lang::Append(_) => V::Vec(append(types[0], v(0), v(1))),
            Lang::Attend(_) => match (&child[0], types[3]) {
                (V::Attr(Attr::Attend(heads, scale)), Ty::Cache(_, c)) => {
                    V::Vec(attend(*heads as usize, c.head_dim as usize, scale.0, v(1), v(2), v(3)))
                }
                _ => V::Wrong,
            },
            Lang::Quantize(_) => V::Vec(self.quantize(v(0))),
            Lang::Embed(_) => V::Vec(row_of(v(0), child[1].index(), types[0])),
            Lang::ArgMax(_) => V::Index(arg_max(v(0))),
            Lang::Launch(op, _) => {
                let roles = hipc::egraph::language::operands(&op.0).into_iter().map(|p| p.role);
                let given: BTreeMap<Role, (V, Ty)> = roles.zip(child.iter().cloned().zip(types.iter().copied())).collect();
                V::Launch(self.launch(&op.0, &given))
            }
            Lang::Out(role, _) => match &child[0] {
                V::Launch(results) => results.get(&role.0).cloned().unwrap_or(V::Wrong),
                _ => V::Wrong,
            },
        }
    }

    pub fn leaf(&self, leaf: Leaf) -> V {
        let known = self.leaves.borrow().get(&leaf).cloned();
        known.unwrap_or_else(|| {
            let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ hash(&leaf));
            let mut random = |n: usize| V::Vec((0..n).map(|_| rng.random_range(-1.0..1.0)).collect());
            let value = match leaf {
                Leaf::Tokens => V::Index(7),
                Leaf::Import(_, Ty::F32(n) | Ty::Q8(n)) => random(n as usize),
                Leaf::Import(..) => V::Wrong,
                Leaf::Weight(_, _, rows, cols) => random((rows * cols) as usize),
                Leaf::Rope(_, _, dims) => random(dims as usize / 2),
                Leaf::Cache(_, c) => random((c.heads * c.head_dim) as usize * (POS + 1)),
            };
            self.leaves.borrow_mut().insert(leaf, value.clone());
            value
        })
    }

    fn quantize(&self, x: &[f64]) -> Vec<f64> {
        if !self.int8 {
            return x.to_vec();
        }
        let round = |x: f64| {
            if ((x - x.floor()) - 0.5).abs() < 1e-9 {
                self.tie.set(true);
            }
            x.round_ties_even()
        };
        x.chunks(BLOCK)
            .flat_map(|block| {
                let scale = block.iter().fold(0.0f64, |m, x| m.max(x.abs())) / 127.0;
                block.iter().map(move |x| if scale == 0.0 { 0.0 } else { scale * round(x / scale) })
            })
            .collect()
    }

    pub fn launch(&self, op: &FusedOp, given: &BTreeMap<Role, (V, Ty)>) -> BTreeMap<Role, V> {
        let v = |role: Role| given[&role].0.vec();
        let mut out = BTreeMap::new();
        match op {
            FusedOp::Embed(e) => {
                let (table, ty) = &given[&Role::Weight(0)];
                self.finish(e.finish, row_of(table.vec(), given[&Role::Tokens].0.index(), *ty), given, &mut out);
            }
            FusedOp::Gemv(g) => self.gemv(g, given, &mut out),
            FusedOp::Attend(a) => self.attend(a, given, &mut out),
            FusedOp::Heads(h) => heads(h, given, &mut out),
            FusedOp::Row(r) => self.finish(r.finish, row(r, given), given, &mut out),
            FusedOp::Choose(c) => {
                let index = if c.partials { given[&Role::Partials].0.index() } else { arg_max(v(Role::Logits)) };
                out.insert(Role::Ids, V::Index(index));
            }
            FusedOp::Repack(_) => unreachable!("no graph has it"),
        }
        out
    }

    fn finish(&self, f: Finish, y: Vec<f64>, given: &BTreeMap<Role, (V, Ty)>, out: &mut BTreeMap<Role, V>) {
        let z = if f.gain { zip(&y, given[&Role::Gain].0.vec(), |y, g| y * g) } else { y.clone() };
        if f.ssq {
            out.insert(Role::SsqOut, V::Scalar(y.iter().map(|y| y * y).sum()));
        }
        if f.q8 {
            out.insert(Role::Quantized, V::Vec(self.quantize(&z)));
        }
        if f.f32 {
            out.insert(Role::Gained, V::Vec(z));
        }
        if f.raw {
            out.insert(Role::Raw, V::Vec(y));
        }
    }

    fn gemv(&self, g: &Gemv, given: &BTreeMap<Role, (V, Ty)>, out: &mut BTreeMap<Role, V>) {
        let v = |role: Role| given[&role].0.vec();
        let r = g.deferred.map_or(1.0, |d| deferred(d, given));
        let products: Vec<Vec<f64>> = (0..)
            .zip(&g.segments)
            .map(|(i, s)| {
                let p: Vec<f64> = product(v(Role::Weight(i)), v(Role::X(0))).iter().map(|p| r * p).collect();
                if s.bias { zip(&p, v(Role::Bias(i)), |p, b| p + b) } else { p }
            })
            .collect();
        match &g.tail {
            Tail::Head => {
                out.insert(Role::Partials, V::Index(arg_max(&products[0])));
                out.insert(Role::Logits, V::Vec(products[0].clone()));
            }
            Tail::Vector { combine, residual, finish } => {
                let mut y = match combine {
                    Combine::One => products[0].clone(),
                    Combine::Act(f) => products[0].iter().map(|p| act(*f, *p)).collect(),
                    Combine::Gated(f) => zip(&products[0], &products[1], |p, q| act(*f, p) * q),
                };
                if *residual {
                    y = zip(&y, v(Role::Residual), |y, x| y + x);
                }
                self.finish(*finish, y, given, out);
            }
            Tail::Separate(outs) => {
                for ((i, o), p) in (0..).zip(outs).zip(products) {
                    let rotated = |rope: &Option<RopeSpec>| match rope {
                        Some(spec) => rotate(*spec, v(Role::RopeTable), &p),
                        None => p.clone(),
                    };
                    match o {
                        SegmentOut::Store(rope) => out.insert(Role::Out(i), V::Vec(rotated(rope))),
                        SegmentOut::Append(rope, _) => {
                            let (cache, ty) = &given[&Role::Cache(i)];
                            out.insert(Role::Cache(i), V::Vec(append(*ty, cache.vec(), &rotated(rope))))
                        }
                    };
                }
            }
        }
    }

    fn attend(&self, a: &Attend, given: &BTreeMap<Role, (V, Ty)>, out: &mut BTreeMap<Role, V>) {
        let v = |role: Role| given[&role].0.vec();
        let (mut q, mut cache) = (v(Role::Q).to_vec(), v(Role::CacheK).to_vec());
        if let Some(pro) = a.prologue {
            let mut k = v(Role::K).to_vec();
            if let Some(eps) = pro.norm {
                q = norm(&q, v(Role::QNorm), eps.0);
                k = norm(&k, v(Role::KNorm), eps.0);
            }
            if let Some(spec) = pro.rope {
                q = rotate(spec, v(Role::RopeTable), &q);
                k = rotate(spec, v(Role::RopeTable), &k);
            }
            cache = append(given[&Role::CacheK].1, &cache, &k);
            out.insert(Role::CacheK, V::Vec(cache.clone()));
        }
        let y = attend(a.heads as usize, a.cache.head_dim as usize, a.scale.0, &q, &cache, v(Role::CacheV));
        self.finish(a.finish, y, given, out);
    }
}

fn heads(h: &Heads, given: &BTreeMap<Role, (V, Ty)>, out: &mut BTreeMap<Role, V>) {
    let v = |role: Role| given[&role].0.vec();
    for (i, part) in (0..).zip(&h.parts) {
        let mut x = v(Role::X(i)).to_vec();
        if let Some(eps) = part.norm {
            x = norm(&x, v(Role::Norm(i)), eps.0);
        }
        if let Some(spec) = part.rope {
            x = rotate(spec, v(Role::RopeTable), &x);
        }
        match part.out {
            HeadOut::Store => out.insert(Role::Out(i), V::Vec(x)),
            HeadOut::Append(_) => {
                let (cache, ty) = &given[&Role::Cache(i)];
                out.insert(Role::Cache(i), V::Vec(append(*ty, cache.vec(), &x)))
            }
        };
    }
}

fn row(r: &Row, given: &BTreeMap<Role, (V, Ty)>) -> Vec<f64> {
    let v = |role: Role| given[&role].0.vec();
    let x = v(Role::X(0));
    let y = match r.expr {
        RowExpr::Copy => x.to_vec(),
        RowExpr::Add => zip(x, v(Role::Y), |x, y| x + y),
        RowExpr::Mul => zip(x, v(Role::Y), |x, y| x * y),
        RowExpr::Act(f) => x.iter().map(|x| act(f, *x)).collect(),
        RowExpr::Gated(f) => zip(x, v(Role::Y), |x, y| act(f, x) * y),
        RowExpr::Bias => zip(x, v(Role::Bias(0)), |x, b| x + b),
        RowExpr::Norm { eps, .. } => norm(x, v(Role::Norm(0)), eps.0),
        RowExpr::Scale(d) => x.iter().map(|x| deferred(d, given) * x).collect(),
    };
    if r.residual { zip(&y, v(Role::Residual), |y, x| y + x) } else { y }
}

fn hash(leaf: &Leaf) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut h = DefaultHasher::new();
    leaf.hash(&mut h);
    h.finish()
}

fn zip(x: &[f64], y: &[f64], f: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    assert_eq!(x.len(), y.len());
    x.iter().zip(y).map(|(x, y)| f(*x, *y)).collect()
}

fn rms(ssq: f64, n: u32, eps: f64) -> f64 {
    1.0 / (ssq / f64::from(n) + eps).sqrt()
}

fn deferred(d: Deferred, given: &BTreeMap<Role, (V, Ty)>) -> f64 {
    rms(given[&Role::Ssq].0.scalar(), d.n, d.eps.0)
}

fn norm(x: &[f64], gain: &[f64], eps: f64) -> Vec<f64> {
    let group = |x: &[f64]| {
        let r = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64 + eps).sqrt();
        zip(x, gain, |x, g| r * x * g)
    };
    x.chunks(gain.len()).flat_map(group).collect()
}

fn product(w: &[f64], x: &[f64]) -> Vec<f64> {
    w.chunks(x.len()).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
}

fn row_of(table: &[f64], row: usize, ty: Ty) -> Vec<f64> {
    match ty {
        Ty::Weight(_, _, cols) => table.chunks(cols as usize).nth(row).unwrap().to_vec(),
        _ => panic!("no matrix"),
    }
}

fn act(f: Act, x: f64) -> f64 {
    match f {
        Act::Silu => x / (1.0 + (-x).exp()),
        Act::Gelu => x / 2.0 * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh()),
    }
}

fn rotate(spec: RopeSpec, angles: &[f64], x: &[f64]) -> Vec<f64> {
    let (dims, mut out) = (spec.dims as usize, x.to_vec());
    for head in out.chunks_mut(spec.head_dim as usize) {
        for (i, angle) in angles.iter().enumerate().take(dims / 2) {
            let (a, b) = match spec.style {
                RopeStyle::Norm => (2 * i, 2 * i + 1),
                RopeStyle::Neox => (i, i + dims / 2),
            };
            let (sin, cos) = angle.sin_cos();
            (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[a] * sin + head[b] * cos);
        }
    }
    out
}

fn append(ty: Ty, cache: &[f64], x: &[f64]) -> Vec<f64> {
    let Ty::Cache(_, spec) = ty else { panic!("no cache: {ty:?}") };
    let head_dim = spec.head_dim as usize;
    let mut out = cache.to_vec();
    for (head, x) in out.chunks_mut(head_dim * (POS + 1)).zip(x.chunks(head_dim)) {
        head[POS * head_dim..].copy_from_slice(x);
    }
    out
}

fn attend(heads: usize, head_dim: usize, scale: f64, q: &[f64], k: &[f64], v: &[f64]) -> Vec<f64> {
    let stride = head_dim * (POS + 1);
    let group = heads / (k.len() / stride);
    let head = |(h, q): (usize, &[f64])| {
        let rows =
            |c: &[f64]| -> Vec<Vec<f64>> { c[h / group * stride..][..stride].chunks(head_dim).map(<[f64]>::to_vec).collect() };
        let scores: Vec<f64> = rows(k).iter().map(|k| scale * k.iter().zip(q).map(|(k, q)| k * q).sum::<f64>()).collect();
        let most = scores.iter().copied().fold(f64::MIN, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let values = rows(v);
        (0..head_dim).map(|i| weights.iter().zip(&values).map(|(w, v)| w / sum * v[i]).sum()).collect::<Vec<f64>>()
    };
    q.chunks(head_dim).enumerate().flat_map(head).collect()
}

fn arg_max(x: &[f64]) -> usize {
    (0..x.len()).fold(0, |best, i| if x[i] > x[best] { i } else { best })
}
