//! Values of any type of ours, drawn at random through serde.

use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor};

/// Draws a value of any type from a stream of random numbers.
pub struct Draw<'a>(&'a mut dyn FnMut() -> u64);

type Fault = de::value::Error;

macro_rules! numbers {
    ($($method:ident $visit:ident $ty:ty),*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            let (bits, small) = ((self.0)(), (self.0)() % 2 == 0);
            visitor.$visit(if small { (bits % 7) as $ty } else { bits as $ty })
        })*
    };
}

impl<'de> de::Deserializer<'de> for Draw<'_> {
    type Error = Fault;
    numbers!(deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32, deserialize_i64 visit_i64 i64);
    numbers!(deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64);

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Fault> {
        Err(de::Error::custom("a type without a form"))
    }
    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let bits = f64::from_bits((self.0)());
        visitor.visit_f64(if bits.is_finite() { bits } else { f64::INFINITY })
    }
    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_f32((self.0)() as f32)
    }
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_bool((self.0)().is_multiple_of(2))
    }
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let length = (self.0)() % 6;
        let alphabet = ['a', '.', ' ', '"', '\\', '\n', '\u{85}', 'é', '}', ';', '\u{2028}', '\t'];
        visitor.visit_string((0..length).map(|_| alphabet[((self.0)() % alphabet.len() as u64) as usize]).collect())
    }
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if (self.0)().is_multiple_of(2) { visitor.visit_none() } else { visitor.visit_some(self) }
    }
    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }
    /// All newtypes are references.
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct((((self.0)() % 40) as u32).into_deserializer())
    }
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let length = (self.0)() % 4;
        self.deserialize_tuple(length as usize, visitor)
    }
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_seq(DrawItems(self.0, len))
    }
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_tuple(fields.len(), visitor)
    }
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let variant = ((self.0)() % variants.len() as u64) as usize;
        visitor.visit_enum(DrawVariant(self, variants[variant]))
    }
    serde::forward_to_deserialize_any! {
        i128 u128 char str bytes byte_buf unit tuple_struct map identifier ignored_any
    }
}

struct DrawItems<'a>(&'a mut dyn FnMut() -> u64, usize);

impl<'de> de::SeqAccess<'de> for DrawItems<'_> {
    type Error = Fault;
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        if self.1 == 0 {
            return Ok(None);
        }
        self.1 -= 1;
        seed.deserialize(Draw(self.0)).map(Some)
    }
}

struct DrawVariant<'a>(Draw<'a>, &'static str);

impl<'a, 'de> de::EnumAccess<'de> for DrawVariant<'a> {
    type Error = Fault;
    type Variant = Draw<'a>;
    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Draw<'a>), Fault> {
        let name: de::value::StrDeserializer<Fault> = self.1.into_deserializer();
        Ok((seed.deserialize(name)?, self.0))
    }
}

impl<'de> de::VariantAccess<'de> for Draw<'_> {
    type Error = Fault;
    fn unit_variant(self) -> Result<(), Fault> {
        Ok(())
    }
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        seed.deserialize(self)
    }
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Fault> {
        de::Deserializer::deserialize_tuple(self, len, visitor)
    }
    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        de::Deserializer::deserialize_tuple(self, fields.len(), visitor)
    }
}

/// A value of any type from a seed.
pub fn drawn<T: DeserializeOwned>(seed: u64) -> T {
    let mut state = seed;
    let mut next = || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    T::deserialize(Draw(&mut next)).expect("every type of an IR can be drawn")
}
