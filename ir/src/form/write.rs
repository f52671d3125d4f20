//! Attributes as text: a serde format.
//!
//! | type | text |
//! |---|---|
//! | struct | `{field: value, flag}`: a true flag stands alone, a false one and an absent option are left out |
//! | variant | `Name`, `Name(value, …)`, `Name{field: value}` |
//! | option elsewhere | the value, or `_` |
//! | sequence, tuple | `[a, b]`, `(a, b)` |
//! | reference | `w3`, `rope0`, `s12`: the entity's own text |
//! | text, numbers | `"quoted"`, `12`, `1e-5` |

use serde::ser::{self, Error as _, Serialize};
use std::fmt::Write;

/// Names of the reference types and the letters before their numbers.
pub(super) const ENTITIES: [(&str, &str); 8] = [
    ("Weight", "w"),
    ("Rope", "rope"),
    ("Cache", "kv"),
    ("Value", "v"),
    ("Slot", "s"),
    ("LaunchRef", "launch"),
    ("Kernel", "k"),
    ("Buffer", "b"),
];

/// The attributes of a value of ours. Types that this format has no text for (maps, bytes) print as the fault they are.
pub fn attributes<T: Serialize + ?Sized>(value: &T) -> String {
    match value.serialize(Writer) {
        Ok(text) => text,
        Err(fault) => format!("<{fault}>"),
    }
}

/// Text of one value.
struct Writer;

type Fault = std::fmt::Error;

/// Items between brackets.
struct List {
    text: String,
    close: &'static str,
    first: bool,
}

impl List {
    fn new(open: impl Into<String>, close: &'static str) -> Self {
        Self { text: open.into(), close, first: true }
    }
    fn push(&mut self, item: &str) {
        if !std::mem::take(&mut self.first) {
            self.text.push_str(", ");
        }
        self.text.push_str(item);
    }
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
        value.serialize(Writer).map(|text| self.push(&text))
    }
    fn field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Fault> {
        match value.serialize(Writer)?.as_str() {
            "true" => self.push(key),
            "false" | "_" => {}
            text => self.push(&format!("{key}: {text}")),
        }
        Ok(())
    }
    fn close(mut self) -> String {
        self.text.push_str(self.close);
        self.text
    }
}

macro_rules! numbers {
    ($($name:ident: $ty:ty),*) => {
        $(fn $name(self, v: $ty) -> Result<String, Fault> {
            Ok(format!("{v:?}"))
        })*
    };
}

impl ser::Serializer for Writer {
    type Ok = String;
    type Error = Fault;
    type SerializeSeq = List;
    type SerializeTuple = List;
    type SerializeTupleStruct = List;
    type SerializeTupleVariant = List;
    type SerializeMap = ser::Impossible<String, Fault>;
    type SerializeStruct = List;
    type SerializeStructVariant = List;

    numbers!(serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64);
    numbers!(serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_f32: f32, serialize_f64: f64);

    fn serialize_char(self, v: char) -> Result<String, Fault> {
        self.serialize_str(v.encode_utf8(&mut [0; 4]))
    }
    fn serialize_str(self, v: &str) -> Result<String, Fault> {
        Ok(quoted(v))
    }
    fn serialize_bytes(self, _: &[u8]) -> Result<String, Fault> {
        Err(Fault::custom("bytes"))
    }
    fn serialize_none(self) -> Result<String, Fault> {
        Ok("_".into())
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<String, Fault> {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Result<String, Fault> {
        Ok("()".into())
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<String, Fault> {
        self.serialize_unit()
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<String, Fault> {
        Ok(variant.into())
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<String, Fault> {
        let inner = value.serialize(self)?;
        let prefix = ENTITIES.iter().find(|(entity, _)| *entity == name).map_or("", |(_, prefix)| prefix);
        Ok(format!("{prefix}{inner}"))
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<String, Fault> {
        let inner = value.serialize(self)?;
        Ok(if inner.starts_with('{') { format!("{variant}{inner}") } else { format!("{variant}({inner})") })
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<List, Fault> {
        Ok(List::new("[", "]"))
    }
    fn serialize_tuple(self, _: usize) -> Result<List, Fault> {
        Ok(List::new("(", ")"))
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<List, Fault> {
        Ok(List::new("(", ")"))
    }
    fn serialize_tuple_variant(self, _: &'static str, _: u32, variant: &'static str, _: usize) -> Result<List, Fault> {
        Ok(List::new(format!("{variant}("), ")"))
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, Fault> {
        Err(Fault::custom("a map"))
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<List, Fault> {
        Ok(List::new("{", "}"))
    }
    fn serialize_struct_variant(self, _: &'static str, _: u32, variant: &'static str, _: usize) -> Result<List, Fault> {
        Ok(List::new(format!("{variant}{{"), "}"))
    }
}

macro_rules! lists {
    ($($tr:ident $method:ident),*) => {
        $(impl ser::$tr for List {
            type Ok = String;
            type Error = Fault;
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
                self.item(value)
            }
            fn end(self) -> Result<String, Fault> {
                Ok(self.close())
            }
        })*
    };
}
lists!(SerializeSeq serialize_element, SerializeTuple serialize_element, SerializeTupleStruct serialize_field, SerializeTupleVariant serialize_field);

macro_rules! structs {
    ($($tr:ident),*) => {
        $(impl ser::$tr for List {
            type Ok = String;
            type Error = Fault;
            fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Fault> {
                self.field(key, value)
            }
            fn end(self) -> Result<String, Fault> {
                Ok(self.close())
            }
        })*
    };
}
structs!(SerializeStruct, SerializeStructVariant);

/// Text in quotes; only quotes, backslashes and control characters are escaped.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => drop(write!(out, "\\u{{{:x}}}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
