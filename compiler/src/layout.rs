//! The layout of weights on a target: once per type and width, whoever reads them, so that a weight which two launches read (a tied
//! embedding) has one.
//!
//! Before [`lay_out`] all weights are in GGUF's layout; after it each is in the one whose rows are read fastest. What a layout
//! costs beside its bytes is in the target's row: loads at even addresses, and loads of a wave that aren't next to each other.

use crate::target::Target;
use hipc_ir::dtype::{DType, Layout};
use hipc_ir::fused::FusedGraph;

/// Sets the layout of every weight.
pub fn lay_out(graph: &mut FusedGraph, target: &Target) {
    for launch in graph.launches.values_mut() {
        launch.op = launch.op.clone().with_layouts(|dtype, cols| choose(dtype, cols, target));
    }
}

/// The layout in which rows of `cols` values are read fastest; GGUF's, which needs no repacking, where another is no better.
pub fn choose(dtype: DType, cols: u32, target: &Target) -> Layout {
    let price = |layout: Layout| layout.row_bytes(dtype, cols).map(|bytes| bytes as f64 * (1.0 + loss(dtype, layout, target)));
    let mut best = (Layout::Gguf, price(Layout::Gguf).unwrap_or(f64::INFINITY));
    for layout in Layout::ALL {
        if let Some(price) = price(layout).filter(|&p| p < best.1) {
            best = (layout, price);
        }
    }
    best.0
}

/// What reading a weight takes longer than as many bytes in aligned loads next to each other, as a part of their time.
pub fn loss(dtype: DType, layout: Layout, target: &Target) -> f64 {
    match (layout, dtype) {
        (Layout::Split, _) | (_, DType::F32 | DType::F16 | DType::BF16) => 0.0,
        // Blocks of 18, 34 and 210 bytes.
        (Layout::Gguf, DType::Q4_0 | DType::Q8_0 | DType::Q6_K) => target.even_loads,
        // Blocks of 144 bytes: aligned, with the next block's header in between.
        (Layout::Gguf, DType::Q4_K) => target.parted_loads,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_repacked_where_their_loads_are_dear() {
        let split = |target: &str, cols| -> Vec<DType> {
            let target = Target::parse(target).unwrap();
            DType::ALL.into_iter().filter(|&t| choose(t, cols, target) == Layout::Split).collect()
        };
        assert_eq!(split("sm_90", 4096), [DType::Q4_0, DType::Q8_0, DType::Q4_K, DType::Q6_K]);
        for gpu in ["gfx900", "gfx90a", "gfx1030", "gfx1100", "gfx1201", "host"] {
            assert_eq!(split(gpu, 4096), [DType::Q4_0, DType::Q8_0, DType::Q6_K], "{gpu}");
        }
        // 18 bytes that become 32 are no gain.
        assert_eq!(choose(DType::Q4_0, 32, Target::parse("sm_90").unwrap()), Layout::Gguf);
    }
}
