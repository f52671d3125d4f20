//! Form of [`FusedGraph`]:
//!
//! ```text
//! fused Decode
//! s0 = F32(256)
//! launch0 = "embed" Embed{vocab: 323, n: 256, dtype: Q4_K, finish: {raw}} (state, tokens, w0, s0)
//! launch1 = "qkv" Gemv{k: 256, …} (state, s0, w2, rope0, s1, kv0) @0
//! logits s8
//! ids s9
//! ```
//!
//! Operands stand in the order of [`FusedOp::params`](crate::fused::FusedOp::params); `own` is memory of the launch itself.

use super::read::Cursor;
use super::write::{attributes, quoted};
use super::{FormError, Lines, layer, layer_suffix, write_table};
use crate::fused::{FusedGraph, FusedLaunch, Operand};
use std::fmt;
use std::str::FromStr;

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operand::State => f.write_str("state"),
            Operand::Tokens => f.write_str("tokens"),
            Operand::Outbox => f.write_str("outbox"),
            Operand::Sampling => f.write_str("sampling"),
            Operand::Draws => f.write_str("draws"),
            Operand::Weight(w) => w.fmt(f),
            Operand::Rope(r) => r.fmt(f),
            Operand::Cache(c) => c.fmt(f),
            Operand::Slot(s) => s.fmt(f),
            Operand::Own => f.write_str("own"),
        }
    }
}

fn operand(c: &mut Cursor) -> Result<Operand, String> {
    let word = c.clone().word()?;
    Ok(match word.trim_end_matches(|c: char| c.is_ascii_digit()) {
        "w" => Operand::Weight(c.entity("w")?),
        "rope" => Operand::Rope(c.entity("rope")?),
        "kv" => Operand::Cache(c.entity("kv")?),
        "s" => Operand::Slot(c.entity("s")?),
        _ => {
            let operand = match word {
                "state" => Operand::State,
                "tokens" => Operand::Tokens,
                "outbox" => Operand::Outbox,
                "sampling" => Operand::Sampling,
                "draws" => Operand::Draws,
                "own" => Operand::Own,
                _ => {
                    let known = "state, tokens, outbox, sampling, draws, own, wN, ropeN, kvN, sN";
                    return Err(format!("`{word}` is no operand; there are {known}"));
                }
            };
            c.expect(word)?;
            operand
        }
    })
}

impl fmt::Display for FusedLaunch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let args: Vec<String> = self.args.iter().map(Operand::to_string).collect();
        write!(f, "{} {} ({}){}", quoted(&self.label), attributes(&self.op), args.join(", "), layer_suffix(self.layer))
    }
}

fn launch(c: &mut Cursor) -> Result<FusedLaunch, String> {
    let label = c.quoted()?;
    let op = c.value()?;
    c.expect("(")?;
    let mut args = Vec::new();
    while !c.eat(")") {
        if !args.is_empty() {
            c.expect(",")?;
        }
        args.push(operand(c)?);
    }
    Ok(FusedLaunch { op, args, layer: layer(c)?, label })
}

impl fmt::Display for FusedGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "fused {}", attributes(&self.kind))?;
        write_table(f, &self.slots)?;
        self.launches.iter().try_for_each(|(index, launch)| writeln!(f, "{index} = {launch}"))?;
        writeln!(f, "logits {}\nids {}", self.logits, self.ids)
    }
}

impl FromStr for FusedGraph {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let mut lines = Lines::new(text);
        let graph = FusedGraph {
            kind: lines.take(|c| c.expect("fused").and_then(|()| c.value()))?,
            slots: lines.attributes("s")?,
            launches: lines.table("launch", launch)?,
            logits: lines.take(|c| c.expect("logits").and_then(|()| c.entity("s")))?,
            ids: lines.take(|c| c.expect("ids").and_then(|()| c.entity("s")))?,
        };
        lines.finish()?;
        Ok(graph)
    }
}
