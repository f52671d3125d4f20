//! What atomics make of the old value and their data.

use super::float::{from_bfloat, from_half, to_bfloat, to_half};

/// New value of the old one, the data and the second datum (the new value of a compare-and-swap).
pub(crate) type Update32 = fn(u32, u32, u32) -> u32;
pub(crate) type Update64 = fn(u64, u64, u64) -> u64;

fn float(f: fn(f32, f32) -> f32, a: u32, b: u32) -> u32 {
    f(f32::from_bits(a), f32::from_bits(b)).to_bits()
}

/// Both halves of a word.
fn halves(f: fn(u32, u32) -> u32, a: u32, b: u32) -> u32 {
    f(a & 0xffff, b & 0xffff) | f(a >> 16, b >> 16) << 16
}

/// Of a name without its family: `add_u32`.
pub(crate) fn find32(name: &str) -> Option<Update32> {
    Some(match name {
        "add_u32" => |old, data, _| old.wrapping_add(data),
        "sub_u32" => |old, data, _| old.wrapping_sub(data),
        "rsub_u32" => |old, data, _| data.wrapping_sub(old),
        "inc_u32" => |old, data, _| if old >= data { 0 } else { old + 1 },
        "dec_u32" => |old, data, _| if old == 0 || old > data { data } else { old - 1 },
        "min_u32" => |old, data, _| old.min(data),
        "max_u32" => |old, data, _| old.max(data),
        "min_i32" => |old, data, _| old.cast_signed().min(data.cast_signed()).cast_unsigned(),
        "max_i32" => |old, data, _| old.cast_signed().max(data.cast_signed()).cast_unsigned(),
        "and_b32" => |old, data, _| old & data,
        "or_b32" => |old, data, _| old | data,
        "xor_b32" => |old, data, _| old ^ data,
        "swap_b32" => |_, data, _| data,
        "add_f32" => |old, data, _| float(|a, b| a + b, old, data),
        "min_f32" => |old, data, _| float(super::float::minimum, old, data),
        "fmin" => |old, data, _| float(super::float::minimum, old, data),
        "fmax" => |old, data, _| float(super::float::maximum, old, data),
        "pk_add_f16" => |old, data, _| halves(|a, b| to_half(from_half(a) + from_half(b)), old, data),
        "pk_add_bf16" => |old, data, _| halves(|a, b| to_bfloat(from_bfloat(a) + from_bfloat(b)), old, data),
        "max_f32" => |old, data, _| float(super::float::maximum, old, data),
        // Global memory: data, then what is compared; the callers give them in this order.
        "cmpswap_b32" => |old, data, compare| if old == compare { data } else { old },
        _ => return None,
    })
}

/// Of 64 bits.
pub(crate) fn find64(name: &str) -> Option<Update64> {
    Some(match name {
        "add_u64" => |old, data, _| old.wrapping_add(data),
        "sub_u64" => |old, data, _| old.wrapping_sub(data),
        "inc_u64" => |old, data, _| if old >= data { 0 } else { old + 1 },
        "dec_u64" => |old, data, _| if old == 0 || old > data { data } else { old - 1 },
        "min_u64" => |old, data, _| old.min(data),
        "max_u64" => |old, data, _| old.max(data),
        "min_i64" => |old, data, _| old.cast_signed().min(data.cast_signed()).cast_unsigned(),
        "max_i64" => |old, data, _| old.cast_signed().max(data.cast_signed()).cast_unsigned(),
        "and_b64" => |old, data, _| old & data,
        "or_b64" => |old, data, _| old | data,
        "xor_b64" => |old, data, _| old ^ data,
        "swap_b64" => |_, data, _| data,
        "cmpswap_b64" => |old, data, compare| if old == compare { data } else { old },
        "min_f64" => |old, data, _| f64::from_bits(old).min(f64::from_bits(data)).to_bits(),
        "max_f64" => |old, data, _| f64::from_bits(old).max(f64::from_bits(data)).to_bits(),
        "rsub_u64" => |old, data, _| data.wrapping_sub(old),
        "add_f64" => |old, data, _| (f64::from_bits(old) + f64::from_bits(data)).to_bits(),
        _ => return None,
    })
}
