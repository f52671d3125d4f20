//! Each class of findings with a small kernel that has the fault and one that hasn't, on each generation.

use hipc_emulator::{Dispatch, EmulatorError, Extent, Fault, FaultKind, Finding, FindingKind, Memory, Module, Options};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// A GPU of each generation, and what `GFX` is for it.
const ARCHS: [(&str, u32); 4] = [("gfx942", 9), ("gfx1030", 10), ("gfx1100", 11), ("gfx1201", 12)];

/// Bytes of the kernels' buffer.
const BYTES: u64 = 4096;

/// The clang to assemble with: `HIPC_CLANG`, or the usual names.
fn clang() -> Option<&'static str> {
    static CLANG: OnceLock<Option<String>> = OnceLock::new();
    let answers = |name: &String| Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success());
    let names = || std::env::var("HIPC_CLANG").into_iter().chain(["clang-22", "clang-21", "clang"].map(str::to_owned));
    CLANG.get_or_init(|| names().find(answers)).as_deref()
}

/// The code object of a kernel `k` with this body.
fn assemble(clang: &str, (arch, gfx): (&str, u32), body: &str) -> Vec<u8> {
    let wave = if gfx == 9 { ".amdhsa_accum_offset 32" } else { ".amdhsa_wavefront_size32 1" };
    let lanes = if gfx == 9 { 64 } else { 32 };
    let macros = include_str!("sanitizer/macros.s");
    let source = format!(
        ".amdgcn_target \"amdgcn-amd-amdhsa--{arch}\"\n.set GFX, {gfx}\n{macros}
.text\n.globl k\n.p2align 8\n.type k,@function\nk:\n  begin\n{body}\n  s_endpgm\n.Lend:\n.size k, .Lend-k
.rodata\n.p2align 6\n.amdhsa_kernel k\n  .amdhsa_group_segment_fixed_size 1024\n  .amdhsa_private_segment_fixed_size 16
  .amdhsa_kernarg_size 8\n  .amdhsa_user_sgpr_kernarg_segment_ptr 1\n  .amdhsa_user_sgpr_count 2
  .amdhsa_float_denorm_mode_32 3\n  .amdhsa_next_free_vgpr 32\n  .amdhsa_next_free_sgpr 32\n  {wave}\n.end_amdhsa_kernel
.amdgpu_metadata\n---\namdhsa.version: [1, 2]\namdhsa.target: amdgcn-amd-amdhsa--{arch}\namdhsa.kernels:\n  - .name: k
    .symbol: k.kd\n    .kernarg_segment_size: 8\n    .kernarg_segment_align: 8\n    .group_segment_fixed_size: 1024
    .private_segment_fixed_size: 16\n    .wavefront_size: {lanes}\n    .sgpr_count: 32\n    .vgpr_count: 32
    .max_flat_workgroup_size: 256\n    .args:\n      - {{.size: 8, .offset: 0, .value_kind: global_buffer, .address_space: global}}
...\n.end_amdgpu_metadata\n"
    );
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (directory.path().join("k.s"), directory.path().join("k.hsaco"));
    std::fs::write(&from, &source).unwrap();
    let path = |p: &Path| p.to_str().unwrap().to_owned();
    let mcpu = format!("-mcpu={arch}");
    let args = ["--target=amdgcn-amd-amdhsa", &mcpu, "-nogpulib", "-x", "assembler", &path(&from), "-o", &path(&to)];
    let output = Command::new(clang).args(args).output().unwrap();
    assert!(output.status.success(), "{arch}:\n{}\n{source}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(to).unwrap()
}

/// How a kernel is run.
struct Case<'a> {
    body: &'a str,
    /// Workgroups, of two waves.
    groups: u32,
    /// The buffer's beginning that was written before.
    written: usize,
    /// The buffer's part that the launch may access, and whether it may write.
    extent: Option<(u64, u64, bool)>,
}

impl<'a> Case<'a> {
    fn new(body: &'a str) -> Self {
        Self { body, groups: 1, written: BYTES as usize, extent: None }
    }

    fn run(&self, clang: &str, arch: (&str, u32)) -> Result<Vec<Finding>, EmulatorError> {
        let module = Module::load(&assemble(clang, arch, self.body))?;
        let threads = if arch.1 == 9 { 128 } else { 64 };
        let run = |sanitize| {
            let memory = Memory::new();
            let buffer = memory.allocate(BYTES);
            memory.undefine(buffer, BYTES).unwrap();
            memory.write(buffer, &vec![0; self.written]).unwrap();
            let extents = self.extent.map(|(at, bytes, writable)| [Extent { address: buffer + at, bytes, writable }]);
            let kernarg = buffer.to_le_bytes();
            let (grid, workgroup) = ([self.groups, 1, 1], [threads, 1, 1]);
            let dispatch = Dispatch { kernel: "k", grid, workgroup, dynamic_lds: 0, kernarg: &kernarg };
            let options = Options { sanitize, extents: extents.as_ref().map(|e| &e[..]), parallel: false, ..Options::default() };
            let report = module.run(&dispatch, &memory, &options)?;
            let mut bytes = vec![0; BYTES as usize];
            memory.read(buffer, &mut bytes).unwrap();
            Ok::<_, EmulatorError>((report, bytes))
        };
        // The sanitizer only watches.
        let ((report, bytes), (plain, expected)) = (run(true)?, run(false)?);
        assert_eq!((report.instructions, plain.findings.len()), (plain.instructions, 0));
        assert!(bytes == expected, "{}: the sanitizer changed what the kernel wrote", arch.0);
        Ok(report.findings)
    }
}

/// Runs both on every generation: the first has nothing but findings that `expected` accepts, the second none.
fn check(faulty: &Case, clean: &Case, expected: impl Fn(&Finding) -> bool) {
    check_beside(faulty, clean, expected, |_| false);
}

/// The same where the fault has consequences of its own, findings `beside` the expected one, which must be there all the same.
fn check_beside(faulty: &Case, clean: &Case, expected: impl Fn(&Finding) -> bool, beside: impl Fn(&Finding) -> bool) {
    let Some(clang) = clang() else {
        eprintln!("skipped: no clang to assemble kernels with");
        return;
    };
    for arch in ARCHS {
        let findings = faulty.run(clang, arch).unwrap();
        assert!(findings.iter().any(&expected), "{}: not found among {findings:?}", arch.0);
        for finding in &findings {
            assert!(expected(finding) || beside(finding), "{}: {finding}", arch.0);
        }
        let findings = clean.run(clang, arch).unwrap();
        assert!(findings.is_empty(), "{}: {}", arch.0, findings[0]);
    }
}

const STORE_ALL: &str = "store v1, v2, s[4:5], 256\n";

#[test]
fn outside_of_the_extents() {
    let case = |extent| Case { extent: Some(extent), ..Case::new(STORE_ALL) };
    let beyond = |f: &Finding| {
        f.lane == Some(16)
            && f.wave == 0
            && f.times >= 48
            && f.instruction.contains("store")
            && matches!(&f.kind, FindingKind::OutOfExtent { what: "store", bytes: 4, near, .. } if near.contains("beyond"))
    };
    check(&case((256, 64, true)), &case((256, 1024, true)), beyond);
    let read_only = |f: &Finding| matches!(&f.kind, FindingKind::OutOfExtent { near, .. } if near.contains("only read"));
    check(&case((256, 1024, false)), &case((0, BYTES, true)), read_only);
}

/// Faulty and, with the last place that is right instead, not: on each generation, and on the first CDNA with accumulation registers
/// among the others.
#[test]
fn outside_of_everything_is_a_fault() {
    let Some(clang) = clang() else { return };
    for arch in ARCHS.into_iter().chain([("gfx90a", 9)]) {
        let fault = |body: &str| match Case::new(body).run(clang, arch) {
            Err(EmulatorError::Fault(fault)) => fault,
            other => panic!("{}: {other:?}", arch.0),
        };
        let mut clean = String::new();
        let mut twins = |body: &dyn Fn(u32) -> String, wrong: u32, right: u32| {
            clean += &body(right);
            fault(&body(wrong))
        };
        let global = twins(
            &|at| format!("v_add_u32 v3, {at}, v2\n").replace("v_add_u32", "v_or_b32") + "store v3, v2, s[4:5]\n",
            0x1000,
            0xffc,
        );
        assert!(
            matches!(global.kind, FaultKind::OutOfBounds { what: "store", bytes: 4, .. }) && global.lane == Some(0),
            "{global}"
        );
        let lds = twins(&|at| format!("v_mov_b32 v3, {at}\n lds_store v3, v2\n wait_lds\n"), 0x400, 0x3fc);
        assert!(matches!(lds.kind, FaultKind::LdsOutOfBounds { what: "store", offset: 0x400, .. }), "{}: {lds}", arch.0);
        let scratch = twins(
            &|at| {
                format!(
                    "v_mov_b32 v3, 0\n .if GFX < 11\n scratch_store_dword v3, v2, off offset:{at}\n .else
                    scratch_store_b32 v3, v2, off offset:{at}\n .endif\n"
                )
            },
            16,
            12,
        );
        let of = |fault: &Fault, at: u32| matches!(fault.kind, FaultKind::ScratchOutOfBounds { what: "store", offset, bytes: 4, size: 16 } if offset == at);
        assert!(of(&scratch, 16), "{}: {scratch}", arch.0);
        // The same through flat addresses: of scratch, of LDS.
        let flat = |base: &'static str| {
            move |at: u32| {
                format!(
                    "s_mov_b64 s[8:9], {base}\n v_mov_b32 v4, {at}\n v_mov_b32 v5, s9\n .if GFX < 11\n flat_store_dword v[4:5], v2
                    .else\n flat_store_b32 v[4:5], v2\n .endif\n wait_store\n wait_lds\n"
                )
            }
        };
        let scratch = twins(&flat("src_private_base"), 13, 12);
        assert!(of(&scratch, 13), "{}: {scratch}", arch.0);
        let lds = twins(&flat("src_shared_base"), 0x3fe, 0x3fc);
        assert!(matches!(lds.kind, FaultKind::LdsOutOfBounds { what: "store", offset: 0x3fe, .. }), "{}: {lds}", arch.0);
        // The first has no `sc0`.
        let add = if arch.0 == "gfx90a" { "global_atomic_add v4, v3, v2, s[4:5] glc" } else { "atomic_add v4, v3, v2, s[4:5]" };
        let atomic = twins(&|at| format!("one_lane\n v_mov_b32 v3, {at}\n {add}\n"), 2, 4);
        assert!(matches!(atomic.kind, FaultKind::Misaligned { what: "atomic", bytes: 4, .. }), "{}: {atomic}", arch.0);
        // All lanes of both waves store to the same places: races, and nothing else.
        let findings = Case::new(&clean).run(clang, arch).unwrap_or_else(|e| panic!("{}: {e}", arch.0));
        let race = |f: &Finding| matches!(f.kind, FindingKind::LdsRace { .. });
        assert!(findings.iter().all(race), "{}: {findings:?}", arch.0);
    }
}

#[test]
fn misaligned() {
    let body = |offset: u32| {
        format!("one_lane\n lds_store v2, v2\n ds_add_u32 v2, v2 offset:{offset}\n lds_load v3, v2, 3\n wait_lds\n")
    };
    let (odd, even) = (body(2), body(0));
    // One wave; what lies behind the four bytes was never written, but nobody looks.
    let lds = |f: &Finding| matches!(f.kind, FindingKind::Misaligned { space: "LDS", address: 2, alignment: 4, .. });
    check_beside(&Case::new(&once(&odd)), &Case::new(&once(&even)), lds, never_written);
    let scalar = |f: &Finding| matches!(f.kind, FindingKind::Misaligned { space: "global memory", alignment: 4, .. });
    let body =
        |more: u32| format!("s_add_u32 s4, s4, {more}\n s_addc_u32 s5, s5, 0\n scalar_load2 s[8:9], s[4:5], 0\n wait_scalar\n");
    check(&Case::new(&body(6)), &Case::new(&body(8)), scalar);
}

/// Something depends on what was never written.
fn never_written(f: &Finding) -> bool {
    matches!(f.kind, FindingKind::Undefined { .. })
}

/// The same, with the use and the source.
fn depends(use_: &'static str, on: &'static str) -> impl Fn(&Finding) -> bool {
    move |f| matches!(&f.kind, FindingKind::Undefined { what, source_, .. } if what.contains(use_) && source_.contains(on))
}

#[test]
fn registers_never_written() {
    let stored = |first: &str| format!("{first}\n add v3, v5, v1\n store v1, v3, s[4:5]\n");
    check(&Case::new(&stored("")), &Case::new(&stored("v_mov_b32 v5, 7")), depends("stored", "v5, which was never written"));
    let address = |first: &str| format!("{first}\n v_and_b32 v6, 0xfc, v5\n load v3, v6, s[4:5]\n wait_load\n");
    check(&Case::new(&address("")), &Case::new(&address("v_mov_b32 v5, 7")), depends("address", "v5"));
    let branch = |first: &str| format!("{first}\n s_cmp_eq_u32 s20, 0\n s_cbranch_scc1 .Lout\n s_nop 0\n.Lout:\n");
    check(&Case::new(&branch("")), &Case::new(&branch("s_mov_b32 s20, 0")), depends("branch", "s20"));
    let exec = |first: &str| format!("{first}\n s_and_b32 exec_lo, exec_lo, s20\n");
    check(&Case::new(&exec("")), &Case::new(&exec("s_mov_b32 s20, 5")), depends("active lanes", "s20"));
    // Some lanes of a register.
    let lanes = |more: &str| format!("one_lane\n v_mov_b32 v5, 1\n s_mov_b32 exec_lo, 3\n {more}\n store v1, v5, s[4:5]\n");
    let second = |f: &Finding| depends("stored", "v5")(f) && f.lane == Some(1);
    check(&Case::new(&lanes("")), &Case::new(&lanes("v_mov_b32 v5, 2")), second);
}

/// Compilers copy what isn't there, mask it out and fill halves of it.
#[test]
fn copies_and_masked_bits_are_no_fault() {
    let faulty = "load_half v5, v1, s[4:5]\n wait_load\n store v1, v5, s[4:5]\n";
    let clean =
        "load_half v5, v1, s[4:5]\n v_mov_b32 v6, v7\n s_mov_b64 s[20:21], s[22:23]\n wait_load\n v_and_b32 v5, 0xffff, v5
        v_and_b32 v6, 0, v6\n v_lshlrev_b32 v7, 16, v7\n v_or_b32 v5, v5, v6\n v_lshrrev_b32 v8, 24, v5\n s_and_b32 s20, s20, 0
        v_cndmask_b32 v7, v5, v5, vcc\n v_add_f32 v9, s20, v8\n store v1, v7, s[4:5]\n store v1, v9, s[4:5]\n";
    let clean_9 = clean;
    let clean_10 = clean.replace("vcc\n", "vcc_lo\n");
    let Some(clang) = clang() else { return };
    for arch in ARCHS {
        let findings = Case::new(if arch.1 == 9 { clean_9 } else { &clean_10 }).run(clang, arch).unwrap();
        assert!(findings.is_empty(), "{}: {}", arch.0, findings[0]);
        let findings = Case::new(faulty).run(clang, arch).unwrap();
        assert!(findings.iter().all(|f| depends("stored", "v5")(f)) && findings.len() == 1, "{}: {findings:?}", arch.0);
    }
}

#[test]
fn memory_never_written() {
    let lds = |first: &str| format!("{first}\n lds_load v3, v1\n wait_lds\n store v1, v3, s[4:5]\n");
    check(&Case::new(&lds("")), &Case::new(&lds("lds_store v1, v1")), depends("stored", "memory that was never written"));
    let copy = "load v3, v1, s[4:5], 1024\n wait_load\n store v1, v3, s[4:5]\n";
    check(&Case { written: 1024, ..Case::new(copy) }, &Case::new(copy), depends("stored", "read by `global_load"));
    // Read, but to no effect.
    let unused = Case { written: 1024, ..Case::new("load v3, v1, s[4:5], 1024\n wait_load\n v_mov_b32 v4, v3\n") };
    check(&Case { written: 1024, ..Case::new(copy) }, &unused, never_written);
    let count = "one_lane\n v_mov_b32 v3, 1\n atomic_add v4, v2, v3, s[4:5]\n";
    check(&Case { written: 0, ..Case::new(count) }, &Case::new(count), depends("atomic's old value", "memory"));
    // A spilled register that was never written is one still.
    let spill = |first: &str| {
        format!(
            "{first}\n .if GFX < 11\n scratch_store_dword off, v5, off offset:4\n scratch_load_dword v6, off, off offset:4\n .else
            scratch_store_b32 off, v5, off offset:4\n scratch_load_b32 v6, off, off offset:4\n .endif\n wait_load\n store v1, v6, s[4:5]\n"
        )
    };
    check(&Case::new(&spill("")), &Case::new(&spill("v_mov_b32 v5, 1")), never_written);
}

/// A message names the address that was stored to, that of the memory that was never written, and the lane.
#[test]
fn messages_say_where() {
    let Some(clang) = clang() else { return };
    for arch in ARCHS {
        let message = |case: Case| {
            let findings = case.run(clang, arch).unwrap();
            assert!(!findings.is_empty(), "{}", arch.0);
            findings[0].to_string()
        };
        let copy = "load v3, v1, s[4:5], 1024\n wait_load\n store v1, v3, s[4:5], 256\n";
        let text = message(Case { written: 1024 + 12, ..Case::new(copy) });
        let (to, from) = (text.find("global memory at 0x").unwrap(), text.find("never written (global memory at 0x").unwrap());
        let address = |at: usize, skip: usize| {
            let digits = text[at + skip..].trim_start_matches(|c: char| c != 'x').trim_start_matches('x');
            u64::from_str_radix(digits.split(|c: char| !c.is_ascii_hexdigit()).next().unwrap(), 16).unwrap()
        };
        // Of the fourth lane, both.
        assert_eq!(address(from, 13) - address(to, 0), 1024 - 256, "{text}");
        assert_eq!(address(to, 0) % 4096, 256 + 12, "{text}");
        assert!(text.contains("lane 3"), "{text}");
        let text = message(Case::new("one_lane\n v_mov_b32 v3, 0x20\n lds_load v4, v3\n wait_lds\n store v1, v4, s[4:5]\n"));
        assert!(text.contains("never written (LDS at 0x20)"), "{text}");
        let spill =
            ".if GFX < 11\n scratch_load_dword v6, off, off offset:4\n .else\n scratch_load_b32 v6, off, off offset:4\n .endif
            wait_load\n store v1, v6, s[4:5]\n";
        let text = message(Case::new(spill));
        assert!(text.contains("never written (scratch at 0x4)"), "{text}");
        let early = "one_lane\n .if GFX == 9\n s_lshl_b64 exec, exec, 5\n .else\n s_lshl_b32 exec_lo, exec_lo, 5\n .endif
            load v3, v1, s[4:5]\n store v1, v3, s[4:5]\n";
        let text = message(Case::new(early));
        assert!(text.contains("v3 is used before") && text.contains("lane 5"), "{text}");
    }
}

#[test]
fn results_used_before_they_have_arrived() {
    let unwaited =
        |f: &Finding| matches!(&f.kind, FindingKind::Unwaited { register, .. } if register == "v3" || register == "s8");
    let global = |wait: &str| format!("load v3, v1, s[4:5]\n {wait}\n store v1, v3, s[4:5]\n");
    check(&Case::new(&global("")), &Case::new(&global("wait_load")), unwaited);
    let lds = |wait: &str| format!("lds_store v1, v1\n lds_load v3, v1\n {wait}\n store v1, v3, s[4:5]\n");
    check(&Case::new(&lds("")), &Case::new(&lds("wait_lds")), unwaited);
    let scalar = |wait: &str| format!("scalar_load2 s[8:9], s[4:5], 0\n {wait}\n s_add_u32 s8, s8, 1\n");
    check(&Case::new(&scalar("")), &Case::new(&scalar("wait_scalar")), unwaited);
    // Overwritten while it is on its way.
    let overwritten = |wait: &str| format!("load v3, v1, s[4:5]\n {wait}\n v_mov_b32 v3, 0\n");
    check(&Case::new(&overwritten("")), &Case::new(&overwritten("wait_load")), unwaited);
    // In order: all but the newest have arrived.
    let two = |used: &str| {
        format!(
            "load v4, v1, s[4:5]\n load v3, v1, s[4:5], 4\n wait_load 1\n v_mov_b32 v6, {used}\n wait_load\n lds_store v1, v1
        lds_load v4, v1\n lds_load v3, v1\n wait_lds 1\n v_mov_b32 v6, {used}\n"
        )
    };
    check(&Case::new(&two("v3")), &Case::new(&two("v4")), unwaited);
    // The scalar unit answers in no order.
    let two =
        |wait: &str| format!("scalar_load2 s[8:9], s[4:5], 0\n scalar_load2 s[10:11], s[4:5], 8\n {wait}\n s_mov_b32 s12, s8\n");
    let some = ".if GFX == 12\n s_wait_kmcnt 1\n .else\n s_waitcnt lgkmcnt(1)\n .endif";
    check(&Case::new(&two(some)), &Case::new(&two("wait_scalar")), unwaited);
    // Loads follow each other, in order.
    let again = Case::new(
        "load_half v4, v1, s[4:5]\n load_upper_half v4, v1, s[4:5]\n load v3, v1, s[4:5]\n load v3, v1, s[4:5], 4\n wait_load\n store v1, v3, s[4:5]\n",
    );
    check(&Case::new(&two(some)), &again, unwaited);
}

/// Of a buffer's atomic the old value is where the data were, and has to be waited for.
#[test]
fn atomics_of_buffers() {
    let atomic =
        |rest: &str| format!("s_mov_b32 s8, s4\n s_mov_b32 s9, s5\n s_movk_i32 s10, 0x1000\n s_brev_b32 s11, 12\n{rest}");
    let unwaited =
        |f: &Finding| matches!(&f.kind, FindingKind::Unwaited { register, .. } if register == "v3" || register == "v4");
    let add =
        |wait: &str| atomic(&format!("v_mov_b32 v3, 1\n buffer_atomic add, add_u32, v3, v1\n {wait}\n store v1, v3, s[4:5]\n"));
    check(&Case::new(&add("")), &Case::new(&add("wait_load")), unwaited);
    // What is compared stays in its register.
    let swap = |used: &str| {
        let data = "v_mov_b32 v4, 1\n v_mov_b32 v5, 0";
        atomic(&format!("{data}\n buffer_atomic cmpswap, cmpswap_b32, v[4:5], v1\n v_mov_b32 v6, {used}\n wait_load\n"))
    };
    check(&Case::new(&swap("v4")), &Case::new(&swap("v5")), unwaited);
    // Data and addresses that nobody wrote.
    let of = |data: &str, address: &str| {
        atomic(&format!("v_mov_b32 v3, 1\n v_and_b32 v6, 0xfc, v7\n buffer_atomic add, add_u32, {data}, {address}\n wait_load\n"))
    };
    check(&Case::new(&of("v8", "v1")), &Case::new(&of("v3", "v1")), depends("atomic", "v8"));
    check(&Case::new(&of("v3", "v6")), &Case::new(&of("v3", "v1")), depends("address", "v7"));
}

/// Each wave to its own place, then to the other one's.
fn exchange(between: &str) -> String {
    format!("lds_store v1, v1\n {between}\n v_xor_b32 v3, .if GFX == 9\n")
        .replace("v_xor_b32 v3, .if GFX == 9", ".if GFX == 9\n v_xor_b32 v3, 0x100, v1\n .else\n v_xor_b32 v3, 0x80, v1\n .endif")
        + " lds_load v4, v3\n wait_lds\n store v1, v4, s[4:5]\n"
}

/// A function that is called through a register pair.
#[test]
fn calls() {
    let call = |before: &str, first: &str| {
        format!(
            "s_getpc_b64 s[10:11]\n.Lhere:\n s_add_u32 s10, s10, .Lfunction-.Lhere\n s_addc_u32 s11, s11, 0\n {before}
            s_swappc_b64 s[30:31], s[10:11]\n store v1, v3, s[4:5]\n s_branch .Lend_of_it\n.Lfunction:\n {first}
            add v3, v3, v1\n s_setpc_b64 s[30:31]\n.Lend_of_it:\n"
        )
    };
    let clean = call("", "v_mov_b32 v3, 7");
    // What a function computes with is followed into it and back.
    check(&Case::new(&call("", "")), &Case::new(&clean), depends("stored", "v3, which was never written"));
    // Where it is, and where it goes back to.
    let somewhere = call("s_and_b32 s20, s20, 4\n s_add_u32 s10, s10, s20", "v_mov_b32 v3, 7");
    check(&Case::new(&somewhere), &Case::new(&clean), depends("branch", "s20"));
    let back = call("", "v_mov_b32 v3, 7\n s_and_b32 s21, s21, 4\n s_add_u32 s30, s30, s21");
    check(&Case::new(&back), &Case::new(&clean), depends("branch", "s21"));
    let loaded = |wait: &str| {
        let save = "v_mov_b32 v3, s10\n store v2, v3, s[4:5]\n v_mov_b32 v3, s11\n store v2, v3, s[4:5], 4\n wait_store";
        format!(
            "one_lane\n{}",
            call(&format!("{save}\n load v4, v2, s[4:5]\n {wait}\n v_readfirstlane_b32 s10, v4"), "v_mov_b32 v3, 7")
        )
    };
    let early = |f: &Finding| matches!(&f.kind, FindingKind::Unwaited { register, .. } if register == "v4");
    check(&Case { extent: None, ..Case::new(&once(&loaded(""))) }, &Case::new(&once(&loaded("wait_load"))), early);
}

/// The first wave only.
fn once(body: &str) -> String {
    format!("s_cmp_lg_u32 s6, 0\n s_cbranch_scc1 .Lskip\n{body}\n.Lskip:\n")
}

/// Sums of products over whole waves; RDNA 1 and 2 have none.
#[test]
fn matrix_instructions() {
    let Some(clang) = clang() else { return };
    // A, B and C are v[4:…], v[12:…] and v[20:27]; the result is v[20:27], too, or its first half.
    let product =
        ".if GFX == 9\n v_mfma_f32_16x16x16_f16 v[20:23], v[4:5], v[12:13], v[20:23]\n s_nop 7\n s_nop 2\n .elseif GFX == 11
        v_wmma_f32_16x16x16_f16 v[20:27], v[4:11], v[12:19], v[20:27]\n .else
        v_wmma_f32_16x16x16_f16 v[20:27], v[4:7], v[12:15], v[20:27]\n .endif\n";
    let all = (4..28).fold(String::new(), |all, v| format!("{all} v_mov_b32 v{v}, 0x3c003c00\n"));
    let store = " store v1, v20, s[4:5]\n store v1, v23, s[4:5], 512\n";
    let without = |v: u32| all.replace(&format!(" v_mov_b32 v{v}, 0x3c003c00\n"), "");
    let one_lane = ".if GFX == 9\n s_mov_b64 exec, 8\n .else\n s_mov_b32 exec_lo, 8\n .endif\n";
    let every_lane = "s_mov_b64 exec, -1\n";
    let found = |arch, body: &str, v: &'static str| {
        let findings = Case::new(body).run(clang, arch).unwrap();
        let expected = depends("stored", v);
        assert!(!findings.is_empty() && findings.iter().all(expected), "{}: {findings:?}", arch.0);
        findings
    };
    for arch in ARCHS.into_iter().filter(|arch| arch.1 != 10) {
        let clean = |body: &str| {
            let findings = Case::new(body).run(clang, arch).unwrap();
            assert!(findings.is_empty(), "{}: {}", arch.0, findings[0]);
        };
        clean(&format!("{all}{product}{store}"));
        // Each of A, B and C.
        found(arch, &format!("{}{product}{store}", without(5)), "v5");
        found(arch, &format!("{}{product}{store}", without(12)), "v12");
        let c = found(arch, &format!("{}{product}{store}", without(20)), "v20");
        assert_eq!(c.len(), 1, "{}: only the first of the results depends on it: {c:?}", arch.0);
        // Of one lane of B: its column, which is that lane's (and those that it shares the column with).
        let lane = format!(
            "{}{every_lane} v_mov_b32 v12, 1.0\n{one_lane} v_mov_b32 v12, v29\n{every_lane}{product}{store}",
            without(12)
        );
        for finding in found(arch, &lane, "v29") {
            assert_eq!(finding.lane, Some(3), "{}: {finding}", arch.0);
        }
        // The lanes that are off take part as if they were on.
        clean(&format!("{all}{one_lane}{product}{every_lane}{store}"));
        found(arch, &format!("{}{one_lane} v_mov_b32 v4, 1.0\n{product}{store}", without(4)), "v4");
        // A result that is still under way isn't an input.
        let early = format!("{all} load v4, v1, s[4:5]\n{product} wait_load\n{store}");
        let findings = Case::new(&early).run(clang, arch).unwrap();
        let unwaited = |f: &Finding| matches!(&f.kind, FindingKind::Unwaited { register, .. } if register == "v4");
        assert!(findings.len() == 1 && unwaited(&findings[0]), "{}: {findings:?}", arch.0);
    }
}

#[test]
fn races_in_lds() {
    let race = |f: &Finding| {
        matches!(
            f.kind,
            FindingKind::LdsRace { what: "load", other: "store", wave: 0, .. }
                | FindingKind::LdsRace { what: "store", other: "load", .. }
        )
    };
    check_beside(&Case::new(&exchange("")), &Case::new(&exchange("wait_lds\n barrier")), race, never_written);
    // Read by one wave, then written by the other, without a barrier.
    let both = |value: &str| format!("lds_store v1, v1\n wait_lds\n barrier\n v_and_b32 v3, 4, v1\n {value}\n wait_lds\n");
    let race = |f: &Finding| matches!(f.kind, FindingKind::LdsRace { what: "store", .. }) && f.wave == 1;
    check(&Case::new(&both("lds_store v3, v2")), &Case::new(&both("lds_load v4, v3")), race);
    let count = |what: &str| format!("lds_store v1, v1\n wait_lds\n barrier\n v_and_b32 v3, 4, v1\n {what}\n wait_lds\n");
    check(&Case::new(&count("ds_add_u32 v3, v1\n lds_store v3, v1")), &Case::new(&count("ds_add_u32 v3, v1")), |f| {
        matches!(f.kind, FindingKind::LdsRace { .. }) && f.wave == 1
    });
    // Counted up by both waves and read before a barrier.
    let read = |between: &str| count(&format!("ds_add_u32 v3, v1\n wait_lds\n {between}\n lds_load v4, v3"));
    check(&Case::new(&read("")), &Case::new(&read("barrier")), |f| {
        matches!(
            f.kind,
            FindingKind::LdsRace { what: "load", other: "atomic", .. }
                | FindingKind::LdsRace { what: "atomic", other: "load", .. }
        ) && f.wave == 1
    });
}

#[test]
fn barriers() {
    let skipped = |jump: &str| format!("s_cmp_lg_u32 s6, 0\n {jump}\n barrier\n.Lout:\n");
    let divergent = |f: &Finding| matches!(&f.kind, FindingKind::DivergentBarrier { what } if what.contains("1 have ended"));
    check(&Case::new(&skipped("s_cbranch_scc1 .Lout")), &Case::new(&skipped("")), divergent);
    let elsewhere = |jump: &str| format!("s_cmp_lg_u32 s6, 0\n {jump}\n barrier\n s_branch .Lout\n.Lother:\n barrier\n.Lout:\n");
    let divergent =
        |f: &Finding| matches!(&f.kind, FindingKind::DivergentBarrier { what } if what.contains("wave 1 waits at another one"));
    check(&Case::new(&elsewhere("s_cbranch_scc1 .Lother")), &Case::new(&elsewhere("")), divergent);
    let store = |wait: &str| format!("lds_store v1, v1\n {wait}\n barrier\n");
    check(&Case::new(&store("")), &Case::new(&store("wait_lds")), |f| matches!(f.kind, FindingKind::UnwaitedStore { .. }));
}

/// Each workgroup writes its place, counts up, and the last to do so reads all places.
fn hand_over(wait: &str, count: &str, invalidate: &str) -> String {
    format!(
        "s_cmp_lg_u32 s6, 0\n s_cbranch_scc1 .Lout\n one_lane\n s_lshl_b32 s8, s7, 2\n v_mov_b32 v3, s8\n v_mov_b32 v5, 1
        store v3, v5, s[4:5], 512\n {wait}\n {count}\n wait_load\n {invalidate}\n v_readfirstlane_b32 s9, v4\n s_cmp_lg_u32 s9, 3
        s_cbranch_scc1 .Lout\n load v6, v2, s[4:5], 512\n load v7, v2, s[4:5], 516\n wait_load\n add v6, v6, v7
        store v2, v6, s[4:5], 1024\n.Lout:\n"
    )
}

#[test]
fn races_between_workgroups() {
    fn case(body: &str) -> Case<'_> {
        Case { groups: 4, ..Case::new(body) }
    }
    let race = |f: &Finding| {
        matches!(f.kind, FindingKind::GlobalRace { what: "load", other: "store", workgroup: [..=2, 0, 0], .. })
            && f.workgroup == [3, 0, 0]
    };
    let count = "atomic_add v4, v2, v5, s[4:5]";
    let clean = hand_over("wait_store", count, "invalidate");
    check(&case(&hand_over("", count, "invalidate")), &case(&clean), race);
    check(&case(&hand_over("wait_store", count, "")), &case(&clean), race);
    // Counters of their own hand nothing over.
    let own = "atomic_add v4, v3, v5, s[4:5]\n wait_load\n v_mov_b32 v4, s7";
    check(&case(&hand_over("wait_store", own, "invalidate")), &case(&clean), race);
    // The last one reads the counter, too.
    let read = |invalidate| clean.replace("invalidate", invalidate).replace("v2, s[4:5], 516", "v2, s[4:5]");
    let race = |f: &Finding| {
        f.workgroup == [3, 0, 0] && matches!(f.kind, FindingKind::GlobalRace { what: "load", workgroup: [..=2, 0, 0], .. })
    };
    let (unordered, ordered) = (read(""), read("invalidate"));
    check(&case(&unordered), &case(&ordered), race);
    // Every one reads the counter before it counts up.
    let early = format!("load v6, v2, s[4:5]\n wait_load\n {clean}");
    let race = |f: &Finding| {
        matches!(f.kind, FindingKind::GlobalRace { other: "load" | "atomic", what: "load" | "atomic", .. }) && f.workgroup[0] > 0
    };
    check(&case(&early), &case(&clean), race);
    // All write the same.
    let race = |f: &Finding| matches!(f.kind, FindingKind::GlobalRace { what: "store", other: "store", .. });
    let each = "s_lshl_b32 s8, s7, 9\n v_mov_b32 v3, s8\n add v3, v3, v1\n store v3, v3, s[4:5]\n";
    check(&case("store v1, v1, s[4:5]\n"), &case(each), race);
}

/// Instructions in the place of others: whether they do the same for work items 0 to 63, by what follows from the architecture.
#[test]
fn other_instructions_do_the_same_or_not() {
    let Some(clang) = clang() else { return println!("skipped: no clang") };
    for arch in [ARCHS[1], ARCHS[2]] {
        for (mine, theirs, same) in [
            ("v_and_b32 v2, 0xff, v0", "v_and_b32 v2, 0x13f, v0", true),
            ("v_and_b32 v2, 0xff, v0", "v_and_b32 v2, 0x11f, v0", false),
            ("v_mov_b32 v2, 1", "v_mov_b32 v3, 1", false),
            ("s_mov_b32 s4, s4", "s_mov_b32 s5, s5", true),
            ("s_mov_b32 s4, 0", "s_mov_b32 s4, 1", false),
            ("s_waitcnt vmcnt(3)", "s_waitcnt vmcnt(1)", true),
            ("s_waitcnt vmcnt(1)", "s_waitcnt vmcnt(3)", false),
            ("s_waitcnt lgkmcnt(0)", "s_waitcnt vmcnt(0)", false),
            ("s_waitcnt vmcnt(0)", "s_barrier", false),
            ("s_mov_b32 s4, s4", "s_endpgm", false),
            ("s_cbranch_execz 1\n s_mov_b32 s5, s5", "s_cbranch_execz 2\n s_mov_b32 s5, s5", true),
            ("s_cbranch_execnz 1\n s_mov_b32 s5, s5", "s_cbranch_execnz 0\n s_mov_b32 s5, s5", false),
        ] {
            let [module, other] = [mine, theirs].map(|body| Module::load(&assemble(clang, arch, body)).unwrap());
            let [before, after] = [&module, &other].map(|m| m.kernel("k").unwrap());
            let mut changed = before.instructions().iter().zip(after.instructions()).filter(|(a, b)| a.text != b.text);
            let address = changed.next().expect("another instruction").0.address;
            let memory = Memory::new();
            let buffer = memory.allocate(BYTES).to_le_bytes();
            let dispatch = Dispatch { kernel: "k", grid: [1; 3], workgroup: [64, 1, 1], dynamic_lds: 0, kernarg: &buffer };
            let found = module.same_effect(&other, address, &dispatch, &memory, &Options::default()).unwrap();
            assert_eq!(found, same, "{}: {mine} → {theirs}", arch.0);
        }
    }
}
