//! Fields of hardware registers: the float mode is to the nearest even, with denormals.

use crate::Case;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for mode in ["HW_REG_MODE", "HW_REG_WAVE_MODE"] {
        // Rounding of singles and of the others is 0, denormals of both are 3, in two bits each.
        for (field, value) in [("0, 4", 0), ("4, 4", 15), ("4, 2", 3), ("6, 2", 3), ("0, 8", 240), ("2, 4", 12), ("3, 2", 2)] {
            cases.push(Case::new(&format!("s_getreg_b32 s12, hwreg({mode}, {field})"), move |s| s.set_scalar(12, value)));
            // What is there already may be written; bits beyond the field don't matter.
            let set = Case::new(&format!("s_setreg_b32 hwreg({mode}, {field}), s8"), |_| {});
            cases.push(set.prepare(move |s| {
                let bits: u32 = field.split(", ").nth(1).and_then(|n| n.parse().ok()).expect("a size");
                s.set_scalar(8, s.scalar(8) << bits | value);
            }));
            cases.push(Case::new(&format!("s_setreg_imm32_b32 hwreg({mode}, {field}), {value}"), |_| {}));
            let other = format!("s_setreg_imm32_b32 hwreg({mode}, {field}), {}", value ^ 1);
            cases.push(Case::lacking(&other, "other rounding or denormals"));
        }
        // Flushing denormals by a register; saturation; all of it.
        let flush = Case::lacking(&format!("s_setreg_b32 hwreg({mode}, 4, 2), s8"), "other rounding or denormals");
        cases.push(flush.prepare(|s| s.set_scalar(8, 0)));
        cases.push(Case::lacking(&format!("s_setreg_imm32_b32 hwreg({mode}, 23, 1), 1"), "bits 23 to 23"));
        cases.push(Case::lacking(&format!("s_setreg_b32 hwreg({mode}), s8"), "bits 0 to 31"));
        cases.push(Case::lacking(&format!("s_getreg_b32 s12, hwreg({mode})"), "bits 0 to 31"));
    }
    // gfx12 has other names for some, which the assembler knows.
    for (register, what) in [
        ("HW_REG_HW_ID", "_HW_ID"),
        ("HW_REG_HW_ID1", "_HW_ID1"),
        ("HW_REG_WAVE_HW_ID1", "hardware register HW_REG_WAVE_HW_ID1"),
        ("HW_REG_SHADER_CYCLES", "hardware register HW_REG_SHADER_CYCLES"),
        ("HW_REG_TRAPSTS", "hardware register HW_REG_TRAPSTS"),
    ] {
        cases.push(Case::lacking(&format!("s_getreg_b32 s12, hwreg({register}, 0, 8)"), what));
    }
    cases.push(Case::lacking("s_setreg_b32 hwreg(HW_REG_TRAPSTS, 0, 8), s8", "hardware register HW_REG_TRAPSTS"));
    // Scratch needs no setting up.
    cases.push(Case::new("s_setreg_b32 hwreg(HW_REG_FLAT_SCR_LO), s8", |_| {}));
    cases
}
