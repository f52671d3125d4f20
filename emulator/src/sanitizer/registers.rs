//! Which bits of a wave's registers have a value.
//!
//! What was never written is undefined, and so is what is computed from it. Copying it is no fault (compilers do), nor is computing
//! with it: only a result that depends on it and leaves the registers is one, see [`super`].
//!
//! Whether a result depends on undefined bits is found by experiment: the instruction is executed again, on a twin of the wave, with
//! those bits set otherwise. Bits of the result that change are undefined. So every instruction that the emulator knows takes part
//! with what it does (masks, shifts, halves, inactive lanes), and nothing here can disagree with it. An influence that none of the
//! tried values shows is missed; one that doesn't exist is never seen.

use super::Space;
use super::effects::Effects;
use super::set::{Register, Set};
use crate::exec::Step;
use crate::operand::{EXEC, SCALARS};
use crate::wave::{Flow, Group, Wave, lanes};

/// Where an undefined value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A register that was never written.
    Register(Register),
    /// Memory that was never written.
    Memory {
        /// Index of the instruction that read it.
        by: usize,
        /// The first such access: which memory, and its address there (scratch: that of the lane).
        place: Option<(Space, u64)>,
    },
}

/// Undefined bits of a wave's registers.
pub(super) struct Shadow<const W: usize> {
    pub(super) vectors: Vec<[u32; W]>,
    pub(super) scalars: [u32; SCALARS],
    scc: bool,
    /// Registers with undefined bits.
    pub(super) undefined: Set,
    /// By register, as far as it is undefined by more than never having been written.
    origins: Vec<(Register, Origin)>,
}

/// What an instruction did that depends on undefined bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Influence {
    /// Which instruction comes next.
    Flow,
    /// The lanes that are active; the first that isn't certain.
    Exec(usize),
}

impl<const W: usize> Shadow<W> {
    /// All undefined but what the hardware sets up.
    pub(super) fn new(vectors: usize, initial: &Set) -> Self {
        let mut shadow = Self {
            vectors: vec![[u32::MAX; W]; vectors],
            scalars: [u32::MAX; SCALARS],
            scc: true,
            undefined: (0..vectors).map(|n| Register::Vector(n as u16)).collect(),
            origins: Vec::new(),
        };
        shadow.undefined.extend((0..SCALARS).map(|n| Register::Scalar(n as u8)));
        shadow.undefined.insert(Register::Scc);
        for register in initial.iter() {
            shadow.define(register);
        }
        shadow
    }

    /// The register has a value in all lanes.
    pub(super) fn define(&mut self, register: Register) {
        match register {
            Register::Vector(n) => {
                if let Some(v) = self.vectors.get_mut(usize::from(n)) {
                    *v = [0; W];
                }
            }
            Register::Scalar(n) => self.scalars[usize::from(n)] = 0,
            Register::Scc => self.scc = false,
        }
        self.undefined.remove(register);
    }

    /// Lanes in which a register has undefined bits; all for a scalar one.
    pub(super) fn lanes(&self, register: Register) -> u64 {
        match register {
            Register::Vector(n) => {
                let bits = &self.vectors[usize::from(n)];
                (0..W).fold(0, |mask, lane| mask | u64::from(bits[lane] != 0) << lane)
            }
            Register::Scalar(n) if self.scalars[usize::from(n)] == 0 => 0,
            Register::Scc if !self.scc => 0,
            _ => u64::MAX,
        }
    }

    pub(super) fn origin(&self, register: Register) -> Origin {
        self.origins.iter().find(|(r, _)| *r == register).map_or(Origin::Register(register), |o| o.1)
    }

    /// Notes whether a register has undefined bits, and why.
    pub(super) fn note(&mut self, register: Register, origin: Option<Origin>) {
        self.origins.retain(|(r, _)| *r != register);
        if self.lanes(register) == 0 {
            self.undefined.remove(register);
        } else {
            self.undefined.insert(register);
            self.origins.extend(origin.map(|o| (register, o)));
        }
    }

    /// Where the undefined bits come from that an instruction reads: from its sources rather than from what it replaces.
    pub(super) fn cause(&self, effects: &Effects) -> Option<Origin> {
        let sources = effects.touched.without(&effects.written);
        self.first(&sources).or_else(|| self.first(&effects.touched)).map(|r| self.origin(r))
    }

    /// The first undefined register of a set.
    pub(super) fn first(&self, of: &Set) -> Option<Register> {
        (self.undefined & *of).iter().next()
    }

    /// Runs an instruction that has undefined operands or replaces some; says what it did to the program's course.
    pub(super) fn run(
        &mut self,
        step: &Step<W>,
        effects: &Effects,
        twin: &mut Wave<W>,
        wave: &mut Wave<W>,
        group: &mut Group,
    ) -> (Flow, Option<Influence>) {
        let vectors: Vec<usize> = effects.touched.iter().filter_map(|r| vector(r, wave)).collect();
        let before: Vec<[u32; W]> = vectors.iter().map(|&v| wave.vectors[v]).collect();
        let (scalars, scc, next) = (wave.scalars, wave.scc, wave.next);
        let origin = self.cause(effects);

        let flow = (step.run)(wave, group);
        if matches!(flow, Flow::Fault(_)) {
            return (flow, None);
        }
        let mut influence = None;
        let mut changed: Vec<(Register, [u32; W])> = effects.written.iter().map(|r| (r, [0; W])).collect();
        for trial in [u32::MAX, 0x9e37_79b9, 0x7fc0_5a5a] {
            for (&v, before) in vectors.iter().zip(&before) {
                twin.vectors[v] = std::array::from_fn(|lane| other(before[lane], self.vectors[v][lane], trial, lane));
            }
            twin.scalars = std::array::from_fn(|s| {
                other(scalars[s], if effects.touched.contains(Register::Scalar(s as u8)) { self.scalars[s] } else { 0 }, trial, s)
            });
            twin.scc = scc ^ (self.scc && trial & 1 == 1);
            twin.next = next;
            let twin_flow = (step.run)(twin, group);
            if !same(&flow, &twin_flow) {
                influence = influence.or(Some(Influence::Flow));
                continue;
            }
            let lost = (wave.exec() ^ twin.exec()) & Wave::<W>::FULL;
            if lost != 0 {
                influence = influence.or(Some(Influence::Exec(lost.trailing_zeros() as usize)));
            }
            for (register, bits) in &mut changed {
                match *register {
                    Register::Vector(v) if usize::from(v) < wave.vectors.len() => {
                        let (a, b) = (&wave.vectors[usize::from(v)], &twin.vectors[usize::from(v)]);
                        for lane in 0..W {
                            bits[lane] |= a[lane] ^ b[lane];
                        }
                    }
                    Register::Vector(_) => {}
                    Register::Scalar(s) => bits[0] |= wave.scalars[usize::from(s)] ^ twin.scalars[usize::from(s)],
                    Register::Scc => bits[0] |= u32::from(wave.scc != twin.scc),
                }
            }
        }
        for (register, bits) in changed {
            match register {
                Register::Vector(v) if usize::from(v) < self.vectors.len() => self.vectors[usize::from(v)] = bits,
                Register::Vector(_) => continue,
                // What it should have been is said; to go on, it is what it is.
                Register::Scalar(EXEC..) => continue,
                Register::Scalar(s) => self.scalars[usize::from(s)] = bits[0],
                Register::Scc => self.scc = bits[0] != 0,
            }
            self.note(register, origin);
        }
        (flow, influence)
    }

    /// The undefined lanes of a set's registers among those that are active.
    pub(super) fn lane_of(&self, of: &Set, exec: u64) -> Option<(Register, usize)> {
        (self.undefined & *of).iter().find_map(|r| lanes(self.lanes(r) & exec).next().map(|lane| (r, lane)))
    }
}

/// Index of a vector register that the wave has.
fn vector<const W: usize>(register: Register, wave: &Wave<W>) -> Option<usize> {
    match register {
        Register::Vector(n) => Some(usize::from(n)).filter(|&v| v < wave.vectors.len()),
        _ => None,
    }
}

/// The value with its undefined bits set otherwise: all flipped, or some.
fn other(value: u32, undefined: u32, trial: u32, place: usize) -> u32 {
    let pattern = if trial == u32::MAX { trial } else { trial.wrapping_mul(2 * place as u32 + 1) };
    if trial == 0x7fc0_5a5a { value & !undefined | pattern & undefined } else { value ^ undefined & pattern }
}

/// Whether the wave goes on at the same place.
fn same(a: &Flow, b: &Flow) -> bool {
    match (a, b) {
        (Flow::Jump(a), Flow::Jump(b)) => a == b,
        (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
    }
}
