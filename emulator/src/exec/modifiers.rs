//! What each family of operations understands beside plain operands: another encoding or modifier is refused before its builder,
//! which looks for what it knows, could overlook it.

use super::{Lack, wide};
use crate::instruction::{Encoding, Operation};

/// Which lanes a first source comes from, and which of them write.
const DPP: &[&str] = &[
    "quad_perm",
    "dpp8",
    "row_mirror",
    "row_half_mirror",
    "row_ror",
    "row_shl",
    "row_shr",
    "row_xmask",
    "row_share",
    "row_newbcast",
    "row_bcast",
    "wave_shl",
    "wave_shr",
    "wave_rol",
    "wave_ror",
    "row_mask",
    "bank_mask",
    "bound_ctrl",
    "fi",
];

/// Which bytes of sources and destination are meant.
const SDWA: &[&str] = &["src0_sel", "src1_sel", "dst_sel", "dst_unused"];

/// Hints to caches, which change no value. `glc`, `sc0` and `th` also say whether an atomic gives the old value back.
const CACHE: &[&str] = &["glc", "slc", "dlc", "sc0", "sc1", "nt", "scc", "nv", "th", "scope"];

/// What a family takes.
struct Taken {
    dpp: bool,
    sdwa: bool,
    /// `v4.h`.
    halves: bool,
    modifiers: &'static [&'static str],
}

const fn plain(modifiers: &'static [&'static str]) -> Taken {
    Taken { dpp: false, sdwa: false, halves: false, modifiers }
}

/// By the beginning of the name; the first that fits.
const FAMILIES: &[(&str, Taken)] = &[
    ("v_permlane64", plain(&[])),
    ("v_permlane", plain(&["op_sel"])),
    ("v_readlane", plain(&[])),
    ("v_readfirstlane", plain(&[])),
    ("v_writelane", plain(&[])),
    ("v_mbcnt", plain(&[])),
    ("v_swap_b32", plain(&[])),
    ("v_movrel", plain(&[])),
    // `clamp` of a comparison: whether quiet NaNs raise an exception.
    ("v_cmp", Taken { dpp: true, sdwa: true, halves: true, modifiers: &["op_sel", "clamp"] }),
    ("v_add_co_", Taken { sdwa: true, ..plain(&[]) }),
    ("v_sub_co_", Taken { sdwa: true, ..plain(&[]) }),
    ("v_subrev_co_", Taken { sdwa: true, ..plain(&[]) }),
    ("v_div_scale", plain(&[])),
    ("v_div_fmas", plain(&[])),
    ("v_mad_u64_u32", plain(&[])),
    ("v_mad_i64_i32", plain(&[])),
    ("v_s_", plain(&[])),
    ("v_bitop3_b32", plain(&["bitop3"])),
    ("v_pk_mov_b32", plain(&["op_sel"])),
    ("v_pk_", plain(&["op_sel", "op_sel_hi", "neg_lo", "neg_hi"])),
    ("v_fma_mix", plain(&["op_sel", "op_sel_hi", "neg_lo", "neg_hi", "clamp"])),
    ("v_mad_mix", plain(&["op_sel", "op_sel_hi", "neg_lo", "neg_hi", "clamp"])),
    // Those of matrices and dot products say themselves which of these they take with which types.
    ("v_dot", plain(&["op_sel", "op_sel_hi", "neg_lo", "neg_hi", "clamp"])),
    ("v_wmma", plain(&["op_sel", "neg_lo", "neg_hi", "clamp", "matrix_a_reuse", "matrix_b_reuse"])),
    ("v_mfma", plain(&["cbsz", "abid", "blgp", "neg_lo"])),
    ("ds_swizzle", plain(&["offset"])),
    ("ds_load_2addr", plain(&["offset0", "offset1"])),
    ("ds_store_2addr", plain(&["offset0", "offset1"])),
    ("ds_", plain(&["offset"])),
    ("s_load_", plain(&["offset"])),
    ("global_", plain(&["offset"])),
    ("flat_", plain(&["offset"])),
    ("scratch_", plain(&["offset"])),
    ("buffer_", plain(&["offset", "offen", "idxen"])),
];

/// Those that treat each lane alone and have 32-bit values. Scaling is ignored while denormals are kept (see `vector::Output`).
const LANEWISE: Taken = Taken { dpp: true, sdwa: true, halves: true, modifiers: &["op_sel", "clamp", "mul", "div", "byte_sel"] };

fn taken(name: &str) -> Option<&Taken> {
    if let Some((_, taken)) = FAMILIES.iter().find(|(begin, _)| name.starts_with(begin)) {
        return Some(taken);
    }
    if wide::is_plain(name) {
        return Some(const { &plain(&[]) });
    }
    name.starts_with("v_").then_some(&LANEWISE)
}

/// Refuses what the operation's family doesn't take.
pub(super) fn check(operation: &Operation) -> Result<(), Lack> {
    let name = operation.name.as_str();
    let Some(taken) = taken(name) else { return Ok(()) };
    let memory = ["s_load_", "global_", "flat_", "scratch_", "buffer_"].iter().any(|family| name.starts_with(family));
    match operation.encoding {
        Encoding::Dpp if !taken.dpp => return Err(format!("{name} with DPP")),
        Encoding::Sdwa if !taken.sdwa => return Err(format!("{name} with SDWA")),
        Encoding::Plain | Encoding::Dpp | Encoding::Sdwa => {}
    }
    let takes = |key: &str| {
        taken.modifiers.contains(&key)
            || operation.encoding == Encoding::Dpp && DPP.contains(&key)
            || operation.encoding == Encoding::Sdwa && SDWA.contains(&key)
            || memory && CACHE.contains(&key)
    };
    let mut keys: Vec<&str> = operation.modifiers.keys().map(String::as_str).collect();
    keys.sort_unstable();
    if let Some(key) = keys.into_iter().find(|key| !takes(key)) {
        return Err(format!("{name} with {key}"));
    }
    let stores_half = memory || name.starts_with("ds_");
    if !taken.halves && !stores_half && operation.operands.iter().any(|o| o.half.is_some()) {
        return Err(format!("{name} with a half of a register"));
    }
    if memory && let Some(word) = operation.words.first() {
        return Err(format!("operand {word}"));
    }
    Ok(())
}
