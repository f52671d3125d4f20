//! Words that LLVM 22's disassembler doesn't survive. They are refused before it sees them: it lives in this process.
//!
//! Nearly all are no instruction of the machine:
//! - the selector of a literal where the encoding has no room for one (LLVM's issues 170318, 214909 and 214910: the complaint goes to a
//!   stream that isn't there any more);
//! - reserved values in the fields of SDWA (issue 215006: the printer's switch has no such case);
//! - constants and scalar registers as matrices of gfx950's scaled MFMA.
//!
//! The list was made by decoding random words on every instruction set until none crashed; the test below goes on with that. Sources of the
//! fields: AMD's ISA documents of Vega, CDNA 3, RDNA 2 and RDNA 4, "Microcode Formats".

use crate::arch::Generation;

/// The source operand that says "the word behind the instruction is a constant".
const LITERAL: u32 = 255;

/// What is printed for words that are no instruction.
pub(crate) const ILLEGAL: &str = "(illegal)";

/// Printed for the refused words that are an instruction: multiply-adds of halves with the constant 0xff.
const UNREADABLE: [&str; 4] = [
    "v_madmk_f16 with the constant 0xff, which LLVM 22 can't decode",
    "v_madak_f16 with the constant 0xff, which LLVM 22 can't decode",
    "v_fmamk_f16 with the constant 0xff, which LLVM 22 can't decode",
    "v_fmaak_f16 with the constant 0xff, which LLVM 22 can't decode",
];

/// Whether a text is one of those above and no instruction's.
pub(crate) fn is_refusal(text: &str) -> bool {
    text == ILLEGAL || UNREADABLE.contains(&text)
}

/// Size and text instead of LLVM's, where it must not be asked.
pub(crate) fn refusal(generation: Generation, words: [u32; 4]) -> Option<(usize, &'static str)> {
    let [first, second, third, fourth] = words;
    let is_gfx9 = generation == Generation::Gfx9;
    let unreadable = match (is_gfx9, first >> 25) {
        (true, 0x24) => Some(0),
        (true, 0x25) => Some(1),
        (false, 0x37) => Some(2),
        (false, 0x38) => Some(3),
        _ => None,
    };
    if let Some(which) = unreadable.filter(|_| second == LITERAL) {
        return Some((8, UNREADABLE[which]));
    }
    let illegal = match generation {
        Generation::Gfx9 => {
            // gfx950's scaled MFMA: the scales, then the multiplication.
            let scaled =
                first >> 16 == 0xd3ac && (has_literal_without_room([third, fourth]) || has_wrong_matrix([third, fourth]));
            has_literal_without_room([first, second]) || has_wrong_matrix([first, second]) || scaled
        }
        Generation::Gfx12 => is_barrier_with_literal(first),
        Generation::Gfx10 | Generation::Gfx11 => false,
    };
    let reserved = generation <= Generation::Gfx10 && has_reserved_selection([first, second]);
    (illegal || reserved).then_some((4, ILLEGAL))
}

/// gfx9 has literals in encodings of one word only.
fn has_literal_without_room([first, second]: [u32; 2]) -> bool {
    match first >> 26 {
        // VOP3, VOP3P and MAI: three sources of nine bits, and the scalar destination of a comparison.
        0b110100 => {
            let source = [0, 9, 18].iter().any(|shift| second >> shift & 0x1ff == LITERAL);
            source || (first >> 24 == 0xd0 && first & 0xff == LITERAL)
        }
        // MUBUF and MTBUF: a scalar offset.
        0b111000 | 0b111010 => second >> 24 == LITERAL,
        _ => false,
    }
}

/// `v_mfma_*_f8f6f4` of what is no vector register.
fn has_wrong_matrix([first, second]: [u32; 2]) -> bool {
    matches!(first >> 16, 0xd3ad | 0xd3ae) && (second >> 8 & 1 == 0 || second >> 17 & 1 == 0)
}

/// SOP1's barriers by number, whose number is an inline constant or in `m0`.
fn is_barrier_with_literal(first: u32) -> bool {
    first >> 23 == 0b1_0111_1101 && first & 0xff == LITERAL && (0x4e..=0x53).contains(&(first >> 8 & 0xff))
}

/// Seven where six parts of a register can be chosen, or three where three things can be done with the rest of it.
fn has_reserved_selection([first, second]: [u32; 2]) -> bool {
    let is_sdwa = first >> 31 == 0 && first & 0x1ff == 0xf9;
    let (is_compare, is_unary) = (first >> 25 == 0b0111110, first >> 25 == 0b0111111);
    let part = |shift: u32| second >> shift & 7 == 7;
    // Comparisons have a scalar destination in the place of the first two fields.
    let destination = !is_compare && (part(8) || second >> 11 & 3 == 3);
    is_sdwa && (destination || part(16) || (!is_unary && part(24)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::find;
    use crate::disassembler;
    use Generation::*;
    use proptest::prelude::*;
    use proptest::test_runner::{RngSeed, TestRunner};
    use std::io::Write as _;
    use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

    #[test]
    fn words_that_ended_the_process() {
        for (generation, words) in [
            (Gfx9, [0xe877_1044, 0xff17_ee1e, 0, 0]),
            (Gfx9, [0xe102_748c, 0xff12_ff47, 0, 0]),
            (Gfx9, [0xd3ee_3bb3, 0x39d5_fe52, 0, 0]),
            (Gfx9, [0xd1fa_280f, 0xdf2d_fe7b, 0, 0]),
            (Gfx9, [0xd073_00ff, 0x60ef_374b, 0, 0]),
            (Gfx9, [0xd3ad_006b, 0x8efe_aaf6, 0, 0]),
            (Gfx9, [0xd3ac_0000, 0, 0xd3ad_006b, 0x8efe_aaf6]),
            (Gfx9, [0x78f7_cef9, 0xb301_8f85, 0, 0]),
            (Gfx9, [0x60c0_14f9, 0x8f87_3862, 0, 0]),
            (Gfx10, [0x1f87_06f9, 0x3731_31bd, 0, 0]),
            (Gfx10, [0x7e00_02f9, 0x0000_1800, 0, 0]),
            (Gfx12, [0xbe91_52ff, 0x4800_ff4b, 0, 0]),
        ] {
            assert_eq!(refusal(generation, words), Some((4, ILLEGAL)), "{words:x?}");
        }
        for (generation, first, name) in [
            (Gfx9, 0x486e_de00, "v_madmk_f16"),
            (Gfx9, 0x4ad8_ffff, "v_madak_f16"),
            (Gfx11, 0x6e82_e9bc, "v_fmamk_f16"),
            (Gfx10, 0x716e_fffb, "v_fmaak_f16"),
        ] {
            let (size, text) = refusal(generation, [first, 0xff, 0, 0]).expect("it is refused");
            assert!(size == 8 && text.contains(name), "{first:x}: {text}");
        }
    }

    #[test]
    fn what_compilers_write_is_not_refused() {
        for (generation, [first, second]) in [
            // v_mov_b32_sdwa v1, v2 dst_sel:DWORD dst_unused:UNUSED_PAD src0_sel:WORD_1
            (Gfx9, [0x7e02_02f9, 0x0005_0602]),
            // v_cmp_eq_u16_sdwa s[30:31], v1, v2 src0_sel:BYTE_0 src1_sel:WORD_1: the destination would be a reserved field.
            (Gfx9, [0x7d54_04f9, 0x0500_9e01]),
            // v_fma_f32 v0, v255, v254, v253
            (Gfx9, [0xd1cb_0000, 0x07f7_fdff]),
            // buffer_load_dword v0, off, s[0:3], 0 offset:255
            (Gfx9, [0xe050_00ff, 0x8000_0000]),
            // v_mfma_f32_16x16x128_f8f6f4 a[0:3], v[0:7], v[8:15], a[0:3]
            (Gfx9, [0xd3ad_8000, 0x0402_1100]),
            // v_fma_f32 v0, v1, v2, 0x40490fdb: gfx10 has literals there.
            (Gfx10, [0xd54b_0000, 0x03fe_0501]),
            // v_fmamk_f16 v0, v1, 0x100, v2
            (Gfx11, [0x6e00_0501, 0x100]),
            // s_barrier_signal -1
            (Gfx12, [0xbe80_4ec1, 0]),
        ] {
            assert_eq!(refusal(generation, [first, second, 0, 0]), None, "{first:x} {second:x}");
        }
    }

    /// One of each instruction set.
    const ARCHS: [&str; 12] = [
        "gfx900", "gfx906", "gfx908", "gfx90a", "gfx942", "gfx950", "gfx1010", "gfx1012", "gfx1030", "gfx1100", "gfx1150",
        "gfx1201",
    ];

    /// Words with what the list above is about more often than by chance: constants, the largest values, beginnings of encodings.
    fn words() -> impl Strategy<Value = [u32; 5]> {
        const BEGINNINGS: [u8; 24] = [
            0xd0, 0xd1, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xcc, 0xca, 0xd8, 0xdc, 0xe0, 0xe8, 0xec, 0xee, 0xf0, 0xf4, 0xc0, 0xb8,
            0xbe, 0xbf, 0x7e, 0x7c, 0x6e,
        ];
        let byte = prop_oneof![4 => any::<u8>(), 1 => Just(0xff), 1 => Just(0), 1 => 0xf0..=0xffu8];
        let top = prop_oneof![1 => any::<u8>(), 3 => prop::sample::select(&BEGINNINGS[..])];
        // gfx950's encodings of four words.
        let scaled = prop_oneof![7 => Just(None), 1 => (0xac..=0xafu8, 0xac..=0xafu8).prop_map(Some)];
        (prop::array::uniform20(byte), top, scaled).prop_map(|(mut bytes, top, scaled)| {
            bytes[3] = top;
            if let Some((first, second)) = scaled {
                (bytes[3], bytes[2], bytes[11], bytes[10]) = (0xd3, first, 0xd3, second);
            }
            std::array::from_fn(|i| u32::from_le_bytes([0, 1, 2, 3].map(|j| bytes[4 * i + j])))
        })
    }

    /// A seed: `HIPC_FUZZ_SEED`'s, or another each time. It is said at once, past what captures a test's output, for a crash would take that along.
    fn fuzz_seed(test: &str) -> u64 {
        let given = std::env::var("HIPC_FUZZ_SEED").ok().and_then(|s| s.parse().ok());
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_nanos() as u64 % 1_000_000_000_000);
        let seed = given.unwrap_or_else(now);
        let _ = writeln!(std::io::stderr(), "{test}: HIPC_FUZZ_SEED={seed}");
        seed
    }

    /// The process survives: there is nothing else to ask of random words. Two seconds of them, or as many as `HIPC_FUZZ_SECONDS` says.
    #[test]
    fn random_words_are_decoded() {
        let seconds = std::env::var("HIPC_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(2);
        let end = Instant::now() + Duration::from_secs(seconds);
        let config = ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() };
        let seed = fuzz_seed("random_words_are_decoded");
        let mut rounds = 0u64;
        while Instant::now() < end {
            for arch in ARCHS {
                let wave32 = rounds.is_multiple_of(2) && find(arch).unwrap().has_wave32();
                let config = ProptestConfig { rng_seed: RngSeed::Fixed(seed + rounds), ..config.clone() };
                let done = TestRunner::new(config).run(&(words(), 4..=20usize), |(words, length)| {
                    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).take(length).collect();
                    let decoded = disassembler::with(find(arch).unwrap(), wave32, |d| d.decode(&bytes, 0x1000)).unwrap();
                    prop_assert!(decoded.is_none_or(|(size, _)| (4..=length).contains(&size)));
                    Ok(())
                });
                done.unwrap_or_else(|e| panic!("{arch}: {e}"));
            }
            rounds += 1;
        }
        println!("{} words on each of {} machines", rounds * 500, ARCHS.len());
    }
}
