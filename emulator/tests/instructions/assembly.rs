//! Turns cases into one code object per architecture, and runs them.

use crate::state::{Kind, LANES, LDS, MEMORY, Random, State};
use crate::{Case, Config};
use hipc_emulator::{Dispatch, EmulatorError, FaultKind, Memory, Module, Options};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::process::Command;

/// Bytes of a row.
const ROW: usize = 4 * LANES;
/// Rows of the compared vector registers and of LDS.
const ROWS: usize = 18;
/// Scalars behind the rows: `s8`–`s23`, then vcc, exec, scc, m0.
const SCALARS: usize = 22;
/// The markers around a case's instructions.
const BEGIN: &str = "s_nop 13";
const END: &str = "s_nop 14";

fn clang() -> Command {
    Command::new(std::env::var_os("HIPC_CLANG").unwrap_or_else(|| "clang-22".into()))
}

fn assemble(source: &str, config: &Config, folder: &std::path::Path, link: bool) -> Result<Vec<u8>, String> {
    let (input, output) = (folder.join("cases.s"), folder.join("cases.out"));
    std::fs::write(&input, source).expect("a writable folder");
    let mut command = clang();
    command.args(["-x", "assembler", "-target", "amdgcn-amd-amdhsa", "-mcode-object-version=5"]);
    command.arg(format!("-mcpu={}", config.arch)).args((!link).then_some("-c"));
    if config.width == 64 && !config.arch.starts_with("gfx9") {
        command.arg("-mwavefrontsize64");
    }
    let done = command.arg("-o").arg(&output).arg(&input).output().expect("clang-22, see scripts/setup.sh");
    if done.status.success() {
        return Ok(std::fs::read(&output).expect("clang's output"));
    }
    Err(String::from_utf8_lossy(&done.stderr).into_owned())
}

/// The text of a case: `{n}` makes labels unique.
fn body(case: &Case, number: usize) -> Vec<String> {
    case.text.replace("{n}", &number.to_string()).lines().map(|l| l.trim().to_owned()).collect()
}

/// The cases that the architecture's assembler takes.
fn accepted<'a>(cases: &'a [Case], config: &Config, folder: &std::path::Path) -> Vec<(usize, &'a Case)> {
    let mut source = String::new();
    let mut lines = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        for line in body(case, number) {
            writeln!(source, "{line}").expect("a string");
            lines.push(number);
        }
    }
    let mut refused = BTreeSet::new();
    if let Err(messages) = assemble(&source, config, folder, false) {
        for message in messages.lines().filter(|m| m.contains("error:")) {
            let line = message.split("cases.s:").nth(1).and_then(|rest| rest.split(':').next()?.parse::<usize>().ok());
            refused.insert(lines[line.unwrap_or_else(|| panic!("{message}")) - 1]);
        }
    }
    let runs = |case: &Case| case.refused != Some((config.arch, config.width));
    cases.iter().enumerate().filter(|(n, case)| !refused.contains(n) && runs(case)).collect()
}

/// Registers that kernels use, in what is the same for all.
fn macros(config: &Config) -> String {
    let gfx9 = config.arch.starts_with("gfx9");
    let gfx12 = config.arch.starts_with("gfx12");
    let add = if gfx9 { "v_add_u32_e32" } else { "v_add_nc_u32_e32" };
    let wait = if gfx12 {
        "s_wait_loadcnt_dscnt 0x0\ns_wait_storecnt 0x0\ns_wait_kmcnt 0x0"
    } else if gfx9 {
        "s_waitcnt vmcnt(0) lgkmcnt(0)"
    } else {
        "s_waitcnt vmcnt(0) lgkmcnt(0)\ns_waitcnt_vscnt null, 0x0"
    };
    let new = !gfx9 && !config.arch.starts_with("gfx10");
    let (load, store, ds_load, ds_store) = if new {
        ("global_load_b32", "global_store_b32", "ds_load_b32", "ds_store_b32")
    } else {
        ("global_load_dword", "global_store_dword", "ds_read_b32", "ds_write_b32")
    };
    let s_load = |words: usize| match (new, words) {
        (true, w) => format!("s_load_b{}", 32 * w),
        (false, w) => format!("s_load_dwordx{w}"),
    };
    // The case's offset and that of the end become addresses.
    let jumps = if gfx12 {
        "s_add_nc_u64 s[30:31], s[46:47], s[30:31]\n  s_add_nc_u64 s[44:45], s[46:47], s[44:45]".to_owned()
    } else {
        [30, 44].map(|r| format!("s_add_u32 s{r}, s46, s{r}\n  s_addc_u32 s{0}, s47, s{0}\n  ", r + 1)).concat()
    };
    let (s2, s4, s8, s16) = (s_load(2), s_load(4), s_load(8), s_load(16));
    let registers = "10,11,12,13,14,15,16,17,20,21,22,23,24,25,26,27";
    let behind = ROWS * ROW;
    let all = if config.width == 64 { "s_mov_b64 exec, -1" } else { "s_mov_b32 exec_lo, -1" };
    let exec = if config.width == 64 { "s_mov_b64 exec, s[38:39]" } else { "s_mov_b32 exec_lo, s38" };
    let wave32 = if gfx9 { String::new() } else { format!(".amdhsa_wavefront_size32 {}", u32::from(config.width == 32)) };
    let accum = if ["gfx90a", "gfx942", "gfx950"].contains(&config.arch) { ".amdhsa_accum_offset 64" } else { "" };
    format!(
        "
.macro prologue
  {s4} s[24:27], s[0:1], 0x0
  {s4} s[28:31], s[0:1], 0x10
  {s2} s[44:45], s[0:1], 0x20
  {wait}
  s_getpc_b64 s[46:47]
  {jumps}
  v_lshlrev_b32_e32 v1, 2, v0
  v_mov_b32_e32 v2, v1
  .irp r, {registers}
  {load} v\\r, v2, s[24:25]
  {add} v2, {ROW}, v2
  .endr
  .irp o, 0, 256
  {load} v3, v2, s[24:25]
  {add} v2, {ROW}, v2
  {wait}
  {ds_store} v1, v3 offset:\\o
  .endr
  {s16} s[8:23], s[24:25], {behind:#x}
  {s8} s[36:43], s[24:25], {:#x}
  {wait}
  s_mov_b64 vcc, s[36:37]
  s_mov_b32 m0, s41
  s_cmp_lg_u32 s40, 0
  {exec}
  s_setpc_b64 s[30:31]
.endm
.macro epilogue
  s_cselect_b32 s40, 1, 0
  s_mov_b64 s[36:37], vcc
  s_mov_b64 s[38:39], exec
  s_mov_b32 s41, m0
  {all}
  {wait}
  v_mov_b32_e32 v2, v1
  .irp r, {registers}
  {store} v2, v\\r, s[26:27]
  {add} v2, {ROW}, v2
  .endr
  .irp o, 0, 256
  {ds_load} v3, v1 offset:\\o
  {wait}
  {store} v2, v3, s[26:27]
  {add} v2, {ROW}, v2
  .endr
  .irp r, 8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,36,37,38,39,40,41
  v_mov_b32_e32 v3, s\\r
  {store} v2, v3, s[26:27]
  {add} v2, {ROW}, v2
  .endr
  s_endpgm
.endm
.macro describe name
  .section .rodata,\"a\",@progbits
  .p2align 6
  .amdhsa_kernel \\name
  .amdhsa_group_segment_fixed_size {LDS}
  .amdhsa_user_sgpr_kernarg_segment_ptr 1
  .amdhsa_float_denorm_mode_32 3
  .amdhsa_next_free_vgpr 128
  .amdhsa_next_free_sgpr 64
  {accum}
  {wave32}
  .end_amdhsa_kernel
  .text
.endm
",
        behind + 64,
    )
}

/// One kernel: registers are loaded, the case is jumped to, registers are stored.
fn source(cases: &[(usize, &Case)], config: &Config) -> String {
    let mut text = format!(
        ".amdgcn_target \"amdgcn-amd-amdhsa--{}\"\n{}.text\n.protected cases\n.globl cases\n.p2align 8\n.type cases,@function\ncases:\n  prologue\n",
        config.arch,
        macros(config)
    );
    for (number, case) in cases {
        let lines = body(case, *number).join("\n  ");
        write!(text, "  {BEGIN}\n  {lines}\n  {END}\n  s_setpc_b64 s[44:45]\n").expect("a string");
    }
    write!(
        text,
        "  {BEGIN}\n  epilogue\n.Lend:\n.size cases, .Lend-cases\ndescribe cases\n\
         .amdgpu_metadata\namdhsa.version: [1, 2]\namdhsa.target: amdgcn-amd-amdhsa--{}\namdhsa.kernels:\n\
         \x20 - .name: cases\n    .symbol: cases.kd\n    .kernarg_segment_size: 40\n    .kernarg_segment_align: 8\n    \
         .group_segment_fixed_size: {LDS}\n    .private_segment_fixed_size: 0\n    .wavefront_size: {}\n    .sgpr_count: 64\n    \
         .vgpr_count: 128\n    .max_flat_workgroup_size: 64\n    .args:\n",
        config.arch, config.width
    )
    .expect("a string");
    for (at, name) in ["in", "out", "memory", "case", "end"].iter().enumerate() {
        write!(text, "      - .name: {name}\n        .offset: {}\n        .size: 8\n        .value_kind: by_value\n", 8 * at)
            .expect("a string");
    }
    text + ".end_amdgpu_metadata\n"
}

/// What ran on an architecture.
pub struct Ran {
    /// Names of the cases that its assembler takes.
    pub names: BTreeSet<String>,
    /// Mnemonics of their instructions, as the disassembler prints them.
    pub mnemonics: BTreeSet<String>,
    pub failures: Vec<String>,
}

/// Mnemonics of a text: both of a pair.
pub fn mnemonics(text: &str) -> impl Iterator<Item = String> {
    text.split(" :: ").filter_map(|part| part.split_whitespace().next()).map(str::to_owned)
}

/// Runs each case several times with other values.
pub fn run(cases: &[Case], config: &Config) -> Ran {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let taken = accepted(cases, config, folder.path());
    let code = assemble(&source(&taken, config), config, folder.path(), true).unwrap_or_else(|e| panic!("{}: {e}", config.arch));
    let module = Module::load(&code).expect("our own code object");
    let mut ran = Ran { names: BTreeSet::new(), mnemonics: BTreeSet::new(), failures: Vec::new() };
    let kernel = module.kernel("cases").expect("the kernel");
    let instructions = kernel.instructions();
    let pc = instructions.iter().find(|i| i.text.starts_with("s_getpc_b64")).expect("the prologue");
    let here = pc.address + u64::from(pc.size);
    let begins: Vec<usize> = (0..instructions.len()).filter(|&i| instructions[i].text == BEGIN).collect();
    assert_eq!(begins.len(), taken.len() + 1, "a marker for each case and one for the end");
    let offset = |n: usize| instructions[begins[n]].address - here;
    for (at, (number, case)) in taken.iter().enumerate() {
        ran.names.insert(case.name.clone());
        let texts: Vec<&str> = instructions[begins[at] + 1..].iter().map(|i| i.text.as_str()).take_while(|t| *t != END).collect();
        let answered = case.lacks.is_none();
        ran.mnemonics.extend(texts.iter().filter(|_| answered).flat_map(|t| mnemonics(t)));
        for round in 0..case.rounds {
            let seed = *number as u64 * 1000 + round;
            if let Err(why) = once(case, &module, [offset(at), offset(taken.len())], config, seed) {
                let text = texts.join("; ");
                eprintln!("{} {}: {why}\n    {text}", config.arch, case.name);
                ran.failures.push(format!("{} ({} lanes): {}: {why}\n    {text}", config.arch, config.width, case.name));
                break;
            }
        }
    }
    ran
}

fn initial(case: &Case, config: &Config, seed: u64) -> State {
    let mut random = Random(seed);
    let full = if config.width == 64 { u64::MAX } else { 0xffff_ffff };
    let mut v = vec![[0; LANES]; 16];
    for (register, row) in v.iter_mut().enumerate() {
        let kind = case.kinds.get(register).copied().unwrap_or(Kind::Integer);
        row.iter_mut().for_each(|v| *v = random.value(kind, register % 2 == 1));
    }
    let mut s = [0; 16];
    for (register, s) in s.iter_mut().enumerate() {
        *s = random.value(case.scalars, register % 2 == 1);
    }
    let exec = match seed % 4 {
        0 => full,
        1 => random.next() & full | 1,
        2 => random.next() & random.next() & full,
        _ => random.next() & full,
    };
    let mut bytes = |n: usize| (0..n).map(|_| random.next() as u8).collect::<Vec<u8>>();
    let mut lds = bytes(LDS);
    if config.width == 32 {
        lds[128..256].fill(0);
        lds[384..].fill(0);
    }
    let memory = bytes(MEMORY);
    let mut state = State {
        arch: config.arch,
        width: config.width,
        v,
        s,
        vcc: random.next() & full,
        exec: if case.all_lanes { full } else { exec },
        scc: random.next() & 1 == 1,
        m0: random.next() as u32 & 3,
        lds,
        memory,
    };
    if let Some(prepare) = &case.prepare {
        prepare(&mut state);
    }
    state
}

fn once(case: &Case, module: &Module, offsets: [u64; 2], config: &Config, seed: u64) -> Result<(), String> {
    let before = initial(case, config, seed);
    let memory = Memory::new();
    let (input, output, buffer) = (
        memory.allocate((ROWS * ROW + 128) as u64),
        memory.allocate(((ROWS + SCALARS) * ROW) as u64),
        memory.allocate(MEMORY as u64),
    );
    let mut words: Vec<u32> = before.v.iter().flatten().copied().collect();
    for row in 0..2 {
        words.extend((0..LANES).map(|lane| before.lds32(256 * row + 4 * lane)));
    }
    words.extend(before.s);
    words.extend([before.vcc, before.exec].iter().flat_map(|m| [*m as u32, (m >> 32) as u32]));
    words.extend([u32::from(before.scc), before.m0]);
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    memory.write(input, &bytes).map_err(|e| e.to_string())?;
    memory.write(buffer, &before.memory).map_err(|e| e.to_string())?;
    let [of_case, of_end] = offsets;
    let kernarg: Vec<u8> = [input, output, buffer, of_case, of_end].iter().flat_map(|a| a.to_le_bytes()).collect();
    let dispatch =
        Dispatch { kernel: "cases", grid: [1; 3], workgroup: [config.width as u32, 1, 1], dynamic_lds: 0, kernarg: &kernarg };
    let options = Options { budget: 10_000, parallel: false, ..Options::default() };
    let done = module.run(&dispatch, &memory, &options);
    if let Some(what) = case.lacks {
        return match done {
            Err(EmulatorError::Fault(fault)) if matches!(&fault.kind, FaultKind::Unsupported(w) if w.contains(what)) => Ok(()),
            other => Err(format!("{:?} instead of a fault because of {what}", other.map(|_| "no fault"))),
        };
    }
    done.map_err(|e| e.to_string())?;
    let mut expected = before.clone();
    (case.expect)(&mut expected);
    let mut rows = vec![0; (ROWS + SCALARS) * ROW];
    memory.read(output, &mut rows).map_err(|e| e.to_string())?;
    let word = |row: usize, lane: usize| {
        let at = row * ROW + 4 * lane;
        u32::from_le_bytes(rows[at..at + 4].try_into().expect("four bytes"))
    };
    for register in 0..16 {
        for lane in 0..config.width {
            let (got, wanted) = (word(register, lane), expected.v[register][lane]);
            // The upper half of a pair of registers decides about a double.
            let pair = |v: &dyn Fn(usize) -> u32| u64::from(v(register | 1)) << 32 | u64::from(v(register & !1));
            let (got_pair, wanted_pair) = (pair(&|r| word(r, lane)), pair(&|r| expected.v[r][lane]));
            if !(case.equal.words(got, wanted) || case.equal.pairs(got_pair, wanted_pair)) {
                let number = if register < 8 { register + 10 } else { register + 12 };
                let inputs: Vec<String> = (0..8).map(|r| format!("v{}={:#x}", 10 + r, before.v[r][lane])).collect();
                return Err(format!(
                    "v{number} of lane {lane} is {got:#x}, not {wanted:#x} (active {}, before {:#x}; {}, s8={:#x} s9={:#x} s10={:#x}, vcc {:#x})",
                    before.active(lane),
                    before.v[register][lane],
                    inputs.join(" "),
                    before.s[0],
                    before.s[1],
                    before.s[2],
                    before.vcc
                ));
            }
        }
    }
    for row in 0..2 {
        for lane in 0..config.width {
            let at = 256 * row + 4 * lane;
            let (got, wanted) = (word(16 + row, lane), expected.lds32(at));
            if !case.equal.words(got, wanted) {
                return Err(format!("LDS at {at} is {got:#x}, not {wanted:#x}"));
            }
        }
    }
    let scalar = |n: usize| word(ROWS + n, 0);
    for n in 0..16 {
        if !case.equal.words(scalar(n), expected.s[n]) {
            return Err(format!(
                "s{} is {:#x}, not {:#x} (before: {:x?}, scc {})",
                n + 8,
                scalar(n),
                expected.s[n],
                before.s,
                before.scc
            ));
        }
    }
    let full = if config.width == 64 { u64::MAX } else { 0xffff_ffff };
    let pair = |n: usize| (u64::from(scalar(n + 1)) << 32 | u64::from(scalar(n))) & full;
    let facts = [
        ("vcc", pair(16), expected.vcc),
        ("exec", pair(18), expected.exec),
        ("scc", scalar(20).into(), expected.scc.into()),
        ("m0", scalar(21).into(), expected.m0.into()),
    ];
    for (name, got, wanted) in facts {
        if got != wanted & full {
            return Err(format!(
                "{name} is {got:#x}, not {wanted:#x} (exec {:#x}, before: {:x?}, scc {})",
                before.exec, before.s, before.scc
            ));
        }
    }
    let mut after = vec![0; MEMORY];
    memory.read(buffer, &mut after).map_err(|e| e.to_string())?;
    let differs = after.chunks(4).zip(expected.memory.chunks(4)).position(|(a, b)| {
        let word = |w: &[u8]| u32::from_le_bytes(w.try_into().expect("four bytes"));
        !case.equal.words(word(a), word(b))
    });
    match differs {
        Some(at) => Err(format!(
            "memory at {}: {:x?}, not {:x?}",
            4 * at,
            &after[4 * at..4 * at + 4],
            &expected.memory[4 * at..4 * at + 4]
        )),
        None => Ok(()),
    }
}
