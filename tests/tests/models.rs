//! Sound models: the sizes, graphs and tokenizers that files give, and the refusal by name of what isn't supported.

use hipc_ir::dtype::DType;
use hipc_ir::graph::{Graph, Op, RopeStyle, Ty};
use hipc_ir::text::TokenizerKind;
use hipc_models::{GgufFile, Model, ModelError, tokenizer};
use hipc_tests::gguf_writer::{self, Mix, ty};
use hipc_tests::parity::arch::SUPPORTED;
use hipc_tests::shared::{demo_model, shared};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

fn manifest() -> Option<(std::path::PathBuf, Value)> {
    let path = shared("golden/MANIFEST.json")?;
    let json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    Some((path.parent().unwrap().to_path_buf(), json))
}

/// How often each op occurs within layers, per layer.
fn ops(g: &Graph) -> BTreeMap<&'static str, usize> {
    let layers = 1 + g.nodes.values().filter_map(|n| n.layer).max().unwrap() as usize;
    let mut count = BTreeMap::new();
    for n in g.nodes.values().filter(|n| n.layer.is_some()) {
        let name = match n.op {
            Op::RmsNorm { .. } => "norm",
            Op::MatVec(_) => "matvec",
            Op::Bias(_) => "bias",
            Op::Add => "add",
            Op::Mul => "mul",
            Op::Act(_) => "act",
            Op::Rope { .. } => "rope",
            Op::Append(_) => "append",
            Op::Attend { .. } => "attend",
            _ => "other",
        };
        *count.entry(name).or_insert(0) += 1;
    }
    count.values_mut().for_each(|n| {
        assert_eq!(*n % layers, 0, "all layers are alike");
        *n /= layers;
    });
    count
}

fn check_graph(m: &Model) {
    let (g, h) = (&m.graph, &m.hparams);
    let qwen3 = m.gguf.text("general.architecture").unwrap() == Some("qwen3");
    let norms = if qwen3 { 4 } else { 2 };
    let expected =
        [("act", 1), ("add", 2), ("append", 2), ("attend", 1), ("matvec", 7), ("mul", 1), ("norm", norms), ("rope", 2)];
    assert_eq!(ops(g), BTreeMap::from(expected));
    let [logits, best] = g.outputs[..] else { panic!("two outputs") };
    assert_eq!((g.nodes[logits].ty, g.nodes[best].ty), (Ty::F32(h.vocab), Ty::Ids));
    let rope = g.ropes.values().next().unwrap();
    assert_eq!((g.ropes.len(), rope.dims), (1, h.head_dim));
    assert_eq!(rope.style, if qwen3 { RopeStyle::Neox } else { RopeStyle::Norm });
    assert_eq!(rope.factors.is_some(), m.gguf.find("rope_freqs.weight").is_some());
    // Every weight is a tensor of the file, byte for byte, and every tensor is used once.
    assert_eq!(g.weights.len(), m.gguf.tensors().len());
    for w in g.weights.values() {
        let t = m.gguf.tensor(&w.name).unwrap();
        assert_eq!((t.ty.id(), t.bytes), (w.dtype.ggml_id(), w.bytes()), "{}", w.name);
    }
    // Operands come before users.
    assert!(g.nodes.iter().all(|(v, n)| n.args.iter().all(|a| a < &v)));
}

#[test]
fn the_demo_model() {
    let m = hipc_models::load(demo_model()).unwrap();
    let h = &m.hparams;
    assert_eq!((h.layers, h.embd, h.ff, h.heads, h.kv_heads, h.head_dim, h.vocab), (7, 512, 1536, 8, 4, 64, 8192));
    assert_eq!((h.rope_base, h.rope_scale, h.context), (1e6, 1.0, 1024));
    check_graph(&m);
    let t = m.tokenizer.unwrap();
    assert_eq!((t.tokens.len(), t.bos, t.eos, t.add_bos), (8192, Some(8189), Some(8191), false));
    assert!(t.chat_template.unwrap().contains("<|im_start|>"));
    assert_eq!(m.name, "rustdoc-26m-chat");
    // The bytes come through the map and through read alike.
    let i = m.gguf.find("output_norm.weight").unwrap();
    let mut copy = vec![0; m.gguf.tensors()[i].bytes as usize];
    m.gguf.read_tensor(&m.gguf.tensors()[i], 0, &mut copy).unwrap();
    assert_eq!(copy, m.gguf.tensor_data(i));
    let gain = f32::from_le_bytes(copy[..4].try_into().unwrap());
    assert!(gain.is_finite() && gain.abs() > 1e-3, "{gain}");
}

#[test]
fn golden_architectures() {
    let Some((root, json)) = manifest() else { return };
    let mut loaded = Vec::new();
    for e in json["arch"].as_array().unwrap() {
        let id = e["id"].as_str().unwrap();
        let result = hipc_models::load(root.join(e["file"].as_str().unwrap()));
        let arch = e["architecture"].as_str().unwrap();
        if !["llama", "qwen3"].contains(&arch) {
            assert!(matches!(&result, Err(ModelError::UnsupportedArchitecture(a)) if a == arch), "{id}: {result:?}");
            continue;
        }
        let types = e["tensor_types"].as_object().unwrap();
        match result {
            Ok(m) => {
                assert!(types.keys().all(|t| DType::from_name(t).is_some()), "{id}");
                check_hyperparameters(&m, &e["hyperparameters"]);
                check_graph(&m);
                loaded.push(id.to_string());
            }
            Err(ModelError::UnsupportedType { ty, .. }) => {
                assert!(types.contains_key(ty) && DType::from_name(ty).is_none(), "{id}: {ty}")
            }
            Err(e @ ModelError::UnsupportedFeature { .. }) => {
                let named = e.to_string();
                assert!(
                    (id.contains("yarn") && named.contains("yarn")) || (id.contains("mixtral") && named.contains("experts")),
                    "{id}: {named}"
                );
            }
            Err(e) => panic!("{id}: {e}"),
        }
    }
    assert_eq!(loaded, SUPPORTED);
}

fn check_hyperparameters(m: &Model, said: &Value) {
    let h = &m.hparams;
    let heads = said["attention.head_count"].as_u64().unwrap();
    for (key, ours) in [
        ("block_count", h.layers),
        ("embedding_length", h.embd),
        ("feed_forward_length", h.ff),
        ("attention.head_count", h.heads),
        ("attention.head_count_kv", h.kv_heads),
        ("attention.key_length", h.head_dim),
        ("vocab_size", h.vocab),
        ("context_length", h.context),
    ] {
        let default = if key == "attention.key_length" { u64::from(h.embd) / heads } else { 0 };
        assert_eq!(u64::from(ours), said[key].as_u64().unwrap_or(default), "{key}");
    }
    assert!((h.eps / said["attention.layer_norm_rms_epsilon"].as_f64().unwrap() - 1.0).abs() < 1e-6);
    assert_eq!(h.rope_base, said["rope.freq_base"].as_f64().unwrap());
}

#[test]
fn trained_models() {
    let Some(folder) = shared("models") else { return };
    let mut n = 0;
    for entry in fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
        if entry.extension().is_some_and(|e| e == "gguf") {
            let m = hipc_models::load(&entry).unwrap();
            check_graph(&m);
            assert!(entry.file_name().unwrap().to_string_lossy().starts_with(&m.name));
            n += 1;
        }
    }
    assert!(n >= 5, "{n} models");
}

/// Special ids and flags against llama.cpp's own resolution of the same files.
#[test]
fn vocabularies() {
    let Some((root, json)) = manifest() else { return };
    let dir = tempfile::tempdir().unwrap();
    for e in json["tokenizer"]["models"].as_array().unwrap() {
        let (name, info) = (e["model"].as_str().unwrap(), &e["info"]);
        let gguf = match e["vocab_gguf_gz"].as_str() {
            Some(gz) => GgufFile::open(gunzip(&root.join(gz), dir.path())).unwrap(),
            None => GgufFile::open(root.parent().unwrap().join(format!("models/{name}-Q8_0.gguf"))).unwrap(),
        };
        let data = match tokenizer::read(&gguf) {
            Ok(data) => data.unwrap(),
            Err(e) => {
                let named = e.to_string();
                assert!(["deepseek-coder", "starcoder", "bert-bge"].contains(&name), "{name}: {named}");
                assert!(named.contains(if name == "bert-bge" { "bert" } else { name }), "{named}");
                continue;
            }
        };
        let id = |key: &str| info[key].as_i64().filter(|&i| i >= 0).map(|i| i as u32);
        assert_eq!(matches!(data.kind, TokenizerKind::Bpe(_)), info["vocab_type"] == 2, "{name}");
        assert_eq!(
            (data.tokens.len() as u64, data.types.len()),
            (info["n_tokens"].as_u64().unwrap(), data.tokens.len()),
            "{name}"
        );
        assert_eq!((data.bos, data.eos), (id("bos"), id("eos")), "{name}");
        assert_eq!((data.add_bos, data.add_eos), (info["add_bos"] == 1, info["add_eos"] == 1), "{name}");
        if let Some(eot) = id("eot") {
            assert!(data.eos == Some(eot) || data.end_of_generation.contains(&eot), "{name}: {eot} ends a turn");
        }
        if name == "llama-bpe" {
            let ends: Vec<&str> = data.end_of_generation.iter().map(|&i| data.tokens[i as usize].as_str()).collect();
            assert_eq!(ends, ["<|end_of_text|>", "<|eom_id|>"]);
        }
    }
}

fn gunzip(gz: &Path, dir: &Path) -> std::path::PathBuf {
    let out = dir.join(gz.file_stem().unwrap());
    let done = std::process::Command::new("gzip").arg("-dc").arg(gz).output().unwrap();
    fs::write(&out, done.stdout).unwrap();
    out
}

/// The shapes of large models: a few kilobytes on disk, nothing of the data is read.
#[test]
fn large_shapes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("big.gguf");
    gguf_writer::write_llama_8b(&path).unwrap();
    let m = hipc_models::load(&path).unwrap();
    check_graph(&m);
    let bytes: u64 = m.gguf.tensors().iter().map(|t| t.bytes).sum();
    let values: u64 = m.gguf.tensors().iter().map(|t| t.ne.iter().product::<u64>()).sum();
    // llama.cpp prints "8.03 B" and "4.58 GiB (4.89 BPW)" for this model.
    assert_eq!(values - 64, 8_030_261_248);
    assert_eq!(format!("{:.2}", bytes as f64 * 8.0 / values as f64), "4.89");
    assert_eq!(format!("{:.2}", bytes as f64 / f64::from(1 << 30)), "4.58");
    assert!(m.tokenizer.is_none());

    gguf_writer::model(gguf_writer::QWEN3_8B, Mix::All(ty::BF16)).write_sparse(&path).unwrap();
    check_graph(&hipc_models::load(&path).unwrap());
}

/// What a file may leave out, and what it may write in more than one way.
#[test]
fn defaults() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let shape = gguf_writer::Shape { layers: 2, vocab: 512, tied: true, ..gguf_writer::LLAMA_3_1_8B };
    let load = |change: &dyn Fn(&mut gguf_writer::Gguf)| {
        let mut g = gguf_writer::model(shape, Mix::All(ty::Q8_0));
        change(&mut g);
        g.write_sparse(&path).unwrap();
        hipc_models::load(&path)
    };
    let m = load(&|g| {
        for key in ["vocab_size", "attention.key_length", "attention.value_length", "rope.dimension_count", "rope.freq_base"] {
            g.unset(&format!("llama.{key}"));
        }
        g.unset("general.name");
    })
    .unwrap();
    assert_eq!((m.hparams.vocab, m.hparams.head_dim, m.hparams.rope_base, m.name.as_str()), (512, 128, 1e4, "m"));
    // Tied: the embedding matrix is the head's, too.
    let uses = m
        .graph
        .nodes
        .values()
        .filter(|n| matches!(n.op, Op::MatVec(w) | Op::Embed(w) if m.graph.weights[w].name == "token_embd.weight"));
    assert_eq!(uses.count(), 2);

    let linear = load(&|g| {
        g.key("llama.rope.scaling.type", gguf_writer::text("linear"))
            .key("llama.rope.scaling.factor", gguf_writer::Val::F32(2.5));
    });
    assert_eq!(linear.unwrap().hparams.rope_scale, 0.4);

    let bias = load(&|g| {
        g.tensor("blk.0.attn_q.bias", ty::F32, &[4096]).tensor("blk.1.attn_q.bias", ty::F32, &[4096]);
    });
    assert_eq!(ops(&bias.unwrap().graph)["bias"], 1);

    let odd = load(&|g| {
        g.set("llama.attention.head_count", gguf_writer::Val::U32s(vec![32, 16]));
    });
    assert!(odd.unwrap_err().to_string().contains("differs by layer"));

    let small = gguf_writer::Shape { head_dim: 16, ..shape };
    gguf_writer::model(small, Mix::All(ty::Q8_0)).write_sparse(&path).unwrap();
    let e = hipc_models::load(&path).unwrap_err();
    assert!(matches!(e, ModelError::UnsupportedHeadDim(16)) && e.to_string().contains("32, 48, 64"), "{e}");
}
