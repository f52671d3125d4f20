//! Graphs to fuse: dense decoders of several makes.

use hipc_ir::graph::{Act, CacheDecl, CacheKind, Graph, GraphBuilder, RopeDecl, RopeStyle, Weight, WeightDecl};
use hipc_ir::{DType, Real};

/// Shape and types of a dense decoder.
#[derive(Clone)]
pub struct Dense {
    pub layers: u32,
    pub embd: u32,
    pub ff: u32,
    pub heads: u32,
    pub kv_heads: u32,
    pub head_dim: u32,
    pub vocab: u32,
    pub style: RopeStyle,
    pub qk_norm: bool,
    pub qkv_bias: bool,
    /// Type of most matrices, and of v and down in every other layer.
    pub dtype: DType,
    pub better: DType,
    pub head: DType,
}

/// Llama-3.1-8B as Q4_K_M.
pub fn llama_8b() -> Dense {
    Dense {
        layers: 32,
        embd: 4096,
        ff: 14336,
        heads: 32,
        kv_heads: 8,
        head_dim: 128,
        vocab: 128_256,
        style: RopeStyle::Norm,
        qk_norm: false,
        qkv_bias: false,
        dtype: DType::Q4_K,
        better: DType::Q6_K,
        head: DType::Q6_K,
    }
}

/// Qwen3-0.6B as Q4_K_M.
pub fn qwen3() -> Dense {
    Dense {
        layers: 28,
        embd: 1024,
        ff: 3072,
        heads: 16,
        kv_heads: 8,
        vocab: 151_936,
        style: RopeStyle::Neox,
        qk_norm: true,
        ..llama_8b()
    }
}

pub const EPS: f64 = 1e-5;

impl Dense {
    /// The same with other types.
    pub fn all(self, dtype: DType) -> Self {
        Self { dtype, better: dtype, head: dtype, ..self }
    }

    pub fn build(&self) -> Graph {
        let mut b = GraphBuilder::new("dense");
        let rope = b.rope_table(RopeDecl {
            style: self.style,
            dims: self.head_dim,
            base: Real(500_000.0),
            freq_scale: Real(1.0),
            factors: None,
        });
        let embd = matrix(&mut b, "token_embd", self.dtype, self.vocab, self.embd);
        let ids = b.tokens();
        let mut x = b.embed(embd, ids);
        for layer in 0..self.layers {
            b.set_layer(Some(layer));
            let name = |part: &str| format!("blk.{layer}.{part}");
            let better = if layer % 2 == 0 { self.better } else { self.dtype };
            let (q_len, kv_len) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
            let gain = vector(&mut b, &name("attn_norm"), self.embd);
            let h = b.rms_norm(x, gain, EPS);
            let product = |b: &mut GraphBuilder, part: &str, dtype, rows| {
                let w = matrix(b, &name(part), dtype, rows, self.embd);
                let mut y = b.mat_vec(w, h);
                if self.qkv_bias {
                    let bias = vector(b, &name(&format!("{part}.bias")), rows);
                    y = b.bias(y, bias);
                }
                if self.qk_norm && part != "attn_v" {
                    let gain = vector(b, &name(&format!("{part}_norm")), self.head_dim);
                    y = b.rms_norm(y, gain, EPS);
                }
                y
            };
            let q = product(&mut b, "attn_q", self.dtype, q_len);
            let k = product(&mut b, "attn_k", self.dtype, kv_len);
            let v = product(&mut b, "attn_v", better, kv_len);
            let q = b.rope(q, rope, self.head_dim);
            let k = b.rope(k, rope, self.head_dim);
            let [k_cache, v_cache] = [CacheKind::K, CacheKind::V]
                .map(|kind| b.cache(CacheDecl { layer, kind, heads: self.kv_heads, head_dim: self.head_dim }));
            let k = b.append(k_cache, k);
            let v = b.append(v_cache, v);
            let scale = 1.0 / f64::from(self.head_dim).sqrt();
            let a = b.attend(q, k, v, self.heads, self.kv_heads, self.head_dim, scale);
            let wo = matrix(&mut b, &name("attn_output"), self.dtype, self.embd, q_len);
            let o = b.mat_vec(wo, a);
            x = b.add(o, x);
            let gain = vector(&mut b, &name("ffn_norm"), self.embd);
            let h = b.rms_norm(x, gain, EPS);
            let gate = matrix(&mut b, &name("ffn_gate"), self.dtype, self.ff, self.embd);
            let gate = b.mat_vec(gate, h);
            let up = matrix(&mut b, &name("ffn_up"), self.dtype, self.ff, self.embd);
            let up = b.mat_vec(up, h);
            let gate = b.act(Act::Silu, gate);
            let h = b.mul(gate, up);
            let down = matrix(&mut b, &name("ffn_down"), better, self.embd, self.ff);
            let down = b.mat_vec(down, h);
            x = b.add(down, x);
        }
        b.set_layer(None);
        let gain = vector(&mut b, "output_norm", self.embd);
        let h = b.rms_norm(x, gain, EPS);
        let head = matrix(&mut b, "output", self.head, self.vocab, self.embd);
        let logits = b.mat_vec(head, h);
        let id = b.arg_max(logits);
        b.finish(&[logits, id])
    }
}

pub fn matrix(b: &mut GraphBuilder, name: &str, dtype: DType, rows: u32, cols: u32) -> Weight {
    b.weight(WeightDecl { name: format!("{name}.weight"), dtype, rows, cols })
}

pub fn vector(b: &mut GraphBuilder, name: &str, cols: u32) -> Weight {
    matrix(b, name, DType::F32, 1, cols)
}
