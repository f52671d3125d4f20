//! The trained models of the reference data: files, prompts, validation text.

use crate::npz::{npy, npz};
use crate::shared::shared;
use serde_json::Value;
use std::path::PathBuf;

/// Ids of a window.
pub const WINDOW: usize = 512;

/// A prompt and what llama.cpp makes of it on dequantised weights.
pub struct Prompt {
    /// Its name.
    pub name: String,
    /// Its ids.
    pub ids: Vec<u32>,
    /// Logits after the last id.
    pub last: Vec<f32>,
    /// Greedy continuation.
    pub greedy: Vec<u32>,
    /// Gap of the two largest logits at each choice.
    pub margins: Vec<f32>,
    /// NMSE of llama.cpp's own int8 (or half) activations.
    pub noise: f64,
}

/// One file of a trained model.
pub struct Trained {
    /// `rustdoc-7m-Q8_0`.
    pub id: String,
    /// The GGUF file.
    pub path: PathBuf,
    /// Prompts.
    pub prompts: Vec<Prompt>,
    /// Perplexity of (b).
    pub perplexity: f64,
    /// Mean divergence that llama.cpp's int8 activations cost, where it is known.
    pub kld: Option<f64>,
    /// Windows of the validation text, with the first id replaced where the model wants it.
    pub windows: Vec<Vec<u32>>,
}

impl Trained {
    /// Most mean divergence from exact evaluation that int8 activations may cost.
    pub fn kld_bound(&self) -> Option<f64> {
        self.kld.map(|kld| if self.id.ends_with("_K_M") { kld } else { 1.25 * kld })
    }
}

/// The trained models' files that are there; `None` (and a line that says so) without the reference data.
///
/// # Panics
/// If the data are damaged.
pub fn trained() -> Option<Vec<Trained>> {
    let (models, fixtures) = (shared("models")?, shared("golden/fixtures")?);
    let json = |name: &str| -> Value {
        let bytes = std::fs::read(fixtures.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"))
    };
    let perplexity = json("perplexity.json");
    let mut all = Vec::new();
    for model in ["rustdoc-7m", "rustdoc-26m-chat"] {
        let (described, arrays) = (json(&format!("{model}.json")), npz(fixtures.join(format!("{model}.npz"))));
        for file in described["files"].as_array().expect("a list") {
            let quantisation = file["quantisation"].as_str().expect("a text");
            let path = models.join(file["file"].as_str().expect("a text"));
            if !path.exists() {
                continue;
            }
            let prompt = |p: &Value| {
                let name = p["name"].as_str().expect("a text");
                let array = |what: &str| &arrays[&format!("{name}/{quantisation}/{what}")];
                Prompt {
                    name: name.to_owned(),
                    ids: arrays[&format!("{name}/ids")].ids(),
                    last: array("last_logits_b").floats().to_vec(),
                    greedy: array("gen_b").ids(),
                    margins: array("margin_b").floats().to_vec(),
                    noise: p["nmse_a_vs_b"].as_f64().expect("a number"),
                }
            };
            let id = format!("{model}-{quantisation}");
            let figures = &perplexity[&id];
            all.push(Trained {
                prompts: file["prompts"].as_array().expect("a list").iter().map(prompt).collect(),
                perplexity: figures["b"]["ppl"].as_f64().expect("a number"),
                kld: figures["a_vs_own_b"]["mean_kld"].as_f64(),
                windows: windows(&npy(fixtures.join(format!("val_ids-{model}.npy"))).ids(), model == "rustdoc-7m"),
                id,
                path,
            });
        }
    }
    assert!(all.len() >= 5, "only {} files of trained models", all.len());
    Some(all)
}

fn windows(ids: &[u32], bos: bool) -> Vec<Vec<u32>> {
    let mut windows: Vec<Vec<u32>> = ids.chunks_exact(WINDOW).map(<[u32]>::to_vec).collect();
    if bos {
        // llama.cpp's id of `<s>` in SPM vocabularies.
        windows.iter_mut().for_each(|w| w[0] = 1);
    }
    windows
}
