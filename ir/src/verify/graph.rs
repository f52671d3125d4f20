//! Verifier of the model graph.

use super::{VerifyError, rule, weight_decl};
use crate::dtype::{DType, Q8Layout};
use crate::form::write::attributes;
use crate::graph::{CacheKind, Graph, Node, Op, Ty, Value};
use cranelift_entity::{EntityRef, PrimaryMap};
use std::fmt::Display;

/// Checks declarations, references, order, and the type of every node.
///
/// # Errors
/// The first broken rule.
pub fn graph(graph: &Graph) -> Result<(), VerifyError> {
    for (w, decl) in &graph.weights {
        rule(
            &w,
            weight_decl(decl),
            format!("{} [{} x {}] is not made of whole {} blocks", decl.name, decl.rows, decl.cols, decl.dtype),
        )?;
    }
    for (r, decl) in &graph.ropes {
        rule(&r, decl.dims > 0 && decl.dims.is_multiple_of(2), "the number of rotated elements must be even")?;
        if let Some(w) = decl.factors {
            let decl_of = declared(&r, &graph.weights, w)?;
            rule(
                &r,
                decl_of.cols == decl.dims / 2 && decl_of.rows == 1 && decl_of.dtype == DType::F32,
                "factors must be f32 [dims/2]",
            )?;
        }
    }
    for (c, decl) in &graph.caches {
        rule(&c, decl.heads > 0 && decl.head_dim > 0, "a cache has heads and elements")?;
    }
    for (v, node) in &graph.nodes {
        check_node(graph, v, node)?;
    }
    graph.outputs.iter().try_for_each(|&v| declared(&"outputs", &graph.nodes, v).map(drop))
}

fn declared<'a, K: EntityRef + Display, T>(at: &impl ToString, map: &'a PrimaryMap<K, T>, key: K) -> Result<&'a T, VerifyError> {
    map.get(key).ok_or_else(|| VerifyError::Undeclared { at: at.to_string(), reference: key.to_string() })
}

/// Checks one node whose operands' own nodes have been checked.
fn check_node(graph: &Graph, v: Value, node: &Node) -> Result<(), VerifyError> {
    let arg = |i: usize| -> Result<Ty, VerifyError> {
        let missing = || VerifyError::Arity { at: v.to_string(), expected: i + 1, found: node.args.len() };
        let &value = node.args.get(i).ok_or_else(missing)?;
        if value >= v {
            return Err(VerifyError::Order { at: v.to_string(), value: value.to_string() });
        }
        Ok(graph.nodes[value].ty)
    };
    let wrong = |what: String, expected: &str, found: Ty| VerifyError::Type {
        at: v.to_string(),
        what,
        expected: expected.to_owned(),
        found: attributes(&found),
    };
    let f32 = |i: usize| match arg(i)? {
        Ty::F32(n) => Ok(n),
        found => Err(wrong(format!("operand {i}"), "F32", found)),
    };
    let weight = |w| declared(&v, &graph.weights, w);
    let (arity, ty) = match &node.op {
        Op::Tokens => (0, Ty::Ids),
        Op::Embed(w) => {
            let w = weight(*w)?;
            match arg(0)? {
                Ty::Ids => (1, Ty::F32(w.cols)),
                found => return Err(wrong("operand 0".into(), "Ids", found)),
            }
        }
        Op::RmsNorm { weight: w, .. } => {
            let (n, w) = (f32(0)?, weight(*w)?);
            rule(&v, w.rows == 1 && n.is_multiple_of(w.cols), format!("a gain of {} doesn't divide {n} values", w.cols))?;
            (1, Ty::F32(n))
        }
        Op::MatVec(w) => {
            let w = weight(*w)?;
            match arg(0)? {
                Ty::F32(n) | Ty::Q8(n) if n == w.cols => (1, Ty::F32(w.rows)),
                found => return Err(wrong("operand 0".into(), &format!("F32({0}) or Q8({0})", w.cols), found)),
            }
        }
        Op::Bias(w) => {
            let (n, w) = (f32(0)?, weight(*w)?);
            rule(&v, w.rows == 1 && w.cols == n, format!("a bias of {} doesn't fit {n} values", w.cols))?;
            (1, Ty::F32(n))
        }
        Op::Add | Op::Mul => {
            let (n, m) = (f32(0)?, f32(1)?);
            rule(&v, n == m, format!("vectors of {n} and {m} values don't fit"))?;
            (2, Ty::F32(n))
        }
        Op::Act(_) => (1, Ty::F32(f32(0)?)),
        Op::Rope { rope, head_dim } => {
            let (n, decl) = (f32(0)?, declared(&v, &graph.ropes, *rope)?);
            rule(&v, *head_dim > 0 && n.is_multiple_of(*head_dim), format!("heads of {head_dim} don't divide {n} values"))?;
            rule(&v, decl.dims <= *head_dim, "more elements are rotated than a head has")?;
            (1, Ty::F32(n))
        }
        Op::Append(c) => {
            let (n, decl) = (f32(0)?, declared(&v, &graph.caches, *c)?);
            rule(&v, u64::from(n) == u64::from(decl.heads) * u64::from(decl.head_dim), format!("{n} values are no row of {c}"))?;
            (1, Ty::Cache(*c))
        }
        &Op::Attend { heads, kv_heads, head_dim, .. } => {
            let n = f32(0)?;
            rule(
                &v,
                u64::from(n) == u64::from(heads) * u64::from(head_dim),
                format!("{n} values are not {heads} heads of {head_dim}"),
            )?;
            rule(&v, kv_heads > 0 && heads.is_multiple_of(kv_heads), "KV heads must divide the query heads")?;
            for (i, kind) in [(1, CacheKind::K), (2, CacheKind::V)] {
                let Ty::Cache(c) = arg(i)? else { return Err(wrong(format!("operand {i}"), "a cache", arg(i)?)) };
                let decl = declared(&v, &graph.caches, c)?;
                let fits = (decl.kind, decl.heads, decl.head_dim) == (kind, kv_heads, head_dim);
                rule(&v, fits, format!("{c} is not {kind:?} of {kv_heads} heads of {head_dim}"))?;
            }
            (3, Ty::F32(n))
        }
        Op::Quantize => {
            let n = f32(0)?;
            rule(&v, n.is_multiple_of(Q8Layout::DEFAULT_BLOCK), format!("{n} values are not whole blocks"))?;
            (1, Ty::Q8(n))
        }
        Op::ArgMax => (1, f32(0).map(|_| Ty::Ids)?),
    };
    if node.args.len() != arity {
        return Err(VerifyError::Arity { at: v.to_string(), expected: arity, found: node.args.len() });
    }
    if node.ty != ty {
        return Err(wrong("the result".into(), &attributes(&ty), node.ty));
    }
    Ok(())
}
