//! Tables that a device needs and no file holds: the rotation angles, computed once at load.

use hipc_ir::graph::RopeDecl;

/// The rotation table of `ctx` positions, `[ctx, dims/2]` pairs (cos, sin), computed in f64 and rounded once.
///
/// Pair `i` of position `p` turns by `p · freq_scale · base^(−2i/dims) / factors[i]` (RoPE, arXiv 2104.09864; the divisors are
/// Llama 3's). `factors` are the values of [`RopeDecl::factors`], `[dims/2]`, if the model has them.
pub fn rope_table(decl: &RopeDecl, ctx: u32, factors: Option<&[f32]>) -> Vec<[f32; 2]> {
    let pairs = decl.dims / 2;
    let frequencies: Vec<f64> = (0..pairs)
        .map(|i| {
            let divisor = factors.and_then(|f| f.get(i as usize)).map_or(1.0, |&f| f64::from(f));
            decl.freq_scale.0 * decl.base.0.powf(-2.0 * f64::from(i) / f64::from(decl.dims)) / divisor
        })
        .collect();
    let angles = (0..ctx).flat_map(|p| frequencies.iter().map(move |f| f64::from(p) * f));
    angles.map(|a| [a.cos() as f32, a.sin() as f32]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hipc_ir::Real;
    use hipc_ir::graph::RopeStyle;

    #[test]
    fn turns_by_the_formula() {
        let decl = RopeDecl { style: RopeStyle::Norm, dims: 4, base: Real(10000.0), freq_scale: Real(0.5), factors: None };
        let table = rope_table(&decl, 3, Some(&[1.0, 4.0]));
        assert_eq!(table.len(), 6);
        assert_eq!(table[..2], [[1.0, 0.0]; 2]);
        // Position 2: 2 · 0.5 · 1, and 2 · 0.5 · 10000^(−1/2) / 4.
        assert_eq!(table[4], [1f64.cos() as f32, 1f64.sin() as f32]);
        assert_eq!(table[5], [0.0025f64.cos() as f32, 0.0025f64.sin() as f32]);
    }
}
