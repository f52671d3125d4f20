//! The steps that a launch is tried at.

use super::splits::edges;
use hipc_ir::fused::{FusedOp, HeadOut, SegmentOut, Tail};
use hipc_ir::plan::{KernelSpec, StepState};
use serde::Serialize;

/// One trial.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Case {
    /// Position of the first token.
    pub position: u32,
    /// Tokens.
    pub tokens: u32,
    /// First token whose logits are wanted.
    pub head_from: u32,
    /// Standard deviation of activations.
    pub magnitude: f32,
    /// Whether the next token is drawn, not the arg-max.
    pub sampled: bool,
}

/// Magnitudes besides 1.
const ODD: [f32; 3] = [0.0, 1e-4, 1e4];

impl Case {
    /// As a device sees it.
    pub fn state(&self) -> StepState {
        let [pos, n, head_from] = [self.position, self.tokens, self.head_from].map(|v| v as i32);
        // Any number: it only has to arrive.
        StepState { pos, n, head_from, generation: 7 * pos + 1 }
    }

    /// The cases of a launch in a program of up to `tokens` tokens over `ctx` positions, the most telling ones first. Every place is
    /// tried with activations of magnitude 1, choices by arg-max and by a draw; the first, one in the middle and the last with the other
    /// magnitudes, too.
    pub fn all(spec: &KernelSpec, tokens: u32, ctx: u32) -> Vec<Self> {
        let places = places(spec, tokens, ctx);
        let at = |&(position, n): &(u32, u32), magnitude| {
            // Every other chunk is asked for its last token only.
            let head_from = if position % 2 == 1 || n < tokens { 0 } else { n - 1 };
            Self { position, tokens: n, head_from, magnitude, sampled: false }
        };
        let mut some = vec![places.first(), places.get(places.len() / 2), places.last()];
        some.dedup();
        let random = !matches!(spec.op, FusedOp::Embed(_));
        let odd = some.into_iter().flatten().flat_map(|place| ODD.map(|magnitude| at(place, magnitude)));
        let draws = matches!(spec.op, FusedOp::Choose(_));
        let drawn = places.iter().map(|place| Self { sampled: true, ..at(place, 1.0) });
        let usual = places.iter().map(|place| at(place, 1.0));
        usual.chain(drawn.filter(|_| draws)).chain(odd.filter(|_| random)).collect()
    }
}

/// Whether a launch does something else at another position.
fn depends_on_position(op: &FusedOp) -> bool {
    match op {
        FusedOp::Embed(_) | FusedOp::Attend(_) | FusedOp::Choose(_) => true,
        FusedOp::Heads(h) => h.parts.iter().any(|p| p.rope.is_some() || matches!(p.out, HeadOut::Append(_))),
        FusedOp::Gemv(g) => match &g.tail {
            Tail::Separate(outs) => outs.iter().any(|o| !matches!(o, SegmentOut::Store(None))),
            Tail::Vector { .. } | Tail::Head => false,
        },
        FusedOp::Row(_) | FusedOp::Repack(_) => false,
    }
}

/// Positions and tokens.
fn places(spec: &KernelSpec, tokens: u32, ctx: u32) -> Vec<(u32, u32)> {
    let last = ctx.saturating_sub(1);
    let chunk = tokens.min(ctx);
    let part = (chunk / 2 + 1).min(chunk);
    let mut places = if !depends_on_position(&spec.op) {
        match chunk {
            0 | 1 => vec![(last, 1)],
            _ => vec![(1, part), (0, chunk), (last, 1)],
        }
    } else if chunk <= 1 {
        let mut at = vec![0, last, 1, 31, 32, 33, 63, 64, 65, 127, 128, 129];
        if let FusedOp::Attend(op) = &spec.op {
            at.extend(edges(op, &spec.geometry, ctx).into_iter().flat_map(|edge| [edge - 1, edge, edge + 1]));
            at.push(last.saturating_sub(1));
        }
        at.into_iter().map(|p| (p, 1)).collect()
    } else {
        vec![
            (0, chunk),
            (last, 1),
            (0, 1),
            (31, part),
            (ctx - chunk, chunk),
            (1, 2),
            (32, chunk),
            (33, 1),
            (63, 2),
            (64, chunk),
            (127, 2),
            (128, part),
            (129, chunk),
        ]
    };
    places.retain(|&(p, n)| n > 0 && p + n <= ctx);
    let mut seen = Vec::new();
    places.retain(|place| {
        !seen.contains(place) && {
            seen.push(*place);
            true
        }
    });
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use hipc_ir::dtype::{KvType, Real};
    use hipc_ir::fused::{Attend, CacheSpec, Finish};
    use hipc_ir::plan::Geometry;

    #[test]
    fn attention_is_tried_at_every_edge_within_the_context() {
        let cache = CacheSpec { heads: 2, head_dim: 64, ctx: 300, kv: KvType::F16 };
        let op = FusedOp::Attend(Attend { heads: 4, cache, scale: Real(0.125), prologue: None, finish: Finish::RAW });
        let geometry = Geometry {
            wave: 32,
            waves: 4,
            rows_per_wave: 1,
            k_waves: 1,
            row_steps: 1,
            tile: 1,
            tokens: 1,
            splits: 2,
            parts_in: 0,
        };
        let spec = KernelSpec { name: "k".into(), op, geometry };
        let cases = Case::all(&spec, 1, 300);
        for position in [0, 1, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 298, 299] {
            assert_eq!(cases.iter().filter(|c| c.position == position && c.magnitude == 1.0).count(), 1, "{position}");
        }
        assert!(cases.iter().all(|c| c.position < 300) && ODD.iter().all(|m| cases.iter().any(|c| c.magnitude == *m)));
        let chunks = Case::all(&spec, 64, 300);
        for n in [1, 33, 64] {
            assert!(chunks.iter().any(|c| c.tokens == n), "{n}");
        }
        assert!(chunks.iter().all(|c| c.position + c.tokens <= 300 && c.head_from < c.tokens));
        // A context shorter than a chunk.
        assert!(Case::all(&spec, 64, 8).iter().all(|c| c.position + c.tokens <= 8));
    }
}
