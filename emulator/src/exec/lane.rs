//! Makes a function of one lane's values one of all lanes.

use super::source::Kind;

/// Computes the result of all lanes from up to three sources.
pub(crate) type Eval<const W: usize> = Box<dyn Fn(&[&[u32; W]; 3], &mut [u32; W]) + Send + Sync>;

/// An operation that treats each lane alone and has 32-bit values.
pub(crate) struct Lanewise<const W: usize> {
    pub(crate) sources: Vec<Kind>,
    pub(crate) result: Kind,
    /// The old value of the destination is one source more, the last.
    pub(crate) accumulates: bool,
    pub(crate) eval: Eval<W>,
}

impl<const W: usize> Lanewise<W> {
    pub(crate) fn new(sources: &[Kind], result: Kind, eval: Eval<W>) -> Self {
        Self { sources: sources.to_vec(), result, accumulates: false, eval }
    }

    pub(crate) fn accumulating(self) -> Self {
        Self { accumulates: true, ..self }
    }
}

/// Of bits to bits.
pub(crate) fn u1<const W: usize>(f: impl Fn(u32) -> u32 + Send + Sync + 'static) -> Lanewise<W> {
    Lanewise::new(
        &[Kind::U32],
        Kind::U32,
        Box::new(move |s, out| {
            for lane in 0..W {
                out[lane] = f(s[0][lane]);
            }
        }),
    )
}

/// Of two.
pub(crate) fn u2<const W: usize>(f: impl Fn(u32, u32) -> u32 + Send + Sync + 'static) -> Lanewise<W> {
    Lanewise::new(
        &[Kind::U32; 2],
        Kind::U32,
        Box::new(move |s, out| {
            for lane in 0..W {
                out[lane] = f(s[0][lane], s[1][lane]);
            }
        }),
    )
}

/// Of three.
pub(crate) fn u3<const W: usize>(f: impl Fn(u32, u32, u32) -> u32 + Send + Sync + 'static) -> Lanewise<W> {
    Lanewise::new(
        &[Kind::U32; 3],
        Kind::U32,
        Box::new(move |s, out| {
            for lane in 0..W {
                out[lane] = f(s[0][lane], s[1][lane], s[2][lane]);
            }
        }),
    )
}

/// Of signed integers.
pub(crate) fn i2<const W: usize>(f: impl Fn(i32, i32) -> i32 + Send + Sync + 'static) -> Lanewise<W> {
    u2(move |a, b| f(a.cast_signed(), b.cast_signed()).cast_unsigned())
}

/// Of three signed integers.
pub(crate) fn i3<const W: usize>(f: impl Fn(i32, i32, i32) -> i32 + Send + Sync + 'static) -> Lanewise<W> {
    u3(move |a, b, c| f(a.cast_signed(), b.cast_signed(), c.cast_signed()).cast_unsigned())
}

/// Of a single.
pub(crate) fn f1<const W: usize>(f: impl Fn(f32) -> f32 + Send + Sync + 'static) -> Lanewise<W> {
    typed(&[Kind::F32], Kind::F32, u1(move |a| f(f32::from_bits(a)).to_bits()))
}

/// Of two.
pub(crate) fn f2<const W: usize>(f: impl Fn(f32, f32) -> f32 + Send + Sync + 'static) -> Lanewise<W> {
    typed(&[Kind::F32; 2], Kind::F32, u2(move |a, b| f(f32::from_bits(a), f32::from_bits(b)).to_bits()))
}

/// Of three.
pub(crate) fn f3<const W: usize>(f: impl Fn(f32, f32, f32) -> f32 + Send + Sync + 'static) -> Lanewise<W> {
    let bits = u3(move |a, b, c| f(f32::from_bits(a), f32::from_bits(b), f32::from_bits(c)).to_bits());
    typed(&[Kind::F32; 3], Kind::F32, bits)
}

/// Of a half; halves are given and taken as singles and rounded at the end.
pub(crate) fn h1<const W: usize>(f: impl Fn(f32) -> f32 + Send + Sync + 'static) -> Lanewise<W> {
    use super::float::{from_half, to_half};
    typed(&[Kind::F16], Kind::F16, u1(move |a| to_half(f(from_half(a)))))
}

/// Of two.
pub(crate) fn h2<const W: usize>(f: impl Fn(f32, f32) -> f32 + Send + Sync + 'static) -> Lanewise<W> {
    use super::float::{from_half, to_half};
    typed(&[Kind::F16; 2], Kind::F16, u2(move |a, b| to_half(f(from_half(a), from_half(b)))))
}

/// Of three, computed in double precision.
pub(crate) fn h3<const W: usize>(f: impl Fn(f64, f64, f64) -> f64 + Send + Sync + 'static) -> Lanewise<W> {
    use super::float::{from_half, half_from_f64};
    let wide = |h| f64::from(from_half(h));
    typed(&[Kind::F16; 3], Kind::F16, u3(move |a, b, c| half_from_f64(f(wide(a), wide(b), wide(c)))))
}

/// Of 16-bit integers; the result's upper half is dropped.
pub(crate) fn s2<const W: usize>(f: impl Fn(u32, u32) -> u32 + Send + Sync + 'static) -> Lanewise<W> {
    typed(&[Kind::U16; 2], Kind::U16, u2(move |a, b| f(a & 0xffff, b & 0xffff) & 0xffff))
}

/// Of three.
pub(crate) fn s3<const W: usize>(f: impl Fn(u32, u32, u32) -> u32 + Send + Sync + 'static) -> Lanewise<W> {
    typed(&[Kind::U16; 3], Kind::U16, u3(move |a, b, c| f(a & 0xffff, b & 0xffff, c & 0xffff) & 0xffff))
}

/// The same with other kinds of sources and result.
pub(crate) fn typed<const W: usize>(sources: &[Kind], result: Kind, lanewise: Lanewise<W>) -> Lanewise<W> {
    Lanewise { sources: sources.to_vec(), result, ..lanewise }
}
