//! The encodings and modifiers of an operation that treats each lane alone: one function gives a case for each of them.

use crate::soft;
use crate::state::{Kind, State};
use crate::{Case, Equal};

/// Type of a source or result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    Bits,
    Short,
    Single,
    Half,
}

impl Of {
    fn is_float(self) -> bool {
        matches!(self, Self::Single | Self::Half)
    }

    fn is_short(self) -> bool {
        matches!(self, Self::Short | Self::Half)
    }

    fn sign(self) -> u32 {
        if self == Self::Half { 1 << 15 } else { 1 << 31 }
    }

    fn kind(self) -> Kind {
        match self {
            Self::Bits | Self::Short => Kind::Integer,
            Self::Single => Kind::Single,
            Self::Half => Kind::Halves,
        }
    }
}

/// An operation of up to three sources.
#[derive(Clone)]
pub struct Op {
    pub name: &'static str,
    pub sources: &'static [Of],
    pub result: Of,
    pub f: fn([u32; 3]) -> u32,
    /// The destination's old value is the last source.
    pub accumulates: bool,
    pub equal: Equal,
    /// gfx9, too, leaves the other half of the destination alone.
    pub keeps: bool,
    /// Small numbers as the sources with these indices.
    pub small: &'static [usize],
}

#[derive(Clone, Copy)]
enum Place {
    Vector(usize),
    Scalar(usize),
    Constant(&'static str, u32),
}

#[derive(Clone, Copy, PartialEq)]
enum Select {
    All,
    Byte(u32),
    Word(u32),
}

impl Select {
    fn name(self) -> String {
        match self {
            Self::All => "DWORD".to_owned(),
            Self::Byte(n) => format!("BYTE_{n}"),
            Self::Word(n) => format!("WORD_{n}"),
        }
    }

    /// First bit and bits.
    fn bits(self) -> (u32, u32) {
        match self {
            Self::All => (0, 32),
            Self::Byte(n) => (8 * n, 8),
            Self::Word(n) => (16 * n, 16),
        }
    }

    fn of(self, value: u32) -> u32 {
        let (shift, width) = self.bits();
        (u64::from(value) >> shift) as u32 & ((1u64 << width) - 1) as u32
    }
}

#[derive(Clone)]
struct Variant {
    suffix: &'static str,
    places: [Place; 3],
    negate: [bool; 3],
    absolute: [bool; 3],
    extend: [bool; 3],
    select: [Select; 3],
    /// Control, row mask, bank mask, zero where there is no source.
    dpp: Option<(Control, u32, u32, bool)>,
    scale: &'static str,
    clamp: bool,
    /// SDWA's destination: selection, and what becomes of the rest.
    destination: Option<(Select, &'static str)>,
    /// Halves of the destination and the sources in `.l`/`.h` syntax (`true`: upper), or in `op_sel`.
    halves: Option<([bool; 4], bool)>,
}

const PLAIN: Variant = Variant {
    suffix: "",
    places: [Place::Vector(10), Place::Vector(11), Place::Vector(12)],
    negate: [false; 3],
    absolute: [false; 3],
    extend: [false; 3],
    select: [Select::All; 3],
    dpp: None,
    scale: "",
    clamp: false,
    destination: None,
    halves: None,
};

/// Number of sources that are written in the text.
fn written(op: &Op) -> usize {
    op.sources.len() - usize::from(op.accumulates)
}

fn text(op: &Op, v: &Variant) -> String {
    let half = |at: usize, of: Of| match v.halves {
        Some((halves, true)) if of.is_short() => [".l", ".h"][usize::from(halves[at])],
        _ => "",
    };
    let mut operands = vec![format!("v20{}", half(0, op.result))];
    for i in 0..written(op) {
        let mut operand = match v.places[i] {
            Place::Vector(n) => format!("v{n}{}", half(i + 1, op.sources[i])),
            Place::Scalar(n) => format!("s{n}"),
            Place::Constant(text, _) => text.to_owned(),
        };
        if v.extend[i] {
            operand = format!("sext({operand})");
        }
        if v.absolute[i] {
            operand = format!("|{operand}|");
        }
        if v.negate[i] {
            operand = format!("-{operand}");
        }
        operands.push(operand);
    }
    let mut text = format!("{}{} {}", op.name, v.suffix, operands.join(", "));
    if let Some((halves, false)) = v.halves {
        let sources: Vec<String> = (0..written(op)).map(|i| u8::from(halves[i + 1]).to_string()).collect();
        text += &format!(" op_sel:[{},{}]", sources.join(","), u8::from(halves[0]));
    }
    if v.clamp {
        text += " clamp";
    }
    if !v.scale.is_empty() {
        text += &format!(" {}", v.scale);
    }
    if let Some(((control, _), row, bank, zero)) = v.dpp {
        text += &format!(" {control} row_mask:{row:#x} bank_mask:{bank:#x}{}", if zero { " bound_ctrl:1" } else { "" });
    }
    if let Some((select, unused)) = v.destination {
        text += &format!(" dst_sel:{} dst_unused:{unused} src0_sel:{}", select.name(), v.select[0].name());
        if written(op) > 1 {
            text += &format!(" src1_sel:{}", v.select[1].name());
        }
    }
    text
}

/// The value of a source before its modifiers.
fn read(state: &State, op: &Op, v: &Variant, i: usize, lane: usize) -> u32 {
    if i >= written(op) {
        return state.get(20, lane);
    }
    match v.places[i] {
        Place::Vector(n) => state.get(n, lane),
        Place::Scalar(n) => state.scalar(n),
        Place::Constant(_, bits) => bits,
    }
}

fn source(op: &Op, v: &Variant, i: usize, raw: u32) -> u32 {
    let of = op.sources[i];
    let mut value = v.select[i].of(raw);
    if v.extend[i] {
        let width = v.select[i].bits().1;
        let sign = 1u64 << (width - 1);
        value = ((u64::from(value) ^ sign).wrapping_sub(sign)) as u32;
    }
    if let Some((halves, _)) = v.halves
        && of.is_short()
    {
        // An accumulation adds to the half that it writes.
        let upper = if i < written(op) { halves[i + 1] } else { halves[0] };
        value = if upper { value >> 16 } else { value & 0xffff };
    }
    if of.is_short() {
        value &= 0xffff;
    }
    // The old value of the destination has no modifiers.
    if v.absolute[i] && i < written(op) {
        value &= !of.sign();
    }
    if v.negate[i] && i < written(op) {
        value ^= of.sign();
    }
    value
}

/// Clamping of a floating-point result. Scaling is ignored while denormals are kept (Vega's reference, "Output Modifiers").
fn finish(op: &Op, v: &Variant, value: u32) -> u32 {
    if !v.clamp {
        return value;
    }
    let half = op.result == Of::Half;
    let float = if half { soft::half(value) } else { soft::single(value) };
    // A NaN becomes 0 (DX10_CLAMP), and so does −0.
    let float = if float > 1.0 {
        1.0
    } else if float > 0.0 {
        float
    } else {
        0.0
    };
    if half { soft::to_half(float) } else { soft::to_single(float) }
}

fn evaluate(state: &mut State, op: &Op, v: &Variant) {
    let before = state.clone();
    for lane in before.lanes() {
        let mut values = [0; 3];
        let mut written = true;
        for i in 0..op.sources.len() {
            let mut raw = read(&before, op, v, i, lane);
            if let Some(((_, from), row, bank, zero)) = v.dpp {
                written &= row >> (lane / 16) & 1 == 1 && bank >> (lane / 4 % 4) & 1 == 1;
                if i == 0 {
                    match from(lane, before.width).filter(|&l| before.active(l)) {
                        Some(other) => raw = read(&before, op, v, 0, other),
                        None if zero => raw = 0,
                        None => written = false,
                    }
                }
            }
            values[i] = source(op, v, i, raw);
        }
        if !written {
            continue;
        }
        let old = before.get(20, lane);
        let value = finish(op, v, (op.f)(values));
        let value = if let Some((select, unused)) = v.destination {
            let (shift, width) = select.bits();
            let mask = (((1u64 << width) - 1) << shift) as u32;
            let placed = ((u64::from(value) << shift) as u32) & mask;
            match unused {
                "UNUSED_PRESERVE" => placed | old & !mask,
                "UNUSED_SEXT" if placed >> (shift + width - 1) & 1 == 1 => placed | !(mask | ((1u64 << shift) - 1) as u32),
                _ => placed,
            }
        } else if !op.result.is_short() {
            value
        } else {
            let upper = v.halves.is_some_and(|(halves, _)| halves[0]);
            let keeps = v.halves.is_some_and(|(h, dotted)| dotted || h[0]) || state.generation() >= 10 || op.keeps;
            match (upper, keeps) {
                (true, _) => value << 16 | old & 0xffff,
                (false, true) => value & 0xffff | old & 0xffff_0000,
                (false, false) => value & 0xffff,
            }
        };
        state.set(20, lane, value);
    }
}

/// DPP controls and the lane that each lane reads.
pub type Control = (&'static str, fn(usize, usize) -> Option<usize>);

pub const CONTROLS: &[Control] = &[
    ("quad_perm:[2,3,0,1]", |l, _| Some(l ^ 2)),
    ("quad_perm:[3,0,0,1]", |l, _| Some(l / 4 * 4 + [3, 0, 0, 1][l % 4])),
    ("row_shl:3", |l, _| if l % 16 < 13 { Some(l + 3) } else { None }),
    ("row_shr:1", |l, _| if l % 16 > 0 { Some(l - 1) } else { None }),
    ("row_ror:4", |l, _| Some(if l % 16 < 4 { l + 12 } else { l - 4 })),
    ("row_mirror", |l, _| Some(l ^ 15)),
    ("row_half_mirror", |l, _| Some(l ^ 7)),
    ("row_bcast:15", |l, _| if l < 16 { None } else { Some(l / 16 * 16 - 1) }),
    ("row_bcast:31", |l, _| if l < 32 { None } else { Some(31) }),
    ("wave_shl:1", |l, w| if l + 1 < w { Some(l + 1) } else { None }),
    ("wave_shr:1", |l, _| if l > 0 { Some(l - 1) } else { None }),
    ("wave_rol:1", |l, w| Some(if l + 1 == w { 0 } else { l + 1 })),
    ("wave_ror:1", |l, w| Some(if l == 0 { w - 1 } else { l - 1 })),
    ("row_xmask:6", |l, _| Some(l ^ 6)),
    ("row_share:5", |l, _| Some(l - l % 16 + 5)),
    ("row_newbcast:9", |l, _| Some(l - l % 16 + 9)),
];

/// Constants of a type: what an instruction can hold itself.
fn constants(of: Of) -> [Place; 2] {
    match of {
        Of::Bits | Of::Short => [Place::Constant("-16", 0xffff_fff0), Place::Constant("64", 64)],
        Of::Single => [Place::Constant("-4.0", 0xc080_0000), Place::Constant("0.15915494", 0x3e22_f983)],
        Of::Half => [Place::Constant("-4.0", 0xc400), Place::Constant("0.15915494", 0x3118)],
    }
}

fn variants(op: &Op, every_control: bool) -> Vec<Variant> {
    let n = written(op);
    let base = |suffix| Variant { suffix, ..PLAIN };
    let mut all = vec![base("_e32"), base("_e64")];
    if n == 3 {
        all.push(base(""));
    }
    let mut places = |suffix, places| all.push(Variant { suffix, places, ..PLAIN });
    let [v, w, x] = PLAIN.places;
    let first = op.sources[0];
    let [small, other] = constants(first);
    for suffix in ["_e32", "_e64", ""] {
        if (n == 3) == suffix.is_empty() {
            places(suffix, [Place::Scalar(8), w, x]);
            places(suffix, [small, w, x]);
            places(suffix, [other, w, x]);
        }
    }
    // The same register twice, and the destination as a source.
    places(if n == 3 { "" } else { "_e64" }, [v, Place::Vector(20), v]);
    if first == Of::Bits {
        places("_e32", [Place::Constant("0x12345678", 0x1234_5678), w, x]);
    }
    if first == Of::Single {
        places("_e32", [Place::Constant("0x3f9e0001", 0x3f9e_0001), w, x]);
    }
    let long = if n == 3 { "" } else { "_e64" };
    if op.sources.iter().all(|s| s.is_float()) {
        for (negate, absolute) in [([true, false, true], [false, true, false]), ([false, true, false], [false, true, true])] {
            let mut v = Variant { suffix: long, negate, absolute, ..PLAIN };
            v.absolute[0] |= n == 1;
            all.push(v);
        }
    }
    if op.result.is_float() {
        all.push(Variant { suffix: long, clamp: true, ..PLAIN });
    }
    if op.result == Of::Single {
        for scale in ["mul:2", "mul:4", "div:2"] {
            all.push(Variant { suffix: long, scale, ..PLAIN });
        }
    }
    let controls: &[Control] = if every_control { CONTROLS } else { &CONTROLS[..3] };
    for (i, &(text, from)) in controls.iter().enumerate() {
        all.push(Variant { suffix: "_dpp", dpp: Some(((text, from), 0xf, 0xf, false)), ..PLAIN });
        if i % 2 == 0 {
            all.push(Variant { suffix: "_dpp", dpp: Some(((text, from), 0xa, 0x6, true)), ..PLAIN });
        }
    }
    if op.sources.iter().all(|s| s.is_float()) {
        let dpp = Some((CONTROLS[3], 0xf, 0xf, true));
        all.push(Variant { suffix: "_dpp", negate: [true, false, false], absolute: [false, true, false], dpp, ..PLAIN });
    }
    use Select::{All, Byte, Word};
    let short = op.sources.iter().any(|s| s.is_short());
    // Bits that are selected of a float must make one.
    let selections: &[([Select; 3], Select, &str)] = match (first, short) {
        (Of::Single, _) => &[([All, All, All], All, "UNUSED_PAD")],
        // Half of a single is no number.
        _ if op.result == Of::Single => {
            &[([Word(1), Word(0), All], All, "UNUSED_PAD"), ([Word(0), Word(1), All], All, "UNUSED_PAD")]
        }
        (_, true) => &[
            ([Word(1), Word(0), All], All, "UNUSED_PAD"),
            ([Word(1), Word(1), All], Word(0), "UNUSED_PRESERVE"),
            ([Word(0), Word(1), All], Word(1), "UNUSED_PAD"),
        ],
        (..) => &[
            ([Byte(2), Word(1), All], All, "UNUSED_PAD"),
            ([All, Byte(0), All], Word(1), "UNUSED_PRESERVE"),
            ([Word(0), Byte(3), All], Byte(1), "UNUSED_SEXT"),
            ([Byte(1), All, All], Byte(3), "UNUSED_PRESERVE"),
        ],
    };
    if !op.accumulates {
        for &(select, to, unused) in selections {
            let v = Variant { suffix: "_sdwa", select, destination: Some((to, unused)), ..PLAIN };
            if first == Of::Bits {
                all.push(Variant { extend: [true, n > 1, false], ..v.clone() });
            }
            all.push(v);
        }
    }
    if short || op.result.is_short() {
        for halves in [[false, true, false, true], [true, false, true, false], [true, true, true, true]] {
            all.push(Variant { suffix: long, halves: Some((halves, false)), ..PLAIN });
        }
        for suffix in ["_e32", "_e64", ""] {
            if (n == 3) == suffix.is_empty() {
                for halves in [[false; 4], [false, true, false, true], [true, false, true, false]] {
                    all.push(Variant { suffix, halves: Some((halves, true)), ..PLAIN });
                }
            }
        }
    }
    all
}

/// A case for each encoding and modifier.
pub fn of(op: &Op, every_control: bool) -> Vec<Case> {
    let variants = variants(op, every_control);
    let case = |v: Variant| {
        let own = op.clone();
        let mut kinds: Vec<Kind> = op.sources.iter().map(|s| s.kind()).collect();
        for &small in op.small {
            kinds[small] = Kind::Small;
        }
        let scalars = kinds[0];
        kinds.resize(8, Kind::Integer);
        // v20: a source of some.
        kinds.push(op.sources[op.sources.len() - 1].kind());
        let equal = op.equal;
        let mut case =
            Case::new(&text(op, &v), move |state| evaluate(state, &own, &v)).kinds(&kinds).scalars(scalars).equal(equal);
        // The whole family stands for the mnemonic: not all encodings exist.
        case.name = op.name.to_owned();
        case
    };
    variants.into_iter().map(case).collect()
}
