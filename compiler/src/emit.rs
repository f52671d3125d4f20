//! Emission: one HIP unit per target, which only instantiates the headers of `hipc-templates`.
//!
//! A unit reads as the fusion decision: per kernel a comment that says what it does, a signature with real types, and one
//! call of a skeleton. The same unit is accepted by clang for every platform of the table and by a plain hipcc (5.2 or later,
//! by the command that stands in its head).

use crate::target::{Dot4, Platform, Target};
use hipc_ir::PrimaryMap;
use hipc_ir::plan::{Kernel, KernelSpec};
use hipc_templates::{Instance, instantiate, summary};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// The HIP unit of these kernels for a target. Same input, same bytes.
///
/// The kernels' geometries must have passed [`hipc_templates::check_geometry`]; what a header can check at compile time it
/// checks again.
pub fn emit_unit(model: &str, target: &Target, kernels: &PrimaryMap<Kernel, KernelSpec>) -> String {
    let instances: Vec<(&KernelSpec, Instance)> = kernels.values().map(|spec| (spec, instantiate(spec))).collect();
    let headers: BTreeSet<&str> = instances.iter().map(|(_, i)| i.header).chain(["hipc/bandwidth.h"]).collect();

    let mut unit = String::new();
    let mut line = |text: &str| {
        unit.push_str(text);
        unit.push('\n');
    };
    line(&format!("// {} for {}: {} kernels, written by hipc.", printable(model), target.name, instances.len()));
    if target.platform == Platform::Amd {
        line(&format!("// hipcc -std=c++17 -O3 --genco --offload-arch={0} -I. {0}.hip -o {0}.hsaco", target.name));
    }
    for header in headers {
        line(&format!("#include \"{header}\""));
    }
    line("\nusing namespace hipc;\n");
    line(&format!("using Gpu = {};  // {}", target_type(target), target.name));
    for (spec, instance) in &instances {
        line("");
        line(&kernel(spec, instance));
    }
    line("");
    line(READ);
    unit
}

/// In every unit, so that any card can be measured with what runs on it; no part of the plan.
const READ: &str = "\
// reads a span of memory and nothing else, for hipfire-run bench
extern \"C\" __global__ __launch_bounds__(256) void hipc_read_span(const u32x4* from, const ReadSpan* span, u32* seen) {
  read_span(from, span, seen);
}";

/// What the kernels take from the target's row.
fn target_type(target: &Target) -> String {
    let dot = match target.dot4 {
        Dot4::SDot4 => "Sdot4",
        Dot4::SUDot4 => "Sudot4",
        Dot4::Dp4a => "Dp4a",
        Dot4::MulAdd | Dot4::Host => "MulAdd",
    };
    format!("Target<{}, Dot::{dot}, {}>", target.simd.wave_size, target.registers())
}

fn kernel(spec: &KernelSpec, instance: &Instance) -> String {
    let g = &spec.geometry;
    let mut text = format!("// {}  {}   wave{} x {}\n", spec.name, summary(&spec.op), g.wave, g.waves);
    let _ = writeln!(text, "extern \"C\" __global__ __launch_bounds__({}) void {}(", spec.threads(), spec.name);
    let params: Vec<String> = instance.params.iter().map(|(ty, name)| format!("{ty} {name}")).collect();
    text.push_str(&wrapped("    ", &params));
    text.push_str(") {\n");
    let call = format!("  {}({});\n", instance.skeleton, instance.args.join(", "));
    if call.len() <= WIDTH && !call.trim_end().contains('\n') {
        text.push_str(&call);
    } else {
        let _ = writeln!(text, "  {}(", instance.skeleton);
        text.push_str(&wrapped("      ", &instance.args));
        text.push_str(");\n");
    }
    text.push('}');
    text
}

/// Characters of a line.
const WIDTH: usize = 120;

/// Items separated by commas, in lines of up to [`WIDTH`] characters where an item allows it.
fn wrapped(indent: &str, items: &[String]) -> String {
    let mut text = String::new();
    let mut column = 0;
    for (i, item) in items.iter().enumerate() {
        let longest = item.lines().map(str::len).max().unwrap_or(0);
        if i == 0 {
            text.push_str(indent);
            column = indent.len();
        } else if column + longest + 3 > WIDTH || item.contains('\n') {
            let _ = write!(text, ",\n{indent}");
            column = indent.len();
        } else {
            text.push_str(", ");
            column += 2;
        }
        text.push_str(item);
        column += item.lines().last().map_or(0, str::len);
    }
    text
}

/// A model's name as a comment can carry it: a name from a file could end the line or continue it.
fn printable(name: &str) -> String {
    name.chars().map(|c| if (' '..='~').contains(&c) && c != '\\' { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Llama, Model};

    fn unit(name: &str, target: &str) -> String {
        let plan = Model::new(&Llama::SMALL).plan(target);
        emit_unit(name, Target::parse(target).unwrap(), &plan.kernels)
    }

    #[test]
    fn a_unit_only_names_types() {
        let unit = unit("small", "gfx1100");
        assert!(unit.starts_with("// small for gfx1100: "), "{unit}");
        assert!(unit.contains("using Gpu = Target<32, Dot::Sudot4, 192>;  // gfx1100\n"));
        assert!(unit.contains("_down  gemv Q4_K [256 x 768] · q8 in · + residual · store y, q8(y*g), sum y²   wave32 x "));
        for kernel in unit.split("extern \"C\" ").skip(1) {
            assert_eq!(kernel.matches(';').count(), 1, "a kernel is one call:\n{kernel}");
        }
        assert!(unit.lines().all(|l| l.starts_with("//") || l.len() <= 140), "{unit}");
    }

    #[test]
    fn equal_plans_give_equal_bytes() {
        assert_eq!(unit("small", "gfx1030"), unit("small", "gfx1030"));
    }

    #[test]
    fn a_name_from_a_file_stays_in_its_comment() {
        let unit = unit("evil\\\n#error \u{2028}é", "gfx1030");
        assert!(unit.starts_with("// evil??#error ?? for gfx1030"), "{unit}");
    }
}
