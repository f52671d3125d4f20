//! Operands as the disassembler prints them.

/// `flat_scratch` of gfx9; later ones have it among the hardware registers.
const FLAT_SCRATCH: u8 = 102;
/// First scalar register of the special ones; what is below are s0 and up.
pub(crate) const VCC: u8 = 106;
/// `ttmp0`.
pub(crate) const TTMP: u8 = 108;
/// `m0`.
pub(crate) const M0: u8 = 124;
/// `null`: reads 0, swallows what is written.
pub(crate) const NULL: u8 = 125;
/// `exec_lo`; `exec_hi` follows.
pub(crate) const EXEC: u8 = 126;
/// Scalar registers, the special ones included.
pub(crate) const SCALARS: usize = 128;
/// Vector registers from here on are accumulation registers.
pub(crate) const ACCUMULATORS: u16 = 256;

/// Values that are no registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// The scalar condition code.
    Scc,
    /// Whether `vcc` is 0.
    Vccz,
    /// Whether `exec` is 0.
    Execz,
    /// Upper half of LDS addresses as flat ones.
    SharedBase,
    /// Upper half of the last of them.
    SharedLimit,
    /// Upper half of scratch addresses as flat ones.
    PrivateBase,
    /// Upper half of the last of them.
    PrivateLimit,
}

/// Where a value is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Place {
    /// `v4`, `v[4:7]`; `a4` is 256 + 4.
    Vector {
        /// First register.
        first: u16,
        /// How many.
        count: u8,
    },
    /// `s4`, `s[4:5]`, `vcc`, `ttmp9`, `m0`, `null`, `exec`.
    Scalar {
        /// First register.
        first: u8,
        /// How many.
        count: u8,
    },
    /// A decimal number (sign-extended where used).
    Integer(i64),
    /// `0x…`: bits.
    Bits(u32),
    /// `1.0`, `0.15915494`.
    Float(f64),
    /// `scc`, `src_shared_base` …
    Special(Special),
    /// `off`: no register.
    Off,
}

/// Half of a 32-bit register (`v4.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// Bits 0 to 15.
    Low,
    /// Bits 16 to 31.
    High,
}

/// A place and what is done to the value read there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Operand {
    /// Where.
    pub place: Place,
    /// `-x`, `neg(x)`.
    pub negate: bool,
    /// `|x|`, `abs(x)`.
    pub absolute: bool,
    /// `sext(x)` (SDWA).
    pub extend: bool,
    /// `.l`, `.h`.
    pub half: Option<Half>,
}

impl Operand {
    /// Reads one operand; `None` if it isn't one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let plain = |place| Self { place, negate: false, absolute: false, extend: false, half: None };
        if let Some(inner) = wrapped(text, "neg(", ")") {
            return Some(Self { negate: true, ..Self::parse(inner)? });
        }
        if let Some(inner) = wrapped(text, "|", "|").or_else(|| wrapped(text, "abs(", ")")) {
            return Some(Self { absolute: true, ..Self::parse(inner)? });
        }
        if let Some(inner) = wrapped(text, "sext(", ")") {
            return Some(Self { extend: true, ..Self::parse(inner)? });
        }
        if let Some(inner) = wrapped(text, "lit(", ")").or_else(|| wrapped(text, "lit64(", ")")) {
            return number(inner).map(plain);
        }
        if let Some(place) = number(text) {
            return Some(plain(place));
        }
        if let Some(inner) = text.strip_prefix('-') {
            return Some(Self { negate: true, ..Self::parse(inner)? });
        }
        for (suffix, half) in [(".l", Half::Low), (".h", Half::High)] {
            if let Some(inner) = text.strip_suffix(suffix) {
                return Some(Self { half: Some(half), ..Self::parse(inner)? });
            }
        }
        register(text).map(plain)
    }

    /// The operand of a plain vector register.
    pub fn is_vector(&self) -> bool {
        matches!(self.place, Place::Vector { .. })
    }
}

fn wrapped<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    text.strip_prefix(open)?.strip_suffix(close)
}

fn number(text: &str) -> Option<Place> {
    if let Some(hex) = text.strip_prefix("0x") {
        return u32::from_str_radix(hex, 16).ok().map(Place::Bits).or_else(|| {
            let wide = u64::from_str_radix(hex, 16).ok()?;
            Some(Place::Integer(wide.cast_signed()))
        });
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if let Some(hex) = digits.strip_prefix("0x") {
        return i64::from_str_radix(hex, 16).ok().map(|v| Place::Integer(-v));
    }
    if digits.contains('.') { text.parse().ok().map(Place::Float) } else { text.parse().ok().map(Place::Integer) }
}

fn register(text: &str) -> Option<Place> {
    let scalar = |first, count| Some(Place::Scalar { first, count });
    match text {
        "off" => return Some(Place::Off),
        "vcc" => return scalar(VCC, 2),
        "vcc_lo" => return scalar(VCC, 1),
        "vcc_hi" => return scalar(VCC + 1, 1),
        "exec" => return scalar(EXEC, 2),
        "exec_lo" => return scalar(EXEC, 1),
        "exec_hi" => return scalar(EXEC + 1, 1),
        "flat_scratch" => return scalar(FLAT_SCRATCH, 2),
        "flat_scratch_lo" => return scalar(FLAT_SCRATCH, 1),
        "flat_scratch_hi" => return scalar(FLAT_SCRATCH + 1, 1),
        "m0" => return scalar(M0, 1),
        "null" => return scalar(NULL, 1),
        "scc" | "src_scc" => return Some(Place::Special(Special::Scc)),
        "vccz" | "src_vccz" => return Some(Place::Special(Special::Vccz)),
        "execz" | "src_execz" => return Some(Place::Special(Special::Execz)),
        "src_shared_base" => return Some(Place::Special(Special::SharedBase)),
        "src_shared_limit" => return Some(Place::Special(Special::SharedLimit)),
        "src_private_base" => return Some(Place::Special(Special::PrivateBase)),
        "src_private_limit" => return Some(Place::Special(Special::PrivateLimit)),
        _ => {}
    }
    for (prefix, limit) in [("ttmp", 16), ("v", 256), ("s", 106), ("a", 256)] {
        let Some(rest) = text.strip_prefix(prefix) else { continue };
        let (first, last) = match wrapped(rest, "[", "]") {
            Some(range) => {
                let (first, last) = range.split_once(':').unwrap_or((range, range));
                (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?)
            }
            None => (rest.parse().ok()?, rest.parse().ok()?),
        };
        if last < first || last >= limit || last - first >= 64 {
            return None;
        }
        let count = u8::try_from(last - first + 1).ok()?;
        return match prefix {
            "v" => Some(Place::Vector { first, count }),
            "a" => Some(Place::Vector { first: first + ACCUMULATORS, count }),
            "ttmp" => scalar(TTMP + u8::try_from(first).ok()?, count),
            _ => scalar(u8::try_from(first).ok()?, count),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_as_printed() {
        let place = |text| Operand::parse(text).unwrap().place;
        assert_eq!(place("v[4:7]"), Place::Vector { first: 4, count: 4 });
        assert_eq!(place("a3"), Place::Vector { first: 259, count: 1 });
        assert_eq!(place("ttmp9"), Place::Scalar { first: 117, count: 1 });
        assert_eq!(place("vcc"), Place::Scalar { first: 106, count: 2 });
        assert_eq!(place("0x42fe0000"), Place::Bits(0x42fe_0000));
        assert_eq!(place("-16"), Place::Integer(-16));
        assert_eq!(place("lit(0xffffffff)"), Place::Bits(u32::MAX));
        assert_eq!(place("-4.0"), Place::Float(-4.0));
        let operand = Operand::parse("-|v1|").unwrap();
        assert!(operand.negate && operand.absolute && operand.is_vector());
        assert_eq!(Operand::parse("v41.h").unwrap().half, Some(Half::High));
        assert!(Operand::parse("sext(v32)").unwrap().extend);
        for wrong in ["", "v", "v256", "s[4", "v[7:4]", "x1", "v-1", "s106", "sext(", "||", "-", "v4.x"] {
            assert_eq!(Operand::parse(wrong), None, "{wrong}");
        }
    }
}
