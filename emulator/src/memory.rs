//! Global memory: allocations at 64-bit addresses with unmapped space between them.
//!
//! Workgroups run in parallel and share it, as on a GPU. Words are atomics with relaxed order, so a race of the kernel is a race of
//! its values and never one of this program.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// Where the first allocation lies.
pub(crate) const FIRST: u64 = 0x10_0000_0000;
/// Address of the queue that a kernel may be told. Nothing is there.
pub(crate) const QUEUE_BASE: u64 = 0xa_0000_0000;
/// Unmapped bytes between allocations, at least.
const GAP: u64 = 64 << 10;
/// Alignment of allocations, that of hipMalloc.
const ALIGNMENT: u64 = 4096;
/// The same of allocations that straddle 4 GiB: that of buffers within an allocation.
const STRADDLING_ALIGNMENT: u64 = 256;

/// One allocation.
#[derive(Debug)]
pub(crate) struct Allocation {
    pub(crate) base: u64,
    pub(crate) size: u64,
    pub(crate) writable: bool,
    words: Box<[AtomicU32]>,
    /// Taken by 64-bit atomics.
    wide: Mutex<()>,
    /// For the sanitizer: of the same size; a bit is set where nothing was ever written. Made when it is first needed.
    shadow: Mutex<Option<Arc<Allocation>>>,
}

impl Allocation {
    pub(crate) fn new(base: u64, size: u64, writable: bool) -> Self {
        // One word more than is there, so that an unaligned word at the end can be read as two.
        let words = usize::try_from(size.div_ceil(4) + 1).expect("a 64-bit address space");
        let words = (0..words).map(|_| AtomicU32::new(0)).collect();
        Self { base, size, writable, words, wide: Mutex::new(()), shadow: Mutex::new(None) }
    }

    fn shadow_slot(&self) -> MutexGuard<'_, Option<Arc<Self>>> {
        self.shadow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its shadow; one that says that all is written unless there is one.
    fn shadow(&self) -> Arc<Self> {
        let mut slot = self.shadow_slot();
        slot.get_or_insert_with(|| Arc::new(Self::new(self.base, self.size, self.writable))).clone()
    }

    /// Offset of an access that lies within.
    #[inline]
    fn offset(&self, address: u64, bytes: u32) -> Option<usize> {
        let offset = address.wrapping_sub(self.base);
        (offset < self.size && u64::from(bytes) <= self.size - offset).then_some(offset as usize)
    }

    #[inline]
    pub(crate) fn read32(&self, offset: usize) -> u32 {
        let (word, shift) = (offset / 4, offset % 4 * 8);
        let low = self.words[word].load(Ordering::Relaxed);
        if shift == 0 {
            return low;
        }
        let high = self.words[word + 1].load(Ordering::Relaxed);
        ((u64::from(high) << 32 | u64::from(low)) >> shift) as u32
    }

    /// Writes the lowest `bytes` (1 to 4) of `value`.
    #[inline]
    pub(crate) fn write(&self, offset: usize, value: u32, bytes: u32) {
        let (word, shift) = (offset / 4, offset % 4 * 8);
        if bytes == 4 && shift == 0 {
            return self.words[word].store(value, Ordering::Relaxed);
        }
        let mask = if bytes == 4 { u64::from(u32::MAX) } else { (1 << (bytes * 8)) - 1 };
        let (mask, value) = (mask << shift, (u64::from(value) & mask) << shift);
        for (at, mask, value) in [(word, mask as u32, value as u32), (word + 1, (mask >> 32) as u32, (value >> 32) as u32)] {
            if mask != 0 {
                // Neighbours may be written by other workgroups meanwhile.
                self.words[at].fetch_and(!mask | value, Ordering::Relaxed);
                self.words[at].fetch_or(value, Ordering::Relaxed);
            }
        }
    }

    /// Replaces a word by a function of it; gives the old one.
    pub(crate) fn update32(&self, offset: usize, f: impl Fn(u32) -> u32) -> u32 {
        let update = self.words[offset / 4].fetch_update(Ordering::SeqCst, Ordering::SeqCst, |old| Some(f(old)));
        update.unwrap_or_else(|old| old)
    }

    /// As [`Self::update32`], of two words.
    pub(crate) fn update64(&self, offset: usize, f: impl Fn(u64) -> u64) -> u64 {
        let _guard = self.wide.lock().unwrap_or_else(PoisonError::into_inner);
        let old = u64::from(self.read32(offset + 4)) << 32 | u64::from(self.read32(offset));
        let new = f(old);
        self.write(offset, new as u32, 4);
        self.write(offset + 4, (new >> 32) as u32, 4);
        old
    }

    /// Writes its beginning, whether or not kernels may.
    pub(crate) fn fill(&self, bytes: &[u8]) {
        self.copy_in(0, bytes);
    }

    fn copy_in(&self, offset: u64, bytes: &[u8]) {
        let mut at = offset as usize;
        let mut rest = bytes;
        while !rest.is_empty() && (!at.is_multiple_of(4) || rest.len() < 4) {
            self.write(at, u32::from(rest[0]), 1);
            (at, rest) = (at + 1, &rest[1..]);
        }
        let (words, tail) = rest.as_chunks::<4>();
        for (word, bytes) in self.words[at / 4..].iter().zip(words) {
            word.store(u32::from_le_bytes(*bytes), Ordering::Relaxed);
        }
        at += words.len() * 4;
        for (i, byte) in tail.iter().enumerate() {
            self.write(at + i, u32::from(*byte), 1);
        }
    }

    /// These bytes are all `0x00` or all `0xff` from here on.
    fn flood(&self, offset: u64, bytes: u64, byte: u8) {
        let (start, end) = (offset as usize, (offset + bytes) as usize);
        let (first, last) = (start.next_multiple_of(4).min(end), (end / 4 * 4).max(start));
        (start..first).for_each(|at| self.write(at, byte.into(), 1));
        let word = u32::from_ne_bytes([byte; 4]);
        self.words.get(first / 4..last / 4).into_iter().flatten().for_each(|w| w.store(word, Ordering::Relaxed));
        (last.max(first)..end).for_each(|at| self.write(at, byte.into(), 1));
    }

    fn copy_out(&self, offset: u64, bytes: &mut [u8]) {
        for (i, chunk) in bytes.chunks_mut(4).enumerate() {
            let word = self.read32(offset as usize + 4 * i).to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// Addresses outside every allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes at {address:#x} are not within one allocation")]
pub struct Unmapped {
    /// First address.
    pub address: u64,
    /// Bytes.
    pub bytes: u64,
}

/// The memory of one emulated GPU.
#[derive(Debug, Default)]
pub struct Memory {
    /// By address.
    allocations: RwLock<Vec<Arc<Allocation>>>,
    straddles: bool,
}

impl Memory {
    /// Without allocations.
    pub fn new() -> Self {
        Self::default()
    }

    /// Allocations from now on lie across a multiple of 4 GiB, where an address loses something unless its carry is added.
    pub fn straddling(self) -> Self {
        Self { straddles: true, ..self }
    }

    fn with<T>(&self, f: impl FnOnce(&mut Vec<Arc<Allocation>>) -> T) -> T {
        f(&mut self.allocations.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Allocates zeroed memory and gives its address. Unmapped space lies around it.
    pub fn allocate(&self, bytes: u64) -> u64 {
        self.with(|all| {
            let next = all.last().map_or(FIRST, |last| (last.base + last.size + GAP).next_multiple_of(ALIGNMENT));
            let base = if self.straddles {
                // A quarter, a half, three quarters of it lie below: carries of two allocations at the same offset differ.
                let below = (bytes * (all.len() as u64 % 3 + 1) / 4).next_multiple_of(STRADDLING_ALIGNMENT);
                (next + below).next_multiple_of(1 << 32) - below
            } else {
                next
            };
            all.push(Arc::new(Allocation::new(base, bytes, true)));
            base
        })
    }

    /// For the sanitizer: these bytes count as never written, whatever they hold. A launch that isn't sanitized ends that for all of
    /// memory: what it writes can't be told apart.
    ///
    /// # Errors
    /// [`Unmapped`] unless all of it is within one allocation; then nothing has changed.
    pub fn undefine(&self, address: u64, bytes: u64) -> Result<(), Unmapped> {
        let view = self.view(Vec::new());
        let (allocation, offset) = view.range(address, bytes)?;
        allocation.shadow().flood(offset, bytes, 0xff);
        Ok(())
    }

    /// Gives an allocation back; whether there was one at this address.
    pub fn free(&self, address: u64) -> bool {
        self.with(|all| match all.binary_search_by_key(&address, |a| a.base) {
            Ok(at) => {
                all.remove(at);
                true
            }
            Err(_) => false,
        })
    }

    /// Copies bytes into memory.
    ///
    /// # Errors
    /// [`Unmapped`] unless all of it is within one allocation; then nothing is written.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Unmapped> {
        let view = self.view(Vec::new());
        let (allocation, offset) = view.range(address, bytes.len() as u64)?;
        allocation.copy_in(offset, bytes);
        if let Some(shadow) = &*allocation.shadow_slot() {
            shadow.flood(offset, bytes.len() as u64, 0);
        }
        Ok(())
    }

    /// Copies bytes out of memory.
    ///
    /// # Errors
    /// [`Unmapped`] unless all of it is within one allocation.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Unmapped> {
        let view = self.view(Vec::new());
        let (allocation, offset) = view.range(address, bytes.len() as u64)?;
        allocation.copy_out(offset, bytes);
        Ok(())
    }

    /// What a dispatch sees: all allocations, and some of its own.
    pub(crate) fn view(&self, own: Vec<Arc<Allocation>>) -> View {
        let mut allocations = self.allocations.read().unwrap_or_else(PoisonError::into_inner).clone();
        allocations.extend(own);
        allocations.sort_by_key(|a| a.base);
        View { allocations }
    }
}

/// A snapshot of the list of allocations (not of their contents).
#[derive(Debug)]
pub(crate) struct View {
    allocations: Vec<Arc<Allocation>>,
}

impl View {
    /// The shadows of all allocations.
    pub(crate) fn shadows(&self) -> Self {
        Self { allocations: self.allocations.iter().map(|a| a.shadow()).collect() }
    }

    /// Forgets what was never written: a launch that isn't watched may write it.
    pub(crate) fn forget_shadows(&self) {
        self.allocations.iter().filter(|a| a.writable).for_each(|a| *a.shadow_slot() = None);
    }

    fn range(&self, address: u64, bytes: u64) -> Result<(&Allocation, u64), Unmapped> {
        let allocation = self.near(address).filter(|a| address - a.base <= a.size && bytes <= a.size - (address - a.base));
        allocation.map(|a| (a, address - a.base)).ok_or(Unmapped { address, bytes })
    }

    /// The last allocation that begins at or below an address.
    fn near(&self, address: u64) -> Option<&Allocation> {
        let after = self.allocations.partition_point(|a| a.base <= address);
        Some(&**self.allocations.get(after.checked_sub(1)?)?)
    }

    /// The allocation of an access, and the offset in it. `hint` is where the last one was found.
    #[inline]
    pub(crate) fn find(&self, address: u64, bytes: u32, hint: &mut usize) -> Option<(&Allocation, usize)> {
        if let Some(allocation) = self.allocations.get(*hint)
            && let Some(offset) = allocation.offset(address, bytes)
        {
            return Some((allocation, offset));
        }
        let at = self.allocations.partition_point(|a| a.base <= address).checked_sub(1)?;
        let offset = self.allocations[at].offset(address, bytes)?;
        *hint = at;
        Some((&self.allocations[at], offset))
    }

    /// Says where an address lies that is in no allocation.
    pub(crate) fn describe(&self, address: u64) -> String {
        if (QUEUE_BASE..QUEUE_BASE + GAP).contains(&address) {
            return "in the queue, which is not emulated".to_owned();
        }
        let name = |a: &Allocation| format!("the allocation of {} bytes at {:#x}", a.size, a.base);
        let below = self.near(address);
        let above = self.allocations.iter().find(|a| a.base > address);
        match (below, above) {
            (Some(a), _) if address - a.base < a.size => format!("across the end of {}", name(a)),
            (Some(a), Some(b)) if address - a.base - a.size > b.base - address => {
                format!("{} bytes before {}", b.base - address, name(b))
            }
            (Some(a), _) => format!("{} bytes behind the end of {}", address - a.base - a.size, name(a)),
            (None, Some(b)) => format!("{} bytes before {}", b.base - address, name(b)),
            (None, None) => "without any allocation".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let memory = Memory::new();
        let (a, b) = (memory.allocate(10), memory.allocate(5));
        assert!(b - a >= GAP);
        memory.write(a, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]).unwrap();
        memory.write(a + 3, &[40, 50, 60]).unwrap();
        let mut bytes = [0; 9];
        memory.read(a + 1, &mut bytes).unwrap();
        assert_eq!(bytes, [2, 3, 40, 50, 60, 7, 8, 9, 10]);
        assert!(memory.write(a + 8, &[0; 3]).is_err() && memory.read(b - 1, &mut [0]).is_err());
        assert!(memory.read(u64::MAX, &mut [0; 2]).is_err());
        assert!(memory.free(a) && !memory.free(a) && memory.read(a, &mut [0]).is_err());
    }

    #[test]
    fn floods_of_any_length() {
        let allocation = Allocation::new(0, 16, true);
        for (offset, bytes) in [(0, 16), (1, 2), (1, 3), (2, 7), (3, 1), (4, 8), (5, 11), (16, 0)] {
            allocation.copy_in(0, &[0x55; 16]);
            allocation.flood(offset as u64, bytes as u64, 0xff);
            let mut seen = [0; 16];
            allocation.copy_out(0, &mut seen);
            let mut expected = [0x55; 16];
            expected[offset..][..bytes].fill(0xff);
            assert_eq!(seen, expected, "{bytes} bytes at {offset}");
        }
    }

    #[test]
    fn what_straddles_lies_on_both_sides() {
        let memory = Memory::new().straddling();
        for bytes in [1025, 1000, 1 << 20, 3000] {
            let base = memory.allocate(bytes);
            assert!(base.is_multiple_of(STRADDLING_ALIGNMENT) && base >> 32 != (base + bytes - 1) >> 32, "{bytes} at {base:#x}");
            memory.write(base, &vec![7; bytes as usize]).unwrap();
        }
        // What is too small ends below.
        assert_eq!(memory.allocate(64) as u32, 0xffff_ff00);
    }

    #[test]
    fn words_at_any_offset() {
        let allocation = Allocation::new(0, 16, true);
        for (offset, bytes) in [(0, 4), (1, 4), (3, 2), (7, 1), (12, 4), (13, 3)] {
            allocation.copy_in(0, &[0xaa; 16]);
            allocation.write(offset, 0x0403_0201, bytes);
            let mut seen = [0; 16];
            allocation.copy_out(0, &mut seen);
            let mut expected = [0xaa; 16];
            expected[offset..][..bytes as usize].copy_from_slice(&[1, 2, 3, 4][..bytes as usize]);
            assert_eq!(seen, expected, "{bytes} bytes at {offset}");
        }
    }
}
