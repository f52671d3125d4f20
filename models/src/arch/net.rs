//! What every architecture is made of: checked access to the tensors and the blocks that recur.

use crate::{GgufFile, Hparams, ModelError, TensorInfo};
use hipc_ir::dtype::{DType, Real};
use hipc_ir::graph::{Act, CacheDecl, CacheKind, Graph, GraphBuilder, Rope, RopeDecl, RopeStyle, Value, Weight, WeightDecl};
use std::collections::HashSet;

/// A network under construction. Tensor names of a layer are given without `blk.N.` and `.weight`.
pub(super) struct Net<'a> {
    pub h: &'a Hparams,
    pub g: GraphBuilder,
    gguf: &'a GgufFile,
    arch: &'static str,
    layer: u32,
    used: HashSet<String>,
    outputs: Vec<Value>,
}

impl<'a> Net<'a> {
    pub fn new(gguf: &'a GgufFile, h: &'a Hparams, arch: &'static str, name: &str) -> Self {
        Self { h, g: GraphBuilder::new(name), gguf, arch, layer: 0, used: HashSet::new(), outputs: Vec::new() }
    }

    /// A tensor that must have exactly this shape, contiguous dimension first; trailing ones don't count.
    fn shaped(&mut self, name: &str, ne: &[u32]) -> Result<Option<&'a TensorInfo>, ModelError> {
        let Some(t) = self.gguf.tensor(name) else { return Ok(None) };
        let significant = |d: &[u64]| d[..d.iter().rposition(|&n| n != 1).map_or(0, |i| i + 1)].to_vec();
        let same = significant(&t.ne) == significant(&ne.iter().map(|&d| u64::from(d)).collect::<Vec<_>>());
        if !same {
            let found = t.ne.iter().map(u64::to_string).collect::<Vec<_>>().join(" x ");
            return Err(ModelError::WrongShape { name: name.into(), expected: shape(ne), found });
        }
        self.used.insert(name.into());
        Ok(Some(t))
    }

    fn missing(&self, name: &str, ne: &[u32]) -> ModelError {
        ModelError::MissingTensor { name: name.into(), arch: self.arch, expected: shape(ne) }
    }

    fn optional_matrix(&mut self, name: &str, cols: u32, rows: u32) -> Result<Option<Weight>, ModelError> {
        let Some(t) = self.shaped(name, &[cols, rows])? else { return Ok(None) };
        let unsupported = || ModelError::UnsupportedType { tensor: name.into(), ty: t.ty.name() };
        let dtype = t.ty.supported().ok_or_else(unsupported)?;
        Ok(Some(self.g.weight(WeightDecl { name: name.into(), dtype, rows, cols })))
    }

    fn matrix(&mut self, name: &str, cols: u32, rows: u32) -> Result<Weight, ModelError> {
        self.optional_matrix(name, cols, rows)?.ok_or_else(|| self.missing(name, &[cols, rows]))
    }

    /// A vector of F32 by its full name, if the file has it.
    pub fn optional_vector(&mut self, name: &str, n: u32) -> Result<Option<Weight>, ModelError> {
        let Some(t) = self.shaped(name, &[n])? else { return Ok(None) };
        if t.ty.supported() != Some(DType::F32) {
            return Err(ModelError::NotF32 { name: name.into(), ty: t.ty.name() });
        }
        Ok(Some(self.g.weight(WeightDecl { name: name.into(), dtype: DType::F32, rows: 1, cols: n })))
    }

    fn vector(&mut self, name: &str, n: u32) -> Result<Weight, ModelError> {
        self.optional_vector(name, n)?.ok_or_else(|| self.missing(name, &[n]))
    }

    /// The nodes that follow belong to this layer.
    pub fn begin_layer(&mut self, layer: u32) {
        self.layer = layer;
        self.g.set_layer(Some(layer));
    }

    /// Rotation of whole heads with the model's base and scale.
    pub fn rope_table(&mut self, style: RopeStyle, factors: Option<Weight>) -> Rope {
        let (base, freq_scale) = (Real(self.h.rope_base), Real(self.h.rope_scale));
        self.g.rope_table(RopeDecl { style, dims: self.h.head_dim, base, freq_scale, factors })
    }

    /// `f32[embd]` of each token, and the matrix it is a row of.
    pub fn embedding(&mut self) -> Result<(Value, Weight), ModelError> {
        let w = self.matrix("token_embd.weight", self.h.embd, self.h.vocab)?;
        let ids = self.g.tokens();
        Ok((self.g.embed(w, ids), w))
    }

    /// RMSNorm over groups of `n` values.
    pub fn norm(&mut self, x: Value, name: &str, n: u32) -> Result<Value, ModelError> {
        let w = self.vector(&format!("blk.{}.{name}.weight", self.layer), n)?;
        Ok(self.g.rms_norm(x, w, self.h.eps))
    }

    /// A projection of `cols` to `rows` values, with its bias if the file has one.
    pub fn linear(&mut self, x: Value, name: &str, cols: u32, rows: u32) -> Result<Value, ModelError> {
        let prefix = format!("blk.{}.{name}", self.layer);
        let w = self.matrix(&format!("{prefix}.weight"), cols, rows)?;
        let y = self.g.mat_vec(w, x);
        let bias = self.optional_vector(&format!("{prefix}.bias"), rows)?;
        Ok(bias.map_or(y, |b| self.g.bias(y, b)))
    }

    /// Rotates every head.
    pub fn rotate(&mut self, x: Value, rope: Rope) -> Value {
        self.g.rope(x, rope, self.h.head_dim)
    }

    /// Appends k and v to the layer's cache and attends with scale 1/√head_dim.
    pub fn attention(&mut self, q: Value, k: Value, v: Value) -> Value {
        let Hparams { heads, kv_heads, head_dim, .. } = *self.h;
        let mut append = |kind, x| {
            let cache = self.g.cache(CacheDecl { layer: self.layer, kind, heads: kv_heads, head_dim });
            self.g.append(cache, x)
        };
        let (k, v) = (append(CacheKind::K, k), append(CacheKind::V, v));
        self.g.attend(q, k, v, heads, kv_heads, head_dim, 1.0 / f64::from(head_dim).sqrt())
    }

    /// `down · (silu(gate · x) ⊙ (up · x))`.
    pub fn swiglu(&mut self, x: Value) -> Result<Value, ModelError> {
        let Hparams { embd, ff, .. } = *self.h;
        let gate = self.linear(x, "ffn_gate", embd, ff)?;
        let up = self.linear(x, "ffn_up", embd, ff)?;
        let gate = self.g.act(Act::Silu, gate);
        let y = self.g.mul(gate, up);
        self.linear(y, "ffn_down", ff, embd)
    }

    /// Last norm, logits (by the embedding matrix where there is no `output.weight`) and arg-max.
    pub fn head(&mut self, x: Value, embedding: Weight) -> Result<(), ModelError> {
        self.g.set_layer(None);
        let w = self.vector("output_norm.weight", self.h.embd)?;
        let x = self.g.rms_norm(x, w, self.h.eps);
        let w = self.optional_matrix("output.weight", self.h.embd, self.h.vocab)?.unwrap_or(embedding);
        let logits = self.g.mat_vec(w, x);
        let best = self.g.arg_max(logits);
        self.outputs = vec![logits, best];
        Ok(())
    }

    /// The graph, if every tensor of the file found its place.
    pub fn finish(self) -> Result<Graph, ModelError> {
        let unknown: Vec<&str> =
            self.gguf.tensors().iter().map(|t| t.name.as_str()).filter(|n| !self.used.contains(*n)).collect();
        if unknown.is_empty() {
            return Ok(self.g.finish(&self.outputs));
        }
        let shown = unknown.iter().take(5).map(|n| format!("{n:?}")).collect::<Vec<_>>().join(", ");
        let names = if unknown.len() > 5 { shown + ", …" } else { shown };
        Err(ModelError::UnknownTensors { arch: self.arch, count: unknown.len(), names })
    }
}

fn shape(ne: &[u32]) -> String {
    ne.iter().map(u32::to_string).collect::<Vec<_>>().join(" x ")
}
