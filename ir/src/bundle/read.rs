//! Reading a bundle.

use super::table::{Section, read_table};
use super::{ArchEntry, Digest, FormatError, KernelVariants, Manifest, SectionKind};
use crate::graph::Graph;
use crate::plan::Plan;
use crate::text::TokenizerData;
use crate::tuning::Trial;
use crate::verify::plan_references;
use serde::de::DeserializeOwned;

/// A bundle in memory (or mapped): checked, but for embedded weights.
#[derive(Clone, Debug)]
pub struct Bundle<B = Vec<u8>> {
    bytes: B,
    sections: Vec<Section>,
    manifest: Manifest,
}

impl<B: AsRef<[u8]>> Bundle<B> {
    /// Checks header, table, padding and every section but weights, and reads the manifest. Time and memory are linear in the
    /// length of `bytes` without weights, whatever they claim.
    ///
    /// # Errors
    /// [`FormatError`] says what is wrong.
    pub fn parse(bytes: B) -> Result<Self, FormatError> {
        let sections = read_table(bytes.as_ref())?;
        for section in sections.iter().filter(|s| s.kind != SectionKind::Weights) {
            check_section(bytes.as_ref(), section)?;
        }
        let manifest = match sections.first() {
            Some(s) if s.kind == SectionKind::Manifest => decode(s, &bytes.as_ref()[s.range()])?,
            _ => return Err(FormatError::malformed("table", "there is no manifest")),
        };
        let bundle = Self { bytes, sections, manifest };
        bundle.check_manifest()?;
        Ok(bundle)
    }

    fn check_manifest(&self) -> Result<(), FormatError> {
        let w = &self.manifest.weights;
        let embedded = self.section(SectionKind::Weights, "").map(|s| s.len);
        if embedded.is_some() != w.embedded {
            return Err(FormatError::malformed("manifest", "the weights are not where it says"));
        }
        // The model file may stand in for embedded weights.
        let len = w.file_bytes.saturating_sub(w.data_offset).min(embedded.unwrap_or(u64::MAX));
        if w.tensors.values().any(|t| t.offset.checked_add(t.bytes).is_none_or(|end| end > len)) {
            return Err(FormatError::malformed("manifest", "a tensor lies outside of the weights"));
        }
        let whole =
            |a: &ArchEntry| [SectionKind::Plan, SectionKind::Code].iter().all(|&kind| self.section(kind, &a.name).is_some());
        match self.manifest.archs.iter().find(|a| !whole(a)) {
            Some(a) => Err(FormatError::malformed("table", format!("plan or code of {} are missing", a.name))),
            None => Ok(()),
        }
    }

    fn section(&self, kind: SectionKind, name: &str) -> Option<&Section> {
        self.sections.iter().find(|s| s.kind == kind && s.name == name)
    }

    fn contents(&self, kind: SectionKind, name: &str) -> Option<&[u8]> {
        self.section(kind, name).map(|s| &self.bytes.as_ref()[s.range()])
    }

    fn decoded<T: DeserializeOwned>(&self, kind: SectionKind, name: &str) -> Result<Option<T>, FormatError> {
        self.section(kind, name).map(|s| decode(s, &self.bytes.as_ref()[s.range()])).transpose()
    }

    fn arch(&self, arch: &str) -> Result<&ArchEntry, FormatError> {
        let found = self.manifest.archs.iter().find(|a| a.name == arch);
        found.ok_or_else(|| FormatError::NoArch { wanted: arch.to_owned(), has: self.archs().collect::<Vec<_>>().join(", ") })
    }

    /// What is in the bundle.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The table.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// Architectures, in the order they were compiled for.
    pub fn archs(&self) -> impl Iterator<Item = &str> {
        self.manifest.archs.iter().map(|a| a.name.as_str())
    }

    /// The plan of an architecture; every reference in it points to something, and no size overflows.
    ///
    /// # Errors
    /// [`FormatError::NoArch`], or what is wrong with the section.
    pub fn plan(&self, arch: &str) -> Result<Plan, FormatError> {
        let entry = self.arch(arch)?;
        let missing = || FormatError::malformed("table", format!("the plan of {arch} is missing"));
        let mut plan: Plan = self.decoded(SectionKind::Plan, arch)?.ok_or_else(missing)?;
        plan.target = arch.to_owned();
        let same = entry.ns.len() == plan.programs.len()
            && entry.ns.iter().zip(&plan.programs).all(|(n, p)| n.len() == p.launches.len());
        if !same {
            return Err(FormatError::malformed("manifest", format!("its times are not those of the launches of {arch}")));
        }
        for (program, ns) in plan.programs.iter_mut().zip(&entry.ns) {
            program.launches.iter_mut().zip(ns).for_each(|(launch, &ns)| launch.cost.ns = ns);
        }
        plan_references(&plan)?;
        let w = &self.manifest.weights.tensors;
        if plan.weights.len() != w.len() || plan.weights.values().zip(w.values()).any(|(d, t)| d.bytes() != t.bytes) {
            return Err(FormatError::malformed("manifest", format!("its tensors are not those of the plan of {arch}")));
        }
        Ok(plan)
    }

    /// Machine code of an architecture.
    ///
    /// # Errors
    /// [`FormatError::NoArch`].
    pub fn code(&self, arch: &str) -> Result<&[u8], FormatError> {
        self.arch(arch)?;
        self.contents(SectionKind::Code, arch)
            .ok_or_else(|| FormatError::malformed("table", format!("the code of {arch} is missing")))
    }

    /// HIP source of an architecture, if the bundle has it.
    ///
    /// # Errors
    /// It isn't UTF-8.
    pub fn unit(&self, arch: &str) -> Result<Option<&str>, FormatError> {
        let text = self.contents(SectionKind::Unit, arch).map(std::str::from_utf8).transpose();
        text.map_err(|e| FormatError::malformed("unit", e))
    }

    /// Launches of an architecture in several geometries; none in a bundle that wasn't made to be measured.
    ///
    /// # Errors
    /// [`FormatError::NoArch`], or what is wrong with the section.
    pub fn trials(&self, arch: &str) -> Result<Vec<Trial>, FormatError> {
        self.arch(arch)?;
        let trials: Vec<Trial> = self.decoded(SectionKind::Trials, arch)?.unwrap_or_default();
        for trial in &trials {
            crate::verify::trial(trial).map_err(|e| FormatError::malformed(format!("trials of {arch}"), e))?;
        }
        Ok(trials)
    }

    /// Machine code of trial number `index` of an architecture.
    ///
    /// # Errors
    /// It is missing.
    pub fn trial_code(&self, arch: &str, index: usize) -> Result<&[u8], FormatError> {
        let missing = || FormatError::malformed("table", format!("the code of trial {index} of {arch} is missing"));
        self.contents(SectionKind::TrialCode, &format!("{arch}/{index}")).ok_or_else(missing)
    }

    /// Which variant of code generation each kernel of an architecture was compiled in; empty if none were searched.
    ///
    /// # Errors
    /// [`FormatError::NoArch`], or what is wrong with the section.
    pub fn variants(&self, arch: &str) -> Result<Vec<KernelVariants>, FormatError> {
        self.arch(arch)?;
        let found: Vec<KernelVariants> = self.decoded(SectionKind::Variants, arch)?.unwrap_or_default();
        match found.iter().find(|k| k.chosen().is_none()) {
            Some(k) => Err(FormatError::malformed(format!("variants of {arch}"), format!("{} was compiled in none", k.kernel))),
            None => Ok(found),
        }
    }

    /// The tuning files that the plans were made with, as text, each with its hash.
    ///
    /// # Errors
    /// One isn't UTF-8.
    pub fn tuning(&self) -> Result<Vec<(Digest, &str)>, FormatError> {
        let files = self.sections.iter().filter(|s| s.kind == SectionKind::Tuning);
        let text = |s: &Section| std::str::from_utf8(&self.bytes.as_ref()[s.range()]).map(|text| (s.hash, text));
        files.map(|s| text(s).map_err(|e| FormatError::malformed(s.kind, e))).collect()
    }

    /// Tokenizer and chat template; `None` for a model without.
    ///
    /// # Errors
    /// The section makes no sense.
    pub fn tokenizer(&self) -> Result<Option<TokenizerData>, FormatError> {
        self.decoded(SectionKind::Tokenizer, "")
    }

    /// The unfused graph.
    ///
    /// # Errors
    /// The section is missing or makes no sense.
    pub fn graph(&self) -> Result<Graph, FormatError> {
        let graph: Option<Graph> = self.decoded(SectionKind::Graph, "")?;
        let graph = graph.ok_or_else(|| FormatError::malformed("table", "there is no graph"))?;
        crate::verify::graph(&graph).map_err(|e| FormatError::malformed("graph", e))?;
        Ok(graph)
    }

    /// Embedded weights, unchecked; `None` if they are in the model file.
    pub fn embedded_weights(&self) -> Option<&[u8]> {
        self.contents(SectionKind::Weights, "")
    }

    /// Checks embedded weights, on all cores.
    ///
    /// # Errors
    /// [`FormatError::Damaged`].
    pub fn check_weights(&self) -> Result<(), FormatError> {
        self.section(SectionKind::Weights, "").map_or(Ok(()), |s| check_section(self.bytes.as_ref(), s))
    }
}

/// Above this it pays to hash on all cores.
const PARALLEL_BYTES: usize = 1 << 20;

fn check_section(bytes: &[u8], section: &Section) -> Result<(), FormatError> {
    let contents = &bytes[section.range()];
    let mut hasher = blake3::Hasher::new();
    if contents.len() > PARALLEL_BYTES {
        hasher.update_rayon(contents);
    } else {
        hasher.update(contents);
    }
    let found = Digest(hasher.finalize().into());
    if found == section.hash { Ok(()) } else { Err(FormatError::Damaged { what: section.describe() }) }
}

fn decode<T: DeserializeOwned>(section: &Section, bytes: &[u8]) -> Result<T, FormatError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err(FormatError::malformed(section.describe(), "something is left behind its end")),
        Err(e) => Err(FormatError::malformed(section.describe(), e)),
    }
}
