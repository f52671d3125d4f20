//! Instructions: the disassembler's text, taken apart.

use crate::operand::Operand;
use crate::reserved::is_refusal;
use std::collections::HashMap;

/// An instruction of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Instruction {
    /// Virtual address in the code object.
    pub address: u64,
    /// Bytes.
    pub size: u32,
    /// As the disassembler prints it.
    pub text: String,
    /// What it does: one operation, or the two of a dual-issue pair. Empty where the text could not be read.
    pub operations: Vec<Operation>,
}

/// A mnemonic with its operands.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Mnemonic without the encoding's suffix, the same for all generations (`ds_load_b32`, never `ds_read_b32`).
    pub name: String,
    /// How it is encoded.
    pub encoding: Encoding,
    /// Operands in the order of the text: destinations first.
    pub operands: Vec<Operand>,
    /// Words of the text that are no operands (`vmcnt(0)`, `sendmsg(…)`).
    pub words: Vec<String>,
    /// `offset:16`, `row_mask:0xf`, `op_sel:[0,1]`, `glc`; flags without a value have "".
    pub modifiers: HashMap<String, String>,
}

/// Encodings that change what the operands mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Any of the plain ones.
    Plain,
    /// Lanes of the first source are permuted.
    Dpp,
    /// Bytes or words of the sources are selected.
    Sdwa,
}

impl Instruction {
    /// Takes the text apart.
    pub(crate) fn parse(address: u64, size: u32, text: String) -> Self {
        let parts: Option<Vec<_>> = text.split(" :: ").map(Operation::parse).collect();
        let operations = parts.filter(|p| p.len() <= 2 && !is_refusal(&text)).unwrap_or_default();
        Self { address, size, text, operations }
    }
}

/// Names of older generations, and today's.
const RENAMED: &[(&str, &str)] = &[
    ("s_andn2_", "s_and_not1_"),
    ("s_orn2_", "s_or_not1_"),
    ("s_add_co_u32", "s_add_u32"),
    ("s_sub_co_u32", "s_sub_u32"),
    ("s_add_co_i32", "s_add_i32"),
    ("s_sub_co_i32", "s_sub_i32"),
    ("s_add_co_ci_u32", "s_addc_u32"),
    ("s_sub_co_ci_u32", "s_subb_u32"),
    ("s_addk_co_i32", "s_addk_i32"),
    ("s_ff1_i32_", "s_ctz_i32_"),
    ("s_flbit_i32_b", "s_clz_i32_u"),
    ("s_inst_prefetch", "s_set_inst_prefetch_distance"),
    ("v_mad_co_u64_u32", "v_mad_u64_u32"),
    ("v_mad_co_i64_i32", "v_mad_i64_i32"),
    ("v_addc_co_u32", "v_add_co_ci_u32"),
    ("v_subb_co_u32", "v_sub_co_ci_u32"),
    ("v_subbrev_co_u32", "v_subrev_co_ci_u32"),
    ("v_ffbh_u32", "v_clz_i32_u32"),
    ("v_ffbl_b32", "v_ctz_i32_b32"),
    ("v_ffbh_i32", "v_cls_i32"),
    ("ds_read2st64_b", "ds_load_2addr_stride64_b"),
    ("ds_write2st64_b", "ds_store_2addr_stride64_b"),
    ("ds_read2_b", "ds_load_2addr_b"),
    ("ds_write2_b", "ds_store_2addr_b"),
    ("ds_read_", "ds_load_"),
    ("ds_write_", "ds_store_"),
];

/// Names that are whole: no prefix of a longer one.
const RENAMED_WHOLE: &[(&str, &str)] = &[
    ("v_add_u32", "v_add_nc_u32"),
    ("v_sub_u32", "v_sub_nc_u32"),
    ("v_subrev_u32", "v_subrev_nc_u32"),
    ("v_add_u16", "v_add_nc_u16"),
    ("v_sub_u16", "v_sub_nc_u16"),
    ("v_add_i16", "v_add_nc_i16"),
    ("v_sub_i16", "v_sub_nc_i16"),
    ("v_add_i32", "v_add_nc_i32"),
    ("v_sub_i32", "v_sub_nc_i32"),
    ("v_cvt_pkrtz_f16_f32", "v_cvt_pk_rtz_f16_f32"),
];

/// The name that all generations share.
fn normalise(mnemonic: &str) -> String {
    let mut name = mnemonic.to_owned();
    if let Some((_, new)) = RENAMED_WHOLE.iter().find(|(old, _)| *old == name) {
        return (*new).to_owned();
    }
    for (old, new) in RENAMED {
        if let Some(rest) = name.strip_prefix(old) {
            name = format!("{new}{rest}");
            break;
        }
    }
    // gfx12 calls IEEE's maximum and minimum *_num_*.
    for (old, new) in [("_num_f32", "_f32"), ("_num_f16", "_f16"), ("_num_f64", "_f64")] {
        if let Some(rest) = name.strip_suffix(old) {
            name = format!("{rest}{new}");
        }
    }
    for family in ["ds_load_", "ds_store_", "s_load_", "s_buffer_load_", "global_", "flat_", "scratch_", "buffer_"] {
        if name.starts_with(family) {
            return memory_name(&name);
        }
    }
    name
}

/// `global_load_dwordx4` → `global_load_b128`, `global_load_ubyte` → `global_load_u8`.
fn memory_name(name: &str) -> String {
    const WIDTHS: [(&str, &str); 14] = [
        ("_dwordx16", "_b512"),
        ("_dwordx8", "_b256"),
        ("_dwordx4", "_b128"),
        ("_dwordx3", "_b96"),
        ("_dwordx2", "_b64"),
        ("_dword", "_b32"),
        ("_ubyte_d16_hi", "_d16_hi_u8"),
        ("_ubyte_d16", "_d16_u8"),
        ("_sbyte_d16_hi", "_d16_hi_i8"),
        ("_sbyte_d16", "_d16_i8"),
        ("_short_d16_hi", "_d16_hi_b16"),
        ("_short_d16", "_d16_b16"),
        ("_ubyte", "_u8"),
        ("_sbyte", "_i8"),
    ];
    for (old, new) in WIDTHS {
        if let Some(rest) = name.strip_suffix(old) {
            return format!("{rest}{new}");
        }
    }
    let store = name.contains("store");
    for (old, loads, stores) in
        [("_ushort", "_u16", "_b16"), ("_sshort", "_i16", "_b16"), ("_short", "_b16", "_b16"), ("_byte", "_u8", "_b8")]
    {
        if let Some(rest) = name.strip_suffix(old) {
            return format!("{rest}{}", if store { stores } else { loads });
        }
    }
    for (old, new) in [("_byte_d16_hi", "_d16_hi_b8"), ("_short_d16_hi", "_d16_hi_b16")] {
        if let Some(rest) = name.strip_suffix(old) {
            return format!("{rest}{new}");
        }
    }
    if let Some((family, op)) = name.split_once("_atomic_") {
        return format!("{family}_atomic_{}", atomic_name(op));
    }
    name.to_owned()
}

/// `add` → `add_u32`, `add_x2` → `add_u64`, as gfx11 has it.
fn atomic_name(op: &str) -> String {
    let (base, wide) = op.strip_suffix("_x2").map_or((op, false), |b| (b, true));
    let bits = if wide { 64 } else { 32 };
    match base {
        "add" | "sub" | "inc" | "dec" => format!("{base}_u{bits}"),
        "and" | "or" | "xor" | "swap" | "cmpswap" => format!("{base}_b{bits}"),
        "smin" | "smax" => format!("{}_i{bits}", &base[1..]),
        "umin" | "umax" => format!("{}_u{bits}", &base[1..]),
        other => other.to_owned(),
    }
}

/// Splits at commas and blanks outside of brackets. Blanks separate modifiers, commas operands.
fn pieces(text: &str) -> Vec<&str> {
    let (mut found, mut depth, mut start) = (Vec::new(), 0i32, 0);
    for (at, c) in text.char_indices() {
        match c {
            '[' | '(' => depth += 1,
            ']' | ')' => depth -= 1,
            ',' | ' ' if depth <= 0 => {
                found.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(&text[start..]);
    found.retain(|p| !p.is_empty());
    found
}

/// Flags without a value.
const FLAGS: &[&str] = &[
    "glc",
    "slc",
    "dlc",
    "sc0",
    "sc1",
    "nt",
    "clamp",
    "gds",
    "lds",
    "offen",
    "idxen",
    "addr64",
    "tfe",
    "nv",
    "scc",
    "row_mirror",
    "row_half_mirror",
];

impl Operation {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (mnemonic, rest) = text.split_once(' ').unwrap_or((text, ""));
        let (mut stem, mut encoding) = (mnemonic, Encoding::Plain);
        for (suffix, found) in [("_e64_dpp", Encoding::Dpp), ("_dpp", Encoding::Dpp), ("_sdwa", Encoding::Sdwa)] {
            if let Some(short) = stem.strip_suffix(suffix) {
                (stem, encoding) = (short, found);
                break;
            }
        }
        let stem = stem.strip_suffix("_e32").or_else(|| stem.strip_suffix("_e64")).unwrap_or(stem);
        let mut operation = Self {
            name: normalise(stem.strip_prefix("v_dual_").map(|s| format!("v_{s}")).as_deref().unwrap_or(stem)),
            encoding,
            operands: Vec::new(),
            words: Vec::new(),
            modifiers: HashMap::new(),
        };
        for (at, piece) in pieces(rest).into_iter().enumerate() {
            if FLAGS.contains(&piece) && (at > 0 || piece != "scc") {
                operation.modifiers.insert(piece.to_owned(), String::new());
            } else if let Some((key, value)) = modifier(piece) {
                operation.modifiers.insert(key.to_owned(), value.to_owned());
            } else if let Some(operand) = Operand::parse(piece) {
                operation.operands.push(operand);
            } else {
                operation.words.push(piece.to_owned());
            }
        }
        // Short comparisons are printed without a suffix.
        if operation.has("row_mask") || operation.has("dpp8") {
            operation.encoding = Encoding::Dpp;
        } else if operation.has("src0_sel") {
            operation.encoding = Encoding::Sdwa;
        }
        Some(operation)
    }

    /// Whether a flag stands there.
    pub(crate) fn has(&self, flag: &str) -> bool {
        self.modifiers.contains_key(flag)
    }

    /// The number behind `key:`, decimal or hexadecimal.
    pub(crate) fn number(&self, key: &str) -> Option<i64> {
        parse_number(self.modifiers.get(key)?)
    }

    /// `[0,1,0]` behind `key:`, as many as asked for; `default` for what isn't there.
    pub(crate) fn list(&self, key: &str, default: bool) -> [bool; 4] {
        let mut list = [default; 4];
        if let Some(text) = self.modifiers.get(key) {
            let inner = text.trim_start_matches('[').trim_end_matches(']');
            for (slot, value) in list.iter_mut().zip(inner.split(',')) {
                *slot = value.trim() == "1";
            }
        }
        list
    }
}

pub(crate) fn parse_number(text: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn modifier(piece: &str) -> Option<(&str, &str)> {
    let (key, value) = piece.split_once(':')?;
    let name = key.starts_with(|c: char| c.is_ascii_lowercase()) && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    (name && !key.is_empty()).then_some((key, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operand::Place;

    fn one(text: &str) -> Operation {
        let instruction = Instruction::parse(0, 4, text.to_owned());
        assert_eq!(instruction.operations.len(), 1, "{text}");
        instruction.operations.into_iter().next().unwrap()
    }

    #[test]
    fn names_are_the_same_for_all_generations() {
        for (old, new) in [
            ("ds_read2st64_b32 v[0:1], v2 offset1:8", "ds_load_2addr_stride64_b32"),
            ("ds_write_b8 v0, v1", "ds_store_b8"),
            ("global_load_dwordx4 v[0:3], v4, s[0:1]", "global_load_b128"),
            ("global_load_short_d16_hi v0, v4, s[0:1]", "global_load_d16_hi_b16"),
            ("global_load_ushort v0, v4, s[0:1]", "global_load_u16"),
            ("global_store_short v0, v4, s[0:1]", "global_store_b16"),
            ("global_store_byte v0, v4, s[0:1]", "global_store_b8"),
            ("global_atomic_add v2, v2, v3, s[4:5] sc0", "global_atomic_add_u32"),
            ("global_atomic_umax_x2 v[2:3], v2, v[3:4], s[4:5] glc", "global_atomic_max_u64"),
            ("s_load_dwordx2 s[0:1], s[4:5], 0x40", "s_load_b64"),
            ("v_add_u32_e32 v1, v2, v3", "v_add_nc_u32"),
            ("v_addc_co_u32_e32 v1, vcc, v2, v3, vcc", "v_add_co_ci_u32"),
            ("v_max_num_f32_e32 v1, v2, v3", "v_max_f32"),
            ("s_andn2_b64 s[0:1], s[2:3], vcc", "s_and_not1_b64"),
            ("s_addk_co_i32 s0, 0xff", "s_addk_i32"),
        ] {
            assert_eq!(one(old).name, new, "{old}");
        }
    }

    #[test]
    fn modifiers_and_words() {
        let load = one("global_load_b128 v[2:5], v0, s[2:3] offset:-16 th:TH_LOAD_NT");
        assert_eq!((load.operands.len(), load.number("offset")), (3, Some(-16)));
        let dpp = one("v_add_f32_dpp v1, v1, v1 quad_perm:[2,3,0,1] row_mask:0xf bank_mask:0xf bound_ctrl:1");
        assert_eq!((dpp.encoding, dpp.number("row_mask")), (Encoding::Dpp, Some(15)));
        assert_eq!(dpp.modifiers["quad_perm"], "[2,3,0,1]");
        let short = one("v_cmp_eq_u32 vcc_lo, v10, v11 row_shr:1 row_mask:0xf bank_mask:0xf bound_ctrl:1");
        assert_eq!((short.encoding, short.operands.len()), (Encoding::Dpp, 3));
        assert_eq!(one("s_waitcnt vmcnt(0) lgkmcnt(0)").words, ["vmcnt(0)", "lgkmcnt(0)"]);
        assert_eq!(one("v_fma_mix_f32 v3, v3, v7, -v5 op_sel_hi:[0,1,0]").list("op_sel_hi", true), [false, true, false, true]);
        assert!(one("v_mov_b32_dpp v6, v5 row_half_mirror row_mask:0xf bank_mask:0xf").has("row_half_mirror"));
    }

    #[test]
    fn a_pair_has_two_operations() {
        let pair = Instruction::parse(0, 8, "v_dual_mov_b32 v2, 0 :: v_dual_and_b32 v3, 31, v0".to_owned());
        assert_eq!(pair.operations.len(), 2);
        assert_eq!(pair.operations[1].name, "v_and_b32");
        assert_eq!(pair.operations[1].operands[1].place, Place::Integer(31));
    }
}
