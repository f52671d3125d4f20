//! Form of [`TuningFile`]:
//!
//! ```text
//! tuning 1
//! date "2026-11-21"
//! device "cuda:0 NVIDIA H200 (sm_90)"
//! driver "580.1"
//! hipc "0.1.0"
//! templates "0a1b…"
//! model "llama"
//! gb_per_s 4210
//! ; 5.12 µs, before 5.61 µs
//! entry "sm_90" "o" {ns: 5120, before_ns: 5610, predicted_ns: 4980} {wave: 32, …} Gemv{k: 4096, …}
//! ```
//!
//! `gb_per_s` may be missing.

use super::read::Cursor;
use super::write::{attributes, quoted};
use super::{FormError, Lines};
use crate::bundle::Digest;
use crate::tuning::{Entry, Made, TuningFile};
use std::fmt;
use std::str::FromStr;

/// Version of the form.
const VERSION: u32 = 1;

impl fmt::Display for TuningFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Made { date, device, driver, hipc, templates, model, gb_per_s } = &self.made;
        writeln!(f, "tuning {VERSION}")?;
        let hash = templates.to_string();
        for (key, value) in
            [("date", date), ("device", device), ("driver", driver), ("hipc", hipc), ("templates", &hash), ("model", model)]
        {
            writeln!(f, "{key} {}", quoted(value))?;
        }
        if let Some(gb) = gb_per_s {
            writeln!(f, "gb_per_s {gb}")?;
        }
        for Entry { target, label, times, geometry, op } in &self.entries {
            let [now, before] = [times.ns, times.before_ns].map(|ns| ns as f64 / 1e3);
            writeln!(f, "; {now:.2} µs, before {before:.2} µs")?;
            let (target, label) = (quoted(target), quoted(label));
            writeln!(f, "entry {target} {label} {} {} {}", attributes(times), attributes(geometry), attributes(op))?;
        }
        Ok(())
    }
}

fn hash(c: &mut Cursor) -> Result<Digest, String> {
    let text = c.quoted()?;
    let byte = |i: usize| text.get(2 * i..2 * i + 2).and_then(|b| u8::from_str_radix(b, 16).ok());
    let bytes: Option<Vec<u8>> = (0..32).map(byte).collect();
    let bytes = bytes.filter(|_| text.len() == 64).and_then(|b| b.try_into().ok());
    bytes.map(Digest).ok_or_else(|| "a hash has 64 hexadecimal digits".to_owned())
}

fn entry(c: &mut Cursor) -> Result<Entry, String> {
    c.expect("entry")?;
    Ok(Entry { target: c.quoted()?, label: c.quoted()?, times: c.value()?, geometry: c.value()?, op: c.value()? })
}

impl TuningFile {
    /// Reads a file, with a rule that each entry must keep.
    ///
    /// # Errors
    /// The first line that says something else, or whose entry `accept` refuses.
    pub fn parse(text: &str, mut accept: impl FnMut(&Entry) -> Result<(), String>) -> Result<Self, FormError> {
        let mut lines = Lines::new(text);
        lines.take(|c| {
            c.expect("tuning")?;
            let version: u32 = c.number()?;
            if version == VERSION { Ok(()) } else { Err(format!("this is version {version}, known is {VERSION}")) }
        })?;
        let mut field = |key| lines.take(|c| c.expect(key).and_then(|()| c.quoted()));
        let (date, device, driver, hipc) = (field("date")?, field("device")?, field("driver")?, field("hipc")?);
        let templates = lines.take(|c| c.expect("templates").and_then(|()| hash(c)))?;
        let model = lines.take(|c| c.expect("model").and_then(|()| c.quoted()))?;
        let gb_per_s = match lines.peek() {
            Some(line) if line.starts_with("gb_per_s") => Some(lines.take(|c| c.expect("gb_per_s").and_then(|()| c.number()))?),
            _ => None,
        };
        let made = Made { date, device, driver, hipc, templates, model, gb_per_s };
        let mut entries: Vec<Entry> = Vec::new();
        while lines.peek().is_some() {
            let next = lines.take(|c| {
                let next = entry(c)?;
                crate::verify::tuned(&next).map_err(|e| e.to_string())?;
                if entries.iter().any(|e| e.is_for(&next.target, &next.op)) {
                    return Err("an entry before has the same target and op".to_owned());
                }
                accept(&next).map(|()| next)
            })?;
            entries.push(next);
        }
        lines.finish()?;
        Ok(Self { made, entries })
    }
}

impl FromStr for TuningFile {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        Self::parse(text, |_| Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::{DType, Layout};
    use crate::fused::{Combine, Finish, FusedOp, Gemv, Input, Segment, Tail};
    use crate::plan::Geometry;
    use crate::tuning::Times;

    fn op(rows: u32) -> FusedOp {
        let tail = Tail::Vector { combine: Combine::One, residual: true, finish: Finish::RAW };
        let segments = vec![Segment { dtype: DType::Q4_K, layout: Layout::Split, rows, bias: false }];
        FusedOp::Gemv(Gemv { k: 4096, input: Input::Q8, deferred: None, segments, tail })
    }

    fn file() -> TuningFile {
        let made = Made {
            date: "2026-11-21".into(),
            device: "hip:0 \"A card\" (gfx1100)".into(),
            driver: "6.4".into(),
            hipc: "0.1.0".into(),
            templates: Digest::of(b"x"),
            model: "llama".into(),
            gb_per_s: Some(812),
        };
        let geometry = Geometry {
            wave: 32,
            waves: 8,
            rows_per_wave: 2,
            k_waves: 2,
            row_steps: 1,
            tile: 8,
            tokens: 1,
            splits: 1,
            parts_in: 0,
        };
        let times = Times { ns: 5123, before_ns: 6001, predicted_ns: 4900 };
        let entry = |rows| Entry { target: "gfx1100".into(), label: "o".into(), times, geometry, op: op(rows) };
        TuningFile { made, entries: vec![entry(4096), entry(2048)] }
    }

    #[test]
    fn reads_back() {
        for gb_per_s in [None, Some(812)] {
            let mut file = file();
            file.made.gb_per_s = gb_per_s;
            let text = file.to_string();
            assert_eq!(text.parse(), Ok(file), "{text}");
            assert!(text.contains("; 5.12 µs, before 6.00 µs\nentry \"gfx1100\" \"o\" {ns: 5123, "), "{text}");
        }
    }

    #[test]
    fn faults_name_their_line() {
        let text = file().to_string();
        let second = text.lines().position(|l| l.starts_with("entry") && l.contains("rows: 2048")).unwrap() + 1;
        for (from, to, line, why) in [
            ("tuning 1", "tuning 2", 1, "version 2"),
            ("tuning 1", "hello", 1, "expected `tuning`"),
            ("date \"2026", "date 2026", 2, "a text in quotes"),
            ("hipc \"0.1.0\"\n", "", 5, "expected `hipc`"),
            ("templates \"", "templates \"0", 6, "64 hexadecimal digits"),
            ("gb_per_s 812", "gb_per_s -1", 8, "a number in range"),
            ("rows: 2048", "rows: 4096", second, "the same target and op"),
            ("rows: 2048", "rows: 0", second, "0"),
            ("rows: 2048", "lines: 2048", second, "lines"),
        ] {
            let wrong = text.replacen(from, to, 1);
            assert_ne!(wrong, text, "{from}");
            let error = wrong.parse::<TuningFile>().unwrap_err();
            assert_eq!(error.line, line, "{error}");
            assert!(error.message.contains(why), "{error}");
        }
        let zero = text.replacen("tile: 8, ", "tile: 0, ", 1);
        assert!(zero.parse::<TuningFile>().unwrap_err().message.contains("impossible size"));
        let refused = TuningFile::parse(&text, |e| if e.op == op(2048) { Err("no".into()) } else { Ok(()) });
        assert_eq!(refused, Err(FormError { line: second, message: "no".into() }));
    }
}
