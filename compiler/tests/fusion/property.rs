//! The rules are equalities: whatever is in a class has one value.
//!
//! Random graphs are saturated; from each class many members (terms) are drawn at random and evaluated in f64, with `quantize` as the identity and
//! with real int8. They must agree with each other and with the plain graph.

use crate::models::{matrix, vector};
use crate::oracle::{Oracle, V};
use egg::{Id, Language, Rewrite};
use hipc::egraph::language::{EGraph, Lang, Types};
use hipc::egraph::region::{self, Template};
use hipc::egraph::rules::{self, Lhs, Rhs, Rule};
use hipc::egraph::{Saturated, quantize::place_quantize, saturate};
use hipc_ir::fused::ProgramKind;
use hipc_ir::graph::{Act, CacheDecl, CacheKind, Graph, GraphBuilder, RopeDecl, RopeStyle, Ty, Value};
use hipc_ir::{DType, KvType, Real};
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Members that are evaluated per class where there are as many.
const MEMBERS: usize = 8;
/// Draws after which a class is given up.
const DRAWS: usize = 400;
/// Largest difference, relative to the largest element.
const TOLERANCE: f64 = 1e-12;

/// A random graph of a few ops over vectors of 32 to 128 values.
pub fn random_graph(rng: &mut impl Rng) -> Graph {
    let mut b = GraphBuilder::new("random");
    let n = 32 * rng.random_range(1..=3);
    let table = matrix(&mut b, "embd", DType::F16, 16, n);
    let tokens = b.tokens();
    let mut pool = vec![b.embed(table, tokens)];
    for step in 0..rng.random_range(3..8) {
        let x = *pool.choose(rng).unwrap();
        let Ty::F32(n) = b.graph().nodes[x].ty else { unreachable!() };
        let name = |part: &str| format!("{step}.{part}");
        let dtype = *[DType::F16, DType::Q8_0, DType::Q4_0].choose(rng).unwrap();
        let partner = pool.iter().copied().find(|y| b.graph().nodes[*y].ty == Ty::F32(n)).unwrap();
        let act = *[Act::Silu, Act::Gelu].choose(rng).unwrap();
        let y = match rng.random_range(0..10) {
            0 | 1 => {
                let gain = vector(&mut b, &name("norm"), n);
                b.rms_norm(x, gain, 1e-5)
            }
            2 => {
                let gain = vector(&mut b, &name("norm"), 16);
                b.rms_norm(x, gain, 1e-5)
            }
            3 | 4 => {
                let rows = 32 * rng.random_range(1..=3);
                let w = matrix(&mut b, &name("w"), dtype, rows, n);
                b.mat_vec(w, x)
            }
            5 => {
                let bias = vector(&mut b, &name("b"), n);
                b.bias(x, bias)
            }
            6 => b.act(act, x),
            7 => b.add(x, partner),
            8 => b.mul(x, partner),
            _ => {
                let gate = matrix(&mut b, &name("gate"), dtype, n, n);
                let up = matrix(&mut b, &name("up"), dtype, n, n);
                let (gate, up) = (b.mat_vec(gate, x), b.mat_vec(up, x));
                let gate = b.act(act, gate);
                b.mul(gate, up)
            }
        };
        pool.push(y);
    }
    if rng.random_bool(0.6) {
        let x = *pool.choose(rng).unwrap();
        let y = attention(&mut b, x, rng);
        pool.push(y);
    }
    let last = *pool.last().unwrap();
    let id = b.arg_max(last);
    pool.push(id);
    let outputs = pool.split_off(1);
    b.finish(&outputs)
}

fn attention(b: &mut GraphBuilder, x: Value, rng: &mut impl Rng) -> Value {
    let Ty::F32(n) = b.graph().nodes[x].ty else { unreachable!() };
    let (heads, kv_heads, head_dim) = (4, 2, 16);
    let dtype = *[DType::F16, DType::Q8_0].choose(rng).unwrap();
    let style = *[RopeStyle::Norm, RopeStyle::Neox].choose(rng).unwrap();
    let rope = b.rope_table(RopeDecl { style, dims: 8, base: Real(1e4), freq_scale: Real(1.0), factors: None });
    let [deferred, normed, roped, biased] = [0.7, 0.5, 0.8, 0.5].map(|p| rng.random_bool(p));
    let gain = vector(b, "attn_norm", n);
    let h = if deferred { b.rms_norm(x, gain, 1e-5) } else { x };
    let part = |b: &mut GraphBuilder, name: &str, heads: u32| {
        let w = matrix(b, name, dtype, heads * head_dim, n);
        let mut y = b.mat_vec(w, h);
        if biased {
            let bias = vector(b, &format!("{name}.bias"), heads * head_dim);
            y = b.bias(y, bias);
        }
        if normed && name != "v" {
            let gain = vector(b, &format!("{name}.norm"), head_dim);
            y = b.rms_norm(y, gain, 1e-6);
        }
        if roped && name != "v" { b.rope(y, rope, head_dim) } else { y }
    };
    let (q, k, v) = (part(b, "q", heads), part(b, "k", kv_heads), part(b, "v", kv_heads));
    let [k_cache, v_cache] =
        [CacheKind::K, CacheKind::V].map(|kind| b.cache(CacheDecl { layer: 0, kind, heads: kv_heads, head_dim }));
    let (k, v) = (b.append(k_cache, k), b.append(v_cache, v));
    b.attend(q, k, v, heads, kv_heads, head_dim, 0.25)
}

/// One draw: a random member of every class that is asked for, each with its value and a hash of its term.
struct Draw<'a, R> {
    egraph: &'a EGraph,
    oracle: &'a Oracle,
    rng: R,
    known: HashMap<Id, (V, u64)>,
    open: BTreeSet<Id>,
}

impl<R: Rng> Draw<'_, R> {
    /// A member of a class; `None` if all its nodes lead back to a class that is being drawn.
    fn member(&mut self, class: Id) -> Option<(V, u64)> {
        let class = self.egraph.find(class);
        // Mostly shared, as in a graph; now and then drawn anew, or the two sides of `x + x` would never differ.
        let known = self.known.get(&class).cloned();
        if known.is_some() && self.rng.random_bool(0.8) {
            return known;
        }
        if !self.open.insert(class) {
            return known;
        }
        let mut nodes: Vec<&Lang> = self.egraph[class].nodes.iter().collect();
        nodes.shuffle(&mut self.rng);
        let drawn = nodes.into_iter().find_map(|node| {
            let children: Option<Vec<(V, u64)>> = node.children().iter().map(|c| self.member(*c)).collect();
            let (values, hashes): (Vec<V>, Vec<u64>) = children?.into_iter().unzip();
            let types: Vec<_> = node.children().iter().map(|c| self.egraph[*c].data).collect();
            let mut hash = DefaultHasher::new();
            node.clone().map_children(|_| Id::from(0)).hash(&mut hash);
            hashes.hash(&mut hash);
            Some((self.oracle.node(node, &types, &values), hash.finish()))
        });
        self.open.remove(&class);
        let drawn = drawn.or(known)?;
        self.known.insert(class, drawn.clone());
        Some(drawn)
    }
}

/// Terms of a class in which no class lies inside of itself, counted up to [`MEMBERS`].
struct Count<'a> {
    egraph: &'a EGraph,
    known: HashMap<Id, usize>,
    /// The classes that are being counted, and how many were when each began.
    open: HashMap<Id, usize>,
}

impl Count<'_> {
    /// The number, and where in the stack the outermost class begins that it was cut at. Only what was cut at no class outside of itself is
    /// known for good: from elsewhere the same class may have more terms.
    fn terms(&mut self, class: Id) -> (usize, usize) {
        let class = self.egraph.find(class);
        if let Some(&n) = self.known.get(&class) {
            return (n, usize::MAX);
        }
        let depth = self.open.len();
        if let Some(&at) = self.open.get(&class) {
            return (0, at);
        }
        self.open.insert(class, depth);
        let (mut total, mut cut) = (0, usize::MAX);
        for node in &self.egraph[class].nodes {
            let mut terms = 1;
            for child in node.children() {
                let (n, at) = self.terms(*child);
                (terms, cut) = (MEMBERS.min(terms * n), cut.min(at));
            }
            total = MEMBERS.min(total + terms);
        }
        self.open.remove(&class);
        if cut >= depth || total == MEMBERS {
            self.known.insert(class, total);
        }
        (total, if cut < depth { cut } else { usize::MAX })
    }
}

pub fn differ(a: &V, b: &V) -> bool {
    // NaN is far from everything.
    let far = |x: f64, y: f64, size: f64| (x - y).is_nan() || (x - y).abs() > TOLERANCE * size;
    match (a, b) {
        (V::Vec(a), V::Vec(b)) => {
            let size = a.iter().chain(b).fold(1e-3f64, |m, x| m.max(x.abs()));
            a.len() != b.len() || a.iter().zip(b).any(|(x, y)| far(*x, *y, size))
        }
        (V::Scalar(a), V::Scalar(b)) => far(*a, *b, a.abs()),
        (a, b) => a != b,
    }
}

/// Values of a template's nodes: the same terms before any rule.
pub fn plain(template: &Template, oracle: &Oracle) -> Vec<V> {
    let plain = saturate(template, &[]);
    let rng = ChaCha8Rng::seed_from_u64(0);
    let mut only = Draw { egraph: &plain.egraph, oracle, rng, known: HashMap::new(), open: BTreeSet::new() };
    plain.nodes.iter().map(|node| only.member(*node).expect("a graph has no cycles").0).collect()
}

/// What was checked.
#[derive(Default)]
struct Checked {
    hits: BTreeMap<String, usize>,
    /// Classes, once per kind of arithmetic, and those of them with [`MEMBERS`] terms or more.
    classes: usize,
    many: usize,
    members: usize,
    /// Templates, and those of them whose int8 values lie at a tie already without any rule: these are checked in f64 alone.
    templates: usize,
    ties: usize,
}

/// Evaluates members of every class of a template; the first two that differ are the error.
fn check(template: &Template, rules: &[Rewrite<Lang, Types>], seed: u64, checked: &mut Checked) -> Result<(), String> {
    let saturated: Saturated = saturate(template, rules);
    assert!(matches!(saturated.stop, egg::StopReason::Saturated), "seed {seed}: {:?}", saturated.stop);
    let egraph = &saturated.egraph;
    let ids: Vec<Id> =
        egraph.classes().map(|c| c.id).filter(|id| !matches!(egraph[*id].data, hipc::egraph::language::Ty::Launch)).collect();
    for int8 in [false, true] {
        let oracle = Oracle::new(seed, int8);
        let mut seen: BTreeMap<Id, (V, BTreeSet<u64>)> = BTreeMap::new();
        for (value, class) in plain(template, &oracle).into_iter().zip(&saturated.nodes) {
            seen.insert(egraph.find(*class), (value, BTreeSet::new()));
        }
        if oracle.tie.take() {
            checked.ties += 1;
            continue;
        }
        let mut count = Count { egraph, known: HashMap::new(), open: HashMap::new() };
        let mut left: Vec<(Id, usize)> = ids.iter().map(|id| (*id, count.terms(*id).0)).collect();
        checked.many += left.iter().filter(|(_, terms)| *terms == MEMBERS).count();
        for draw in 0..DRAWS {
            let rng = ChaCha8Rng::seed_from_u64(seed ^ ((draw as u64) << 32));
            let mut drawing = Draw { egraph, oracle: &oracle, rng, known: HashMap::new(), open: BTreeSet::new() };
            left.shuffle(&mut drawing.rng.clone());
            for (id, _) in &left {
                let Some((value, term)) = drawing.member(*id) else { continue };
                if oracle.tie.take() {
                    break;
                }
                let (first, terms) = seen.entry(*id).or_insert_with(|| (value.clone(), BTreeSet::new()));
                if differ(first, &value) {
                    let nodes: Vec<String> = egraph[*id].nodes.iter().map(ToString::to_string).collect();
                    return Err(format!("seed {seed}, int8 {int8}: members of {nodes:?} differ: {first:?} and {value:?}"));
                }
                terms.insert(term);
            }
            left.retain(|(id, terms)| seen.get(id).is_none_or(|(_, s)| s.len() < *terms));
        }
        let missed: Vec<_> = left
            .iter()
            .map(|(id, terms)| (seen.get(id).map_or(0, |(_, s)| s.len()), *terms, format!("{:?}", egraph[*id].nodes)))
            .collect();
        assert!(missed.is_empty(), "seed {seed}, int8 {int8}: {DRAWS} draws didn't meet enough members: {missed:?}");
        checked.classes += ids.len();
        checked.members += seen.values().map(|(_, terms)| terms.len()).sum::<usize>();
    }
    saturated.hits.into_iter().for_each(|(rule, n)| *checked.hits.entry(rule).or_insert(0) += n);
    Ok(())
}

fn templates(graph: &Graph) -> Vec<Template> {
    region::cut(&place_quantize(graph), 16, KvType::F32).templates
}

#[test]
fn members_of_a_class_are_equal() {
    let mut checked = Checked::default();
    for seed in 0..40 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let graph = random_graph(&mut rng);
        let kind = if rng.random_bool(0.7) { ProgramKind::Decode } else { ProgramKind::Prompt };
        let rules = rules::rewrites(kind, &[]);
        for template in templates(&graph) {
            checked.templates += 1;
            check(&template, &rules, seed, &mut checked).unwrap_or_else(|e| panic!("{e}\n{graph}"));
        }
    }
    let idle: Vec<&str> = rules::all().map(|r| r.name).filter(|name| !checked.hits.contains_key(*name)).collect();
    assert!(idle.is_empty(), "rules that no random graph met: {idle:?}");
    let Checked { hits, classes, many, members, templates, ties } = checked;
    println!(
        "{templates} templates ({ties} at a tie), {classes} classes ({many} with {MEMBERS} terms), {members} members, {hits:?}"
    );
    assert!(20 * ties <= templates, "{ties} of {templates} templates weren't checked with int8");
    assert!(4 * many >= classes, "{many} of {classes} classes have {MEMBERS} terms: these graphs show little");
}

/// `r` may not move over a bias.
static UNSOUND: Rule = Rule {
    name: "unsound",
    what: "r · x + b = r · (x + b), which is wrong",
    fuses: false,
    lhs: Lhs::Patterns(&["(bias (scale ?r ?x) ?b)"]),
    launches: 0,
    only: None,
    rhs: Rhs::Term("(scale ?r (bias ?x ?b))", |_, _| true),
};

#[test]
fn an_unsound_rule_is_caught() {
    let mut b = GraphBuilder::new("biased");
    let table = matrix(&mut b, "embd", DType::F16, 16, 64);
    let (gain, w, bias) = (vector(&mut b, "norm", 64), matrix(&mut b, "w", DType::Q8_0, 32, 64), vector(&mut b, "b", 32));
    let tokens = b.tokens();
    let x = b.embed(table, tokens);
    let y = b.rms_norm(x, gain, 1e-5);
    let y = b.mat_vec(w, y);
    let y = b.bias(y, bias);
    let template = &templates(&b.finish(&[y]))[0];
    let mut rules = rules::rewrites(ProgramKind::Decode, &[]);
    check(template, &rules, 1, &mut Checked::default()).unwrap();
    rules.push(UNSOUND.rewrite());
    let caught = check(template, &rules, 1, &mut Checked::default());
    assert!(caught.is_err_and(|e| e.contains("differ")));
}
