//! `--exact`: the unfused graph in f64 behind the same trait as a device.

use crate::engine::{Engine, EngineError, Want, check_request};
use hipc_ir::graph::Graph;
use hipc_reference::graph::arg_max;
use hipc_reference::{ExactState, WeightAccess};
use std::sync::Arc;

/// Tokens per call, so that progress shows and an interrupt is seen; the evaluator's own chunk.
const CHUNK: usize = 128;

/// One sequence under exact evaluation: no int8, no fusion, an f64 cache.
pub struct ExactEngine {
    state: ExactState,
    tokens: Vec<u32>,
    chunk: usize,
}

impl ExactEngine {
    /// An empty sequence of at most `ctx` positions. With `single_steps`, tokens are asked for one at a time.
    ///
    /// # Errors
    /// If a weight's bytes are not what the graph declares.
    pub fn new(graph: Arc<Graph>, ctx: usize, weights: Arc<dyn WeightAccess>, single_steps: bool) -> Result<Self, EngineError> {
        let chunk = if single_steps { 1 } else { CHUNK };
        Ok(Self { state: ExactState::new(graph, ctx, weights)?, tokens: Vec::new(), chunk })
    }
}

impl Engine for ExactEngine {
    fn describe(&self) -> String {
        "cpu, exact (f64)".to_owned()
    }
    fn vocab(&self) -> usize {
        self.state.vocab()
    }
    fn ctx(&self) -> usize {
        self.state.ctx()
    }
    fn tokens(&self) -> &[u32] {
        &self.tokens
    }
    fn chunk(&self) -> usize {
        self.chunk
    }
    fn truncate(&mut self, pos: usize) {
        self.state.truncate(pos);
        self.tokens.truncate(pos);
    }
    fn feed(&mut self, ids: &[u32], want: Want, logits: &mut dyn FnMut(&[f32])) -> Result<Option<u32>, EngineError> {
        check_request(self, ids)?;
        let vocab = self.vocab();
        let mut next = None;
        let last = ids.len().div_ceil(self.chunk);
        for (i, part) in ids.chunks(self.chunk).enumerate() {
            let want = if i + 1 == last || want == Want::All { want } else { Want::Nothing };
            let rows = self.state.step(part, want.head_from(part.len()))?;
            self.tokens.extend(part);
            for row in rows.chunks(vocab).filter(|_| want != Want::Next) {
                logits(&row.iter().map(|&v| v as f32).collect::<Vec<_>>());
            }
            next = rows.chunks(vocab).next_back().map(|row| arg_max(row) as u32);
        }
        Ok(next)
    }
}
