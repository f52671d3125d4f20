//! Floats of eight bits: a table of each format, counted up, and conversions by looking for the nearest in it.

use crate::Case;
use crate::Equal;
use crate::soft::single;
use crate::state::{Kind, State};

fn each(f: impl Fn(&mut State, usize) + 'static) -> impl Fn(&mut State) + 'static {
    move |s| s.lanes().into_iter().for_each(|lane| f(s, lane))
}

/// The magnitudes of the codes 0 to 127 of `fp8` or `bf8`: NaN and infinity from where there are no numbers any more.
pub fn magnitudes(name: &str, arch: &str) -> Vec<f64> {
    // The least number, the codes of a binade, and the codes that aren't finite.
    let (least, binade, rest): (f64, usize, &[f64]) = match (name, arch == "gfx942") {
        ("fp8", true) => (1.0 / 1024.0, 8, &[]),
        ("bf8", true) => (1.0 / 131_072.0, 4, &[]),
        ("fp8", false) => (1.0 / 512.0, 8, &[f64::NAN]),
        ("bf8", false) => (1.0 / 65_536.0, 4, &[f64::INFINITY, f64::NAN, f64::NAN, f64::NAN]),
        _ => panic!("{name}"),
    };
    let mut all = vec![0.0];
    let mut step = least;
    while all.len() < 128 - rest.len() {
        // The first two binades are equally fine, then each is half as fine as the one before.
        if all.len() > binade && all.len() % binade == 1 && all.len() > 2 * binade {
            step *= 2.0;
        }
        all.push(all[all.len() - 1] + step);
    }
    all.extend(rest);
    all
}

/// The value of a code.
pub fn value(name: &str, arch: &str, code: u32) -> f64 {
    let magnitude = magnitudes(name, arch)[(code & 127) as usize];
    match (code & 128 != 0, magnitude == 0.0 && arch == "gfx942") {
        (true, true) => f64::NAN,
        (true, false) => -magnitude,
        _ => magnitude,
    }
}

/// The code of the nearest number; of two, the even one.
fn nearest(name: &str, arch: &str, value: f64) -> u32 {
    let all = magnitudes(name, arch);
    let distance = |code: usize| (all[code] - value.abs()).abs();
    let finite = (0..128).filter(|&c| all[c].is_finite());
    let best = finite.min_by(|&a, &b| distance(a).total_cmp(&distance(b)).then((a % 2).cmp(&(b % 2)))).expect("some number");
    let negative = value.is_sign_negative() && !(best == 0 && arch == "gfx942");
    best as u32 | if negative { 128 } else { 0 }
}

fn to_singles(name: &'static str) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut push = |text: String, shift: u32, count: usize| {
        let convert = move |s: &mut State, l: usize| {
            let word = s.get(10, l) >> shift;
            for part in 0..count {
                let bits = value(name, s.arch, word >> (8 * part) & 255) as f32;
                s.set(20 + part, l, bits.to_bits());
            }
        };
        // All codes in each byte, in four rounds.
        for round in 0..4u32 {
            let all = move |s: &mut State| {
                for l in 0..s.width {
                    let code = (l as u32 + 64 * round) & 255;
                    s.set(10, l, (code * 0x0101_0101) ^ 0x0040_8020);
                }
            };
            cases.push(Case::new(&text, each(convert)).prepare(all).equal(Equal::Single));
        }
    };
    for suffix in ["_e32", "_e64"] {
        push(format!("v_cvt_f32_{name}{suffix} v20, v10"), 0, 1);
        push(format!("v_cvt_pk_f32_{name}{suffix} v[20:21], v10"), 0, 2);
        push(format!("v_cvt_pk_f32_{name}{suffix} v[20:21], v10.l"), 0, 2);
        push(format!("v_cvt_pk_f32_{name}{suffix} v[20:21], v10.h"), 16, 2);
    }
    for byte in 0..4 {
        push(format!("v_cvt_f32_{name}_sdwa v20, v10 src0_sel:BYTE_{byte}"), 8 * byte, 1);
        push(format!("v_cvt_f32_{name}_e64 v20, v10 byte_sel:{byte}"), 8 * byte, 1);
    }
    push(format!("v_cvt_pk_f32_{name}_sdwa v[20:21], v10 src0_sel:WORD_1"), 16, 2);
    push(format!("v_cvt_pk_f32_{name}_e64 v[20:21], v10 op_sel:[1,0]"), 16, 2);
    for case in &mut cases {
        case.name = case.text.split(['_', ' ']).take(4).collect::<Vec<_>>().join("_");
    }
    cases.push(
        Case::new(
            &format!("v_cvt_f32_{name}_dpp v20, v10 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf bound_ctrl:1"),
            move |s| {
                let before = s.clone();
                for l in before.lanes() {
                    let code = if before.active(l ^ 1) { before.get(10, l ^ 1) & 255 } else { 0 };
                    s.set(20, l, (value(name, s.arch, code) as f32).to_bits());
                }
            },
        )
        .equal(Equal::Single),
    );
    cases
}

fn from_singles(name: &'static str) -> Vec<Case> {
    // Within the range: numbers of the format, what lies in the middle of two of them or near it, and denormals.
    let prepare = |s: &mut State| {
        let all: Vec<f64> = magnitudes(name, s.arch).into_iter().filter(|m| m.is_finite()).collect();
        for l in 0..s.width {
            for r in [10, 11] {
                let word = s.get(r, l) ^ (l as u32 * 0x9e37_79b9);
                let at = (word >> 4) as usize % (all.len() - 1);
                let (low, high) = (all[at] as f32, all[at + 1] as f32);
                let middle = (low + high) / 2.0;
                let magnitude = [low, middle, middle.next_up(), middle.next_down(), high, 1e-40][word as usize % 6];
                s.set(r, l, (if word >> 31 == 1 { -magnitude } else { magnitude }).to_bits());
            }
        }
    };
    let mut cases = Vec::new();
    for (destination, modifiers, shift) in [("v20", "", 0), ("v20", " op_sel:[0,0,1]", 16), ("v20.l", "", 0), ("v20.h", "", 16)] {
        for (sources, negate) in [("v10, v11", false), ("-v10, |v11|", true)] {
            let text = format!("v_cvt_pk_{name}_f32 {destination}, {sources}{modifiers}");
            let convert = move |s: &mut State, l: usize| {
                let (a, b) = (single(s.get(10, l)), single(s.get(11, l)));
                let (a, b) = if negate { (-a, b.abs()) } else { (a, b) };
                let pair = nearest(name, s.arch, a) | nearest(name, s.arch, b) << 8;
                let kept = s.get(20, l) & !(0xffff << shift);
                s.set(20, l, pair << shift | kept);
            };
            cases.push(Case::new(&text, each(convert)).prepare(prepare));
        }
    }
    for value in [f32::INFINITY, f32::NAN, 1e6, -60_000.0 * 1.1] {
        let text = format!("v_cvt_pk_{name}_f32 v20, v10, v11");
        let beyond = Case::lacking(&text, "to eight bits").kinds(&[Kind::Single; 2]).all_lanes();
        cases.push(beyond.prepare(move |s| {
            prepare(s);
            s.set(11, 7, value.to_bits());
        }));
    }
    cases
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for name in ["fp8", "bf8"] {
        cases.extend(to_singles(name));
        cases.extend(from_singles(name));
    }
    cases
}

#[test]
fn tables_have_the_largest_numbers_of_their_formats() {
    let largest = |name, arch| magnitudes(name, arch).into_iter().filter(|m| m.is_finite()).fold(0.0, f64::max);
    assert_eq!(largest("fp8", "gfx942"), 240.0);
    assert_eq!(largest("bf8", "gfx942"), 57_344.0);
    assert_eq!(largest("fp8", "gfx950"), 448.0);
    assert_eq!(largest("bf8", "gfx1201"), 57_344.0);
}
