//! LLaMA and its kin (Llama 1 to 3, Mistral, TinyLlama …): RoPE on neighbouring pairs, optional biases, optional RoPE factors.

use super::net::Net;
use crate::ModelError;
use hipc_ir::graph::RopeStyle;

pub(super) fn build(m: &mut Net<'_>) -> Result<(), ModelError> {
    let (q_width, kv_width, embd) = (m.h.q_width(), m.h.kv_width(), m.h.embd);
    let factors = m.optional_vector("rope_freqs.weight", m.h.head_dim / 2)?;
    let rope = m.rope_table(RopeStyle::Norm, factors);
    let (mut x, table) = m.embedding()?;
    for layer in 0..m.h.layers {
        m.begin_layer(layer);
        let n = m.norm(x, "attn_norm", embd)?;
        let q = m.linear(n, "attn_q", embd, q_width)?;
        let k = m.linear(n, "attn_k", embd, kv_width)?;
        let v = m.linear(n, "attn_v", embd, kv_width)?;
        let (q, k) = (m.rotate(q, rope), m.rotate(k, rope));
        let a = m.attention(q, k, v);
        let o = m.linear(a, "attn_output", q_width, embd)?;
        x = m.g.add(x, o);
        let n = m.norm(x, "ffn_norm", embd)?;
        let f = m.swiglu(n)?;
        x = m.g.add(x, f);
    }
    m.head(x, table)
}
