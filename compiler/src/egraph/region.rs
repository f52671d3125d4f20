//! Cuts a graph into regions, one e-graph each, and finds which regions are the same.
//!
//! A region is a run of nodes with the same layer tag. A value that crosses a border can cross in several *forms*: as it is, normed, times
//! the next norm's gain, the same as int8 blocks, and as sums of squares. Which forms cross isn't fixed here. The norms and quantisations that
//! the next region does first are copied to the end of the region before ([`Template::own`] tells them apart), so that both e-graphs
//! know all forms, the producer's as results to offer and the consumer's as operands to ask for; extraction then chooses over all
//! regions at once (see [`super::link`]).
//!
//! A region's tensors, tables, caches and incoming values are numbered in the order of their first use. Two regions that are equal under
//! this numbering share a [`Template`] and so an e-graph; a model's 32 layers are two or three templates.

use hipc_ir::dtype::DType;
use hipc_ir::fused::CacheSpec;
use hipc_ir::graph::{Cache, Graph, Op, Rope, RopeStyle, Ty, Value, Weight};
use hipc_ir::{EntityRef, KvType};
use std::collections::HashMap;
use std::ops::Range;

/// A node or incoming value of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ref {
    /// Token ids.
    Tokens,
    /// Incoming value of this number.
    Import(usize),
    /// Node of this number.
    Node(usize),
}

/// A form in which a value crosses a border.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form<V, W> {
    /// As it is.
    Plain(V),
    /// Sums of its squares.
    Ssq(V),
    /// Times a gain.
    Gained(V, W),
    /// Times a gain, as int8 blocks.
    GainedQ8(V, W),
}

/// What equal regions have in common. Entities in `nodes` are numbers into the lists.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Template {
    /// Ops with their operands; `Quantize` and norms of the next region last.
    pub nodes: Vec<(Op, Vec<Ref>)>,
    /// How many of the nodes belong to the region itself.
    pub own: usize,
    /// Types of incoming values.
    pub imports: Vec<Ty>,
    /// Type, rows, columns of tensors.
    pub weights: Vec<(DType, u32, u32)>,
    /// Pairing and rotated elements of tables.
    pub ropes: Vec<(RopeStyle, u32)>,
    /// Caches.
    pub caches: Vec<CacheSpec>,
    /// Nodes that must be computed whatever crosses the border: the graph's outputs and new cache versions.
    pub roots: Vec<usize>,
    /// Forms that can come in.
    pub enter: Vec<Form<Ref, usize>>,
    /// Forms that can go out.
    pub leave: Vec<Form<Ref, usize>>,
}

/// A region of the graph: a template with names.
#[derive(Clone, Debug)]
pub struct Region {
    /// Index into [`Regions::templates`].
    pub template: usize,
    /// Layer.
    pub layer: Option<u32>,
    /// Graph values of the template's nodes.
    pub values: Vec<Value>,
    /// Tensors by the template's numbers.
    pub weights: Vec<Weight>,
    /// Tables by the template's numbers.
    pub ropes: Vec<Rope>,
    /// Caches by the template's numbers.
    pub caches: Vec<Cache>,
}

/// The regions of a graph in order.
#[derive(Clone, Debug, Default)]
pub struct Regions {
    /// Distinct regions.
    pub templates: Vec<Template>,
    /// All regions.
    pub regions: Vec<Region>,
}

/// Forms that can cross one border; sets of them are the bits of a word.
const MOST_FORMS: usize = 64;

/// Cuts a graph.
pub fn cut(graph: &Graph, ctx: u32, kv: KvType) -> Regions {
    let last_use = last_use(graph);
    let runs = runs(graph, &last_use);
    let roots = roots(graph);
    let borders: Vec<Vec<Form<Value, Weight>>> = runs.iter().skip(1).map(|run| border(graph, run, &last_use)).collect();
    let nothing = Vec::new();
    let mut out = Regions::default();
    let mut known: HashMap<Template, usize> = HashMap::new();
    for (i, run) in runs.iter().enumerate() {
        let enter = if i == 0 { &nothing } else { &borders[i - 1] };
        let leave = borders.get(i).unwrap_or(&nothing);
        let mut b = Numbering::new(graph);
        // Incoming values first: their order is that of the border, the same in the region before.
        for form in enter {
            if let Form::Plain(v) = form
                && v.index() < run.start
            {
                b.import(*v);
            }
        }
        run.clone().map(Value::new).filter(|v| graph.nodes[*v].op != Op::Tokens).for_each(|v| b.node(v));
        let own = b.values.len();
        for form in leave {
            if let Form::Plain(v) = form
                && v.index() >= run.end
            {
                b.node(*v);
            }
        }
        let roots = (0..own).filter(|n| roots[b.values[*n].index()]).collect();
        let enter = enter.iter().map(|f| b.form(*f)).collect();
        let leave = leave.iter().map(|f| b.form(*f)).collect();
        let template = Template {
            nodes: b.nodes,
            own,
            imports: b.types,
            weights: b
                .weights
                .iter()
                .map(|w| (graph.weights[*w].dtype, graph.weights[*w].rows, graph.weights[*w].cols))
                .collect(),
            ropes: b.ropes.iter().map(|r| (graph.ropes[*r].style, graph.ropes[*r].dims)).collect(),
            caches: b.caches.iter().map(|c| cache_spec(graph, *c, ctx, kv)).collect(),
            roots,
            enter,
            leave,
        };
        let layer = run.clone().map(Value::new).find_map(|v| graph.nodes[v].layer);
        let index = *known.entry(template.clone()).or_insert_with(|| {
            out.templates.push(template);
            out.templates.len() - 1
        });
        out.regions.push(Region {
            template: index,
            layer,
            values: b.values,
            weights: b.weights,
            ropes: b.ropes,
            caches: b.caches,
        });
    }
    out
}

/// Shape of a cache in a program.
pub fn cache_spec(graph: &Graph, cache: Cache, ctx: u32, kv: KvType) -> CacheSpec {
    let decl = &graph.caches[cache];
    CacheSpec { heads: decl.heads, head_dim: decl.head_dim, ctx, kv }
}

/// Runs of nodes with one layer tag, joined where more values cross than a border's set of forms can hold.
fn runs(graph: &Graph, last_use: &[usize]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut last = None;
    for (v, node) in graph.nodes.iter() {
        let crossing = || (0..v.index()).filter(|x| last_use[*x] >= v.index()).count();
        match runs.last_mut() {
            Some(run) if last == Some(node.layer) || crossing() > MOST_FORMS => run.end = v.index() + 1,
            _ => runs.push(v.index()..v.index() + 1),
        }
        last = Some(node.layer);
    }
    runs
}

/// Index of the last node that uses a value; 0 if none.
fn last_use(graph: &Graph) -> Vec<usize> {
    let mut last = vec![0; graph.nodes.len()];
    for (v, node) in graph.nodes.iter() {
        node.args.iter().for_each(|a| last[a.index()] = v.index());
    }
    last
}

/// Which values must be computed: outputs of the graph, and versions of caches that no later append replaces.
fn roots(graph: &Graph) -> Vec<bool> {
    let mut roots = vec![false; graph.nodes.len()];
    graph.outputs.iter().for_each(|v| roots[v.index()] = true);
    let mut newest: HashMap<Cache, Value> = HashMap::new();
    for (v, node) in graph.nodes.iter() {
        if let Op::Append(cache) = node.op {
            newest.insert(cache, v);
        }
    }
    newest.values().for_each(|v| roots[v.index()] = true);
    roots
}

/// The forms in which values can enter a run.
fn border(graph: &Graph, run: &Range<usize>, last_use: &[usize]) -> Vec<Form<Value, Weight>> {
    let (start, end) = (run.start, run.end);
    let crosses = |v: &Value| graph.nodes[*v].op != Op::Tokens && last_use[v.index()] >= start;
    let mut forms = Vec::new();
    for x in (0..start).map(Value::new).filter(crosses) {
        forms.push(Form::Plain(x));
        let mut norms: Vec<(Value, Option<Weight>)> = Vec::new();
        let mut ssq = false;
        for v in (start..end).map(Value::new) {
            let node = &graph.nodes[v];
            let (of_x, of_norm) = match node.args.first() {
                Some(arg) => (*arg == x, norms.iter().find(|(n, _)| n == arg).copied()),
                None => continue,
            };
            match &node.op {
                Op::RmsNorm { weight, .. } if of_x => {
                    forms.push(Form::Plain(v));
                    let whole = node.ty == hipc_ir::graph::Ty::F32(graph.weights[*weight].cols);
                    norms.push((v, whole.then_some(*weight)));
                    if whole {
                        if !ssq {
                            forms.push(Form::Ssq(x));
                            ssq = true;
                        }
                        forms.push(Form::Gained(x, *weight));
                    }
                }
                Op::Quantize if of_x => forms.push(Form::Plain(v)),
                Op::Quantize => {
                    if let Some((_, gain)) = of_norm {
                        forms.push(Form::Plain(v));
                        forms.extend(gain.map(|g| Form::GainedQ8(x, g)));
                    }
                }
                _ => {}
            }
        }
    }
    if forms.len() > MOST_FORMS {
        forms.retain(|f| matches!(f, Form::Plain(v) if v.index() < start));
    }
    forms
}

/// Numbers what a region uses.
struct Numbering<'a> {
    graph: &'a Graph,
    nodes: Vec<(Op, Vec<Ref>)>,
    values: Vec<Value>,
    types: Vec<Ty>,
    weights: Vec<Weight>,
    ropes: Vec<Rope>,
    caches: Vec<Cache>,
    refs: HashMap<Value, Ref>,
}

fn number<T: Copy + PartialEq>(list: &mut Vec<T>, item: T) -> usize {
    list.iter().position(|x| *x == item).unwrap_or_else(|| {
        list.push(item);
        list.len() - 1
    })
}

impl<'a> Numbering<'a> {
    fn new(graph: &'a Graph) -> Self {
        Self {
            graph,
            nodes: Vec::new(),
            values: Vec::new(),
            types: Vec::new(),
            weights: Vec::new(),
            ropes: Vec::new(),
            caches: Vec::new(),
            refs: HashMap::new(),
        }
    }

    /// The value's number; one that the region hasn't computed is an incoming one.
    fn import(&mut self, v: Value) -> Ref {
        if let Some(known) = self.refs.get(&v) {
            return *known;
        }
        let ty = match self.graph.nodes[v].ty {
            Ty::Cache(c) => Ty::Cache(Cache::new(number(&mut self.caches, c))),
            ty => ty,
        };
        self.types.push(ty);
        let new = Ref::Import(self.types.len() - 1);
        self.refs.insert(v, new);
        new
    }

    fn weight(&mut self, w: Weight) -> Weight {
        Weight::new(number(&mut self.weights, w))
    }

    fn node(&mut self, v: Value) {
        let node = &self.graph.nodes[v];
        let args = node.args.clone();
        let refs = args
            .iter()
            .map(|a| match self.graph.nodes[*a].op {
                Op::Tokens => Ref::Tokens,
                _ => self.import(*a),
            })
            .collect();
        let op = match node.op.clone() {
            Op::Embed(w) => Op::Embed(self.weight(w)),
            Op::RmsNorm { weight, eps } => Op::RmsNorm { weight: self.weight(weight), eps },
            Op::MatVec(w) => Op::MatVec(self.weight(w)),
            Op::Bias(w) => Op::Bias(self.weight(w)),
            Op::Rope { rope, head_dim } => Op::Rope { rope: Rope::new(number(&mut self.ropes, rope)), head_dim },
            Op::Append(c) => Op::Append(Cache::new(number(&mut self.caches, c))),
            op => op,
        };
        self.refs.insert(v, Ref::Node(self.nodes.len()));
        self.nodes.push((op, refs));
        self.values.push(v);
    }

    fn form(&mut self, form: Form<Value, Weight>) -> Form<Ref, usize> {
        match form {
            Form::Plain(v) => Form::Plain(self.import(v)),
            Form::Ssq(v) => Form::Ssq(self.import(v)),
            Form::Gained(v, g) => Form::Gained(self.import(v), number(&mut self.weights, g)),
            Form::GainedQ8(v, g) => Form::GainedQ8(self.import(v), number(&mut self.weights, g)),
        }
    }
}
