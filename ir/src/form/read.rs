//! Reads what [`write`](mod@super::write) writes: a cursor over one line, and a serde format on it.

use super::write::ENTITIES;
use cranelift_entity::EntityRef;
use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Error as _, IntoDeserializer, Visitor};
use std::str::FromStr;

/// A place in a line.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    /// The beginning of a line.
    pub fn new(line: &'a str) -> Self {
        Self { rest: line.trim_start() }
    }

    fn skip(&mut self, bytes: usize) -> &'a str {
        let (head, tail) = self.rest.split_at(bytes);
        self.rest = tail.trim_start();
        head
    }

    fn fault(&self, expected: &str) -> String {
        let found: String = self.rest.chars().take(24).collect();
        if found.is_empty() {
            format!("expected {expected} at the end of the line")
        } else {
            format!("expected {expected} at `{found}`")
        }
    }

    /// Whether the line goes on with this.
    pub fn at(&self, token: &str) -> bool {
        self.rest.starts_with(token)
    }

    /// Steps over this if the line goes on with it.
    pub fn eat(&mut self, token: &str) -> bool {
        let found = self.at(token);
        if found {
            self.skip(token.len());
        }
        found
    }

    /// Steps over this.
    ///
    /// # Errors
    /// The line goes on differently.
    pub fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.eat(token) { Ok(()) } else { Err(self.fault(&format!("`{token}`"))) }
    }

    /// Nothing is left.
    ///
    /// # Errors
    /// Something is.
    pub fn end(&self) -> Result<(), String> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.fault("the end of the line")) }
    }

    /// Letters, digits and underscores.
    ///
    /// # Errors
    /// There are none.
    pub fn word(&mut self) -> Result<&'a str, String> {
        let length = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        if length == 0 { Err(self.fault("a word")) } else { Ok(self.skip(length)) }
    }

    /// A number.
    ///
    /// # Errors
    /// It isn't one, or doesn't fit the type.
    pub fn number<T: FromStr>(&mut self) -> Result<T, String> {
        let number = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-' || c == '+';
        let length = self.rest.find(|c: char| !number(c)).unwrap_or(self.rest.len());
        match self.rest[..length].parse() {
            Ok(value) => {
                self.skip(length);
                Ok(value)
            }
            Err(_) => Err(self.fault("a number in range")),
        }
    }

    /// A reference such as `w12`.
    ///
    /// # Errors
    /// Another prefix, or no number below 2³² − 1.
    pub fn entity<K: EntityRef>(&mut self, prefix: &str) -> Result<K, String> {
        self.index(prefix).map(|n| K::new(n as usize))
    }

    fn index(&mut self, prefix: &str) -> Result<u32, String> {
        let digits = self.rest.strip_prefix(prefix).map(|r| &r[..r.find(|c: char| !c.is_ascii_digit()).unwrap_or(r.len())]);
        // The largest number is the entities' reserved value.
        match digits.and_then(|d| Some((d.len(), d.parse::<u32>().ok().filter(|&n| n < u32::MAX)?))) {
            Some((length, index)) => {
                self.skip(prefix.len() + length);
                Ok(index)
            }
            None => Err(self.fault(&format!("a reference `{prefix}N`"))),
        }
    }

    /// A value in the syntax of [`write`](mod@super::write).
    ///
    /// # Errors
    /// What was expected, and where.
    pub fn value<T: DeserializeOwned>(&mut self) -> Result<T, String> {
        T::deserialize(Reader(self)).map_err(|fault| fault.to_string())
    }

    /// Text in quotes.
    ///
    /// # Errors
    /// It doesn't begin or end, or has an unknown escape.
    pub fn quoted(&mut self) -> Result<String, String> {
        let mut out = String::new();
        let mut chars = self.rest.char_indices();
        if !matches!(chars.next(), Some((_, '"'))) {
            return Err(self.fault("a text in quotes"));
        }
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.skip(at + 1);
                    return Ok(out);
                }
                '\\' => match chars.next() {
                    Some((_, c @ ('"' | '\\'))) => out.push(c),
                    Some((_, 'u')) => {
                        let code: String =
                            chars.by_ref().map(|(_, c)| c).take_while(|&c| c != '}').skip_while(|&c| c == '{').collect();
                        let c = u32::from_str_radix(&code, 16).ok().and_then(char::from_u32);
                        out.push(c.ok_or_else(|| format!("no character has the code `{code}`"))?);
                    }
                    _ => return Err("unknown escape in a text".into()),
                },
                c => out.push(c),
            }
        }
        Err("a text in quotes doesn't end".into())
    }
}

/// A fault found by serde.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ReadFault(String);

impl de::Error for ReadFault {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

impl From<String> for ReadFault {
    fn from(message: String) -> Self {
        Self(message)
    }
}

struct Reader<'c, 'a>(&'c mut Cursor<'a>);

macro_rules! numbers {
    ($($method:ident $visit:ident),*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadFault> {
            visitor.$visit(self.0.number()?)
        })*
    };
}

macro_rules! refused {
    ($($method:ident),*) => {
        $(fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, ReadFault> {
            Err(ReadFault::custom("the form has no text for this type"))
        })*
    };
}

impl<'de> de::Deserializer<'de> for Reader<'_, '_> {
    type Error = ReadFault;

    numbers!(deserialize_i8 visit_i8, deserialize_i16 visit_i16, deserialize_i32 visit_i32, deserialize_i64 visit_i64);
    numbers!(deserialize_u8 visit_u8, deserialize_u16 visit_u16, deserialize_u32 visit_u32, deserialize_u64 visit_u64);
    numbers!(deserialize_f32 visit_f32, deserialize_f64 visit_f64, deserialize_bool visit_bool);
    refused!(
        deserialize_any,
        deserialize_bytes,
        deserialize_byte_buf,
        deserialize_map,
        deserialize_char,
        deserialize_ignored_any
    );

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadFault> {
        visitor.visit_string(self.0.quoted()?)
    }
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadFault> {
        self.deserialize_str(visitor)
    }
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadFault> {
        visitor.visit_str(self.0.word()?)
    }
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadFault> {
        if self.0.eat("_") { visitor.visit_none() } else { visitor.visit_some(self) }
    }
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadFault> {
        self.0.expect("()")?;
        visitor.visit_unit()
    }
    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, ReadFault> {
        self.deserialize_unit(visitor)
    }
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, ReadFault> {
        match ENTITIES.iter().find(|(entity, _)| *entity == name) {
            Some((_, prefix)) => visitor.visit_newtype_struct(self.0.index(prefix)?.into_deserializer()),
            None => visitor.visit_newtype_struct(self),
        }
    }
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadFault> {
        self.0.expect("[")?;
        visitor.visit_seq(Items { cursor: self.0, close: "]", first: true })
    }
    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, ReadFault> {
        self.0.expect("(")?;
        let value = visitor.visit_seq(Items { cursor: self.0, close: "", first: true })?;
        self.0.expect(")")?;
        Ok(value)
    }
    fn deserialize_tuple_struct<V: Visitor<'de>>(self, _: &'static str, len: usize, visitor: V) -> Result<V::Value, ReadFault> {
        self.deserialize_tuple(len, visitor)
    }
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadFault> {
        self.0.expect("{")?;
        visitor.visit_map(Fields { cursor: self.0, missing: fields.to_vec(), state: FieldState::First })
    }
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadFault> {
        visitor.visit_enum(self)
    }
}

/// Items up to `close`; with an empty `close` as many as are asked for.
struct Items<'c, 'a> {
    cursor: &'c mut Cursor<'a>,
    close: &'static str,
    first: bool,
}

impl<'de> de::SeqAccess<'de> for Items<'_, '_> {
    type Error = ReadFault;
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ReadFault> {
        if !self.close.is_empty() && self.cursor.eat(self.close) {
            return Ok(None);
        }
        if !std::mem::take(&mut self.first) {
            self.cursor.expect(",")?;
        }
        seed.deserialize(Reader(self.cursor)).map(Some)
    }
}

enum FieldState {
    First,
    Next,
    /// The name that was read stands alone.
    Flag,
    /// All that was written is read; the rest of `missing` is not there.
    Closed(&'static str),
}

/// Fields of a struct, then those that were left out.
struct Fields<'c, 'a> {
    cursor: &'c mut Cursor<'a>,
    missing: Vec<&'static str>,
    state: FieldState,
}

impl<'de> de::MapAccess<'de> for Fields<'_, '_> {
    type Error = ReadFault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ReadFault> {
        let name: StrDeserializer<ReadFault> = match self.state {
            FieldState::Closed(_) => return self.absent(seed),
            _ if self.cursor.eat("}") => return self.absent(seed),
            _ => {
                if !matches!(self.state, FieldState::First) {
                    self.cursor.expect(",")?;
                }
                let word = self.cursor.word()?;
                let Some(at) = self.missing.iter().position(|f| *f == word) else {
                    return Err(ReadFault(format!("no field `{word}` is expected here; there are: {}", self.missing.join(", "))));
                };
                self.state = if self.cursor.eat(":") { FieldState::Next } else { FieldState::Flag };
                self.missing.remove(at).into_deserializer()
            }
        };
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ReadFault> {
        match self.state {
            FieldState::Flag => seed.deserialize(true.into_deserializer()),
            FieldState::Closed(field) => seed.deserialize(Absent(field)),
            _ => seed.deserialize(Reader(self.cursor)),
        }
    }
}

impl Fields<'_, '_> {
    fn absent<'de, K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ReadFault> {
        let Some(field) = self.missing.pop() else { return Ok(None) };
        self.state = FieldState::Closed(field);
        let name: StrDeserializer<ReadFault> = field.into_deserializer();
        seed.deserialize(name).map(Some)
    }
}

/// A field that was left out: a flag or an option, else it is missing.
struct Absent(&'static str);

impl<'de> de::Deserializer<'de> for Absent {
    type Error = ReadFault;
    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, ReadFault> {
        Err(ReadFault(format!("the field `{}` is missing", self.0)))
    }
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadFault> {
        visitor.visit_bool(false)
    }
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadFault> {
        visitor.visit_none()
    }
    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct newtype_struct seq tuple
        tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> de::EnumAccess<'de> for Reader<'_, '_> {
    type Error = ReadFault;
    type Variant = Self;
    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), ReadFault> {
        let name: StrDeserializer<ReadFault> = self.0.word()?.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> de::VariantAccess<'de> for Reader<'_, '_> {
    type Error = ReadFault;
    fn unit_variant(self) -> Result<(), ReadFault> {
        Ok(())
    }
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, ReadFault> {
        if self.0.at("{") {
            return seed.deserialize(self);
        }
        self.0.expect("(")?;
        let value = seed.deserialize(Reader(self.0))?;
        self.0.expect(")")?;
        Ok(value)
    }
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, ReadFault> {
        de::Deserializer::deserialize_tuple(self, len, visitor)
    }
    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, ReadFault> {
        de::Deserializer::deserialize_struct(self, "", fields, visitor)
    }
}
