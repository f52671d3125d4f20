//! Reads numpy's `.npy` and `.npz` files: the reference data's form.
//!
//! Formats: numpy's `numpy.lib.format` (version 1 and 2), PKWARE's zip (stored and deflated members, no zip64).

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// An array in C order.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Values.
    pub data: Data,
}

/// The values of an array.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// `<f4`, and `<f2` and `<f8` converted.
    F32(Vec<f32>),
    /// `<i4`, and `<i8` where the values fit.
    I32(Vec<i32>),
}

impl Array {
    /// The values as floats.
    ///
    /// # Panics
    /// If they are integers.
    pub fn floats(&self) -> &[f32] {
        match &self.data {
            Data::F32(v) => v,
            Data::I32(_) => panic!("the array holds integers"),
        }
    }

    /// The values as token ids.
    ///
    /// # Panics
    /// If they are floats or negative.
    pub fn ids(&self) -> Vec<u32> {
        match &self.data {
            Data::I32(v) => v.iter().map(|&v| u32::try_from(v).expect("ids aren't negative")).collect(),
            Data::F32(_) => panic!("the array holds floats"),
        }
    }
}

/// Reads a `.npy` file.
///
/// # Panics
/// If it can't be read: the test's data are damaged.
pub fn npy(path: impl AsRef<Path>) -> Array {
    let path = path.as_ref();
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    parse_npy(&bytes).unwrap_or_else(|| panic!("{}: not an npy file of a known type", path.display()))
}

/// Reads all arrays of a `.npz` file, by name without `.npy`.
///
/// # Panics
/// If it can't be read: the test's data are damaged.
pub fn npz(path: impl AsRef<Path>) -> BTreeMap<String, Array> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let members = unzip(&bytes).unwrap_or_else(|| panic!("{}: not a zip file", path.display()));
    let parsed =
        members.into_iter().filter_map(|(name, bytes)| Some((name.strip_suffix(".npy")?.to_string(), parse_npy(&bytes)?)));
    parsed.collect()
}

fn parse_npy(bytes: &[u8]) -> Option<Array> {
    let rest = bytes.strip_prefix(b"\x93NUMPY")?;
    let (header, data) = match rest.first()? {
        1 => rest.get(4..)?.split_at_checked(u16_at(rest, 2)?)?,
        _ => rest.get(6..)?.split_at_checked(u32_at(rest, 2)?)?,
    };
    let header = std::str::from_utf8(header).ok()?;
    let field = |key: &str| Some(header.split_once(&format!("'{key}':"))?.1.trim_start());
    if field("fortran_order")?.starts_with("True") {
        return None;
    }
    let shape = field("shape")?.strip_prefix('(')?.split_once(')')?.0;
    let shape: Vec<usize> = shape.split(',').filter_map(|n| n.trim().parse().ok()).collect();
    let n = shape.iter().product();
    let data = match field("descr")?.get(1..4)? {
        "<f4" => Data::F32(data.as_chunks().0.iter().take(n).map(|b| f32::from_le_bytes(*b)).collect()),
        "<f2" => Data::F32(data.as_chunks().0.iter().take(n).map(|b| half::f16::from_le_bytes(*b).to_f32()).collect()),
        "<f8" => Data::F32(data.as_chunks().0.iter().take(n).map(|b| f64::from_le_bytes(*b) as f32).collect()),
        "<i4" => Data::I32(data.as_chunks().0.iter().take(n).map(|b| i32::from_le_bytes(*b)).collect()),
        "<i8" => Data::I32(
            data.as_chunks().0.iter().take(n).map(|b| i32::try_from(i64::from_le_bytes(*b)).ok()).collect::<Option<_>>()?,
        ),
        _ => return None,
    };
    Some(Array { shape, data })
}

fn unzip(bytes: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    let end = bytes.windows(4).rposition(|w| w == b"PK\x05\x06")?;
    let (count, mut at) = (u16_at(bytes, end + 10)?, u32_at(bytes, end + 16)?);
    let mut members = Vec::new();
    for _ in 0..count {
        let entry = bytes.get(at..)?.strip_prefix(b"PK\x01\x02").map(|_| &bytes[at..])?;
        let (method, packed, size) = (u16_at(entry, 10)?, u32_at(entry, 20)?, u32_at(entry, 24)?);
        let (name, extra, comment) = (u16_at(entry, 28)?, u16_at(entry, 30)?, u16_at(entry, 32)?);
        let local = bytes.get(u32_at(entry, 42)?..)?;
        let data = local.get(30 + u16_at(local, 26)? + u16_at(local, 28)?..)?.get(..packed)?;
        let mut out = Vec::with_capacity(size);
        match method {
            0 => out.extend_from_slice(data),
            8 => drop(flate2::read::DeflateDecoder::new(data).read_to_end(&mut out).ok()?),
            _ => return None,
        }
        members.push((String::from_utf8(entry.get(46..46 + name)?.to_vec()).ok()?, out));
        at += 46 + name + extra + comment;
    }
    Some(members)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?)))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?)).ok()
}
