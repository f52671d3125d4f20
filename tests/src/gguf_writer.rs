//! Writes small and large GGUF files for tests: any keys, any tensor records, right or wrong.
//!
//! Tensor data are left as a hole, so that the file of an 8B model takes a few kilobytes of disk.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::Path;

/// Value of a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Val {
    /// `u32`.
    U32(u32),
    /// `i32`.
    I32(i32),
    /// `u64`.
    U64(u64),
    /// `f32`.
    F32(f32),
    /// `bool`, as the byte that is written.
    Bool(u8),
    /// A string, of any bytes.
    Str(Vec<u8>),
    /// Strings.
    Strs(Vec<Vec<u8>>),
    /// `i32` array.
    I32s(Vec<i32>),
    /// `u32` array.
    U32s(Vec<u32>),
    /// `f32` array.
    F32s(Vec<f32>),
}

/// Shorthand for [`Val::Str`].
pub fn text(s: &str) -> Val {
    Val::Str(s.as_bytes().to_vec())
}

/// Shorthand for [`Val::Strs`].
pub fn texts<S: AsRef<str>>(list: &[S]) -> Val {
    Val::Strs(list.iter().map(|s| s.as_ref().as_bytes().to_vec()).collect())
}

/// ggml's numbers of the types that the tests write: F32, F16, Q4_0, Q8_0, Q4_K, Q6_K, BF16.
pub mod ty {
    #![allow(missing_docs)]
    pub const F32: u32 = 0;
    pub const F16: u32 = 1;
    pub const Q4_0: u32 = 2;
    pub const Q8_0: u32 = 8;
    pub const Q4_K: u32 = 12;
    pub const Q5_K: u32 = 13;
    pub const Q6_K: u32 = 14;
    pub const BF16: u32 = 30;
}

/// Values and bytes of a block.
fn block(ty: u32) -> (u64, u64) {
    match ty {
        ty::F32 => (1, 4),
        ty::F16 | ty::BF16 => (1, 2),
        ty::Q4_0 => (32, 18),
        ty::Q8_0 => (32, 34),
        ty::Q4_K => (256, 144),
        ty::Q5_K => (256, 176),
        ty::Q6_K => (256, 210),
        _ => (1, 1),
    }
}

/// Where the data of impossible tensors are cut.
const LONGEST: u64 = 1 << 40;

/// A tensor record.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Name.
    pub name: String,
    /// ggml's number of the type.
    pub ty: u32,
    /// Dimensions, the contiguous one first.
    pub ne: Vec<u64>,
    /// Offset in the data section; `None` puts it behind the tensor before.
    pub offset: Option<u64>,
    /// First bytes of the data; the rest is a hole.
    pub data: Vec<u8>,
}

impl Tensor {
    /// Bytes of the data, 0 where the dimensions overflow.
    pub fn bytes(&self) -> u64 {
        let (n, b) = block(self.ty);
        self.ne.iter().try_fold(1u64, |a, &d| a.checked_mul(d)).and_then(|e| (e / n).checked_mul(b)).unwrap_or(0)
    }
}

/// A file to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Gguf {
    /// The number behind the magic.
    pub version: u32,
    /// Keys in order; nothing forbids the same one twice.
    pub keys: Vec<(String, Val)>,
    /// Tensors in order.
    pub tensors: Vec<Tensor>,
    /// Alignment by which the data are laid out (`general.alignment` is a key like any other).
    pub alignment: u64,
}

impl Default for Gguf {
    fn default() -> Self {
        Self { version: 3, keys: Vec::new(), tensors: Vec::new(), alignment: 32 }
    }
}

impl Gguf {
    /// Adds a key.
    pub fn key(&mut self, key: &str, v: Val) -> &mut Self {
        self.keys.push((key.into(), v));
        self
    }

    /// Replaces a key, or adds it.
    pub fn set(&mut self, key: &str, v: Val) -> &mut Self {
        self.unset(key).key(key, v)
    }

    /// Removes a key.
    pub fn unset(&mut self, key: &str) -> &mut Self {
        self.keys.retain(|(k, _)| k != key);
        self
    }

    /// Adds a tensor without data.
    pub fn tensor(&mut self, name: &str, ty: u32, ne: &[u64]) -> &mut Self {
        self.tensors.push(Tensor { name: name.into(), ty, ne: ne.to_vec(), offset: None, data: Vec::new() });
        self
    }

    /// The tensor of this name, to be changed.
    ///
    /// # Panics
    /// If there is none.
    pub fn tensor_mut(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|t| t.name == name).unwrap_or_else(|| panic!("no tensor {name}"))
    }

    /// Header, keys and tensor table, padded to the data section, and offset and tensor of each piece of data.
    fn layout(&self) -> (Vec<u8>, Vec<(u64, &Tensor)>, u64) {
        let mut b = b"GGUF".to_vec();
        b.extend(self.version.to_le_bytes());
        b.extend((self.tensors.len() as u64).to_le_bytes());
        b.extend((self.keys.len() as u64).to_le_bytes());
        for (k, v) in &self.keys {
            put_str(&mut b, k.as_bytes());
            put(&mut b, v);
        }
        let (mut at, mut end, mut offsets) = (0, 0, Vec::new());
        for t in &self.tensors {
            let offset = t.offset.unwrap_or(at);
            put_str(&mut b, t.name.as_bytes());
            b.extend((t.ne.len() as u32).to_le_bytes());
            t.ne.iter().for_each(|d| b.extend(d.to_le_bytes()));
            b.extend(t.ty.to_le_bytes());
            b.extend(offset.to_le_bytes());
            offsets.push((offset, t));
            at = offset.saturating_add(t.bytes()).min(LONGEST).next_multiple_of(self.alignment);
            end = end.max(at);
        }
        b.resize(b.len().next_multiple_of(self.alignment as usize), 0);
        let base = b.len() as u64;
        (b, offsets, base + end)
    }

    /// The whole file in memory; for small ones.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (mut b, data, end) = self.layout();
        let base = b.len();
        b.resize(end as usize, 0);
        for (offset, t) in data {
            b[base + offset as usize..][..t.data.len()].copy_from_slice(&t.data);
        }
        b
    }

    /// Writes the file with holes for the data that isn't given; a file that would be longer than 1 TiB is cut there.
    ///
    /// # Errors
    /// What the system says.
    pub fn write_sparse(&self, path: &Path) -> io::Result<()> {
        let (head, data, end) = self.layout();
        let mut f = File::create(path)?;
        f.write_all(&head)?;
        for (offset, t) in data.iter().filter(|(_, t)| !t.data.is_empty()) {
            f.seek(io::SeekFrom::Start(head.len() as u64 + offset))?;
            f.write_all(&t.data)?;
        }
        f.set_len(end)
    }
}

fn put_str(b: &mut Vec<u8>, s: &[u8]) {
    b.extend((s.len() as u64).to_le_bytes());
    b.extend(s);
}

fn put(b: &mut Vec<u8>, v: &Val) {
    let mut array = |ty: u32, n: usize| {
        b.extend(9u32.to_le_bytes());
        b.extend(ty.to_le_bytes());
        b.extend((n as u64).to_le_bytes());
    };
    match v {
        Val::Strs(l) => array(8, l.len()),
        Val::I32s(l) => array(5, l.len()),
        Val::U32s(l) => array(4, l.len()),
        Val::F32s(l) => array(6, l.len()),
        _ => {}
    }
    match v {
        Val::U32(x) => b.extend([4u32.to_le_bytes(), x.to_le_bytes()].concat()),
        Val::I32(x) => b.extend([5u32.to_le_bytes(), x.to_le_bytes()].concat()),
        Val::F32(x) => b.extend([6u32.to_le_bytes(), x.to_le_bytes()].concat()),
        Val::U64(x) => {
            b.extend(10u32.to_le_bytes());
            b.extend(x.to_le_bytes());
        }
        Val::Bool(x) => {
            b.extend(7u32.to_le_bytes());
            b.push(*x);
        }
        Val::Str(s) => {
            b.extend(8u32.to_le_bytes());
            put_str(b, s);
        }
        Val::Strs(l) => l.iter().for_each(|s| put_str(b, s)),
        Val::I32s(l) => l.iter().for_each(|x| b.extend(x.to_le_bytes())),
        Val::U32s(l) => l.iter().for_each(|x| b.extend(x.to_le_bytes())),
        Val::F32s(l) => l.iter().for_each(|x| b.extend(x.to_le_bytes())),
    }
}

/// Sizes of a dense model.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// `llama` or `qwen3`.
    pub arch: &'static str,
    /// Layers.
    pub layers: u32,
    /// Width.
    pub embd: u64,
    /// Width of the feed-forward part.
    pub ff: u64,
    /// Query heads.
    pub heads: u64,
    /// KV heads.
    pub kv_heads: u64,
    /// Values per head.
    pub head_dim: u64,
    /// Tokens.
    pub vocab: u64,
    /// Whether the head is the embedding matrix.
    pub tied: bool,
    /// Frequency base of RoPE.
    pub rope_base: f32,
    /// Whether there is a `rope_freqs.weight`.
    pub rope_freqs: bool,
    /// Context length.
    pub ctx: u32,
}

/// Llama-3.1-8B.
pub const LLAMA_3_1_8B: Shape = Shape {
    arch: "llama",
    layers: 32,
    embd: 4096,
    ff: 14336,
    heads: 32,
    kv_heads: 8,
    head_dim: 128,
    vocab: 128_256,
    tied: false,
    rope_base: 500_000.0,
    rope_freqs: true,
    ctx: 131_072,
};

/// Qwen3-8B.
pub const QWEN3_8B: Shape = Shape {
    arch: "qwen3",
    layers: 36,
    embd: 4096,
    ff: 12_288,
    heads: 32,
    kv_heads: 8,
    head_dim: 128,
    vocab: 151_936,
    tied: false,
    rope_base: 1e6,
    rope_freqs: false,
    ctx: 40_960,
};

/// How tensors are typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// llama.cpp's Q4_K_M: Q4_K, with Q6_K for the head and for attn_v and ffn_down of about half of the layers.
    Q4KM,
    /// One type for all matrices.
    All(u32),
}

/// Weight types that kernels read, with their names.
pub const TYPES: [(&str, u32); 7] = [
    ("F32", ty::F32),
    ("F16", ty::F16),
    ("BF16", ty::BF16),
    ("Q8_0", ty::Q8_0),
    ("Q4_0", ty::Q4_0),
    ("Q4_K", ty::Q4_K),
    ("Q6_K", ty::Q6_K),
];

impl Mix {
    /// llama.cpp's rule (`llama_tensor_get_type`) for a dense model.
    fn of(self, name: &str, layer: u32, layers: u32, tied: bool) -> u32 {
        if let Mix::All(ty) = self {
            return ty;
        }
        let more = layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
        let head = name == "output.weight" || (tied && name == "token_embd.weight");
        if head || (more && (name.ends_with("attn_v.weight") || name.ends_with("ffn_down.weight"))) { ty::Q6_K } else { ty::Q4_K }
    }
}

/// A model of this shape without a tokenizer and without data: what a compiler needs to know of it.
pub fn model(shape: Shape, mix: Mix) -> Gguf {
    let s = shape;
    let mut g = Gguf::default();
    let a = s.arch;
    g.key("general.architecture", text(a))
        .key("general.name", text("shape only"))
        .key("general.quantization_version", Val::U32(2));
    for (k, v) in [
        ("vocab_size", s.vocab),
        ("context_length", u64::from(s.ctx)),
        ("embedding_length", s.embd),
        ("block_count", u64::from(s.layers)),
        ("feed_forward_length", s.ff),
        ("attention.head_count", s.heads),
        ("attention.head_count_kv", s.kv_heads),
        ("attention.key_length", s.head_dim),
        ("attention.value_length", s.head_dim),
        ("rope.dimension_count", s.head_dim),
    ] {
        g.key(&format!("{a}.{k}"), Val::U32(v as u32));
    }
    g.key(&format!("{a}.rope.freq_base"), Val::F32(s.rope_base))
        .key(&format!("{a}.attention.layer_norm_rms_epsilon"), Val::F32(1e-5));
    g.key("tokenizer.ggml.model", text("none"));

    let matrix = |g: &mut Gguf, name: &str, layer: u32, cols: u64, rows: u64| {
        g.tensor(name, mix.of(name, layer, s.layers, s.tied), &[cols, rows]);
    };
    matrix(&mut g, "token_embd.weight", 0, s.embd, s.vocab);
    if s.rope_freqs {
        g.tensor("rope_freqs.weight", ty::F32, &[s.head_dim / 2]);
        g.tensor_mut("rope_freqs.weight").data = 1f32.to_le_bytes().repeat(s.head_dim as usize / 2);
    }
    for i in 0..s.layers {
        let p = format!("blk.{i}.");
        g.tensor(&format!("{p}attn_norm.weight"), ty::F32, &[s.embd]);
        matrix(&mut g, &format!("{p}attn_q.weight"), i, s.embd, s.heads * s.head_dim);
        matrix(&mut g, &format!("{p}attn_k.weight"), i, s.embd, s.kv_heads * s.head_dim);
        matrix(&mut g, &format!("{p}attn_v.weight"), i, s.embd, s.kv_heads * s.head_dim);
        matrix(&mut g, &format!("{p}attn_output.weight"), i, s.heads * s.head_dim, s.embd);
        if a == "qwen3" {
            g.tensor(&format!("{p}attn_q_norm.weight"), ty::F32, &[s.head_dim]);
            g.tensor(&format!("{p}attn_k_norm.weight"), ty::F32, &[s.head_dim]);
        }
        g.tensor(&format!("{p}ffn_norm.weight"), ty::F32, &[s.embd]);
        matrix(&mut g, &format!("{p}ffn_gate.weight"), i, s.embd, s.ff);
        matrix(&mut g, &format!("{p}ffn_up.weight"), i, s.embd, s.ff);
        matrix(&mut g, &format!("{p}ffn_down.weight"), i, s.ff, s.embd);
    }
    g.tensor("output_norm.weight", ty::F32, &[s.embd]);
    if !s.tied {
        matrix(&mut g, "output.weight", 0, s.embd, s.vocab);
    }
    g
}

/// Writes the sparse file of Llama-3.1-8B's shape in the Q4_K_M mix: 4.9 GB long, a few kilobytes on disk.
///
/// # Errors
/// What the system says.
pub fn write_llama_8b(path: &Path) -> io::Result<()> {
    model(LLAMA_3_1_8B, Mix::Q4KM).write_sparse(path)
}
