//! Exact evaluation: the unfused graph in f64, with an f64 cache and without int8 (`Quantize` is the identity). The oracle of all tests and
//! what `--exact` runs.
//!
//! Tokens are processed in chunks, so that a weight is dequantised once per chunk. Every sum runs in an order that depends
//! neither on the number of threads nor on the width of the machine's vectors: the same ids give the same bits everywhere.

mod gemm;
mod ops;

use crate::blocks::Matrix;
use crate::error::EvalError;
use hipc_ir::graph::{Cache, Graph, Node, Op, Rope, RopeDecl, Ty, Value, Weight};
use hipc_ir::{EntityRef, PrimaryMap};
use ops::Angles;
use std::sync::Arc;

/// Where weights come from: tensor bytes by weight reference, in GGUF's layout.
pub trait WeightAccess: Send + Sync {
    /// The bytes of a weight.
    fn weight(&self, weight: Weight) -> &[u8];
}

/// Most tokens evaluated at once: enough to pay for the dequantisation, few enough that the values stay in the cache.
const CHUNK: usize = 128;

/// One sequence under exact evaluation.
pub struct ExactState {
    graph: Arc<Graph>,
    weights: Arc<dyn WeightAccess>,
    ctx: usize,
    pos: usize,
    /// `[positions, heads · head_dim]`, as long as the sequence.
    caches: PrimaryMap<Cache, Vec<f64>>,
    angles: PrimaryMap<Rope, Angles>,
    /// The last node that reads a value.
    last_use: PrimaryMap<Value, Value>,
    logits: Value,
}

#[derive(Debug)]
enum Evaluated {
    Ids(Vec<u32>),
    /// `[tokens, n]`.
    Vector(Vec<f64>),
    Cache(Cache),
}

impl ExactState {
    /// An empty sequence of at most `ctx` positions. The graph's first output is its logits.
    ///
    /// # Errors
    /// If a weight's bytes are not what the graph declares, or the graph has no logits.
    pub fn new(graph: Arc<Graph>, ctx: usize, weights: Arc<dyn WeightAccess>) -> Result<Self, EvalError> {
        for (w, decl) in graph.weights.iter() {
            let (expected, found) = (decl.bytes(), weights.weight(w).len() as u64);
            if expected != found {
                return Err(EvalError::Weight { name: decl.name.clone(), expected, found });
            }
        }
        let logits = match graph.outputs.first() {
            Some(&v) if matches!(graph.nodes[v].ty, Ty::F32(_)) => v,
            _ => return Err(EvalError::Malformed { node: "the first output".into(), what: "isn't a vector of logits" }),
        };
        let mut angles = PrimaryMap::new();
        for decl in graph.ropes.values() {
            let factors = decl.factors.map(|w| vector(&graph, &*weights, w));
            angles.push(frequencies(decl, factors.as_deref()));
        }
        let mut last_use: PrimaryMap<Value, Value> = graph.nodes.keys().collect();
        for (v, node) in graph.nodes.iter() {
            for &arg in &node.args {
                if arg.index() >= v.index() {
                    return Err(EvalError::Malformed { node: v.to_string(), what: "reads a later value" });
                }
                last_use[arg] = v;
            }
        }
        let caches = graph.caches.values().map(|_| Vec::new()).collect();
        Ok(Self { graph, weights, ctx, pos: 0, caches, angles, last_use, logits })
    }

    /// Positions fed so far.
    pub fn pos(&self) -> usize {
        self.pos
    }

    /// Most positions.
    pub fn ctx(&self) -> usize {
        self.ctx
    }

    /// Length of the logits.
    pub fn vocab(&self) -> usize {
        width(&self.graph, self.logits)
    }

    /// Forgets everything from position `pos` on.
    pub fn truncate(&mut self, pos: usize) {
        self.pos = self.pos.min(pos);
    }

    /// Feeds tokens and returns the logits of those from index `head_from` on, `[tokens − head_from, vocab]`.
    ///
    /// # Errors
    /// If a token isn't in the vocabulary or the context is full; nothing has been fed then.
    pub fn step(&mut self, tokens: &[u32], head_from: usize) -> Result<Vec<f64>, EvalError> {
        let needed = self.pos + tokens.len();
        if needed > self.ctx {
            return Err(EvalError::ContextFull { needed, ctx: self.ctx });
        }
        for node in self.graph.nodes.values() {
            if let Op::Embed(w) = node.op {
                let rows = self.graph.weights[w].rows as usize;
                if let Some(&id) = tokens.iter().find(|&&id| id as usize >= rows) {
                    return Err(EvalError::BadToken { id, rows });
                }
            }
        }
        let mut logits = Vec::with_capacity(tokens.len().saturating_sub(head_from) * self.vocab());
        for (i, chunk) in tokens.chunks(CHUNK).enumerate() {
            let from = head_from.saturating_sub(i * CHUNK).min(chunk.len());
            logits.extend(self.chunk(chunk, from)?);
        }
        Ok(logits)
    }

    fn chunk(&mut self, tokens: &[u32], head_from: usize) -> Result<Vec<f64>, EvalError> {
        let graph = Arc::clone(&self.graph);
        let mut values: Vec<Option<Evaluated>> = Vec::new();
        for (v, node) in graph.nodes.iter() {
            if v == self.logits && head_from == tokens.len() {
                break;
            }
            // The head is by far the largest matrix and usually wanted for one token only.
            let skip = if v == self.logits { head_from } else { 0 };
            let value = self.node(v, node, tokens, skip, &values)?;
            if v == self.logits {
                let Evaluated::Vector(logits) = value else { break };
                self.pos += tokens.len();
                return Ok(logits);
            }
            values.push(Some(value));
            for &arg in &node.args {
                if self.last_use[arg] == v {
                    values[arg.index()] = None;
                }
            }
        }
        self.pos += tokens.len();
        Ok(Vec::new())
    }

    fn node(
        &mut self,
        v: Value,
        node: &Node,
        tokens: &[u32],
        skip: usize,
        values: &[Option<Evaluated>],
    ) -> Result<Evaluated, EvalError> {
        let graph = Arc::clone(&self.graph);
        let malformed = |what| EvalError::Malformed { node: v.to_string(), what };
        // A vector operand, without the tokens that aren't wanted.
        let x = |i: usize| match node.args.get(i).and_then(|a| Some((a, values.get(a.index())?.as_ref()?))) {
            Some((&a, Evaluated::Vector(x))) => Ok(&x[skip * width(&graph, a)..]),
            _ => Err(malformed("lacks a vector operand")),
        };
        let cache = |i: usize| match node.args.get(i).and_then(|a| values.get(a.index())?.as_ref()) {
            Some(&Evaluated::Cache(c)) => Ok(c),
            _ => Err(malformed("lacks a cache operand")),
        };
        let vector = |w: Weight| vector(&graph, &*self.weights, w);
        let result = match &node.op {
            Op::Tokens => return Ok(Evaluated::Ids(tokens.to_vec())),
            Op::Embed(w) => match node.args.first().and_then(|a| values.get(a.index())?.as_ref()) {
                Some(Evaluated::Ids(ids)) => ops::embed(&self.matrix(*w, v)?, ids),
                _ => return Err(malformed("lacks an operand of token ids")),
            },
            Op::RmsNorm { weight, eps } => ops::rms_norm(x(0)?, &vector(*weight), eps.0),
            Op::MatVec(w) => gemm::mat_vec(&self.matrix(*w, v)?, x(0)?),
            Op::Bias(w) => ops::bias(x(0)?, &vector(*w)),
            Op::Add => ops::zip(x(0)?, x(1)?, |x, y| x + y),
            Op::Mul => ops::zip(x(0)?, x(1)?, |x, y| x * y),
            Op::Act(act) => x(0)?.iter().map(|&x| ops::act(*act, x)).collect(),
            Op::Rope { rope, head_dim } => {
                let n = width(&graph, v);
                ops::rope(x(0)?, n, *head_dim as usize, &self.angles[*rope], self.pos + skip)
            }
            Op::Append(c) => {
                let decl = &graph.caches[*c];
                let n = (decl.heads * decl.head_dim) as usize;
                let x = x(0)?;
                let cache = &mut self.caches[*c];
                cache.truncate(self.pos * n);
                cache.extend_from_slice(x);
                return Ok(Evaluated::Cache(*c));
            }
            Op::Attend { heads, kv_heads, head_dim, scale } => {
                let (k, v) = (&self.caches[cache(1)?], &self.caches[cache(2)?]);
                let shape = ops::Heads { heads: *heads as usize, kv_heads: *kv_heads as usize, head_dim: *head_dim as usize };
                ops::attend(x(0)?, k, v, shape, scale.0, self.pos + skip)
            }
            Op::Quantize => x(0)?.to_vec(),
            Op::ArgMax => {
                return Ok(Evaluated::Ids(x(0)?.chunks(width(&graph, node.args[0])).map(|row| arg_max(row) as u32).collect()));
            }
        };
        Ok(Evaluated::Vector(result))
    }

    fn matrix(&self, w: Weight, node: Value) -> Result<Matrix<'_>, EvalError> {
        let decl = &self.graph.weights[w];
        let what = "uses a matrix whose rows aren't whole blocks";
        Matrix::new(decl.dtype, decl.cols, self.weights.weight(w)).ok_or(EvalError::Malformed { node: node.to_string(), what })
    }
}

/// Index of the largest value, the lowest on ties.
pub fn arg_max(row: &[f64]) -> usize {
    let mut best = 0;
    for (i, v) in row.iter().enumerate() {
        if *v > row[best] {
            best = i;
        }
    }
    best
}

fn width(graph: &Graph, v: Value) -> usize {
    match graph.nodes[v].ty {
        Ty::F32(n) | Ty::Q8(n) => n as usize,
        Ty::Ids => 1,
        Ty::Cache(_) => 0,
    }
}

fn vector(graph: &Graph, weights: &dyn WeightAccess, w: Weight) -> Vec<f64> {
    let decl = &graph.weights[w];
    let mut values = vec![0f32; decl.cols as usize];
    if let Some(matrix) = Matrix::new(decl.dtype, decl.cols, weights.weight(w)) {
        matrix.dequantize(0, &mut values);
    }
    values.into_iter().map(f64::from).collect()
}

fn frequencies(decl: &RopeDecl, factors: Option<&[f64]>) -> Angles {
    let dims = decl.dims as usize;
    let pair = |i: usize| {
        let frequency = decl.freq_scale.0 * decl.base.0.powf(-2.0 * i as f64 / dims as f64);
        frequency / factors.and_then(|f| f.get(i)).copied().unwrap_or(1.0)
    };
    Angles { style: decl.style, frequencies: (0..dims / 2).map(pair).collect() }
}
