//! Loads, stores and atomics of the buffer at `s[28:29]` and of LDS; scalar loads.

use crate::Case;
use crate::soft::{larger, single, to_single};
use crate::state::State;

pub fn each(f: impl Fn(&mut State, usize) + 'static) -> impl Fn(&mut State) + 'static {
    move |s| s.lanes().into_iter().for_each(|lane| f(s, lane))
}

pub fn put(bytes: &mut [u8], at: usize, value: u32, count: usize) {
    bytes[at..at + count].copy_from_slice(&value.to_le_bytes()[..count]);
}

/// Global addresses: `v1` is lane·4. Text behind the data register, and the byte of a lane.
const ADDRESSES: [(&str, usize); 3] = [("v1, s[28:29]", 0), ("v1, s[28:29] offset:512", 512), ("v1, s[28:29] offset:13", 13)];

fn loads() -> Vec<Case> {
    let mut cases = Vec::new();
    for (address, base) in ADDRESSES {
        for (words, names) in [
            (1, ["global_load_dword", "global_load_b32"]),
            (2, ["global_load_dwordx2", "global_load_b64"]),
            (3, ["global_load_dwordx3", "global_load_b96"]),
            (4, ["global_load_dwordx4", "global_load_b128"]),
        ] {
            for name in names {
                let target = if words == 1 { "v20".to_owned() } else { format!("v[20:{}]", 19 + words) };
                cases.push(Case::new(
                    &format!("{name} {target}, {address}"),
                    each(move |s, l| {
                        (0..words).for_each(|w| s.set(20 + w, l, s.memory32(base + 4 * l + 4 * w)));
                    }),
                ));
            }
        }
        // Bytes, and what is kept of the old value; the value of the word that begins there.
        type Part = fn(u32, u32) -> u32;
        let signed8: Part = |w, _| i32::from(w as u8 as i8) as u32;
        let signed16: Part = |w, _| i32::from(w as u16 as i16) as u32;
        let parts: [(&[&str], Part); 10] = [
            (&["global_load_ubyte", "global_load_u8"], |w, _| w % 256),
            (&["global_load_sbyte", "global_load_i8"], signed8),
            (&["global_load_ushort", "global_load_u16"], |w, _| w % 65536),
            (&["global_load_sshort", "global_load_i16"], signed16),
            (&["global_load_short_d16", "global_load_d16_b16"], |w, old| old & 0xffff_0000 | (w % 65536)),
            (&["global_load_short_d16_hi", "global_load_d16_hi_b16"], |w, old| old & 0xffff | w << 16),
            (&["global_load_ubyte_d16", "global_load_d16_u8"], |w, old| old & 0xffff_0000 | (w % 256)),
            (&["global_load_ubyte_d16_hi", "global_load_d16_hi_u8"], |w, old| old & 0xffff | (w % 256) << 16),
            (&["global_load_sbyte_d16", "global_load_d16_i8"], |w, old| old & 0xffff_0000 | w as u8 as i8 as i16 as u16 as u32),
            (&["global_load_sbyte_d16_hi", "global_load_d16_hi_i8"], |w, old| old & 0xffff | (w as u8 as i8 as i32 as u32) << 16),
        ];
        for (names, part) in parts {
            for name in names {
                cases.push(Case::new(
                    &format!("{name} v20, {address}"),
                    each(move |s, l| {
                        let value = part(s.memory32(base + 4 * l), s.get(20, l));
                        s.set(20, l, value);
                    }),
                ));
            }
        }
    }
    cases
}

fn stores() -> Vec<Case> {
    let mut cases = Vec::new();
    // The second leaves gaps: bytes of one lane, 16 apart.
    for (words, names) in [
        (1usize, ["global_store_dword", "global_store_b32"]),
        (2, ["global_store_dwordx2", "global_store_b64"]),
        (3, ["global_store_dwordx3", "global_store_b96"]),
        (4, ["global_store_dwordx4", "global_store_b128"]),
    ] {
        for name in names {
            let data = if words == 1 { "v10".to_owned() } else { format!("v[10:{}]", 9 + words) };
            cases.push(
                Case::new(
                    &format!("{name} v20, {data}, s[28:29] offset:64"),
                    each(move |s, l| {
                        for w in 0..words {
                            let value = s.get(10 + w, l);
                            put(&mut s.memory, 64 + 20 * l + 4 * w, value, 4);
                        }
                    }),
                )
                .prepare(|s| (0..s.width).for_each(|l| s.set(20, l, 20 * l as u32))),
            );
        }
    }
    for (names, bytes, shift) in [
        (["global_store_byte", "global_store_b8"], 1, 0),
        (["global_store_short", "global_store_b16"], 2, 0),
        (["global_store_byte_d16_hi", "global_store_d16_hi_b8"], 1, 16),
        (["global_store_short_d16_hi", "global_store_d16_hi_b16"], 2, 16),
    ] {
        for name in names {
            cases.push(Case::new(
                &format!("{name} v1, v10, s[28:29] offset:5"),
                each(move |s, l| {
                    let value = s.get(10, l) >> shift;
                    put(&mut s.memory, 5 + 4 * l, value, bytes);
                }),
            ));
        }
    }
    cases
}

/// Name (old and new), and the new value of the old one and the datum.
pub type Atomic = (&'static str, &'static str, fn(u32, u32) -> u32);
pub const ATOMICS: &[Atomic] = &[
    ("add", "add_u32", |old, v| (u64::from(old) + u64::from(v)) as u32),
    ("sub", "sub_u32", |old, v| (i64::from(old) - i64::from(v)) as u32),
    ("smin", "min_i32", |old, v| if (v as i32) < old as i32 { v } else { old }),
    ("smax", "max_i32", |old, v| if v as i32 > old as i32 { v } else { old }),
    ("umin", "min_u32", |old, v| if v < old { v } else { old }),
    ("umax", "max_u32", |old, v| if v > old { v } else { old }),
    ("and", "and_b32", |old, v| !(!old | !v)),
    ("or", "or_b32", |old, v| !(!old & !v)),
    ("xor", "xor_b32", |old, v| (old | v) - (old & v)),
    ("swap", "swap_b32", |_, v| v),
    ("inc", "inc_u32", |old, v| if old >= v { 0 } else { old + 1 }),
    ("dec", "dec_u32", |old, v| if old == 0 || old > v { v } else { old - 1 }),
];

fn atomics() -> Vec<Case> {
    let mut cases = Vec::new();
    // Four lanes share a word: each in turn.
    let shared = |s: &mut State| (0..s.width).for_each(|l| s.set(11, l, l as u32 / 4 * 4));
    for &(old, new, f) in ATOMICS {
        for name in [old, new] {
            let update = move |returns: bool| {
                move |s: &mut State, l: usize| {
                    let at = 128 + l / 4 * 4;
                    let (before, value) = (s.memory32(at), s.get(10, l));
                    put(&mut s.memory, at, f(before, value), 4);
                    if returns {
                        s.set(20, l, before);
                    }
                }
            };
            cases.push(
                Case::new(&format!("global_atomic_{name} v11, v10, s[28:29] offset:128"), each(update(false))).prepare(shared),
            );
            for flag in ["glc", "sc0", "th:TH_ATOMIC_RETURN"] {
                let text = format!("global_atomic_{name} v20, v11, v10, s[28:29] offset:128 {flag}");
                cases.push(Case::new(&text, each(update(true))).prepare(shared));
            }
            // In LDS, too: the first row.
            let lds = move |returns: bool| {
                move |s: &mut State, l: usize| {
                    let at = l / 4 * 4;
                    let (before, value) = (s.lds32(at), s.get(10, l));
                    put(&mut s.lds, at, f(before, value), 4);
                    if returns {
                        s.set(20, l, before);
                    }
                }
            };
            let ds = if name == "swap" || name == "swap_b32" { "wrxchg_b32" } else { new };
            if name == new && ds != "wrxchg_b32" {
                cases.push(Case::new(&format!("ds_{ds} v11, v10"), each(lds(false))).prepare(shared));
                cases.push(Case::new(&format!("ds_{} v20, v11, v10", ds.replace('_', "_rtn_")), each(lds(true))).prepare(shared));
            }
        }
    }
    for name in ["ds_wrxchg_rtn_b32", "ds_storexchg_rtn_b32"] {
        cases.push(
            Case::new(
                &format!("{name} v20, v11, v10"),
                each(|s, l| {
                    let at = l / 4 * 4;
                    let (before, value) = (s.lds32(at), s.get(10, l));
                    put(&mut s.lds, at, value, 4);
                    s.set(20, l, before);
                }),
            )
            .prepare(shared),
        );
    }
    // Every other lane's comparison holds.
    let known = |s: &mut State| {
        for l in 0..s.width {
            if l % 2 == 0 {
                let value = s.memory32(128 + 4 * l);
                s.set(13, l, value);
                let value = s.lds32(4 * l);
                s.set(14, l, value);
            }
        }
    };
    for name in ["global_atomic_cmpswap", "global_atomic_cmpswap_b32"] {
        for flag in ["glc", "sc0", "th:TH_ATOMIC_RETURN"] {
            let text = format!("{name} v20, v1, v[12:13], s[28:29] offset:128 {flag}");
            cases.push(
                Case::new(
                    &text,
                    each(|s, l| {
                        let at = 128 + 4 * l;
                        let before = s.memory32(at);
                        if before == s.get(13, l) {
                            let value = s.get(12, l);
                            put(&mut s.memory, at, value, 4);
                        }
                        s.set(20, l, before);
                    }),
                )
                .prepare(known),
            );
        }
    }
    // LDS: the compared value comes first in old ones, second in those of gfx11 and later.
    for (text, compare, value) in
        [("ds_cmpst_rtn_b32 v20, v1, v14, v12", 14, 12), ("ds_cmpstore_rtn_b32 v20, v1, v12, v14", 14, 12)]
    {
        cases.push(
            Case::new(
                text,
                each(move |s, l| {
                    let before = s.lds32(4 * l);
                    if before == s.get(compare, l) {
                        let new = s.get(value, l);
                        put(&mut s.lds, 4 * l, new, 4);
                    }
                    s.set(20, l, before);
                }),
            )
            .prepare(known),
        );
    }
    for name in ["global_atomic_add_x2", "global_atomic_add_u64"] {
        for flag in ["glc", "sc0", "th:TH_ATOMIC_RETURN"] {
            cases.push(
                Case::new(
                    &format!("{name} v[20:21], v14, v[10:11], s[28:29] {flag}"),
                    each(|s, l| {
                        let (low, high) = (s.memory32(8 * l), s.memory32(8 * l + 4));
                        let before = u64::from(high) << 32 | u64::from(low);
                        let sum = u128::from(before) + u128::from(s.get64(10, l));
                        put(&mut s.memory, 8 * l, sum as u32, 4);
                        put(&mut s.memory, 8 * l + 4, (sum >> 32) as u32, 4);
                        s.set64(20, l, before);
                    }),
                )
                .prepare(|s| (0..s.width).for_each(|l| s.set(14, l, 8 * l as u32))),
            );
        }
    }
    // A float's sum, in whole numbers: no order of lanes matters.
    cases.push(
        Case::new(
            "global_atomic_add_f32 v11, v10, s[28:29] offset:128",
            each(|s, l| {
                let at = 128 + l / 4 * 4;
                let sum = single(s.memory32(at)) + single(s.get(10, l));
                put(&mut s.memory, at, to_single(sum), 4);
            }),
        )
        .prepare(move |s| {
            shared(s);
            for l in 0..s.width {
                let value = to_single(f64::from(s.get(10, l) % 1000));
                s.set(10, l, value);
                put(&mut s.memory, 128 + 4 * l, to_single(l as f64), 4);
            }
        }),
    );
    cases.push(
        Case::new(
            "ds_max_f32 v11, v10",
            each(|s, l| {
                let at = l / 4 * 4;
                let most = larger(single(s.lds32(at)), single(s.get(10, l)));
                put(&mut s.lds, at, to_single(most), 4);
            }),
        )
        .prepare(move |s| {
            shared(s);
            for l in 0..s.width {
                let value = to_single(f64::from(s.get(10, l) as i32));
                s.set(10, l, value);
                put(&mut s.lds, 4 * l, to_single(l as f64), 4);
            }
        }),
    );
    cases
}

/// Addresses in `v11` that stay within the rows of LDS: `step` bytes apart.
fn spread(step: usize) -> impl Fn(&mut State) {
    move |s| (0..s.width).for_each(|l| s.set(11, l, (l * step % 64) as u32))
}

fn lds() -> Vec<Case> {
    let mut cases = Vec::new();
    for (words, names) in [
        (1usize, ["ds_read_b32", "ds_load_b32"]),
        (2, ["ds_read_b64", "ds_load_b64"]),
        (3, ["ds_read_b96", "ds_load_b96"]),
        (4, ["ds_read_b128", "ds_load_b128"]),
    ] {
        for name in names {
            let target = if words == 1 { "v20".to_owned() } else { format!("v[20:{}]", 19 + words) };
            cases.push(
                Case::new(
                    &format!("{name} {target}, v11 offset:16"),
                    each(move |s, l| {
                        let at = 16 + s.get(11, l) as usize;
                        (0..words).for_each(|w| s.set(20 + w, l, s.lds32(at + 4 * w)));
                    }),
                )
                .prepare(spread(16)),
            );
        }
    }
    type Part = fn(u32, u32) -> u32;
    let parts: [([&str; 2], Part); 8] = [
        (["ds_read_u8", "ds_load_u8"], |w, _| w % 256),
        (["ds_read_i8", "ds_load_i8"], |w, _| i32::from(w as u8 as i8) as u32),
        (["ds_read_u16", "ds_load_u16"], |w, _| w % 65536),
        (["ds_read_i16", "ds_load_i16"], |w, _| i32::from(w as u16 as i16) as u32),
        (["ds_read_u16_d16", "ds_load_u16_d16"], |w, old| old & 0xffff_0000 | (w % 65536)),
        (["ds_read_u16_d16_hi", "ds_load_u16_d16_hi"], |w, old| old & 0xffff | w << 16),
        (["ds_read_u8_d16", "ds_load_u8_d16"], |w, old| old & 0xffff_0000 | (w % 256)),
        (["ds_read_u8_d16_hi", "ds_load_u8_d16_hi"], |w, old| old & 0xffff | (w % 256) << 16),
    ];
    for (names, part) in parts {
        for name in names {
            cases.push(
                Case::new(
                    &format!("{name} v20, v11 offset:4"),
                    each(move |s, l| {
                        let value = part(s.lds32(4 + s.get(11, l) as usize), s.get(20, l));
                        s.set(20, l, value);
                    }),
                )
                .prepare(spread(4)),
            );
        }
    }
    // The second half of the address space is the second row.
    for (names, stride, first, second) in
        [(["ds_read2_b32", "ds_load_2addr_b32"], 4, 1, 66), (["ds_read2st64_b32", "ds_load_2addr_stride64_b32"], 256, 0, 1)]
    {
        for name in names {
            cases.push(
                Case::new(
                    &format!("{name} v[20:21], v11 offset0:{first} offset1:{second}"),
                    each(move |s, l| {
                        let at = s.get(11, l) as usize;
                        s.set(20, l, s.lds32(at + first * stride));
                        s.set(21, l, s.lds32(at + second * stride));
                    }),
                )
                .prepare(spread(4)),
            );
        }
    }
    for name in ["ds_read2_b64", "ds_load_2addr_b64"] {
        cases.push(
            Case::new(
                &format!("{name} v[20:23], v11 offset0:1 offset1:33"),
                each(|s, l| {
                    let at = s.get(11, l) as usize;
                    for (i, offset) in [8, 12, 264, 268].into_iter().enumerate() {
                        s.set(20 + i, l, s.lds32(at + offset));
                    }
                }),
            )
            .prepare(spread(8)),
        );
    }
    // Lanes of a wave write one after the other: the last one to a place wins.
    for (words, names) in [
        (1usize, ["ds_write_b32", "ds_store_b32"]),
        (2, ["ds_write_b64", "ds_store_b64"]),
        (3, ["ds_write_b96", "ds_store_b96"]),
        (4, ["ds_write_b128", "ds_store_b128"]),
    ] {
        for name in names {
            let data = if words == 1 { "v12".to_owned() } else { format!("v[12:{}]", 11 + words) };
            cases.push(
                Case::new(
                    &format!("{name} v11, {data} offset:16"),
                    each(move |s, l| {
                        let at = 16 + s.get(11, l) as usize;
                        for w in 0..words {
                            let value = s.get(12 + w, l);
                            put(&mut s.lds, at + 4 * w, value, 4);
                        }
                    }),
                )
                .prepare(spread(16)),
            );
        }
    }
    for (names, bytes, shift) in [
        (["ds_write_b8", "ds_store_b8"], 1, 0),
        (["ds_write_b16", "ds_store_b16"], 2, 0),
        (["ds_write_b8_d16_hi", "ds_store_b8_d16_hi"], 1, 16),
        (["ds_write_b16_d16_hi", "ds_store_b16_d16_hi"], 2, 16),
    ] {
        for name in names {
            cases.push(
                Case::new(
                    &format!("{name} v11, v12 offset:5"),
                    each(move |s, l| {
                        let (at, value) = (5 + s.get(11, l) as usize, s.get(12, l) >> shift);
                        put(&mut s.lds, at, value, bytes);
                    }),
                )
                .prepare(spread(2)),
            );
        }
    }
    for (names, stride, first, second) in
        [(["ds_write2_b32", "ds_store_2addr_b32"], 4, 1, 66), (["ds_write2st64_b32", "ds_store_2addr_stride64_b32"], 256, 0, 1)]
    {
        for name in names {
            cases.push(
                Case::new(
                    &format!("{name} v11, v12, v13 offset0:{first} offset1:{second}"),
                    each(move |s, l| {
                        let at = s.get(11, l) as usize;
                        let (a, b) = (s.get(12, l), s.get(13, l));
                        put(&mut s.lds, at + first * stride, a, 4);
                        put(&mut s.lds, at + second * stride, b, 4);
                    }),
                )
                .prepare(spread(4)),
            );
        }
    }
    cases
}

fn scalar_loads() -> Vec<Case> {
    let mut cases = Vec::new();
    for (words, names, target) in [
        (1usize, ["s_load_dword", "s_load_b32"], "s8"),
        (2, ["s_load_dwordx2", "s_load_b64"], "s[8:9]"),
        (3, ["s_load_b96", "s_load_b96"], "s[8:10]"),
        (4, ["s_load_dwordx4", "s_load_b128"], "s[8:11]"),
        (8, ["s_load_dwordx8", "s_load_b256"], "s[8:15]"),
        (16, ["s_load_dwordx16", "s_load_b512"], "s[8:23]"),
    ] {
        for name in names {
            for (offset, at) in [("0x0", 0usize), ("0x64", 100)] {
                cases.push(Case::new(&format!("{name} {target}, s[28:29], {offset}"), move |s| {
                    (0..words).for_each(|w| s.set_scalar(8 + w, s.memory32(at + 4 * w)));
                }));
            }
        }
    }
    cases
}

pub fn cases() -> Vec<Case> {
    let mut cases = loads();
    cases.extend(stores());
    cases.extend(atomics());
    cases.extend(lds());
    cases.extend(scalar_loads());
    cases
}
