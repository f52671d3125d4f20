//! Pinned memory that copies go through: the device may still touch it when a call has failed, and it is faster than pageable memory.
//!
//! It is a ring of parts. A part is filled, by several threads where that pays, while the bus takes the parts before it; it is filled
//! again when the device has passed the mark behind it. So reading a file, copying and what the device does with it overlap, and the
//! slowest of them sets the pace: one thread reads and copies some 5 GB/s from mapped files, a PCIe 5 bus takes ten times that.

use super::{GpuDriver, Platform, api};
use crate::device::{DeviceError, Driver, Mark};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::ptr::null_mut;
use std::slice::from_raw_parts_mut;

/// Parts of the ring.
const PARTS: usize = 4;
/// Bytes of a part, and of the largest copy.
pub(super) const PART: usize = 8 << 20;
/// A copy of more bytes than are left of a part is divided if at least so many are left.
const WORTH: usize = 1 << 20;
/// Bytes that a thread takes at a time; fewer than two of these are copied by the caller.
const SHARE: usize = 256 << 10;
/// Most threads: as many as fill a fast bus.
const THREADS: usize = 16;

/// The ring.
pub(super) struct Staging {
    memory: *mut u8,
    part: usize,
    /// Bytes of the current part that are in use.
    used: usize,
    /// Behind the last copy from each part.
    marks: [Option<Mark>; PARTS],
    /// Threads that fill parts, while there is much to copy. Not those of the rest of the program, which may be busy for long.
    pool: Option<ThreadPool>,
}

impl Staging {
    pub(super) fn none() -> Self {
        Self { memory: null_mut(), part: 0, used: 0, marks: [const { None }; PARTS], pool: None }
    }

    /// Nothing of it is in use any more.
    pub(super) fn clear(&mut self) {
        self.used = 0;
        self.marks = [const { None }; PARTS];
        self.pool = None;
    }

    /// # Safety
    /// No copy is under way.
    pub(super) unsafe fn release(&self, api: &api::Api) {
        if !self.memory.is_null() {
            // SAFETY: ours, and the caller's.
            unsafe { (api.host_free.f)(self.memory.cast()) };
        }
    }

    /// Copies to a place in the ring.
    fn fill(&mut self, place: *mut u8, bytes: &[u8]) {
        // SAFETY: our own memory of this size, which nobody else uses.
        let to = unsafe { from_raw_parts_mut(place, bytes.len()) };
        if bytes.len() < 2 * SHARE {
            return to.copy_from_slice(bytes);
        }
        if self.pool.is_none() {
            let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(THREADS));
            self.pool = ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("upload {i}")).build().ok();
        }
        match &self.pool {
            Some(pool) => pool.install(|| {
                let shares = to.par_chunks_mut(SHARE).zip(bytes.par_chunks(SHARE));
                shares.for_each(|(to, from)| to.copy_from_slice(from));
            }),
            None => to.copy_from_slice(bytes),
        }
    }
}

impl<P: Platform> GpuDriver<P> {
    /// Allocates the ring.
    pub(super) fn allocate_staging(&mut self) -> Result<(), DeviceError> {
        let call = self.api().host_malloc;
        let mut memory = null_mut();
        // SAFETY: a valid place for a pointer.
        let code = unsafe { (call.f)(&mut memory, PARTS * PART, 0) };
        self.check(call.name, code)?;
        self.staging.memory = memory.cast();
        Ok(())
    }

    /// Pinned memory that no copy uses, for up to `wanted` bytes; how many there are.
    pub(super) fn stage(&mut self, wanted: usize) -> Result<(*mut u8, usize), DeviceError> {
        let left = PART - self.staging.used;
        if wanted > left && left < WORTH {
            self.turn()?;
        }
        let bytes = wanted.min(PART - self.staging.used);
        // SAFETY: inside of the current part.
        let place = unsafe { self.staging.memory.add(self.staging.part * PART + self.staging.used) };
        self.staging.used = (self.staging.used + bytes).next_multiple_of(64);
        Ok((place, bytes))
    }

    /// Copies as many bytes as there is room for to pinned memory; where they are and how many.
    pub(super) fn stage_from(&mut self, bytes: &[u8]) -> Result<(*mut u8, usize), DeviceError> {
        let (place, n) = self.stage(bytes.len())?;
        self.staging.fill(place, &bytes[..n]);
        Ok((place, n))
    }

    /// On to the next part, when the device has done with it.
    fn turn(&mut self) -> Result<(), DeviceError> {
        let mark = self.mark()?;
        self.staging.marks[self.staging.part] = Some(mark);
        self.staging.part = (self.staging.part + 1) % PARTS;
        self.staging.used = 0;
        match self.staging.marks[self.staging.part].take() {
            Some(mark) => self.wait(&mark),
            None => Ok(()),
        }
    }
}
