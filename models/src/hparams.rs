//! Hyper-parameters of a dense transformer, read from a file's keys and checked against each other.

use crate::gguf::{GgufError, GgufFile};
use crate::{ModelError, TensorInfo};

/// Sizes and constants of a model. All counts are at least 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Hparams {
    /// Layers (`block_count`).
    pub layers: u32,
    /// Width of the residual stream (`embedding_length`).
    pub embd: u32,
    /// Width of the feed-forward part (`feed_forward_length`).
    pub ff: u32,
    /// Query heads.
    pub heads: u32,
    /// KV heads; divides `heads`.
    pub kv_heads: u32,
    /// Values per head; even. Need not be `embd / heads`.
    pub head_dim: u32,
    /// Added to the mean of squares in RMSNorm.
    pub eps: f64,
    /// Frequency base of RoPE.
    pub rope_base: f64,
    /// Factor on positions: 1, or 1 / `rope.scaling.factor` where scaling is linear.
    pub rope_scale: f64,
    /// Positions that the model was trained for.
    pub context: u32,
    /// Rows of the embedding matrix.
    pub vocab: u32,
}

/// Smallest, largest and step of the head sizes that kernels exist for.
const HEAD_DIMS: (u32, u32, u32) = (32, 256, 16);

/// The head sizes that kernels exist for, for messages.
pub(crate) fn head_dims() -> String {
    let (min, max, step) = HEAD_DIMS;
    (min..=max).step_by(step as usize).map(|d| d.to_string()).collect::<Vec<_>>().join(", ")
}

/// Most layers of a model; the largest published have about 130.
const MAX_LAYERS: u32 = 512;
/// Widest matrix side; keeps every product of two sides within 32 bits of elements per head, row and column.
const MAX_WIDTH: u32 = 1 << 22;

impl Hparams {
    /// Reads the keys `arch.*`.
    ///
    /// # Errors
    /// A key that is missing, out of range or in contradiction with another; a feature (experts, soft-capping, YaRN …) that
    /// the dense architectures here don't have.
    pub fn read(gguf: &GgufFile, arch: &str) -> Result<Self, ModelError> {
        let k = Keys { gguf, arch };
        let layers = k.count("block_count", MAX_LAYERS)?;
        let embd = k.count("embedding_length", MAX_WIDTH)?;
        let ff = k.same_in_all_layers("feed_forward_length", layers)?.ok_or_else(|| k.missing("feed_forward_length"))?;
        let heads = k.same_in_all_layers("attention.head_count", layers)?.ok_or_else(|| k.missing("attention.head_count"))?;
        let kv_heads = k.same_in_all_layers("attention.head_count_kv", layers)?.unwrap_or(heads);
        if !heads.is_multiple_of(kv_heads) {
            return Err(k.bad("attention.head_count_kv", kv_heads, format!("it must divide attention.head_count, {heads}")));
        }
        let head_dim = match k.optional_count("attention.key_length", MAX_WIDTH)? {
            Some(d) => d,
            None if embd.is_multiple_of(heads) => embd / heads,
            None => {
                return Err(k.bad(
                    "attention.head_count",
                    heads,
                    format!("it must divide embedding_length, {embd}, as key_length is missing"),
                ));
            }
        };
        let value_dim = k.optional_count("attention.value_length", MAX_WIDTH)?.unwrap_or(head_dim);
        if value_dim != head_dim {
            return Err(k.unsupported(
                "attention.value_length",
                value_dim,
                "a size of values that differs from that of keys",
                "",
            ));
        }
        if head_dim % 2 == 1 {
            return Err(k.bad("attention.key_length", head_dim, "RoPE rotates pairs, so it must be even".into()));
        }
        if u64::from(heads) * u64::from(head_dim) > u64::from(MAX_WIDTH) {
            return Err(k.bad(
                "attention.head_count",
                heads,
                format!("head_count times key_length, {head_dim}, must be at most {MAX_WIDTH}"),
            ));
        }
        k.whole_rotation(head_dim)?;
        let context = k.count("context_length", i32::MAX as u32 + 1)?;
        k.refuse_features(head_dim, context)?;
        Ok(Self {
            layers,
            embd,
            ff,
            heads,
            kv_heads,
            head_dim,
            eps: k.real("attention.layer_norm_rms_epsilon", None, |x| x > 0.0 && x < 1.0, "between 0 and 1")?,
            rope_base: k.real("rope.freq_base", Some(10_000.0), |x| x > 0.0, "positive")?,
            rope_scale: k.rope_scale()?,
            context,
            vocab: k.vocab()?,
        })
    }

    /// Whether kernels exist for the head size.
    pub fn head_dim_supported(&self) -> bool {
        let (min, max, step) = HEAD_DIMS;
        (min..=max).contains(&self.head_dim) && self.head_dim.is_multiple_of(step)
    }

    /// Outputs of the query projection.
    pub fn q_width(&self) -> u32 {
        self.heads * self.head_dim
    }

    /// Outputs of the key projection, and of the value projection.
    pub fn kv_width(&self) -> u32 {
        self.kv_heads * self.head_dim
    }
}

/// The keys of one architecture.
struct Keys<'a> {
    gguf: &'a GgufFile,
    arch: &'a str,
}

impl Keys<'_> {
    fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.arch)
    }

    fn missing(&self, key: &str) -> ModelError {
        GgufError::MissingKey(self.full(key)).into()
    }

    fn bad(&self, key: &str, value: impl ToString, rule: String) -> ModelError {
        ModelError::BadValue { key: self.full(key), value: value.to_string(), rule }
    }

    fn unsupported(&self, key: &str, value: impl ToString, what: &'static str, instead: &'static str) -> ModelError {
        ModelError::UnsupportedFeature { key: self.full(key), value: value.to_string(), what, instead }
    }

    fn in_range(&self, key: &str, n: u32, max: u32) -> Result<u32, ModelError> {
        if (1..=max).contains(&n) { Ok(n) } else { Err(self.bad(key, n, format!("it must be from 1 to {max}"))) }
    }

    fn optional_count(&self, key: &str, max: u32) -> Result<Option<u32>, ModelError> {
        self.gguf.u32(&self.full(key))?.map(|n| self.in_range(key, n, max)).transpose()
    }

    fn count(&self, key: &str, max: u32) -> Result<u32, ModelError> {
        self.optional_count(key, max)?.ok_or_else(|| self.missing(key))
    }

    /// A count that a file may give once or for each layer.
    fn same_in_all_layers(&self, key: &str, layers: u32) -> Result<Option<u32>, ModelError> {
        let Some(each) = self.gguf.u32_per_layer(&self.full(key), layers)? else { return Ok(None) };
        match each.split_first() {
            Some((&n, rest)) if rest.iter().all(|&m| m == n) => self.in_range(key, n, MAX_WIDTH).map(Some),
            _ => Err(self.unsupported(key, format!("{each:?}"), "a value that differs by layer", "")),
        }
    }

    fn real(&self, key: &str, default: Option<f64>, ok: fn(f64) -> bool, rule: &str) -> Result<f64, ModelError> {
        let x = self.gguf.float(&self.full(key))?.or(default).ok_or_else(|| self.missing(key))?;
        if x.is_finite() && ok(x) { Ok(x) } else { Err(self.bad(key, x, format!("it must be {rule}"))) }
    }

    /// All of a head is rotated, as llama.cpp demands of these architectures.
    fn whole_rotation(&self, head_dim: u32) -> Result<(), ModelError> {
        let key = "rope.dimension_count";
        match self.gguf.u32(&self.full(key))? {
            None => Ok(()),
            Some(n) if n == head_dim => Ok(()),
            Some(n) if n > 0 && n < head_dim && n % 2 == 0 => {
                Err(self.unsupported(key, n, "rotating a part of each head", "; it must equal attention.key_length"))
            }
            Some(n) => Err(self.bad(key, n, format!("it must be even and at most the head size, {head_dim}"))),
        }
    }

    /// llama-3's scaling isn't one of these types: it comes as the tensor `rope_freqs.weight`.
    fn rope_scale(&self) -> Result<f64, ModelError> {
        let kind = self.gguf.text(&self.full("rope.scaling.type"))?.unwrap_or("linear");
        // The old name of the factor, from before there was a type.
        let key = if self.gguf.has(&self.full("rope.scaling.factor")) { "rope.scaling.factor" } else { "rope.scale_linear" };
        let factor = self.real(key, Some(1.0), |x| x >= 0.0, "zero (which means 1) or positive")?;
        match kind {
            "none" => Ok(1.0),
            "linear" if factor == 0.0 => Ok(1.0),
            "linear" => Ok(1.0 / factor),
            other => Err(self.unsupported(
                "rope.scaling.type",
                other,
                "this way of stretching the context",
                "; supported are none, linear",
            )),
        }
    }

    /// The embedding matrix decides; a `vocab_size` must agree with it.
    fn vocab(&self) -> Result<u32, ModelError> {
        let rows = self.gguf.tensor("token_embd.weight").and_then(|t: &TensorInfo| t.ne.get(1).copied());
        let says = self.gguf.u32(&self.full("vocab_size"))?;
        match (rows, says) {
            (Some(rows), Some(n)) if rows != u64::from(n) => {
                Err(self.bad("vocab_size", n, format!("token_embd.weight has {rows} rows")))
            }
            (Some(rows), _) => u32::try_from(rows).map_err(|_| self.bad("vocab_size", rows, "it must be less than 2^32".into())),
            // Without the tensor the builder says that it is missing.
            (None, says) => Ok(says.unwrap_or(0)),
        }
    }

    /// Refuses what would make another model of the same tensors.
    fn refuse_features(&self, head_dim: u32, context: u32) -> Result<(), ModelError> {
        let count = |key: &str| self.gguf.unsigned(&self.full(key));
        if let Some(n) = count("expert_count")?.filter(|&n| n > 0) {
            return Err(self.unsupported("expert_count", n, "a mixture of experts", "; dense models are"));
        }
        if let Some(n) = count("attention.sliding_window")?.filter(|&n| n > 0 && n < u64::from(context)) {
            return Err(self.unsupported("attention.sliding_window", n, "attention within a window", ""));
        }
        let scale = 1.0 / f64::from(head_dim).sqrt();
        for (key, neutral, what) in [
            ("attn_logit_softcapping", 0.0, "soft-capping of scores"),
            ("final_logit_softcapping", 0.0, "soft-capping of logits"),
            ("attention.scale", scale, "another scale of scores than 1/sqrt(head_dim)"),
            ("attention.clamp_kqv", 0.0, "clamping of q, k and v"),
            ("attention.max_alibi_bias", 0.0, "ALiBi"),
            ("logit_scale", 1.0, "a scale of logits"),
            ("embedding_scale", 1.0, "a scale of embeddings"),
            ("residual_scale", 1.0, "a scale of residuals"),
            ("rope.scaling.attn_factor", 1.0, "a scale of attention by the RoPE scaling"),
        ] {
            // 0 is how converters write "not used".
            if let Some(x) = self.gguf.float(&self.full(key))?.filter(|&x| x != 0.0 && (x.is_nan() || (x - neutral).abs() > 1e-6))
            {
                return Err(self.unsupported(key, x, what, ""));
            }
        }
        for (key, neutral, what) in
            [("attention.causal", true, "attention that looks ahead"), ("use_parallel_residual", false, "a parallel residual")]
        {
            if let Some(x) = self.gguf.bool(&self.full(key))?.filter(|&x| x != neutral) {
                return Err(self.unsupported(key, x, what, ""));
            }
        }
        Ok(())
    }
}
