//! Who wrote what is read: a walk through each program with a map of the memory that launches write.
//!
//! The map says for each byte range which launch wrote it last, and through which buffer. It is empty when a step begins, so
//! nothing leaks from one program or step to the next but what is meant to: caches, the token list, and counters, which every
//! launch leaves zero.

use super::error::{CheckError, Site};
use super::geometry::{parts, result_length};
use super::operands::{bytes_touched, cache_of};
use hipc_ir::fused::{Access, FusedOp, Gemv, Param, Row, RowExpr, Shape};
use hipc_ir::graph::Cache;
use hipc_ir::plan::{Buffer, BufferKind, KernelSpec, Launch, Plan, Space};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Faults of all programs. Launches whose operands are wrong may cause more.
pub(super) fn faults(plan: &Plan) -> Vec<CheckError> {
    let mut faults = Vec::new();
    let mut appended = Vec::new();
    for (i, program) in plan.programs.iter().enumerate() {
        let mut walk =
            Walk { plan, tokens: program.tokens, memory: Memory::default(), appended: BTreeSet::new(), faults: &mut faults };
        for (at, launch) in Site::all(i, program) {
            walk.launch(&at, launch);
        }
        let logits = u64::from(program.tokens) * u64::from(plan.model.vocab) * 4;
        walk.output(i, "logits", program.logits, logits);
        walk.output(i, "ids", program.ids, u64::from(program.tokens) * 4);
        appended.push(walk.appended);
    }
    // A cache that one program leaves behind lacks its tokens when the other reads it.
    for pair in appended.windows(2) {
        faults.extend(pair[0].symmetric_difference(&pair[1]).map(|&cache| CheckError::CachesDiffer { cache }));
    }
    faults
}

/// What a launch left in a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Written {
    /// Which launch of the program.
    launch: usize,
    /// Through which buffer.
    buffer: Buffer,
    /// Partial results: how many per token, of a vector of which length, of how many values each.
    parts: (u32, u32, u32),
}

/// Ranges that don't overlap, by space and start: end, and what was written.
#[derive(Default)]
struct Memory(BTreeMap<(Space, u64), (u64, Written)>);

impl Memory {
    /// Ranges that share bytes with this one.
    fn over(&self, space: Space, range: &Range<u64>) -> Vec<(u64, u64, Written)> {
        let mut found = Vec::new();
        if range.is_empty() {
            return found;
        }
        for (&(_, start), &(end, written)) in self.0.range((space, 0)..(space, range.end)).rev() {
            // Ranges don't overlap, so the first that ends before is the last to look at.
            if end <= range.start {
                break;
            }
            found.push((start, end, written));
        }
        found.reverse();
        found
    }

    fn write(&mut self, space: Space, range: Range<u64>, written: Written) {
        for (start, end, old) in self.over(space, &range) {
            self.0.remove(&(space, start));
            if start < range.start {
                self.0.insert((space, start), (range.start, old));
            }
            if end > range.end {
                self.0.insert((space, range.end), (end, old));
            }
        }
        if !range.is_empty() {
            self.0.insert((space, range.start), (range.end, written));
        }
    }

    /// What one launch wrote to all of this range through `buffer`; `Err` with what is in its place, or with nothing.
    fn read(&self, space: Space, range: Range<u64>, buffer: Buffer) -> Result<Option<Written>, Option<Written>> {
        let (mut at, mut found) = (range.start, None);
        for (start, end, written) in self.over(space, &range) {
            if start > at {
                return Err(None);
            }
            if written.buffer != buffer || found.is_some_and(|f| f != written) {
                return Err(Some(written));
            }
            found = Some(written);
            at = end;
        }
        if at < range.end { Err(None) } else { Ok(found) }
    }
}

/// A walk through one program.
struct Walk<'a> {
    plan: &'a Plan,
    tokens: u32,
    memory: Memory,
    /// Caches that hold this step's tokens.
    appended: BTreeSet<Cache>,
    faults: &'a mut Vec<CheckError>,
}

impl Walk<'_> {
    fn launch(&mut self, at: &Site, launch: &Launch) {
        let spec = &self.plan.kernels[launch.kernel];
        let operands: Vec<(Param, Buffer)> = spec.op.params().into_iter().zip(launch.args.iter().copied()).collect();
        self.hazards(at, spec, &operands);
        for &(param, buffer) in &operands {
            match (param.shape, param.access) {
                (Shape::Cache(_), Access::Read) => self.attended(at, buffer),
                (_, Access::Read) if is_value(self.plan, buffer) => self.read(at, spec, &param, buffer),
                _ => {}
            }
        }
        for &(param, buffer) in &operands {
            match (param.shape, param.access) {
                (Shape::Cache(_), Access::Update) => self.append(at, buffer),
                (_, Access::Write) => {
                    let length = result_length(&spec.op).unwrap_or(0);
                    let parts = (u32::try_from(parts(spec)).unwrap_or(u32::MAX), length, spec.geometry.tile);
                    let range = self.range(spec, &param, buffer);
                    self.memory.write(self.plan.buffers[buffer].space, range, Written { launch: at.launch, buffer, parts });
                }
                _ => {}
            }
        }
    }

    /// The bytes of an argument that a launch touches.
    fn range(&self, spec: &KernelSpec, param: &Param, buffer: Buffer) -> Range<u64> {
        let decl = &self.plan.buffers[buffer];
        let bytes = bytes_touched(self.plan, spec, self.tokens, param, buffer).unwrap_or(decl.bytes);
        decl.offset..decl.offset.saturating_add(bytes)
    }

    /// Workgroups of a launch run in any order, so what one writes no other may read or write.
    fn hazards(&mut self, at: &Site, spec: &KernelSpec, operands: &[(Param, Buffer)]) {
        let place = |&(param, buffer): &(Param, Buffer)| (self.plan.buffers[buffer].space, self.range(spec, &param, buffer));
        let mut found = Vec::new();
        for (i, a) in operands.iter().enumerate().filter(|(_, (p, _))| p.access != Access::Read) {
            for (j, b) in operands.iter().enumerate() {
                // Of two that are written the pair is looked at once.
                let once = i != j && (b.0.access == Access::Read || i < j);
                let ((space, x), (other, y)) = (place(a), place(b));
                if once && space == other && x.start < y.end && y.start < x.end {
                    found.push(CheckError::Hazard { at: at.clone(), written: a.1, other: b.1 });
                }
            }
        }
        self.faults.append(&mut found);
    }

    fn read(&mut self, at: &Site, spec: &KernelSpec, param: &Param, buffer: Buffer) {
        let range = self.range(spec, param, buffer);
        let at = at.clone();
        match self.memory.read(self.plan.buffers[buffer].space, range, buffer) {
            Err(None) => self.faults.push(CheckError::Unwritten { at, buffer }),
            Err(Some(by)) => self.faults.push(CheckError::Overwritten { at, buffer, by: by.launch, with: by.buffer }),
            Ok(Some(by)) if matches!(param.shape, Shape::Ssq | Shape::Partials) => self.partials(at, spec, buffer, by),
            Ok(_) => {}
        }
    }

    /// Reader and writer must mean the same vector in the same number of parts.
    fn partials(&mut self, at: Site, spec: &KernelSpec, buffer: Buffer, by: Written) {
        let length = match &spec.op {
            FusedOp::Gemv(Gemv { deferred: Some(d), .. }) | FusedOp::Row(Row { expr: RowExpr::Scale(d), .. }) => d.n,
            FusedOp::Choose(c) => c.n,
            _ => by.parts.1,
        };
        let tile = if matches!(spec.op, FusedOp::Choose(_)) { spec.geometry.tile } else { by.parts.2 };
        for (what, reader, writer) in [
            ("parts:", spec.geometry.parts_in, by.parts.0),
            ("parts of a vector of", length, by.parts.1),
            ("values in a part:", tile, by.parts.2),
        ] {
            if reader != writer {
                self.faults.push(CheckError::Partials { at: at.clone(), buffer, what, reader, by: by.launch, writer });
            }
        }
    }

    fn attended(&mut self, at: &Site, buffer: Buffer) {
        if let Some(cache) = cache_of(self.plan, buffer)
            && !self.appended.contains(&cache)
        {
            self.faults.push(CheckError::NotAppended { at: at.clone(), cache });
        }
    }

    fn append(&mut self, at: &Site, buffer: Buffer) {
        if let Some(cache) = cache_of(self.plan, buffer)
            && !self.appended.insert(cache)
        {
            self.faults.push(CheckError::AppendedTwice { at: at.clone(), cache });
        }
    }

    /// A result must be whole when the program ends.
    fn output(&mut self, program: usize, what: &'static str, buffer: Buffer, bytes: u64) {
        let decl = &self.plan.buffers[buffer];
        let range = decl.offset..decl.offset.saturating_add(bytes);
        let fault = match self.memory.read(decl.space, range, buffer) {
            _ if bytes > decl.bytes => "is too small",
            Ok(_) => return,
            Err(None) => "is not written",
            Err(Some(_)) => "is overwritten",
        };
        self.faults.push(CheckError::Output { program, what, buffer, fault });
    }
}

/// Whether a buffer holds what launches write for later launches of the same step.
fn is_value(plan: &Plan, buffer: Buffer) -> bool {
    match plan.buffers[buffer].kind {
        BufferKind::F32(_)
        | BufferKind::Q8(_)
        | BufferKind::Ssq(_)
        | BufferKind::Partials(_)
        | BufferKind::Scratch
        | BufferKind::Logits
        | BufferKind::Ids => true,
        BufferKind::Weight(..)
        | BufferKind::Rope(_)
        | BufferKind::Cache(_)
        | BufferKind::State
        | BufferKind::Tokens
        | BufferKind::Outbox
        | BufferKind::Sampling
        | BufferKind::Draws
        | BufferKind::Counters
        | BufferKind::Staging => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hipc_ir::EntityRef;

    /// The map of ranges against an array of bytes.
    #[test]
    fn memory_is_what_was_written_last() {
        let mut bytes: [Option<Written>; 64] = [None; 64];
        let mut memory = Memory::default();
        let mut state = 1u64;
        let mut next = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        for launch in 0..2000 {
            let (start, length) = (next(64), next(12));
            let range = start..(start + length).min(64);
            let written = Written { launch, buffer: Buffer::new(next(3) as usize), parts: (0, 0, 0) };
            if next(2) == 0 {
                memory.write(Space::Arena, range.clone(), written);
                range.for_each(|i| bytes[i as usize] = Some(written));
                continue;
            }
            let there: Vec<_> = range.clone().map(|i| bytes[i as usize]).collect();
            let whole = there.windows(2).all(|w| w[0] == w[1]);
            let expected = whole && there.iter().all(|w| w.is_some_and(|w| w.buffer == written.buffer));
            let found = memory.read(Space::Arena, range, written.buffer);
            assert_eq!(found.is_ok(), expected, "{there:?}");
            if let (Ok(found), Some(first)) = (found, there.first()) {
                assert_eq!(found, *first);
            }
            assert_eq!(memory.read(Space::Persistent, 0..1, written.buffer), Err(None));
        }
    }
}
