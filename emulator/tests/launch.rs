//! What a kernel is told when it begins (arguments that the compiler adds, the packet, its place in the grid) and what a loader does to
//! the code object's own memory, for each generation and version of the ABI.

mod clang;

use hipc_emulator::{Dispatch, EmulatorError, FaultKind, Memory, Module, Options};

const ARCHS: [&str; 4] = ["gfx90a", "gfx1030", "gfx1100", "gfx1201"];

const SOURCE: &str = r#"
typedef unsigned u32; typedef unsigned long long u64;
#define KERNEL extern "C" __attribute__((global)) __attribute__((amdgpu_flat_work_group_size(1, 256))) void
// One row of sixteen words for each workgroup.
extern __attribute__((shared)) u32 dynamic[];
KERNEL told(u32* out) {
    *(volatile u32*)dynamic = 1;
    const u32* hidden = (const u32*)__builtin_amdgcn_implicitarg_ptr();
    u32 x = __builtin_amdgcn_workgroup_id_x(), y = __builtin_amdgcn_workgroup_id_y(), z = __builtin_amdgcn_workgroup_id_z();
    u32* row = out + 16 * (x + hidden[0] * (y + hidden[1] * z));
    row[0] = x; row[1] = y; row[2] = z;
    row[3] = __builtin_amdgcn_workgroup_size_x(); row[4] = __builtin_amdgcn_workgroup_size_y(); row[5] = __builtin_amdgcn_workgroup_size_z();
    row[6] = hidden[0]; row[7] = hidden[1]; row[8] = hidden[2];
    row[9] = __builtin_amdgcn_grid_size_x(); row[10] = __builtin_amdgcn_grid_size_y(); row[11] = __builtin_amdgcn_grid_size_z();
    row[12] = ((const unsigned short*)hidden)[32]; row[13] = hidden[30];
    const unsigned short* packet = (const unsigned short*)__builtin_amdgcn_dispatch_ptr();
    row[14] = packet[0] & 255; row[15] = packet[1];
}
KERNEL second(u32* out) { out[0] = __builtin_amdgcn_workgroup_id_y(); }
KERNEL third(u32* out) { out[0] = __builtin_amdgcn_workgroup_id_y() + __builtin_amdgcn_workgroup_id_z(); }
KERNEL queue(u32* out) { out[0] = *(const u32*)__builtin_amdgcn_queue_ptr(); }
__attribute__((device)) int x, y;
__attribute__((device)) int* table[2] = {&x, &y};
KERNEL stores(int* out, int i) { *table[i] += 7 + i; out[0] = x; out[1] = y; }
typedef int (*Function)(int);
static __attribute__((device)) int increment(int a) { return a + 1; }
static __attribute__((device)) int twice(int a) { return a * 2; }
__attribute__((device)) Function functions[2] = {increment, twice};
KERNEL calls(int* out, int i) { out[0] = functions[i](20); }
"#;

fn object(arch: &str, version: u32) -> Vec<u8> {
    clang::compile(arch, &["-O2", &format!("-mcode-object-version={version}")], SOURCE)
}

/// Runs a kernel of a pointer and an integer; gives what is behind the pointer.
fn run(
    module: &Module,
    kernel: &str,
    grid: [u32; 3],
    workgroup: [u32; 3],
    i: u32,
    words: usize,
) -> Result<Vec<u32>, EmulatorError> {
    let memory = Memory::new();
    let out = memory.allocate(4 * words as u64);
    let mut kernarg = out.to_le_bytes().to_vec();
    if module.kernel(kernel)?.facts.explicit_kernarg_size() > 8 {
        kernarg.extend(i.to_le_bytes());
    }
    let dispatch = Dispatch { kernel, grid, workgroup, dynamic_lds: 24, kernarg: &kernarg };
    module.run(&dispatch, &memory, &Options { parallel: false, dispatch_budget: 1 << 24, ..Options::default() })?;
    let mut bytes = vec![0; 4 * words];
    memory.read(out, &mut bytes).expect("the buffer");
    Ok(bytes.chunks_exact(4).map(|c| u32::from_le_bytes(c.try_into().expect("four bytes"))).collect())
}

#[test]
fn kernels_are_told_their_place() {
    for (arch, version) in ARCHS.into_iter().flat_map(|a| [(a, 5), (a, 6)]) {
        let module = Module::load(&object(arch, version)).unwrap();
        for (grid, workgroup, dimensions) in [([3, 2, 5], [8, 4, 2], 3), ([4, 3, 1], [16, 1, 1], 2), ([2, 1, 1], [64, 1, 1], 1)] {
            let groups: u32 = grid.iter().product();
            let rows = run(&module, "told", grid, workgroup, 0, 16 * groups as usize).unwrap();
            for (n, row) in rows.chunks_exact(16).enumerate() {
                let n = n as u32;
                let id = [n % grid[0], n / grid[0] % grid[1], n / grid[0] / grid[1]];
                let mut expected = [id, workgroup, grid, [0, 1, 2].map(|i| grid[i] * workgroup[i])].concat();
                // Dimensions, dynamic LDS, a kernel's packet, its dimensions.
                expected.extend([dimensions, 24, 2, dimensions]);
                assert_eq!(row, expected, "{arch} v{version}: {grid:?} × {workgroup:?}, workgroup {n}");
            }
        }
    }
}

/// gfx12 has y and z in one register, but only for kernels that ask for z.
#[test]
fn far_away_in_the_grid() {
    for arch in ["gfx1100", "gfx1201"] {
        let module = Module::load(&object(arch, 6)).unwrap();
        assert_eq!(run(&module, "second", [1, 70_000, 1], [1; 3], 0, 1).unwrap(), [69_999], "{arch}");
        let both = run(&module, "third", [1, 70_000, 2], [1; 3], 0, 1);
        match both {
            Ok(last) if arch == "gfx1100" => assert_eq!(last, [70_000]),
            Err(EmulatorError::Dispatch { what, .. }) if arch == "gfx1201" => assert!(what.contains("16 bits"), "{what}"),
            other => panic!("{arch}: {other:?}"),
        }
    }
}

/// Pointers in the code object's memory: to its variables, to its functions.
#[test]
fn addresses_are_relocated() {
    for arch in ARCHS {
        let module = Module::load(&object(arch, 5)).unwrap();
        assert_eq!(run(&module, "stores", [1; 3], [1; 3], 0, 2).unwrap(), [7, 0], "{arch}");
        // Variables live as long as the module.
        assert_eq!(run(&module, "stores", [1; 3], [1; 3], 1, 2).unwrap(), [7, 8], "{arch}");
        assert_eq!(run(&module, "calls", [1; 3], [1; 3], 0, 1).unwrap(), [21], "{arch}");
        assert_eq!(run(&module, "calls", [1; 3], [1; 3], 1, 1).unwrap(), [40], "{arch}");
    }
}

#[test]
fn other_relocations_are_refused() {
    let bytes = object("gfx1100", 5);
    // A record of `.rela.dyn`: the type is the lower half of its second word.
    let record = |kind: u8| [kind, 0, 0, 0, 0, 0, 0, 0];
    // Two of them behind each other, three words apart: a single 13 may be anything.
    let words = bytes.as_chunks::<8>().0;
    let at = words.windows(4).position(|w| w[0] == record(13) && w[3] == record(13)).expect("two relative relocations") * 8;
    for (kind, why) in [(1, "type 1 "), (3, "names no symbol"), (6, "type 6 ")] {
        let mut other = bytes.clone();
        other[at..at + 8].copy_from_slice(&record(kind));
        let Err(error) = Module::load(&other) else { panic!("it loads with type {kind}") };
        assert!(matches!(error, EmulatorError::CodeObject(_)) && error.to_string().contains(why), "{error}");
    }
    // Where nothing is loaded.
    let mut outside = bytes;
    outside[at - 8..at].copy_from_slice(&[0xff; 8]);
    let Err(error) = Module::load(&outside) else { panic!("it loads") };
    assert!(error.to_string().contains("outside of the segments"), "{error}");
}

#[test]
fn the_queue_is_not_there() {
    let module = Module::load(&object("gfx90a", 4)).unwrap();
    let Err(EmulatorError::Fault(fault)) = run(&module, "queue", [1; 3], [1; 3], 0, 1) else { panic!("it read a queue") };
    assert!(matches!(fault.kind, FaultKind::OutOfBounds { what: "load", .. }), "{fault}");
    assert!(fault.to_string().contains("in the queue, which is not emulated"), "{fault}");
}
