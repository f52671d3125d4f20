//! Results that are rounded coarsely, so that a small difference before it can become a large one: int8 blocks and f16 caches.

use super::{Comparison, Finding, Tally};
use crate::blocks::Q8Token;
use crate::launch::operands::q8_layout;
use crate::launch::tracked::{Tracked, UNIT};
use half::f16;
use hipc_ir::dtype::KvType;
use hipc_ir::fused::{CacheSpec, Role};

impl Comparison<'_> {
    pub(super) fn quants(&self, tally: &mut Tally, n: u32, tokens: usize, expected: &[u8], after: &[u8]) {
        let layout = q8_layout(n);
        let exact = &self.witness.quantized;
        if exact.len() != n as usize * tokens {
            return tally.fail(|| "isn't what the launch computes".into());
        }
        for (t, exact) in exact.chunks_exact(n as usize).enumerate() {
            let (Some(e), Some(a)) = (Q8Token::new(layout, expected, t), Q8Token::new(layout, after, t)) else {
                return tally.fail(|| "isn't aligned".into());
            };
            let block = layout.block as usize;
            for (b, ((&scale, &found), exact)) in e.scale.iter().zip(a.scale).zip(exact.chunks_exact(block)).enumerate() {
                if found.is_finite() && scale.is_finite() {
                    tally.scale(found, scale, exact);
                } else if found.to_bits() != scale.to_bits() && !(found.is_nan() && scale.is_nan()) {
                    tally.fail(|| format!("token {t}: scale {b} is {found:e}, the reference has {scale:e}"));
                }
                let sum: i32 = a.q[b * block..(b + 1) * block].iter().map(|&q| i32::from(q)).sum();
                if a.sum[b] != sum {
                    tally.fail(|| format!("token {t}: sum {b} is {}, its quants add up to {sum}", a.sum[b]));
                }
            }
            for (i, (&q, &found)) in e.q.iter().zip(a.q).enumerate() {
                // An equal quant has no error; the values' own noise is bounded by the scales and the ties.
                tally.norm += f64::from(q).powi(2);
                if q == found {
                    continue;
                }
                let z = exact[i].value / f64::from(e.scale[i / block]);
                let from_tie = ((z - z.floor()) - 0.5).abs();
                if (i32::from(q) - i32::from(found)).abs() == 1 && from_tie <= 1e-3 {
                    tally.ties += 1;
                } else {
                    tally.fail(|| format!("token {t}: quant {i} is {found}, the reference has {q} from {z}"));
                }
            }
        }
    }

    pub(super) fn cache(&self, tally: &mut Tally, role: Role, spec: CacheSpec, before: &[u8], expected: &[u8], after: &[u8]) {
        let row = (spec.head_dim * spec.kv.bytes()) as usize;
        let from = self.state.pos.max(0) as usize;
        let written = from..(self.state.pos + self.state.n).max(0) as usize;
        let (ctx, heads, head_dim) = (spec.ctx as usize, spec.heads as usize, spec.head_dim as usize);
        let exact = self.witness.appended.iter().find(|(r, _)| *r == role).map_or(&[][..], |(_, exact)| exact);
        let rows = expected.chunks_exact(row).zip(after.chunks_exact(row)).zip(before.chunks_exact(row)).enumerate();
        for (i, ((expected, after), before)) in rows {
            let (head, pos) = (i / ctx, i % ctx);
            if !written.contains(&pos) {
                if after != before {
                    tally.fail(|| format!("head {head}: position {pos} was touched"));
                }
                continue;
            }
            let at = ((pos - from) * heads + head) * head_dim;
            let Some(exact) = exact.get(at..at + head_dim) else {
                return tally.fail(|| "isn't what the launch appends to".into());
            };
            match spec.kv {
                KvType::F32 => {
                    for (j, (&e, &a)) in expected.as_chunks().0.iter().zip(after.as_chunks().0).enumerate() {
                        tally.value(i * head_dim + j, f32::from_le_bytes(a), f32::from_le_bytes(e));
                    }
                }
                KvType::F16 => {
                    for (j, (&e, &a)) in expected.as_chunks().0.iter().zip(after.as_chunks().0).enumerate() {
                        tally.half(i * head_dim + j, f16::from_le_bytes(a), f16::from_le_bytes(e), exact[j]);
                    }
                }
            }
        }
    }
}

impl Tally {
    /// A block's scale. The device's largest value is one of those that can be it, as far from the exact one as f32 may be; the device
    /// rounds the quotient, and the reference both.
    fn scale(&mut self, found: f32, expected: f32, exact: &[Tracked]) {
        let (off, expected) = ((f64::from(found) - f64::from(expected)).abs(), f64::from(expected).abs());
        self.scale_error += off * off;
        self.scale_norm += expected * expected;
        if off == 0.0 {
            return;
        }
        let largest = |of: fn(&Tracked) -> f64| exact.iter().map(of).fold(0.0, f64::max);
        let (value, most) = (largest(|z| z.value.abs()), largest(|z| z.value.abs() + z.error));
        let least = largest(|z| z.value.abs() - z.error);
        let in_f32 = (most - value).max(value - least) / 127.0 + 3.0 * UNIT * expected;
        let allowed = in_f32.max(Finding::SCALE * expected);
        // Infinite where the reference has zero.
        self.scale = self.scale.max(off / expected);
        self.strain = self.strain.max(if allowed.is_finite() { off / allowed } else { f64::INFINITY });
    }

    /// A value stored as f16: the rounding of one that is within 1e-6 of the exact one, or as near as f32 comes to it.
    fn half(&mut self, index: usize, found: f16, expected: f16, exact: Tracked) {
        if found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()) {
            return;
        }
        let Tracked { value, error } = exact;
        let tolerance = (error + UNIT * value.abs()).max(Finding::SCALE * value.abs());
        if tolerance.is_finite() && f16::from_f64(value - tolerance) <= found && found <= f16::from_f64(value + tolerance) {
            self.ties += 1;
        } else {
            self.fail(|| format!("value {index} is {found}, the reference has {expected} from {value}"));
        }
    }
}
