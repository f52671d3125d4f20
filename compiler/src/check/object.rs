//! The code object holds every kernel of the plan, and each takes exactly the arguments that launches pass.

use super::error::CheckError;
use hipc_codeobj::{ArgKind, CodeObject};
use hipc_ir::plan::{KernelSpec, Plan};
use std::fmt::Display;

/// Bytes of an argument: every operand is a 64-bit pointer.
const POINTER: u32 = 8;

/// Where plan and object disagree.
pub(super) fn faults(plan: &Plan, object: &CodeObject) -> Vec<CheckError> {
    let mut faults = Vec::new();
    let mut require = |kernel: Option<&str>, holds: bool, rule: &'static str, plan: &dyn Display, object: &dyn Display| {
        if !holds {
            faults.push(CheckError::Object {
                kernel: kernel.map(str::to_owned),
                rule,
                plan: plan.to_string(),
                object: object.to_string(),
            });
        }
    };
    require(None, object.target == plan.target, "made for another target", &plan.target, &object.target);
    for KernelSpec { name, op, geometry } in plan.kernels.values() {
        let named = Some(name.as_str());
        let found: Vec<_> = object.kernels.iter().filter(|k| k.name == *name).collect();
        let [kernel] = found[..] else {
            require(named, false, "is not there exactly once", &1, &found.len());
            continue;
        };
        let operands = op.params().len();
        let args: Vec<_> = kernel.explicit_args().collect();
        require(named, args.len() == operands, "number of arguments", &operands, &args.len());
        let bytes = operands as u64 * u64::from(POINTER);
        require(
            named,
            u64::from(kernel.explicit_kernarg_size()) == bytes,
            "bytes of arguments",
            &bytes,
            &kernel.explicit_kernarg_size(),
        );
        for (i, arg) in args.iter().enumerate() {
            let offset = i as u64 * u64::from(POINTER);
            require(named, u64::from(arg.offset) == offset, "offset of an argument", &offset, &arg.offset);
            require(named, arg.size == POINTER, "bytes of an argument", &POINTER, &arg.size);
            let pointer = arg.kind == ArgKind::GlobalBuffer;
            require(named, pointer, "kind of an argument", &"a pointer to global memory", &format!("{:?}", arg.kind));
        }
        let threads = u64::from(geometry.wave) * u64::from(geometry.waves);
        let most = kernel.max_flat_workgroup_size;
        require(named, u64::from(most) >= threads, "threads of a workgroup", &threads, &most);
        require(named, kernel.wavefront_size == geometry.wave, "lanes of a wave", &geometry.wave, &kernel.wavefront_size);
    }
    faults
}
