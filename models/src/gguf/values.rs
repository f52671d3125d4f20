//! Typed access to the keys of a file.
//!
//! Integers of any width are accepted where the value fits, as converters disagree about widths; text, numbers and booleans
//! are never taken for one another. Every getter yields `None` for an absent key.

use super::{GgufError, GgufFile};
use gguf_rs_lib::format::metadata::MetadataValue;
use std::collections::HashMap;

fn mismatch(key: &str, expected: &'static str, v: &MetadataValue) -> GgufError {
    let found = match v {
        MetadataValue::Array(a) => format!("an array of {} {}", a.values.len(), a.element_type),
        MetadataValue::String(_) => "a string".into(),
        v => format!("{} ({})", v.to_string_representation(), v.value_type()),
    };
    GgufError::KeyType { key: key.to_string(), expected, found }
}

fn as_unsigned(v: &MetadataValue) -> Option<u64> {
    v.as_u64().or_else(|| v.as_i64().and_then(|i| u64::try_from(i).ok()))
}

pub(super) fn unsigned(map: &HashMap<String, MetadataValue>, key: &str) -> Result<Option<u64>, GgufError> {
    map.get(key).map(|v| as_unsigned(v).ok_or_else(|| mismatch(key, "a whole number, not negative", v))).transpose()
}

impl GgufFile {
    /// Whether the key exists.
    pub fn has(&self, key: &str) -> bool {
        self.metadata.contains_key(key)
    }

    /// Every key, in no order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.metadata.keys().map(String::as_str)
    }

    fn get<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        f: impl Fn(&'a MetadataValue) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        self.metadata.get(key).map(|v| f(v).ok_or_else(|| mismatch(key, expected, v))).transpose()
    }

    /// An integer that isn't negative.
    pub fn unsigned(&self, key: &str) -> Result<Option<u64>, GgufError> {
        unsigned(&self.metadata, key)
    }

    /// An integer of 32 bits that isn't negative.
    pub fn u32(&self, key: &str) -> Result<Option<u32>, GgufError> {
        self.get(key, "a whole number of 32 bits, not negative", |v| as_unsigned(v).and_then(|n| u32::try_from(n).ok()))
    }

    /// One integer that stands for all layers, or one for each of `layers` layers.
    pub fn u32_per_layer(&self, key: &str, layers: u32) -> Result<Option<Vec<u32>>, GgufError> {
        let one = |v| as_unsigned(v).and_then(|n| u32::try_from(n).ok());
        self.get(key, "a whole number, or an array of one per layer", |v| match v {
            MetadataValue::Array(a) if a.values.len() == layers as usize => a.values.iter().map(one).collect(),
            MetadataValue::Array(_) => None,
            v => Some(vec![one(v)?; layers as usize]),
        })
    }

    /// A real number.
    pub fn float(&self, key: &str) -> Result<Option<f64>, GgufError> {
        self.get(key, "a real number", MetadataValue::as_f64)
    }

    /// A truth value.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.get(key, "a bool", MetadataValue::as_bool)
    }

    /// A text.
    pub fn text(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.get(key, "a string", MetadataValue::as_str)
    }

    /// An array of texts.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&str>>, GgufError> {
        self.get(key, "an array of strings", |v| match v {
            MetadataValue::Array(a) => a.values.iter().map(MetadataValue::as_str).collect(),
            _ => None,
        })
    }

    /// An array of integers of any width.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i64>>, GgufError> {
        let one = |v: &MetadataValue| v.as_i64().or_else(|| v.as_u64().and_then(|n| i64::try_from(n).ok()));
        self.get(key, "an array of integers", |v| match v {
            MetadataValue::Array(a) => a.values.iter().map(one).collect(),
            _ => None,
        })
    }

    /// An array of real numbers (integers are taken, too).
    pub fn floats(&self, key: &str) -> Result<Option<Vec<f32>>, GgufError> {
        let one = |v: &MetadataValue| v.as_f64().map(|x| x as f32).or_else(|| v.as_i64().map(|i| i as f32));
        self.get(key, "an array of real numbers", |v| match v {
            MetadataValue::Array(a) => a.values.iter().map(one).collect(),
            _ => None,
        })
    }
}
