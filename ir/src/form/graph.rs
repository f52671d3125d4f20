//! Form of [`Graph`]:
//!
//! ```text
//! graph "llama"
//! w0 = {name: "token_embd.weight", dtype: Q4_K, rows: 323, cols: 256}
//! rope0 = {style: Norm, dims: 32, base: 10000.0, freq_scale: 1.0}
//! kv0 = {layer: 0, kind: K, heads: 2, head_dim: 32}
//! v0 = Tokens : Ids
//! v1 = Embed(w0) v0 : F32(256)
//! v2 = RmsNorm{weight: w1, eps: 1e-5} v1 : F32(256) @0
//! outputs v1 v2
//! ```
//!
//! `@0` is the layer.

use super::read::Cursor;
use super::write::{attributes, quoted};
use super::{FormError, Lines, layer, layer_suffix, write_table};
use crate::graph::{Graph, Node, Value};
use std::fmt;
use std::str::FromStr;

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "graph {}", quoted(&self.name))?;
        write_table(f, &self.weights)?;
        write_table(f, &self.ropes)?;
        write_table(f, &self.caches)?;
        for (value, node) in &self.nodes {
            write!(f, "{value} = {}", attributes(&node.op))?;
            node.args.iter().try_for_each(|arg| write!(f, " {arg}"))?;
            writeln!(f, " : {}{}", attributes(&node.ty), layer_suffix(node.layer))?;
        }
        write!(f, "outputs")?;
        self.outputs.iter().try_for_each(|v| write!(f, " {v}"))?;
        writeln!(f)
    }
}

fn values(c: &mut Cursor) -> Result<Vec<Value>, String> {
    let mut values = Vec::new();
    while c.at("v") {
        values.push(c.entity("v")?);
    }
    Ok(values)
}

fn node(c: &mut Cursor) -> Result<Node, String> {
    let op = c.value()?;
    let args = values(c)?;
    c.expect(":")?;
    Ok(Node { op, args, ty: c.value()?, layer: layer(c)? })
}

impl FromStr for Graph {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let mut lines = Lines::new(text);
        let name = lines.take(|c| c.expect("graph").and_then(|()| c.quoted()))?;
        let graph = Graph {
            name,
            weights: lines.attributes("w")?,
            ropes: lines.attributes("rope")?,
            caches: lines.attributes("kv")?,
            nodes: lines.table("v", node)?,
            outputs: lines.take(|c| c.expect("outputs").and_then(|()| values(c)))?,
        };
        lines.finish()?;
        Ok(graph)
    }
}
