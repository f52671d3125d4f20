//! What a test case sees of a wave before and after its instructions, and the values that it starts with.

/// Lanes that a row of the buffers has room for.
pub const LANES: usize = 64;
/// Bytes of LDS that are compared, and of the buffer at `s[28:29]`.
pub const LDS: usize = 512;
pub const MEMORY: usize = 2048;

/// Registers and memory that are compared. `v10`–`v17` and `v20`–`v27` are vector registers, `s8`–`s23` scalar ones.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    pub arch: &'static str,
    /// Lanes of the wave.
    pub width: usize,
    /// `v10`–`v17`, then `v20`–`v27`.
    pub v: Vec<[u32; LANES]>,
    /// `s8`–`s23`.
    pub s: [u32; 16],
    pub vcc: u64,
    pub exec: u64,
    pub scc: bool,
    pub m0: u32,
    /// Two rows, at lane·4 and 256 + lane·4.
    pub lds: Vec<u8>,
    /// The buffer at `s[28:29]`.
    pub memory: Vec<u8>,
}

impl State {
    /// Index of a vector register by its number.
    pub fn index(register: usize) -> usize {
        match register {
            10..=17 => register - 10,
            20..=27 => register - 12,
            _ => panic!("v{register} is not one of the compared registers"),
        }
    }

    pub fn get(&self, register: usize, lane: usize) -> u32 {
        self.v[Self::index(register)][lane]
    }

    pub fn get64(&self, register: usize, lane: usize) -> u64 {
        u64::from(self.get(register + 1, lane)) << 32 | u64::from(self.get(register, lane))
    }

    pub fn set(&mut self, register: usize, lane: usize, value: u32) {
        self.v[Self::index(register)][lane] = value;
    }

    pub fn set64(&mut self, register: usize, lane: usize, value: u64) {
        self.set(register, lane, value as u32);
        self.set(register + 1, lane, (value >> 32) as u32);
    }

    /// A scalar register by its number.
    pub fn scalar(&self, register: usize) -> u32 {
        self.s[register - 8]
    }

    pub fn scalar64(&self, register: usize) -> u64 {
        u64::from(self.scalar(register + 1)) << 32 | u64::from(self.scalar(register))
    }

    pub fn set_scalar(&mut self, register: usize, value: u32) {
        self.s[register - 8] = value;
    }

    pub fn set_scalar64(&mut self, register: usize, value: u64) {
        self.set_scalar(register, value as u32);
        self.set_scalar(register + 1, (value >> 32) as u32);
    }

    /// A lane mask in scalar registers: as wide as the wave.
    pub fn set_mask(&mut self, register: usize, value: u64) {
        if self.width == 64 { self.set_scalar64(register, value) } else { self.set_scalar(register, value as u32) }
    }

    pub fn mask(&self, register: usize) -> u64 {
        if self.width == 64 { self.scalar64(register) } else { self.scalar(register).into() }
    }

    pub fn active(&self, lane: usize) -> bool {
        self.exec >> lane & 1 == 1
    }

    /// The active lanes.
    pub fn lanes(&self) -> Vec<usize> {
        (0..self.width).filter(|&l| self.active(l)).collect()
    }

    /// Whether the architecture is of a generation: `gfx9`, `gfx10`, `gfx11`, `gfx12`.
    pub fn generation(&self) -> u32 {
        let digits = &self.arch[3..];
        digits[..digits.len() - 2].parse().expect("a processor's name")
    }

    pub fn memory32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.memory[at..at + 4].try_into().expect("four bytes"))
    }

    pub fn lds32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.lds[at..at + 4].try_into().expect("four bytes"))
    }
}

/// What an input register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Integers around every edge.
    Integer,
    /// Singles.
    Single,
    /// Two halves.
    Halves,
    /// Doubles in pairs of registers.
    Double,
    /// Small numbers: shifts, lanes, exponents.
    Small,
}

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.next() as usize % list.len()]
    }

    pub fn value(&mut self, kind: Kind, upper: bool) -> u32 {
        // One in eight is anything.
        let any = self.next() >> 61 == 0;
        match kind {
            _ if any && kind != Kind::Small => self.next() as u32,
            Kind::Integer => self.of(&INTEGERS),
            Kind::Single => self.of(&SINGLES),
            Kind::Halves => u32::from(self.of(&HALVES)) << 16 | u32::from(self.of(&HALVES)),
            Kind::Double if upper => self.of(&DOUBLES),
            Kind::Double => self.of(&[0, 0, 0, 1, u32::MAX, 0x8000_0000]),
            Kind::Small => self.of(&[0, 1, 2, 3, 5, 7, 8, 15, 16, 17, 24, 31, 32, 33, 63, 64, 127, 0xffff_ffff, 0xffff_ffe0]),
        }
    }
}

const INTEGERS: [u32; 24] = [
    0,
    1,
    2,
    3,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x1_0000,
    0x7f_ffff,
    0x80_0000,
    0xff_ffff,
    0x100_0000,
    0x7fff_ffff,
    0x8000_0000,
    0x8000_0001,
    0xffff_ffff,
    0xffff_fffe,
    0xffff_8000,
    0x0001_ffff,
    0x80ff_7f01,
    31,
    32,
];

const SINGLES: [u32; 32] = [
    0x0000_0000, // 0
    0x8000_0000,
    0x0000_0001, // least denormal
    0x8000_0001,
    0x007f_ffff, // largest denormal
    0x0080_0000, // least normal
    0x8080_0000,
    0x3f80_0000, // 1
    0xbf80_0000,
    0x3f80_0001,
    0x3f7f_ffff,
    0x3f00_0000, // 0.5
    0xbf00_0000,
    0x3fc0_0000, // 1.5
    0x4020_0000, // 2.5
    0xc020_0000,
    0x4b00_0001, // 2^23 + 1
    0x4b80_0000, // 2^24
    0x4eff_ffff, // below 2^31
    0x4f00_0000, // 2^31
    0xcf00_0000,
    0x4f80_0000, // 2^32
    0x477f_e000, // 65504
    0x477f_f000, // 65520: rounds to infinity as a half
    0x3380_0000, // 2^-24
    0x3300_0000, // 2^-25
    0x7f7f_ffff, // largest
    0xff7f_ffff,
    0x7f80_0000, // infinity
    0xff80_0000,
    0x7fc0_0000, // quiet NaN
    0xffc0_1234,
];

const HALVES: [u16; 22] = [
    0x0000, 0x8000, 0x0001, 0x8001, 0x03ff, 0x0400, 0x8400, 0x3c00, 0xbc00, 0x3c01, 0x3bff, 0x3800, 0x3e00, 0x4100, 0xc100,
    0x7bff, 0xfbff, 0x7c00, 0xfc00, 0x7e00, 0xfe01, 0x6400,
];

/// Upper halves of doubles.
const DOUBLES: [u32; 18] = [
    0,
    0x8000_0000,
    0x000f_ffff,
    0x0010_0000,
    0x3ff0_0000,
    0xbff0_0000,
    0x3fe0_0000,
    0x3ff8_0000,
    0x4004_0000,
    0xc004_0000,
    0x41df_ffff,
    0x41e0_0000,
    0x41f0_0000,
    0x7fef_ffff,
    0x7ff0_0000,
    0xfff0_0000,
    0x7ff8_0000,
    0x3810_0000,
];
