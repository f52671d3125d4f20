//! Accesses of the same bytes in no order: between waves of a workgroup in LDS, between workgroups in global memory.
//!
//! Two accesses conflict if one of them writes, at least one is plain, and nothing orders them. Atomics don't conflict with each other;
//! a plain access conflicts with an atomic, which writes. In LDS, barriers are what orders. In global memory, it is the hand-over: a workgroup *releases* by an
//! atomic whatever it wrote and waited for (its other waves: up to the last barrier); who *acquires*, by an atomic at the same
//! address that gives the old value back and an invalidation of the caches behind it, comes after that. Workgroups are executed one
//! after the other here, so what is found doesn't depend on chance, and conflicts are those of any order.

use std::collections::HashMap;

/// What an access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Load,
    Store,
    Atomic,
}

impl Mode {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Store => "store",
            Self::Atomic => "atomic",
        }
    }
}

/// An earlier access that conflicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    pub(super) mode: Mode,
    /// Wave of the workgroup (LDS), or number of the workgroup (global memory).
    pub(super) who: u32,
}

/// Accesses to one byte of LDS since the last barrier.
#[derive(Clone, Copy, Default)]
struct LdsByte {
    /// When it was last written by a store, and by which wave.
    wrote: u32,
    writer: u8,
    /// By loads, and by atomics.
    read: Waves,
    atomic: Waves,
}

/// When something was last done, and by which waves.
#[derive(Clone, Copy, Default)]
struct Waves {
    interval: u32,
    waves: u32,
}

impl Waves {
    fn add(&mut self, now: u32, wave: u32) {
        let before = if self.interval == now { self.waves } else { 0 };
        *self = Self { interval: now, waves: before | 1 << (wave % 32) };
    }

    /// The first one but this that has done it in this interval.
    fn other(&self, now: u32, wave: u32) -> Option<u32> {
        let others = self.waves & !(1 << (wave % 32));
        (self.interval == now && others != 0).then(|| others.trailing_zeros())
    }
}

/// Accesses to a workgroup's LDS.
pub(super) struct LdsRaces {
    bytes: Vec<LdsByte>,
    /// Intervals between barriers, numbered from 1.
    interval: u32,
}

impl LdsRaces {
    pub(super) fn new(size: usize) -> Self {
        Self { bytes: vec![LdsByte::default(); size], interval: 1 }
    }

    /// All waves have passed a barrier.
    pub(super) fn barrier(&mut self) {
        self.interval += 1;
    }

    /// Notes an access; gives the first conflict.
    pub(super) fn access(&mut self, offset: u64, bytes: u32, mode: Mode, wave: u32) -> Option<(u64, Conflict)> {
        let (now, mut found) = (self.interval, None);
        for at in offset..offset + u64::from(bytes) {
            let Some(byte) = self.bytes.get_mut(at as usize) else { break };
            let stored = || (byte.wrote == now && u32::from(byte.writer) != wave).then(|| byte.writer.into());
            let earlier = [
                (Mode::Store, stored()),
                (Mode::Atomic, byte.atomic.other(now, wave).filter(|_| mode != Mode::Atomic)),
                (Mode::Load, byte.read.other(now, wave).filter(|_| mode != Mode::Load)),
            ];
            let conflict = earlier.into_iter().find_map(|(mode, who)| Some(Conflict { mode, who: who? }));
            found = found.or(conflict.map(|c| (at, c)));
            match mode {
                Mode::Load => byte.read.add(now, wave),
                Mode::Atomic => byte.atomic.add(now, wave),
                Mode::Store => (byte.wrote, byte.writer) = (now, wave as u8),
            }
        }
        found
    }
}

/// A wave of the launch, and when it did something (by its workgroup's clock, from 1 on). Time 0: never.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Moment {
    group: u32,
    wave: u16,
    /// Bytes of the dword.
    bytes: u16,
    time: u32,
}

/// Accesses to a dword of global memory: the last ones. Of stores those to other bytes, too, of reads and atomics the first workgroup's and
/// the last other one's.
#[derive(Clone, Copy, Default)]
struct Dword {
    stores: [Moment; 2],
    atomics: [Moment; 2],
    loads: [Moment; 2],
}

/// Dwords whose accesses are kept together: 4 KiB.
const PAGE: u64 = 4096;

/// Moments up to which waves' accesses are known to be over, by workgroup and wave: those before the time.
type Clock = HashMap<(u32, u16), u32>;

/// Entries of all clocks at most: beyond, hand-overs would have to be forgotten.
const MOST_ENTRIES: usize = 1 << 22;

fn join(to: &mut Clock, from: &Clock) {
    for (&who, &time) in from {
        let slot = to.entry(who).or_default();
        *slot = time.max(*slot);
    }
}

/// Accesses of a launch to global memory.
#[derive(Default)]
pub(super) struct GlobalRaces {
    pages: HashMap<u64, Box<[Dword]>>,
    /// By address of an atomic: what was released there.
    released: HashMap<u64, Clock>,
    entries: usize,
    /// The hand-overs of the launch are too many to be kept; what follows isn't checked.
    pub(super) gave_up: bool,
    group: u32,
    /// Of the workgroup: its time, what it has acquired, and what it will have with the next invalidation.
    time: u32,
    known: Clock,
    acquired: Clock,
    /// By wave: stores before this time were done at the last barrier.
    settled: Vec<u32>,
}

impl GlobalRaces {
    /// The next workgroup begins.
    pub(super) fn begin(&mut self, group: u32, waves: usize) {
        (self.group, self.time, self.settled) = (group, 1, vec![0; waves]);
        self.known.clear();
        self.acquired.clear();
    }

    /// The workgroup's time.
    pub(super) fn now(&self) -> u32 {
        self.time
    }

    /// All waves have arrived at a barrier; `oldest`: each one's oldest store that may be under way.
    pub(super) fn barrier(&mut self, oldest: impl Iterator<Item = Option<u32>>) {
        for (settled, oldest) in self.settled.iter_mut().zip(oldest) {
            *settled = oldest.unwrap_or(self.time + 1);
        }
        self.time += 1;
    }

    /// A wave has invalidated its caches.
    pub(super) fn invalidate(&mut self) {
        join(&mut self.known, &self.acquired);
        self.acquired.clear();
    }

    /// An atomic of a wave; `oldest`: its oldest store that may be under way. `returns`: it may also acquire.
    pub(super) fn synchronise(&mut self, address: u64, wave: u32, oldest: Option<u32>, returns: bool) {
        if self.entries > MOST_ENTRIES {
            self.gave_up = true;
            return;
        }
        let clock = self.released.entry(address).or_default();
        if returns {
            join(&mut self.acquired, clock);
        }
        let before = clock.len();
        join(clock, &self.known);
        for (other, &settled) in self.settled.iter().enumerate() {
            let until = if other == wave as usize { oldest.unwrap_or(self.time + 1) } else { settled };
            if until > 0 {
                let slot = clock.entry((self.group, other as u16)).or_default();
                *slot = until.max(*slot);
            }
        }
        self.entries += clock.len() - before;
        self.time += 1;
    }

    /// Notes an access; gives the first conflict.
    pub(super) fn access(&mut self, address: u64, bytes: u32, mode: Mode, wave: u32) -> Option<(u64, Conflict)> {
        if self.gave_up {
            return None;
        }
        let (mut at, end, mut found) = (address, address + u64::from(bytes), None);
        while at < end {
            let next = (at / 4 + 1) * 4;
            let mask = ((1u32 << (next.min(end) - at)) - 1) << (at % 4);
            let conflict = self.dword(at / 4, mask as u16, mode, wave);
            found = found.or(conflict.map(|c| (at, c)));
            at = next;
        }
        found
    }

    fn dword(&mut self, dword: u64, bytes: u16, mode: Mode, wave: u32) -> Option<Conflict> {
        let per_page = PAGE / 4;
        let page = self.pages.entry(dword / per_page).or_insert_with(|| vec![Dword::default(); per_page as usize].into());
        let cell = &mut page[(dword % per_page) as usize];
        let now = Moment { group: self.group, wave: wave as u16, bytes, time: self.time };
        let (group, known) = (self.group, &self.known);
        let conflicts = |m: &Moment| {
            let ordered = m.time == 0
                || m.group == group
                || m.bytes & bytes == 0
                || known.get(&(m.group, m.wave)).is_some_and(|&until| m.time < until);
            !ordered
        };
        let conflict = |m: &Moment, mode| conflicts(m).then_some(Conflict { mode, who: m.group });
        let with_store = cell.stores.iter().find_map(|m| conflict(m, Mode::Store));
        let with_atomic = || cell.atomics.iter().find_map(|m| conflict(m, Mode::Atomic));
        let with_load = || cell.loads.iter().find_map(|m| conflict(m, Mode::Load));
        let found = match mode {
            Mode::Load => with_store.or_else(with_atomic),
            Mode::Atomic => with_store.or_else(with_load),
            Mode::Store => with_store.or_else(with_atomic).or_else(with_load),
        };
        match mode {
            Mode::Store => {
                let [last, _] = cell.stores;
                let new = merged(last, now);
                if last.bytes & !new.bytes != 0 {
                    cell.stores[1] = last;
                }
                cell.stores[0] = new;
            }
            Mode::Atomic | Mode::Load => {
                let [first, last] = if mode == Mode::Load { &mut cell.loads } else { &mut cell.atomics };
                let to = if first.time == 0 || first.group == group { first } else { last };
                *to = merged(*to, now);
            }
        }
        found
    }
}

/// The later moment, with the bytes of both if they are one.
fn merged(old: Moment, new: Moment) -> Moment {
    let same = (old.group, old.wave, old.time) == (new.group, new.wave, new.time);
    Moment { bytes: if same { old.bytes | new.bytes } else { new.bytes }, ..new }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn barriers_order_lds() {
        let mut lds = LdsRaces::new(64);
        assert_eq!(lds.access(0, 4, Mode::Store, 0), None);
        assert_eq!(lds.access(0, 4, Mode::Load, 0), None);
        assert_eq!(lds.access(2, 4, Mode::Load, 1), Some((2, Conflict { mode: Mode::Store, who: 0 })));
        lds.barrier();
        assert_eq!(lds.access(0, 4, Mode::Load, 1), None);
        assert_eq!(lds.access(3, 1, Mode::Store, 2), Some((3, Conflict { mode: Mode::Load, who: 1 })));
        lds.barrier();
        assert_eq!(lds.access(8, 4, Mode::Atomic, 1), None);
        assert_eq!(lds.access(8, 4, Mode::Atomic, 2), None);
        assert_eq!(lds.access(8, 4, Mode::Store, 0), Some((8, Conflict { mode: Mode::Atomic, who: 1 })));
    }

    /// A wave's own atomic doesn't hide the others'.
    #[test]
    fn a_plain_load_of_lds_conflicts_with_other_waves_atomics() {
        let mut lds = LdsRaces::new(64);
        assert_eq!((lds.access(0, 4, Mode::Atomic, 0), lds.access(0, 4, Mode::Atomic, 1)), (None, None));
        assert_eq!(lds.access(0, 4, Mode::Load, 1), Some((0, Conflict { mode: Mode::Atomic, who: 0 })));
        assert_eq!(lds.access(0, 4, Mode::Atomic, 2), Some((0, Conflict { mode: Mode::Load, who: 1 })));
        lds.barrier();
        assert_eq!((lds.access(0, 4, Mode::Load, 1), lds.access(0, 4, Mode::Load, 2)), (None, None));
    }

    /// Two workgroups count up; the second one then reads the counter plainly, or the first one did before.
    #[test]
    fn a_plain_load_conflicts_with_atomics_that_were_not_handed_over() {
        for invalidates in [false, true] {
            let mut races = GlobalRaces::default();
            for group in 0..2 {
                races.begin(group, 1);
                assert_eq!(races.access(0, 4, Mode::Atomic, 0), None);
                races.synchronise(0, 0, None, true);
            }
            if invalidates {
                races.invalidate();
            }
            let found = races.access(0, 4, Mode::Load, 0);
            assert_eq!(found, (!invalidates).then_some((0, Conflict { mode: Mode::Atomic, who: 0 })));
        }
        let mut races = GlobalRaces::default();
        races.begin(0, 1);
        assert_eq!(races.access(0, 4, Mode::Load, 0), None);
        races.begin(1, 1);
        assert_eq!(races.access(0, 4, Mode::Atomic, 0), Some((0, Conflict { mode: Mode::Load, who: 0 })));
    }

    /// Workgroup 0 writes and counts up; workgroup 1 counts up and reads.
    fn hand_over(waited: bool, invalidates: bool, same_counter: bool) -> bool {
        let mut races = GlobalRaces::default();
        races.begin(0, 2);
        assert_eq!(races.access(100, 8, Mode::Store, 1), None);
        races.barrier([None, (!waited).then_some(1)].into_iter());
        races.synchronise(0, 0, None, true);
        races.begin(1, 2);
        races.synchronise(if same_counter { 0 } else { 4 }, 0, None, true);
        if invalidates {
            races.invalidate();
        }
        races.access(104, 2, Mode::Load, 0).is_none()
    }

    #[test]
    fn a_hand_over_needs_all_of_its_parts() {
        assert!(hand_over(true, true, true));
        assert!(!hand_over(false, true, true) && !hand_over(true, false, true) && !hand_over(true, true, false));
    }

    #[test]
    fn neighbouring_bytes_are_nobody_elses() {
        let mut races = GlobalRaces::default();
        races.begin(0, 1);
        assert_eq!(races.access(8, 2, Mode::Store, 0), None);
        races.begin(1, 1);
        assert_eq!(races.access(10, 2, Mode::Store, 0), None);
        assert!(races.access(9, 1, Mode::Load, 0).is_some());
    }
}
