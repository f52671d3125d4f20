//! Between lanes, and pairs that issue together.

use crate::soft::{fma, larger, single, to_single};
use crate::state::{Kind, State};
use crate::{Case, Equal};

fn each(f: impl Fn(&State, &mut State, usize) + 'static) -> impl Fn(&mut State) + 'static {
    move |s| {
        let before = s.clone();
        before.lanes().into_iter().for_each(|lane| f(&before, s, lane));
    }
}

/// Not without lanes: what an empty wave reads is its own matter.
fn some_lane(s: &mut State) {
    s.exec |= 1 << 5;
}

fn lanes() -> Vec<Case> {
    let first = |s: &mut State| {
        let lane = s.lanes()[0];
        s.set_scalar(12, s.get(10, lane));
    };
    let mut cases = vec![
        Case::new("v_readfirstlane_b32 s12, v10", first).prepare(some_lane),
        Case::new("v_readlane_b32 s12, v10, 11", |s| s.set_scalar(12, s.get(10, 11))),
        Case::new("v_readlane_b32 s12, v10, s8", |s| s.set_scalar(12, s.get(10, s.scalar(8) as usize % s.width)))
            .scalars(Kind::Small),
        Case::new("v_writelane_b32 v20, s8, 7", |s| s.set(20, 7, s.scalar(8))),
        Case::new(
            "v_mbcnt_lo_u32_b32 v20, s8, v11",
            each(|b, s, l| {
                let count = (0..l.min(32)).filter(|&i| b.scalar(8) >> i & 1 == 1).count() as u32;
                s.set(20, l, b.get(11, l).wrapping_add(count));
            }),
        ),
        Case::new(
            "v_mbcnt_hi_u32_b32 v20, s8, v11",
            each(|b, s, l| {
                let count = (32..l.max(32)).filter(|&i| b.scalar(8) >> (i - 32) & 1 == 1).count() as u32;
                s.set(20, l, b.get(11, l).wrapping_add(count));
            }),
        ),
        Case::new(
            "v_mbcnt_lo_u32_b32 v20, v10, v11",
            each(|b, s, l| {
                let count = (0..l.min(32)).filter(|&i| b.get(10, l) >> i & 1 == 1).count() as u32;
                s.set(20, l, b.get(11, l).wrapping_add(count));
            }),
        ),
    ];
    for suffix in ["", "_e32", "_e64"] {
        for (name, above) in [("v_mbcnt_lo_u32_b32", 0), ("v_mbcnt_hi_u32_b32", 32)] {
            let mut case = Case::new(
                &format!("{name}{suffix} v20, -1, 0"),
                each(move |_, s, l| {
                    s.set(20, l, l.saturating_sub(above).min(32) as u32);
                }),
            );
            case.name = name.to_owned();
            cases.push(case);
        }
    }
    for (name, row) in [("v_permlane16_b32", 0), ("v_permlanex16_b32", 16)] {
        for (modifier, fetch, zero) in
            [("", false, false), (" op_sel:[1,0]", true, false), (" op_sel:[0,1]", false, true), (" op_sel:[1,1]", true, true)]
        {
            cases.push(Case::new(
                &format!("{name} v20, v10, s8, s9{modifier}"),
                each(move |b, s, l| {
                    let nibbles = u64::from(b.scalar(9)) << 32 | u64::from(b.scalar(8));
                    let from = ((l - l % 16) ^ row) + (nibbles >> (4 * (l % 16)) & 15) as usize;
                    if fetch || b.active(from) {
                        s.set(20, l, b.get(10, from));
                    } else if zero {
                        s.set(20, l, 0);
                    }
                }),
            ));
        }
    }
    // Each lane says itself which one it reads.
    for (name, row) in [("v_permlane16_var_b32", 0), ("v_permlanex16_var_b32", 16)] {
        for (modifier, fetch, zero) in
            [("", false, false), (" op_sel:[1,0]", true, false), (" op_sel:[0,1]", false, true), (" op_sel:[1,1]", true, true)]
        {
            cases.push(Case::new(
                &format!("{name} v20, v10, v11{modifier}"),
                each(move |b, s, l| {
                    let from = (l / 16 * 16 + b.get(11, l) as usize % 16) ^ row;
                    if fetch || b.active(from) {
                        s.set(20, l, b.get(10, from));
                    } else if zero {
                        s.set(20, l, 0);
                    }
                }),
            ));
        }
    }
    // Of groups of 16 or 32 lanes the odd ones of the first and the even ones of the second change places.
    for (name, size) in [("v_permlane16_swap_b32", 16), ("v_permlane32_swap_b32", 32)] {
        for suffix in ["_e32", "_e64"] {
            let text = format!("{name}{suffix} v20, v10");
            let swap = move |s: &mut State| {
                let before = s.clone();
                for l in 0..64 {
                    if l & size == 0 {
                        s.set(10, l, before.get(20, l + size));
                    } else {
                        s.set(20, l, before.get(10, l - size));
                    }
                }
            };
            cases.push(Case { name: name.to_owned(), ..Case::new(&text, swap).all_lanes() });
            let lacking = Case::lacking(&text, "inactive lanes").prepare(|s| s.exec &= !4);
            cases.push(Case { name: name.to_owned(), ..lacking });
        }
    }
    cases.push(Case::new(
        "v_permlane64_b32 v20, v10",
        each(|b, s, l| s.set(20, l, b.get(10, if b.width == 64 { l ^ 32 } else { l }))),
    ));
    for order in ["7,6,5,4,3,2,1,0", "1,1,3,3,5,5,7,7"] {
        let to: Vec<usize> = order.split(',').map(|n| n.parse().unwrap()).collect();
        cases.push(Case::new(
            &format!("v_mov_b32_dpp v20, v10 dpp8:[{order}]"),
            each(move |b, s, l| {
                let from = l - l % 8 + to[l % 8];
                // Inactive lanes give 0 unless they are asked for.
                s.set(20, l, if b.active(from) { b.get(10, from) } else { 0 });
            }),
        ));
    }
    for suffix in ["_e32", ""] {
        // `m0` is 0 to 3.
        cases.push(Case::new(
            &format!("v_movrels_b32{suffix} v20, v10"),
            each(|b, s, l| s.set(20, l, b.get(10 + b.m0 as usize, l))),
        ));
        cases.push(Case::new(
            &format!("v_movreld_b32{suffix} v20, v10"),
            each(|b, s, l| s.set(20 + b.m0 as usize, l, b.get(10, l))),
        ));
    }
    cases
}

/// `ds_bpermute`, `ds_permute`, `ds_swizzle`.
fn crossbar() -> Vec<Case> {
    let named = |b: &State, l: usize, offset: u32| {
        let within = if [10, 11].contains(&b.generation()) { 32 } else { b.width };
        (b.get(10, l).wrapping_add(offset) / 4) as usize % within + l / within * within
    };
    let mut cases = Vec::new();
    for (text, offset) in [("", 0), (" offset:20", 20)] {
        cases.push(Case::new(
            &format!("ds_bpermute_b32 v20, v10, v11{text}"),
            each(move |b, s, l| {
                let from = named(b, l, offset);
                s.set(20, l, if b.active(from) { b.get(11, from) } else { 0 });
            }),
        ));
    }
    // Whether it crosses the halves of gfx12's waves of 64 isn't published.
    let push = move |s: &mut State| {
        let before = s.clone();
        before.lanes().iter().for_each(|&l| s.set(20, l, 0));
        // Later lanes win.
        for l in before.lanes() {
            let to = named(&before, l, 0);
            if before.active(to) {
                s.set(20, to, before.get(11, l));
            }
        }
    };
    cases.push(Case::new("ds_permute_b32 v20, v10, v11", push).refused("gfx1201", 64));
    type From = fn(usize) -> usize;
    const SWIZZLES: [(&str, From); 7] = [
        ("swizzle(SWAP,16)", |l| l ^ 16),
        ("swizzle(SWAP,1)", |l| l ^ 1),
        ("swizzle(REVERSE,8)", |l| l ^ 7),
        ("swizzle(BROADCAST,8,3)", |l| l - l % 8 + 3),
        ("swizzle(QUAD_PERM,3,0,0,2)", |l| l - l % 4 + [3, 0, 0, 2][l % 4]),
        // Bits from the top: kept, inverted, 0, 1, kept.
        ("swizzle(BITMASK_PERM,\"pi01p\")", |l| l - l % 32 + ((l & 0b10001) | (!l & 0b01000) | 0b00010)),
        ("0x8055", |l| l - l % 4 + 1),
    ];
    for (pattern, from) in SWIZZLES {
        cases.push(Case::new(
            &format!("ds_swizzle_b32 v20, v10 offset:{pattern}"),
            each(move |b, s, l| {
                s.set(20, l, if b.active(from(l)) { b.get(10, from(l)) } else { 0 });
            }),
        ));
    }
    cases
}

/// Pairs: both read before either writes. Only waves of 32 lanes have them.
fn pairs() -> Vec<Case> {
    /// Name, source registers as written, function of v10/v20-style first and v11-style second source and the old destination.
    type Half = (&'static str, fn(u32, u32, u32) -> u32);
    const HALVES: &[Half] = &[
        ("v_dual_add_f32", |a, b, _| to_single(single(a) + single(b))),
        ("v_dual_sub_f32", |a, b, _| to_single(single(a) - single(b))),
        ("v_dual_mul_f32", |a, b, _| to_single(single(a) * single(b))),
        ("v_dual_max_f32", |a, b, _| to_single(larger(single(a), single(b)))),
        ("v_dual_max_num_f32", |a, b, _| to_single(larger(single(a), single(b)))),
        ("v_dual_fmac_f32", fma),
    ];
    let mut cases = Vec::new();
    // Each with a move that reads the other's destination: v20 ← f(v10, v11), v21 ← v20.
    for &(name, f) in HALVES {
        cases.push(
            Case::new(
                &format!("{name} v20, v10, v11 :: v_dual_mov_b32 v21, v20"),
                each(move |b, s, l| {
                    s.set(20, l, f(b.get(10, l), b.get(11, l), b.get(20, l)));
                    s.set(21, l, b.get(20, l));
                }),
            )
            .kinds(&[Kind::Single; 10])
            .equal(Equal::Single),
        );
        cases.push(
            Case::new(
                &format!("v_dual_mov_b32 v20, v21 :: {name} v21, v20, v11"),
                each(move |b, s, l| {
                    s.set(20, l, b.get(21, l));
                    s.set(21, l, f(b.get(20, l), b.get(11, l), b.get(21, l)));
                }),
            )
            .kinds(&[Kind::Single; 10])
            .equal(Equal::Single),
        );
    }
    let integer = |text: &str, f: fn(u32, u32) -> u32| {
        Case::new(
            text,
            each(move |b, s, l| {
                s.set(20, l, b.get(11, l));
                s.set(21, l, f(b.get(12, l), b.get(13, l)));
            }),
        )
    };
    cases.extend([
        integer("v_dual_mov_b32 v20, v11 :: v_dual_add_nc_u32 v21, v12, v13", |a, b| (u64::from(a) + u64::from(b)) as u32),
        integer("v_dual_mov_b32 v20, v11 :: v_dual_and_b32 v21, v12, v13", |a, b| !(!a | !b)),
        integer("v_dual_mov_b32 v20, v11 :: v_dual_lshlrev_b32 v21, v12, v13", |a, b| (u64::from(b) << (a % 32)) as u32),
        Case::new(
            "v_dual_cndmask_b32 v20, v10, v11 :: v_dual_cndmask_b32 v21, v11, v12",
            each(|b, s, l| {
                let chosen = b.vcc >> l & 1 == 1;
                s.set(20, l, b.get(if chosen { 11 } else { 10 }, l));
                s.set(21, l, b.get(if chosen { 12 } else { 11 }, l));
            }),
        ),
        Case::new(
            "v_dual_fmaak_f32 v20, v10, v11, 0x40490fdb :: v_dual_mov_b32 v21, 0",
            each(|b, s, l| {
                s.set(20, l, fma(b.get(10, l), b.get(11, l), 0x4049_0fdb));
                s.set(21, l, 0);
            }),
        )
        .kinds(&[Kind::Single; 2])
        .equal(Equal::Single),
        // They swap.
        Case::new(
            "v_dual_mov_b32 v20, v21 :: v_dual_mov_b32 v21, v20",
            each(|b, s, l| {
                s.set(20, l, b.get(21, l));
                s.set(21, l, b.get(20, l));
            }),
        ),
    ]);
    cases
}

pub fn cases() -> Vec<Case> {
    let mut cases = lanes();
    cases.extend(crossbar());
    cases.extend(pairs());
    cases
}
