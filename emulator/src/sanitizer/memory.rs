//! Accesses to memory: whether they are allowed and ordered, and what becomes of the shadows of memory and registers.

use super::effects::{Counter, Effects, Work};
use super::finding::{Access, FindingKind, Space};
use super::races::Mode;
use super::registers::Origin;
use super::set::Register;
use super::{Extent, Sanitizer};
use crate::exec::Step;
use crate::memory::FIRST;
use crate::wave::{Flow, Group, Wave, lanes};

impl<const W: usize> Sanitizer<'_, W> {
    /// A load, store or atomic: what it accesses, and what becomes of the shadows.
    pub(super) fn memory(&mut self, at: usize, effects: &Effects, step: &Step<W>, wave: &mut Wave<W>, group: &mut Group) -> Flow {
        let index = wave.index as usize;
        let exec = wave.exec();
        let registers = &mut self.waves[index].registers;
        // Scalar registers of an address count for every active lane; the scalar unit doesn't know of lanes.
        let active = if effects.counters == [Counter::Scalar] { 1 } else { exec };
        if active != 0
            && registers.undefined.meets(&effects.address)
            && let Some((register, lane)) = registers.lane_of(&effects.address, active)
        {
            let origin = registers.origin(register);
            effects.address.iter().for_each(|r| registers.define(r));
            self.undefined(at, wave.index, Some(lane), "an address", None, origin);
        }
        let next = wave.next;
        if let Some(twin) = self.twin.as_mut() {
            for register in (effects.address | effects.data | effects.written).iter() {
                if let Register::Vector(v) = register
                    && let Some(value) = wave.vectors.get(usize::from(v))
                {
                    twin.vectors[usize::from(v)] = *value;
                }
            }
            (twin.scalars, twin.scc, twin.index) = (wave.scalars, wave.scc, wave.index);
        }
        group.trace = Some(std::mem::take(&mut self.accesses));
        let flow = (step.run)(wave, group);
        self.accesses = group.trace.take().unwrap_or_default();
        if !matches!(flow, Flow::Fault(_)) {
            let accesses = std::mem::take(&mut self.accesses);
            accesses.iter().for_each(|access| self.access(at, access, wave.index));
            if let Work::Atomic { returns } = effects.work {
                self.atomic(at, effects, &accesses, exec, wave.index, returns);
            } else {
                self.move_shadows(at, effects, step, exec, wave.index, next, group, &accesses);
            }
            self.accesses = accesses;
            let stored = (effects.work == Work::Store).then(|| self.global.now());
            self.waves[index].counters.issue(at, effects, stored);
        }
        self.accesses.clear();
        flow
    }

    /// Checks one access: extents, alignment, races.
    fn access(&mut self, at: usize, access: &Access, wave: u32) {
        let Access { space, mode, address, bytes, alignment, lane } = *access;
        let lane = lane.map(usize::from);
        let what = mode.name();
        if !address.is_multiple_of(alignment.into()) {
            let kind = FindingKind::Misaligned { what, space: space.name(), address, bytes, alignment };
            self.report(at, wave, lane, kind);
        }
        match space {
            Space::Scratch => {}
            Space::Lds => {
                if let Some((offset, conflict)) = self.lds_races.access(address, bytes, mode, wave) {
                    let kind = FindingKind::LdsRace { what, offset, other: conflict.mode.name(), wave: conflict.who };
                    self.report(at, wave, lane, kind);
                }
            }
            Space::Global => {
                // Code, constants and arguments: nobody writes them.
                if address < FIRST {
                    return;
                }
                let writable = self.extent(at, access, wave, lane);
                if !writable {
                    return;
                }
                let conflict = self.global.access(address, bytes, mode, wave);
                if let Some((address, conflict)) = conflict {
                    let [x, y, _] = self.grid;
                    let workgroup = [conflict.who % x, conflict.who / x % y, conflict.who / x / y];
                    let kind = FindingKind::GlobalRace { what, address, other: conflict.mode.name(), workgroup };
                    self.report(at, wave, lane, kind);
                }
            }
        }
    }

    /// Checks that an access lies in an extent; whether somebody may write there.
    fn extent(&mut self, at: usize, access: &Access, wave: u32, lane: Option<usize>) -> bool {
        let Some(extents) = &self.extents else { return true };
        let Access { mode, address, bytes, .. } = *access;
        let end = address + u64::from(bytes);
        let inside = |e: &&Extent| e.address <= address && end <= e.address.saturating_add(e.bytes);
        let mut found = extents.iter().filter(inside).peekable();
        let near = if found.peek().is_none() {
            let distance = |e: &&Extent| {
                if address < e.address { e.address - address } else { address.saturating_sub(e.address.saturating_add(e.bytes)) }
            };
            match extents.iter().min_by_key(distance) {
                Some(e) if address < e.address => format!(
                    "{} bytes before the {} bytes at {:#x} that the launch was given",
                    e.address - address,
                    e.bytes,
                    e.address
                ),
                Some(e) => format!(
                    "reaching {} bytes beyond the {} bytes at {:#x} that the launch was given",
                    end.saturating_sub(e.address.saturating_add(e.bytes)),
                    e.bytes,
                    e.address
                ),
                None => "but the launch was given no memory".to_owned(),
            }
        } else if found.any(|e| e.writable) {
            return true;
        } else if mode == Mode::Load {
            return false;
        } else {
            "which the launch may only read".to_owned()
        };
        self.report(at, wave, lane, FindingKind::OutOfExtent { what: mode.name(), address, bytes, near });
        false
    }

    /// An atomic: its data and the memory it changes must have values, and it may hand over to other workgroups.
    fn atomic(&mut self, at: usize, effects: &Effects, accesses: &[Access], exec: u64, wave: u32, returns: bool) {
        let registers = &mut self.waves[wave as usize].registers;
        if exec != 0
            && let Some((register, lane)) = registers.lane_of(&effects.data, exec)
        {
            let origin = registers.origin(register);
            effects.data.iter().for_each(|r| registers.define(r));
            self.undefined(at, wave, Some(lane), "an atomic's data", accesses.first().map(|a| a.address), origin);
        }
        for access in accesses {
            let (address, lane) = (access.address, access.lane.map(usize::from));
            if self.shadow(access).is_some_and(|undefined| undefined) {
                let origin = Origin::Memory { by: at, place: Some((access.space, address)) };
                self.undefined(at, wave, lane, "an atomic's old value", Some(address), origin);
                self.define(access);
            }
            if access.space == Space::Global {
                let oldest = self.waves[wave as usize].counters.oldest_store();
                self.global.synchronise(address, wave, oldest, returns);
            }
        }
        if self.global.gave_up {
            self.report(at, wave, None, FindingKind::Incomplete);
        }
        let registers = &mut self.waves[wave as usize].registers;
        for register in effects.written.iter() {
            if let Register::Vector(v) = register
                && let Some(bits) = registers.vectors.get_mut(usize::from(v))
            {
                lanes(exec).for_each(|lane| bits[lane] = 0);
                registers.note(register, None);
            }
        }
    }

    /// Whether an access touches memory without a value; `None` for scratch.
    fn shadow(&self, access: &Access) -> Option<bool> {
        let bytes = access.bytes as usize;
        match access.space {
            Space::Lds => Some(self.lds.get(access.address as usize..)?.iter().take(bytes).any(|&b| b != 0)),
            Space::Global => {
                let (allocation, offset) = self.shadows.find(access.address, access.bytes, &mut 0)?;
                Some((0..bytes).any(|i| allocation.read32(offset + i) & 0xff != 0))
            }
            Space::Scratch => None,
        }
    }

    /// Whether an access of a wave reads scratch, LDS or memory without a value.
    fn reads_unwritten(&self, access: &Access, wave: u32) -> bool {
        let Space::Scratch = access.space else { return self.shadow(access) == Some(true) };
        let per_lane = self.twin.as_ref().map_or(0, |twin| twin.scratch_per_lane as usize);
        let first = usize::from(access.lane.unwrap_or(0)) * per_lane + access.address as usize;
        self.waves[wave as usize].scratch.iter().skip(first).take(access.bytes as usize).any(|&b| b != 0)
    }

    /// The bytes of an access have values from here on.
    fn define(&mut self, access: &Access) {
        match access.space {
            Space::Lds => self.lds.iter_mut().skip(access.address as usize).take(access.bytes as usize).for_each(|b| *b = 0),
            Space::Global => {
                if let Some((allocation, offset)) = self.shadows.find(access.address, access.bytes, &mut 0) {
                    (0..access.bytes as usize).for_each(|i| allocation.write(offset + i, 0, 1));
                }
            }
            Space::Scratch => {}
        }
    }

    /// Executes a load or store on the shadows of registers and memory.
    #[allow(clippy::too_many_arguments)]
    fn move_shadows(
        &mut self,
        at: usize,
        effects: &Effects,
        step: &Step<W>,
        exec: u64,
        wave: u32,
        next: u32,
        group: &mut Group,
        accesses: &[Access],
    ) {
        let Some(twin) = self.twin.as_mut() else { return };
        let watched = &mut self.waves[wave as usize];
        let registers = &mut watched.registers;
        // Where an address register is data, too, it has a value: that was checked.
        let overlap = (effects.address & effects.data) | (effects.address & effects.written);
        for register in (effects.data | effects.written).iter() {
            match register {
                _ if effects.address.contains(register) => {}
                Register::Vector(v) if usize::from(v) < twin.vectors.len() => {
                    twin.vectors[usize::from(v)] = registers.vectors[usize::from(v)]
                }
                Register::Scalar(s) => twin.scalars[usize::from(s)] = registers.scalars[usize::from(s)],
                _ => {}
            }
        }
        twin.next = next;
        std::mem::swap(&mut twin.scratch, &mut watched.scratch);
        std::mem::swap(&mut group.lds, &mut self.lds);
        std::mem::swap(&mut group.memory, &mut group.shadows);
        let flow = (step.run)(twin, group);
        std::mem::swap(&mut group.memory, &mut group.shadows);
        std::mem::swap(&mut group.lds, &mut self.lds);
        std::mem::swap(&mut twin.scratch, &mut watched.scratch);
        debug_assert!(!matches!(flow, Flow::Fault(_)), "{flow:?}");
        let mut changed = Vec::new();
        for register in effects.written.iter() {
            let before = registers.lanes(register);
            match register {
                Register::Vector(v) if usize::from(v) < registers.vectors.len() => {
                    let keeps = overlap.contains(register).then_some(effects.half).flatten().unwrap_or(u32::MAX);
                    for lane in lanes(exec) {
                        registers.vectors[usize::from(v)][lane] = twin.vectors[usize::from(v)][lane] & keeps;
                    }
                }
                Register::Scalar(s) => registers.scalars[usize::from(s)] = twin.scalars[usize::from(s)],
                _ => continue,
            }
            if before | registers.lanes(register) != 0 {
                changed.push(register);
            }
        }
        if !changed.is_empty() {
            let unwritten = accesses.iter().find(|access| self.reads_unwritten(access, wave));
            let origin = Origin::Memory { by: at, place: unwritten.map(|access| (access.space, access.address)) };
            let registers = &mut self.waves[wave as usize].registers;
            changed.into_iter().for_each(|register| registers.note(register, Some(origin)));
        }
        if effects.work != Work::Store {
            return;
        }
        if !overlap.is_empty() {
            accesses.iter().for_each(|access| self.define(access));
        }
        // What other kernels or the host will see must have a value.
        let Some(register) = self.waves[wave as usize].registers.first(&effects.data) else { return };
        let origin = self.waves[wave as usize].registers.origin(register);
        for access in accesses.iter().filter(|a| a.space == Space::Global) {
            if self.shadow(access) == Some(true) {
                let lane = access.lane.map(usize::from);
                self.undefined(at, wave, lane, "data stored to global memory", Some(access.address), origin);
                self.define(access);
            }
        }
    }
}
