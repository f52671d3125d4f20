//! Atomics of a buffer with a descriptor, which is put together in `s[8:11]`.

use crate::Case;
use crate::memory::{ATOMICS, each, put};
use crate::soft::{single, to_single};
use crate::state::State;

/// Makes the descriptor of the first `records` bytes of the buffer, executes a line, clears it. The bounds are those of bytes
/// (`OOB_SELECT` is 3 where there is one).
fn described(line: &str, stride: u32, records: usize) -> String {
    format!(
        "s_mov_b32 s8, s28
        s_or_b32 s9, s29, {:#x}
        s_movk_i32 s10, {records}
        s_brev_b32 s11, 12
        {line}
        s_mov_b64 s[8:9], 0
        s_mov_b64 s[10:11], 0",
        stride << 16
    )
}

fn case(name: &str, line: &str, stride: u32, records: usize, of_lane: impl Fn(&mut State, usize) + 'static) -> Case {
    let of_lanes = each(of_lane);
    let expect = move |s: &mut State| {
        of_lanes(s);
        (8..12).for_each(|r| s.set_scalar(r, 0));
        // The address isn't 0.
        s.scc = true;
    };
    Case { name: name.to_owned(), ..Case::new(&described(line, stride, records), expect) }
}

/// How a generation asks for the old value.
const RETURNS: [&str; 3] = ["glc", "sc0", "th:TH_ATOMIC_RETURN"];
/// And writes a scalar offset of 0.
const ZEROS: [&str; 2] = ["0", "null"];

fn set64(s: &mut State, at: usize, value: u64) {
    put(&mut s.memory, at, value as u32, 4);
    put(&mut s.memory, at + 4, (value >> 32) as u32, 4);
}

fn memory64(s: &State, at: usize) -> u64 {
    u64::from(s.memory32(at + 4)) << 32 | u64::from(s.memory32(at))
}

pub fn cases() -> Vec<Case> {
    // Four lanes share a word: each in turn.
    let shared = |s: &mut State| (0..s.width).for_each(|l| s.set(11, l, l as u32 / 4 * 4));
    let own = |step: usize| move |s: &mut State| (0..s.width).for_each(|l| s.set(11, l, (step * l) as u32));
    let mut cases = Vec::new();
    for zero in ZEROS {
        for &(old, new, f) in ATOMICS {
            let update = move |s: &mut State, l: usize, to: Option<usize>| {
                let at = 128 + l / 4 * 4;
                let (before, value) = (s.memory32(at), s.get(10, l));
                put(&mut s.memory, at, f(before, value), 4);
                to.into_iter().for_each(|r| s.set(r, l, before));
            };
            for name in [old, new].map(|n| format!("buffer_atomic_{n}")) {
                let line = format!("{name} v10, v11, s[8:11], {zero} offen offset:128");
                cases.push(case(&name, &line, 0, 2048, move |s, l| update(s, l, None)).prepare(shared));
                for flag in RETURNS {
                    // The old value replaces the data.
                    let line = format!("{line} {flag}");
                    cases.push(case(&name, &line, 0, 2048, move |s, l| update(s, l, Some(10))).prepare(shared));
                }
            }
        }
        for name in ["buffer_atomic_add", "buffer_atomic_add_u32"] {
            let add = |s: &mut State, at: usize, value: u32| {
                let sum = u64::from(s.memory32(at)) + u64::from(value);
                put(&mut s.memory, at, sum as u32, 4);
            };
            // Beyond 40 bytes there is no buffer: the lanes from 10 on do nothing.
            let line = format!("{name} v10, v11, s[8:11], {zero} offen");
            let short = move |s: &mut State, l: usize| {
                if l < 10 {
                    add(s, 4 * l, s.get(10, l));
                }
            };
            cases.push(case(name, &line, 0, 40, short).prepare(own(4)));
            for flag in RETURNS {
                let text = described(&format!("{line} {flag}"), 0, 40);
                let lacking = Case::lacking(&text, "outside of its buffer").prepare(own(4)).all_lanes();
                cases.push(Case { name: name.to_owned(), ..lacking });
            }
            // The scalar offset, and an index of elements of 16 bytes.
            let line = format!("{name} v10, v11, s[8:11], s12 idxen offset:4");
            let indexed = move |s: &mut State, l: usize| add(s, 16 * l + 4 + 64, s.get(10, l));
            let prepare = move |s: &mut State| {
                own(1)(s);
                s.set_scalar(12, 64);
            };
            cases.push(case(name, &line, 16, 2047, indexed).prepare(prepare));
        }
        for name in ["buffer_atomic_cmpswap", "buffer_atomic_cmpswap_b32"] {
            for flag in RETURNS {
                // v14: the new value and the old one; v15: what is compared, which holds in every other lane.
                let swap = |s: &mut State, l: usize| {
                    let before = s.memory32(4 * l);
                    if before == s.get(15, l) {
                        let value = s.get(14, l);
                        put(&mut s.memory, 4 * l, value, 4);
                    }
                    s.set(14, l, before);
                };
                let prepare = move |s: &mut State| {
                    own(4)(s);
                    (0..s.width).step_by(2).for_each(|l| s.set(15, l, s.memory32(4 * l)));
                };
                let line = format!("{name} v[14:15], v11, s[8:11], {zero} offen {flag}");
                cases.push(case(name, &line, 0, 2048, swap).prepare(prepare));
            }
        }
        for name in ["buffer_atomic_cmpswap_x2", "buffer_atomic_cmpswap_b64"] {
            for flag in RETURNS {
                let swap = |s: &mut State, l: usize| {
                    let before = memory64(s, 8 * l);
                    if before == s.get64(16, l) {
                        let value = s.get64(14, l);
                        set64(s, 8 * l, value);
                    }
                    s.set64(14, l, before);
                };
                let prepare = move |s: &mut State| {
                    own(8)(s);
                    (0..s.width).step_by(2).for_each(|l| s.set64(16, l, memory64(s, 8 * l)));
                };
                let line = format!("{name} v[14:17], v11, s[8:11], {zero} offen {flag}");
                cases.push(case(name, &line, 0, 2048, swap).prepare(prepare));
            }
        }
        for name in ["buffer_atomic_umax_x2", "buffer_atomic_max_u64"] {
            let largest = |s: &mut State, l: usize| {
                let (before, value) = (memory64(s, 8 * l), s.get64(14, l));
                set64(s, 8 * l, if value > before { value } else { before });
            };
            let line = format!("{name} v[14:15], v11, s[8:11], {zero} offen");
            cases.push(case(name, &line, 0, 2048, largest).prepare(own(8)));
        }
        // A float's sum, in whole numbers.
        let sum = |s: &mut State, l: usize| {
            let sum = single(s.memory32(4 * l)) + single(s.get(10, l));
            put(&mut s.memory, 4 * l, to_single(sum), 4);
        };
        let whole = move |s: &mut State| {
            own(4)(s);
            for l in 0..s.width {
                s.set(10, l, to_single(f64::from(s.get(10, l) % 1000)));
                put(&mut s.memory, 4 * l, to_single(l as f64), 4);
            }
        };
        let line = format!("buffer_atomic_add_f32 v10, v11, s[8:11], {zero} offen");
        cases.push(case("buffer_atomic_add_f32", &line, 0, 2048, sum).prepare(whole));
    }
    cases
}
