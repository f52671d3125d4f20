//! How fast a device reads its memory, by a kernel that does nothing else (`hipc/bandwidth.h`, in every unit).

use super::{DeviceError, Driver, KernelLaunch};

/// Name of the kernel in every unit.
const KERNEL: &str = "hipc_read_span";
/// `ReadThreads` of the header.
const THREADS: u32 = 256;
/// `ReadTile` of the header: bytes that a workgroup reads at a time.
const TILE: u64 = 16 * 8 * THREADS as u64;
/// Workgroups: more than any card holds at once, so that none waits for the last.
const GROUPS: u32 = 4096;
/// Bytes at random that the memory is filled with, over and over.
const PIECE: u64 = 32 << 20;

/// What reading a working set took.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadTimes {
    /// Bytes of the working set.
    pub bytes: u64,
    /// Seconds of each pass over it, by the device's clock.
    pub seconds: Vec<f64>,
    /// Exclusive or of all its words, of the last pass.
    pub seen: u32,
}

/// Reads up to `bytes` of fresh memory `times` times (and once before). Fewer bytes where less is free.
///
/// # Errors
/// What the driver reports, or a module without the kernel.
pub fn measure<D: Driver + ?Sized>(driver: &mut D, module: &[u8], bytes: u64, times: u32) -> Result<ReadTimes, DeviceError> {
    let (free, _) = driver.memory()?;
    let tiles = (bytes.min(free / 4 * 3) / TILE).max(1);
    let bytes = tiles * TILE;
    let groups = GROUPS.min(u32::try_from(tiles).unwrap_or(GROUPS));
    let kernel = driver.load(module, &[KERNEL])?;
    let [kernel] = kernel[..] else { return Err(DeviceError::Internal(format!("the unit has no {KERNEL}"))) };
    let seen_bytes = 4 * u64::from(groups * THREADS);
    let (from, span, seen) = (driver.alloc(bytes)?, driver.alloc(16)?, driver.alloc(seen_bytes)?);
    // Not zeros: cards spend less on those, and some compress them.
    let words = noise(bytes.min(PIECE));
    let piece: &[u8] = bytemuck::cast_slice(&words);
    let mut at = 0;
    while at < bytes {
        let part = (bytes - at).min(PIECE);
        driver.upload(from + at, &piece[..part as usize])?;
        at += part;
    }
    driver.upload(span, &[tiles.to_le_bytes(), u64::from(groups).to_le_bytes()].concat())?;
    let kernargs: Vec<u8> = [from, span, seen].iter().flat_map(|p| p.to_le_bytes()).collect();
    let launch = KernelLaunch { kernel, grid: [groups, 1, 1], threads: THREADS, kernargs: &kernargs, operands: &[] };
    driver.launch(launch)?;
    let mut seconds = Vec::with_capacity(times as usize);
    for _ in 0..times {
        let begin = driver.mark()?;
        driver.launch(launch)?;
        let end = driver.mark()?;
        seconds.push(driver.elapsed(&begin, &end)?);
    }
    let mut left = vec![0; seen_bytes as usize];
    driver.download(seen, &mut left)?;
    let seen = exclusive_or(&left);
    let expected = (0..bytes).step_by(PIECE as usize).fold(0, |all, at| {
        let part = (bytes - at).min(PIECE) as usize;
        all ^ exclusive_or(&piece[..part])
    });
    match seen == expected {
        true => Ok(ReadTimes { bytes, seconds, seen }),
        false => Err(DeviceError::Internal(format!("{KERNEL} read {seen:08x} where {expected:08x} is"))),
    }
}

/// Exclusive or of little-endian words.
pub(super) fn exclusive_or(bytes: &[u8]) -> u32 {
    bytes.as_chunks().0.iter().fold(0, |all, w| all ^ u32::from_le_bytes(*w))
}

/// Words without a pattern (xorshift64, Marsaglia 2003), the same again after [`PIECE`].
pub(super) fn noise(bytes: u64) -> Vec<u64> {
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    let word = |_| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    let piece: Vec<u64> = (0..bytes.min(PIECE) / 8).map(word).collect();
    piece.iter().copied().cycle().take((bytes / 8) as usize).collect()
}
