//! Code objects of clang 22, compared with what `llvm-readelf --notes` prints of them, whole and damaged.

use hipc_codeobj::*;
use proptest::prelude::*;

const GFX1100: &[u8] = include_bytes!("data/gfx1100-v5.hsaco");
const GFX1201: &[u8] = include_bytes!("data/gfx1201-v6.hsaco");
const GFX90A: &[u8] = include_bytes!("data/gfx90a-v4.hsaco");

#[test]
fn reads_what_readelf_prints() {
    let object = CodeObject::parse(GFX1100).unwrap();
    assert_eq!(object.target, "gfx1100");
    assert_eq!(object.abi, AbiVersion::V5);
    assert_eq!((object.xnack, object.sramecc), (Feature::Unsupported, Feature::Unsupported));
    assert_eq!(object.kernels.iter().map(|k| k.name.as_str()).collect::<Vec<_>>(), ["reduce", "registers"]);

    let k = object.kernel("reduce").unwrap();
    assert_eq!(k.symbol, "reduce.kd");
    assert_eq!((k.vgpr_count, k.agpr_count, k.sgpr_count), (3, 0, 8));
    assert_eq!((k.vgpr_spill_count, k.sgpr_spill_count, k.private_segment_fixed_size), (0, 0, 0));
    assert_eq!((k.group_segment_fixed_size, k.kernarg_segment_size, k.kernarg_segment_align), (1024, 24, 8));
    assert_eq!((k.max_flat_workgroup_size, k.wavefront_size), (256, 32));
    let arg = |offset, size, kind| Arg { offset, size, kind };
    let args = [
        arg(0, 8, ArgKind::GlobalBuffer),
        arg(8, 8, ArgKind::GlobalBuffer),
        arg(16, 4, ArgKind::ByValue),
        arg(20, 1, ArgKind::ByValue),
    ];
    assert_eq!(k.args, args);
    assert_eq!(k.explicit_kernarg_size(), 21);
    assert_eq!((k.descriptor.group_segment_fixed_size, k.descriptor.kernarg_size), (1024, 24));
    assert!(k.descriptor.is_wave32());
    assert_eq!(k.descriptor.entry % 256, 0);
}

#[test]
fn reads_other_abi_versions_and_accumulation_registers() {
    let object = CodeObject::parse(GFX1201).unwrap();
    assert_eq!((object.target.as_str(), object.abi), ("gfx1201", AbiVersion::V6));

    let object = CodeObject::parse(GFX90A).unwrap();
    assert_eq!((object.target.as_str(), object.abi), ("gfx90a", AbiVersion::V4));
    assert_eq!((object.xnack, object.sramecc), (Feature::Any, Feature::Any));
    let k = object.kernel("registers").unwrap();
    assert_eq!((k.vgpr_count, k.agpr_count, k.wavefront_size), (132, 32, 64));
    assert!(!k.descriptor.is_wave32());
}

/// A workgroup of more threads than any machine has would be allocated because a file says so.
#[test]
fn numbers_that_no_machine_has_are_refused() {
    let key = b".max_flat_workgroup_size";
    let at = GFX1100.windows(key.len()).position(|w| w == key).unwrap() + key.len();
    assert_eq!(GFX1100[at..at + 3], [0xcd, 1, 0], "256 in msgpack");
    for (threads, fits) in [(1024u16, true), (1025, false), (u16::MAX, false)] {
        let mut bytes = GFX1100.to_vec();
        bytes[at + 1..at + 3].copy_from_slice(&threads.to_be_bytes());
        match CodeObject::parse(&bytes) {
            Ok(_) => assert!(fits, "{threads}"),
            Err(CodeObjectError::BadMetadata(what)) => assert!(!fits && what.contains("1024 at most"), "{what}"),
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn says_what_is_wrong() {
    let with = |at: usize, value: u8| {
        let mut bytes = GFX1100.to_vec();
        bytes[at] = value;
        CodeObject::parse(&bytes).unwrap_err()
    };
    assert!(matches!(CodeObject::parse(b""), Err(CodeObjectError::Elf(_))));
    assert!(matches!(CodeObject::parse(b"GGUF"), Err(CodeObjectError::Elf(_))));
    assert_eq!(with(18, 62), CodeObjectError::WrongMachine(62));
    assert_eq!(with(7, 65), CodeObjectError::WrongOsAbi(65));
    assert_eq!(with(8, 9), CodeObjectError::UnsupportedAbi(9));
    assert_eq!(with(48, 0xfe), CodeObjectError::UnknownMachine { flags: 0xfe });
    assert!(matches!(with(48, 0x46), CodeObjectError::TargetMismatch { .. }));
    let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    assert!(matches!(CodeObject::parse(&own), Err(CodeObjectError::WrongMachine(_))));
}

#[test]
fn every_truncation_is_an_error_or_complete() {
    let whole = CodeObject::parse(GFX1100).unwrap();
    for len in 0..GFX1100.len() {
        if let Ok(object) = CodeObject::parse(&GFX1100[..len]) {
            assert_eq!(object, whole, "cut at {len}");
        }
    }
}

#[test]
fn every_single_byte_may_be_wrong() {
    let mut bytes = GFX90A.to_vec();
    for at in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            bytes[at] ^= flip;
            let _ = CodeObject::parse(&bytes);
            bytes[at] ^= flip;
        }
    }
}

proptest! {
    #[test]
    fn damaged_bytes_never_panic(
        flips in prop::collection::vec((0..GFX1100.len(), any::<u8>()), 1..40),
        len in 0..=GFX1100.len(),
    ) {
        let mut bytes = GFX1100.to_vec();
        for (at, value) in flips {
            bytes[at] = value;
        }
        let _ = CodeObject::parse(&bytes);
        let _ = CodeObject::parse(&bytes[..len]);
    }

    #[test]
    fn damaged_bundles_never_panic(
        flips in prop::collection::vec((24..160usize, any::<u8>()), 1..8),
        len in 0..400usize,
    ) {
        let mut bytes = bundle(&[("host-x86_64-unknown-linux", b""), ("hipv4-amdgcn-amd-amdhsa--gfx1100", &[7; 300])]);
        for (at, value) in flips {
            bytes[at] = value;
        }
        let _ = unbundle(&bytes, "gfx1100");
        let _ = unbundle(&bytes[..len.min(bytes.len())], "gfx1100");
    }
}

fn bundle(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut head = b"__CLANG_OFFLOAD_BUNDLE__".to_vec();
    let start = 32 + entries.iter().map(|(id, _)| 24 + id.len()).sum::<usize>();
    head.extend((entries.len() as u64).to_le_bytes());
    let mut body = Vec::new();
    for (id, bytes) in entries {
        for n in [start + body.len(), bytes.len(), id.len()] {
            head.extend((n as u64).to_le_bytes());
        }
        head.extend(id.as_bytes());
        body.extend_from_slice(bytes);
    }
    head.extend(body);
    head
}

#[test]
fn takes_a_code_object_out_of_an_offload_bundle() {
    let bytes = bundle(&[
        ("host-x86_64-unknown-linux", b""),
        ("hipv4-amdgcn-amd-amdhsa--gfx1100", GFX1100),
        ("hipv4-amdgcn-amd-amdhsa--gfx90a:xnack-", GFX90A),
    ]);
    assert_eq!(unbundle(&bytes, "gfx1100").unwrap(), GFX1100);
    assert_eq!(unbundle(&bytes, "gfx90a").unwrap(), GFX90A);
    let error = unbundle(&bytes, "gfx1030").unwrap_err().to_string();
    assert!(error.contains("gfx1030") && error.contains("gfx90a:xnack-"), "{error}");
    assert_eq!(unbundle(GFX1100, "gfx1100").unwrap(), GFX1100);
}
