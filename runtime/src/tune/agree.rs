//! Whether two geometries of a launch computed the same.
//!
//! Both may be off the exact result by what `hipc_reference::launch::check` allows, so their distance is held to twice that: noise to four
//! times its bound, scales of int8 blocks to 2e-6 relative. Quants may differ by 1, some at ties.

use half::f16;
use hipc_ir::dtype::{KvType, Q8Layout};
use hipc_ir::fused::{Access, FusedOp, Input, Param, Role, Shape};
use hipc_ir::plan::KernelSpec;
use hipc_reference::blocks::Q8Token;

/// Compares results operand by operand; `spec` wrote `found`, the plan's geometry `expected`.
///
/// # Errors
/// The operand, and how far it is off.
pub(super) fn agree(spec: &KernelSpec, expected: &[Vec<u8>], found: &[Vec<u8>]) -> Result<(), String> {
    let params = spec.op.params();
    for ((param, expected), found) in params.iter().zip(expected).zip(found) {
        if param.access != Access::Read && param.role != Role::Scratch {
            operand(spec, param, expected, found).map_err(|why| format!("{:?} {why}", param.role))?;
        }
    }
    Ok(())
}

fn operand(spec: &KernelSpec, param: &Param, expected: &[u8], found: &[u8]) -> Result<(), String> {
    let bound = match &spec.op {
        FusedOp::Gemv(g) if g.input == Input::Q8 => 4e-10,
        _ => 4e-7,
    };
    match param.shape {
        Shape::F32(_) => noise(&floats(expected), &floats(found), bound),
        Shape::Q8(n) => blocks(n, expected, found),
        // As many as the geometry has workgroups, so only their sums agree.
        Shape::Ssq => {
            let sum = |bytes: &[u8]| vec![floats(bytes).iter().filter(|v| v.is_finite()).sum::<f64>()];
            noise(&sum(expected), &sum(found), 1e-10)
        }
        Shape::Partials => best(expected, found),
        Shape::Cache(cache) => {
            let values = |bytes: &[u8]| match cache.kv {
                KvType::F32 => floats(bytes),
                KvType::F16 => bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f64()).collect(),
            };
            noise(&values(expected), &values(found), 1e-6)
        }
        Shape::Counters if found.iter().any(|&b| b != 0) => Err("isn't zero again".to_owned()),
        _ if expected != found => Err("differs".to_owned()),
        _ => Ok(()),
    }
}

fn floats(bytes: &[u8]) -> Vec<f64> {
    bytes.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect()
}

fn noise(expected: &[f64], found: &[f64], bound: f64) -> Result<(), String> {
    if let Some(i) = (0..expected.len()).find(|&i| !expected[i].is_finite() || !found[i].is_finite()) {
        return Err(format!("has {} at {i} where the plan's geometry has {}", found[i], expected[i]));
    }
    let error: f64 = expected.iter().zip(found).map(|(e, f)| (e - f).powi(2)).sum();
    let norm: f64 = expected.iter().map(|e| e * e).sum();
    let nmse = if error == 0.0 { 0.0 } else { error / norm };
    if nmse <= bound { Ok(()) } else { Err(format!("has noise {nmse:.1e} against the plan's geometry, more than {bound:.0e}")) }
}

fn blocks(n: u32, expected: &[u8], found: &[u8]) -> Result<(), String> {
    let layout = Q8Layout { n, block: Q8Layout::DEFAULT_BLOCK };
    let words = |bytes: &[u8]| -> Vec<u64> {
        let mut copy = vec![0u64; bytes.len().div_ceil(8)];
        bytemuck::cast_slice_mut(&mut copy)[..bytes.len()].copy_from_slice(bytes);
        copy
    };
    let (e, f) = (words(expected), words(found));
    let token = |words: &'_ [u64]| -> Option<(Vec<i8>, Vec<f64>, Vec<i32>)> {
        let t = Q8Token::new(layout, bytemuck::cast_slice(words), 0)?;
        Some((t.q.to_vec(), t.scale.iter().map(|&s| f64::from(s)).collect(), t.sum.to_vec()))
    };
    let (Some((eq, es, _)), Some((fq, fs, sums))) = (token(&e), token(&f)) else { return Err("has another size".to_owned()) };
    noise(&es, &fs, 4e-12).map_err(|why| format!("(scales) {why}"))?;
    let ties = eq.iter().zip(&fq).filter(|(e, f)| e != f).count();
    if let Some(i) = (0..eq.len()).find(|&i| eq[i].abs_diff(fq[i]) > 1) {
        return Err(format!("has quant {} at {i} where the plan's geometry has {}", fq[i], eq[i]));
    }
    if ties > 4 + eq.len() / 100 {
        return Err(format!("has {ties} of {n} quants other than the plan's geometry"));
    }
    let block = layout.block as usize;
    let right = |(q, &sum): (&[i8], &i32)| q.iter().map(|&q| i32::from(q)).sum::<i32>() == sum;
    if fq.chunks(block).zip(&sums).all(right) { Ok(()) } else { Err("has a block whose sum isn't that of its quants".to_owned()) }
}

/// The best partial is the same, or as good. Behind a geometry's own partials everything is untouched.
fn best(expected: &[u8], found: &[u8]) -> Result<(), String> {
    let most = |bytes: &[u8]| {
        let pairs = bytes
            .as_chunks::<8>()
            .0
            .iter()
            .map(|&[a, b, c, d, e, f, g, h]| (f32::from_le_bytes([a, b, c, d]), i32::from_le_bytes([e, f, g, h])));
        pairs.filter(|(v, _)| v.is_finite()).max_by(|a, b| a.0.total_cmp(&b.0))
    };
    match (most(expected), most(found)) {
        (Some((e, i)), Some((f, j))) if i == j || (e - f).abs() < 1e-5 => noise(&[f64::from(e)], &[f64::from(f)], 1e-9),
        (e, f) => Err(format!("names {f:?} where the plan's geometry names {e:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    #[test]
    fn noise_above_the_bound_and_nan_are_refused() {
        let of = |values: &[f32]| floats(&bytes(values));
        assert_eq!(noise(&of(&[1.0, -2.0]), &of(&[1.0, -2.0]), 0.0), Ok(()));
        assert_eq!(noise(&of(&[1.0, -2.0]), &of(&[1.0, -2.000_01]), 4e-10), Ok(()));
        assert!(noise(&of(&[1.0, -2.0]), &of(&[1.0, -2.001]), 4e-10).is_err());
        assert!(noise(&of(&[1.0, -2.0]), &of(&[1.0, f32::NAN]), 1.0).is_err());
        assert!(noise(&of(&[f32::NAN]), &of(&[f32::NAN]), 1.0).is_err());
    }

    #[test]
    fn int8_blocks_may_differ_by_ties_alone() {
        let layout = Q8Layout { n: 256, block: 32 };
        let values: Vec<f32> = (0..256).map(|i| (i as f32 * 0.7).sin()).collect();
        let mut right = vec![0; layout.stride() as usize];
        hipc_reference::blocks::quantize(layout, &values, &mut right);
        let with = |at: usize, by: u8| {
            let mut other = right.clone();
            other[at] = other[at].wrapping_add(by);
            let at = layout.sums() as usize + 4 * (at / 32);
            let sum = i32::from_le_bytes(right[at..at + 4].try_into().unwrap()) + i32::from(by);
            other[at..at + 4].copy_from_slice(&sum.to_le_bytes());
            other
        };
        assert_eq!(blocks(256, &right, &right), Ok(()));
        assert_eq!(blocks(256, &right, &with(40, 1)), Ok(()));
        assert!(blocks(256, &right, &with(40, 2)).unwrap_err().contains("quant"));
        let mut other = right.clone();
        other[layout.sums() as usize] ^= 1;
        assert!(blocks(256, &right, &other).unwrap_err().contains("sum"));
        let mut other = right.clone();
        other[layout.scales() as usize + 2] ^= 1;
        assert!(blocks(256, &right, &other).unwrap_err().contains("scales"));
        assert!(blocks(256, &right, &vec![UNTOUCHED; right.len()]).is_err());
    }

    const UNTOUCHED: u8 = 0xff;

    #[test]
    fn partials_agree_in_the_best() {
        let pair = |v: f32, i: i32| [v.to_le_bytes(), i.to_le_bytes()].concat();
        let untouched = vec![UNTOUCHED; 8];
        let [a, b] = [[pair(1.0, 3), pair(2.0, 9)].concat(), [pair(2.0, 9), untouched].concat()];
        assert_eq!(best(&a, &b), Ok(()));
        assert!(best(&a, &pair(2.0, 8)).is_ok(), "a tie");
        assert!(best(&a, &pair(1.0, 3)).is_err());
    }
}
