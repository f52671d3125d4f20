//! The plan checker on code objects: those that clang makes of the plan's unit, and damaged ones.

use super::{Case, common, lines, llama, qwen3};
use hipc::check::check;
use hipc::emit::emit_unit;
use hipc::target::Target;
use hipc::toolchain::{CompileOptions, Emit, UnitSource};
use hipc_codeobj::{Arg, ArgKind, CodeObject};
use hipc_ir::KvType;

/// A way to damage a code object.
type Damage = (&'static str, fn(&mut CodeObject));

const DAMAGE: &[Damage] = &[
    ("a kernel is missing", |o| {
        // The last may be the one that measures bandwidth, which no plan has.
        o.kernels.remove(0);
    }),
    ("a kernel is there twice", |o| o.kernels.push(o.kernels[0].clone())),
    ("another name", |o| o.kernels[0].name.push('_')),
    ("another target", |o| o.target = "gfx1101".into()),
    ("an argument is missing", |o| {
        let args = &mut o.kernels[1].args;
        let last = args.iter().rposition(|a| !matches!(a.kind, ArgKind::Hidden(_))).unwrap();
        args.remove(last);
    }),
    ("an argument too many", |o| {
        let kernel = &mut o.kernels[1];
        let offset = kernel.explicit_kernarg_size();
        kernel.args.retain(|a| !matches!(a.kind, ArgKind::Hidden(_)));
        kernel.args.push(Arg { offset, size: 8, kind: ArgKind::GlobalBuffer });
    }),
    ("an argument elsewhere", |o| o.kernels[0].args[1].offset += 4),
    ("a short argument", |o| o.kernels[0].args[0].size = 4),
    ("an argument by value", |o| o.kernels[0].args[0].kind = ArgKind::ByValue),
    ("small workgroups", |o| o.kernels[0].max_flat_workgroup_size = 31),
    ("another wave", |o| o.kernels[0].wavefront_size ^= 96),
];

#[test]
fn code_objects_are_checked_against_the_plan() {
    let Some(toolchain) = common::toolchain(None) else { return };
    for (model, arch) in [(llama(), "gfx1100"), (qwen3(), "gfx90a")] {
        let case = Case::new("object", &model, KvType::F16, arch, &[]);
        let target = Target::parse(arch).unwrap();
        let source = emit_unit("object", target, &case.plan.kernels);
        let unit = UnitSource { name: "unit", source: &source, headers: hipc_templates::HEADERS };
        let compiled = toolchain.compile(&unit, target, Emit::CodeObject, &CompileOptions::default()).unwrap();
        let object = CodeObject::parse(&compiled.bytes).unwrap();
        assert_eq!(check(&case.plan, Some(&object)).map_err(|e| lines(&e)), Ok(()), "{arch}");
        for (what, damage) in DAMAGE {
            let mut damaged = object.clone();
            damage(&mut damaged);
            let faults = check(&case.plan, Some(&damaged)).expect_err(what);
            println!("{arch}, {what}: {}", faults[0]);
        }
    }
}
