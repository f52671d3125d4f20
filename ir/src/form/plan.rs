//! Forms of kernel specs and of [`Plan`]:
//!
//! ```text
//! plan "gfx1100"
//! model {name: "llama", arch: "llama", layers: 2, vocab: 323, ctx_train: 8192}
//! cache {ctx: 256, kv: F16}
//! w0 = …            declarations as in a graph
//! b0 = {kind: State, space: Persistent, offset: 0, bytes: 16}
//! k0 = "k000_embed" {wave: 32, waves: 8, …} Embed{vocab: 323, …}
//! load
//! launch k9 (b0, b7, b12) grid (323, 1, 1) "repack" cost {read: 46512, written: 46512}
//! program {kind: Decode, tokens: 1, logits: b40, ids: b41}
//! launch k0 (b0, b1, b12) grid (16, 1, 1) "embed" cost {read: 148, written: 1024, flops: 512, ns: 4321}
//! state b0
//! tokens b1
//! outbox b2
//! sampling b3
//! draws b4
//! ```

use super::read::Cursor;
use super::write::{attributes, quoted};
use super::{FormError, Lines, layer, layer_suffix, write_table};
use crate::dtype::KvType;
use crate::fused::ProgramKind;
use crate::plan::{Buffer, Kernel, KernelSpec, Launch, Plan, Program};
use cranelift_entity::PrimaryMap;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

impl fmt::Display for KernelSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", quoted(&self.name), attributes(&self.geometry), attributes(&self.op))
    }
}

fn kernel(c: &mut Cursor) -> Result<KernelSpec, String> {
    Ok(KernelSpec { name: c.quoted()?, geometry: c.value()?, op: c.value()? })
}

/// Kernels as a text of their own: what `hipc dump --phase kernels` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelList(pub PrimaryMap<Kernel, KernelSpec>);

impl fmt::Display for KernelList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(index, spec)| writeln!(f, "{index} = {spec}"))
    }
}

impl FromStr for KernelList {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let mut lines = Lines::new(text);
        let kernels = lines.table("k", kernel)?;
        lines.finish()?;
        Ok(Self(kernels))
    }
}

/// The attributes of a program's first line.
#[derive(Serialize, Deserialize)]
struct ProgramHead {
    kind: ProgramKind,
    tokens: u32,
    logits: Buffer,
    ids: Buffer,
}

/// The attributes of the caches as a whole.
#[derive(Serialize, Deserialize)]
struct CacheHead {
    ctx: u32,
    kv: KvType,
}

fn write_launch(f: &mut fmt::Formatter, launch: &Launch) -> fmt::Result {
    let Launch { kernel, args, grid, layer, label, cost } = launch;
    let args: Vec<String> = args.iter().map(Buffer::to_string).collect();
    let (args, label, layer) = (args.join(", "), quoted(label), layer_suffix(*layer));
    writeln!(f, "launch {kernel} ({args}) grid {} {label}{layer} cost {}", attributes(grid), attributes(cost))
}

fn launch(c: &mut Cursor) -> Result<Launch, String> {
    c.expect("launch")?;
    let kernel = c.entity("k")?;
    c.expect("(")?;
    let mut args = Vec::new();
    while !c.eat(")") {
        if !args.is_empty() {
            c.expect(",")?;
        }
        args.push(c.entity("b")?);
    }
    c.expect("grid")?;
    let grid = c.value()?;
    let label = c.quoted()?;
    let layer = layer(c)?;
    c.expect("cost")?;
    Ok(Launch { kernel, args, grid, layer, label, cost: c.value()? })
}

fn launches(lines: &mut Lines) -> Result<Vec<Launch>, FormError> {
    let mut launches = Vec::new();
    while lines.peek().is_some_and(|l| l.starts_with("launch")) {
        launches.push(lines.take(launch)?);
    }
    Ok(launches)
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "plan {}\nmodel {}", quoted(&self.target), attributes(&self.model))?;
        writeln!(f, "cache {}", attributes(&CacheHead { ctx: self.ctx, kv: self.kv }))?;
        write_table(f, &self.weights)?;
        write_table(f, &self.ropes)?;
        write_table(f, &self.caches)?;
        write_table(f, &self.buffers)?;
        self.kernels.iter().try_for_each(|(index, spec)| writeln!(f, "{index} = {spec}"))?;
        if !self.load.is_empty() {
            writeln!(f, "load")?;
            self.load.iter().try_for_each(|l| write_launch(f, l))?;
        }
        for &Program { kind, tokens, ref launches, logits, ids } in &self.programs {
            writeln!(f, "program {}", attributes(&ProgramHead { kind, tokens, logits, ids }))?;
            launches.iter().try_for_each(|l| write_launch(f, l))?;
        }
        let Self { state, tokens, outbox, sampling, draws, .. } = self;
        writeln!(f, "state {state}\ntokens {tokens}\noutbox {outbox}\nsampling {sampling}\ndraws {draws}")
    }
}

impl FromStr for Plan {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let mut lines = Lines::new(text);
        let target = lines.take(|c| c.expect("plan").and_then(|()| c.quoted()))?;
        let model = lines.take(|c| c.expect("model").and_then(|()| c.value()))?;
        let CacheHead { ctx, kv } = lines.take(|c| c.expect("cache").and_then(|()| c.value()))?;
        let (weights, ropes, caches) = (lines.attributes("w")?, lines.attributes("rope")?, lines.attributes("kv")?);
        let (buffers, kernels) = (lines.attributes("b")?, lines.table("k", kernel)?);
        let mut load = Vec::new();
        if lines.peek() == Some("load") {
            lines.take(|c| c.expect("load"))?;
            load = launches(&mut lines)?;
        }
        let mut programs = Vec::new();
        while lines.peek().is_some_and(|l| l.starts_with("program")) {
            let ProgramHead { kind, tokens, logits, ids } = lines.take(|c| c.expect("program").and_then(|()| c.value()))?;
            let launches = launches(&mut lines)?;
            programs.push(Program { kind, tokens, launches, logits, ids });
        }
        let mut own = |name| lines.take(|c| c.expect(name).and_then(|()| c.entity("b")));
        let (state, tokens, outbox) = (own("state")?, own("tokens")?, own("outbox")?);
        let (sampling, draws) = (own("sampling")?, own("draws")?);
        lines.finish()?;
        Ok(Plan {
            target,
            model,
            ctx,
            kv,
            weights,
            ropes,
            caches,
            buffers,
            kernels,
            load,
            programs,
            state,
            tokens,
            outbox,
            sampling,
            draws,
        })
    }
}
