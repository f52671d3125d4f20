//! The kernels, and what the host makes of their inputs.

use super::{ALL, GROUPS, f, mix};

/// A kernel takes `(const unsigned* in, unsigned* out)`; `i` is the thread of the grid, `t` of the workgroup, `g` the workgroup.
pub struct Kernel {
    pub name: &'static str,
    pub body: &'static str,
    /// What the input holds.
    pub input: fn(usize) -> u32,
    /// From the input to the output's first words.
    pub expect: fn(&[u32]) -> Vec<u32>,
    /// Singles may differ by this part.
    pub tolerance: f32,
}

/// Singles of some size, never 0.
fn floats(i: usize) -> u32 {
    ((mix(i) % 2000) as f32 / 100.0 - 10.0 + 0.005).to_bits()
}

fn each(f: impl Fn(usize) -> u32) -> Vec<u32> {
    (0..ALL).map(f).collect()
}

/// Two words.
fn pair(v: &[u32], i: usize) -> u64 {
    u64::from(v[2 * i + 1]) << 32 | u64::from(v[2 * i])
}

fn words(values: impl Iterator<Item = u64>) -> Vec<u32> {
    values.flat_map(|v| [v as u32, (v >> 32) as u32]).collect()
}

pub const KERNELS: &[Kernel] = &[
    Kernel {
        name: "reduce",
        body: "SHARED u32 s[64]; s[t] = in[i]; for (int n = 32; n; n /= 2) { sync(); if (t < n) s[t] += s[t + n]; } sync(); if (t == 0) out[g] = s[0];",
        input: mix,
        expect: |v| (0..GROUPS).map(|g| v[g * 64..][..64].iter().fold(0u32, |s, x| s.wrapping_add(*x))).collect(),
        tolerance: 0.0,
    },
    Kernel {
        name: "scan",
        body: "SHARED u32 s[64]; s[t] = in[i]; for (int n = 1; n < 64; n *= 2) { sync(); u32 x = t >= n ? s[t - n] : 0; sync(); s[t] += x; } out[i] = s[t];",
        input: mix,
        expect: |v| each(|i| v[i / 64 * 64..=i].iter().fold(0u32, |s, x| s.wrapping_add(*x))),
        tolerance: 0.0,
    },
    Kernel {
        name: "softmax",
        body: "SHARED float s[64]; float x = f(in[i]); s[t] = x; float m = -1e30f, sum = 0; sync(); for (int k = 0; k < 64; k++) m = __builtin_fmaxf(m, s[k]); \
               for (int k = 0; k < 64; k++) sum += __builtin_expf(s[k] - m); out[i] = b(__builtin_expf(x - m) / sum);",
        input: floats,
        expect: |v| {
            each(|i| {
                let row: Vec<f64> = v[i / 64 * 64..][..64].iter().map(|&x| f64::from(f(x))).collect();
                let most = row.iter().copied().fold(f64::MIN, f64::max);
                let sum: f64 = row.iter().map(|x| (x - most).exp()).sum();
                (((f64::from(f(v[i])) - most).exp() / sum) as f32).to_bits()
            })
        },
        tolerance: 2e-5,
    },
    Kernel {
        name: "transpose",
        body: "SHARED u32 s[8][9]; s[t / 8][t % 8] = in[i]; sync(); out[i] = s[t % 8][t / 8];",
        input: mix,
        expect: |v| each(|i| v[i / 64 * 64 + i % 8 * 8 + i % 64 / 8]),
        tolerance: 0.0,
    },
    Kernel {
        name: "doubles",
        body: "_Pragma(\"clang fp contract(off)\") double x = f(in[i]), y = f(in[i + 1]); double r = (x * y + __builtin_ceil(x)) * __builtin_floor(y) - (double)(int)(x * 1000); out[i] = b((float)r);",
        input: floats,
        expect: |v| {
            each(|i| {
                let (x, y) = (f64::from(f(v[i])), f64::from(f(v[i + 1])));
                (((x * y + x.ceil()) * y.floor() - (x * 1000.0).trunc()) as f32).to_bits()
            })
        },
        tolerance: 1e-6,
    },
    Kernel {
        name: "divide64",
        body: "u64 x = ((const u64*)in)[i], y = ((const u64*)in)[i + 1] >> (i % 50) | 1; ((u64*)out)[i] = x / y + x % y * 3 + (u64)((i64)x / (i64)y) + (u64)((i64)x % -(i64)y);",
        input: mix,
        expect: |v| {
            words((0..ALL).map(|i| {
                let (x, y) = (pair(v, i), pair(v, i + 1) >> (i % 50) | 1);
                let (sx, sy) = (x as i64, y as i64);
                (x / y)
                    .wrapping_add((x % y).wrapping_mul(3))
                    .wrapping_add(sx.wrapping_div(sy) as u64)
                    .wrapping_add(sx.wrapping_rem(sy.wrapping_neg()) as u64)
            }))
        },
        tolerance: 0.0,
    },
    Kernel {
        name: "divide32",
        body: "u32 x = in[i], y = in[i + 1] >> (i % 30) | 1; out[i] = x / y + x % y * 3 + (u32)((int)x / (int)y) + (u32)((int)x % -(int)y);",
        input: mix,
        expect: |v| {
            each(|i| {
                let (x, y) = (v[i], v[i + 1] >> (i % 30) | 1);
                let (sx, sy) = (i64::from(x as i32), i64::from(y as i32));
                (u64::from(x / y) + u64::from(x % y) * 3 + (sx / sy) as u64).wrapping_add((sx % -sy) as u64) as u32
            })
        },
        tolerance: 0.0,
    },
    Kernel {
        name: "cases",
        body: "u32 x = in[i]; u32 r; switch (x % 11) { case 0: r = x * 3; break; case 1: r = x / 7; break; case 2: r = ~x; break; case 3: r = x << 3; break; \
               case 4: r = x ^ 0x5555; break; case 5: r = 0 - x; break; case 6: r = (x >> 3) + 1; break; case 8: r = x | 77; break; default: r = 5; } out[i] = r;",
        input: mix,
        expect: |v| {
            each(|i| {
                let x = v[i];
                match x % 11 {
                    0 => x.wrapping_mul(3),
                    1 => x / 7,
                    2 => !x,
                    3 => x << 3,
                    4 => x ^ 0x5555,
                    5 => x.wrapping_neg(),
                    6 => (x >> 3) + 1,
                    8 => x | 77,
                    _ => 5,
                }
            })
        },
        tolerance: 0.0,
    },
    Kernel {
        name: "calls",
        body: "out[i] = nested(in[i]) + (i % 3 ? nested(in[i] >> 7) : 0);",
        input: mix,
        expect: |v| {
            let nested = |n: u32| {
                let (mut n, mut most, mut steps) = (n % 1000, 7, 0u32);
                while n > 1 && steps < 40 {
                    n = if n % 2 == 1 { 3 * n + 1 } else { n / 2 };
                    most = most.max(n);
                    steps += 1;
                }
                steps.wrapping_mul(1_000_003).wrapping_add(most)
            };
            each(|i| nested(v[i]).wrapping_add(if i % 3 != 0 { nested(v[i] >> 7) } else { 0 }))
        },
        tolerance: 0.0,
    },
    Kernel {
        name: "indexed",
        body: "u32 a[24]; for (int k = 0; k < 24; k++) a[k] = in[i + k]; for (int k = 0; k < 30; k++) { u32 j = in[i + k] % 24; a[j] += a[(j * 7 + i) % 24] ^ k; } \
               unsigned char* c = (unsigned char*)a; u32 h = 0; for (int k = 0; k < 96; k++) h = h * 31 + c[(k * 5 + i) % 96]; u32 j = in[i] % 48 * 2; out[i] = h + c[j] + c[j + 1] * 256;",
        input: mix,
        expect: |v| {
            each(|i| {
                let mut a: Vec<u32> = v[i..i + 24].to_vec();
                for k in 0..30 {
                    let j = v[i + k] as usize % 24;
                    a[j] = a[j].wrapping_add(a[(j * 7 + i) % 24] ^ k as u32);
                }
                let c: Vec<u8> = a.iter().flat_map(|w| w.to_le_bytes()).collect();
                let h = (0..96).fold(0u32, |h, k| h.wrapping_mul(31).wrapping_add(c[(k * 5 + i) % 96].into()));
                let at = v[i] as usize % 48 * 2;
                h.wrapping_add(u16::from_le_bytes([c[at], c[at + 1]]).into())
            })
        },
        tolerance: 0.0,
    },
    Kernel {
        name: "halves",
        body: "float x = f(in[i]), y = f(in[i + 1]); half2 p = {(_Float16)x, (_Float16)y}, q = {(_Float16)y, (_Float16)0.5f}; half2 r = p * q + p; \
               r = __builtin_elementwise_max(r, q); out[i] = b((float)r.x * 3 + (float)r.y);",
        input: |i| ((mix(i) % 64) as f32 / 4.0 - 8.0).to_bits(),
        // All of it is exact in halves.
        expect: |v| {
            each(|i| {
                let (x, y) = (f(v[i]), f(v[i + 1]));
                (((x * y + x).max(y)) * 3.0 + (y * 0.5 + y).max(0.5)).to_bits()
            })
        },
        tolerance: 1e-3,
    },
    Kernel {
        name: "bfloats",
        body: "__bf16 x = (__bf16)f(in[i]); float y = (float)x; out[i] = b(y) + (u32)__builtin_bit_cast(unsigned short, (__bf16)(y * 3.0f));",
        input: floats,
        expect: |v| {
            let round = |bits: u32| (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
            each(|i| {
                let y = round(v[i]) << 16;
                y.wrapping_add(round((f(y) * 3.0).to_bits()))
            })
        },
        tolerance: 0.0,
    },
    Kernel {
        name: "atomics",
        body: "u32 x = in[i]; __atomic_fetch_add(&out[0], x, __ATOMIC_RELAXED); __atomic_fetch_max(&out[1], x, __ATOMIC_RELAXED); __atomic_fetch_xor(&out[2], x, __ATOMIC_RELAXED); \
               u32 old = __atomic_load_n(&out[3], __ATOMIC_RELAXED); while (!__atomic_compare_exchange_n(&out[3], &old, old + x % 7, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED)); \
               __atomic_fetch_add((u64*)(out + 4), (u64)x << 20, __ATOMIC_RELAXED); \
               SHARED u32 bins[16]; if (t < 16) bins[t] = 0; sync(); __atomic_fetch_add(&bins[x % 16], 1, __ATOMIC_RELAXED); sync(); \
               if (t < 16) __atomic_fetch_add(&out[8 + t], bins[t], __ATOMIC_RELAXED);",
        input: mix,
        expect: |v| {
            let v = &v[..ALL];
            let mut out = vec![0; 24];
            out[0] = v.iter().fold(0u32, |s, x| s.wrapping_add(*x));
            out[1] = *v.iter().max().unwrap();
            out[2] = v.iter().fold(0, |s, x| s ^ x);
            out[3] = v.iter().map(|x| x % 7).sum();
            let sum: u64 = v.iter().map(|x| u64::from(*x) << 20).sum();
            (out[4], out[5]) = (sum as u32, (sum >> 32) as u32);
            v.iter().for_each(|x| out[8 + *x as usize % 16] += 1);
            out
        },
        tolerance: 0.0,
    },
    Kernel {
        name: "lanes",
        body: "int lane = t % 32; u32 x = in[i]; u32 y = __builtin_amdgcn_ds_bpermute((t / 32 * 32 + (lane * 5 + 3) % 32) * 4, x); \
               u32 z = __builtin_amdgcn_mov_dpp(x, 0xb1, 0xf, 0xf, true); u32 w = __builtin_amdgcn_ds_swizzle(x, 0x041f); \
               u32 first = __builtin_amdgcn_readfirstlane(in[g]); if (x & 1) y += 17; out[i] = y + (z ^ 3) + 5 * w + 7 * first;",
        input: mix,
        expect: |v| {
            each(|i| {
                let (half, lane) = (i / 32 * 32, i % 32);
                let y = v[half + (lane * 5 + 3) % 32].wrapping_add(if v[i] & 1 == 1 { 17 } else { 0 });
                y.wrapping_add(v[i ^ 1] ^ 3).wrapping_add(v[i ^ 1].wrapping_mul(5)).wrapping_add(v[i / 64].wrapping_mul(7))
            })
        },
        tolerance: 0.0,
    },
    Kernel {
        name: "bits",
        body: "u32 x = in[i], y = in[i + 1]; out[i] = __builtin_clz(x | 1) + __builtin_popcount(x) * 3 + __builtin_bswap32(y) + __builtin_rotateleft32(x, y & 31) + (__builtin_ctz(y | 0x10000) << 8) \
               + (u32)(((u64)x * y) >> 32) + (u32)((i64)(int)x * (int)y >> 37) + __builtin_bitreverse32(x) + (x & 0xffff) * (y & 0xffff) + (signed char)(x >> 9) + (short)(y >> 5);",
        input: mix,
        expect: |v| {
            each(|i| {
                let (x, y) = (v[i], v[i + 1]);
                let parts = [
                    (x | 1).leading_zeros(),
                    x.count_ones() * 3,
                    y.swap_bytes(),
                    x.rotate_left(y & 31),
                    (y | 0x10000).trailing_zeros() << 8,
                    ((u64::from(x) * u64::from(y)) >> 32) as u32,
                    ((i64::from(x as i32) * i64::from(y as i32)) >> 37) as u32,
                    x.reverse_bits(),
                    (x & 0xffff).wrapping_mul(y & 0xffff),
                    ((x >> 9) as i8) as u32,
                    ((y >> 5) as i16) as u32,
                ];
                parts.iter().fold(0u32, |s, p| s.wrapping_add(*p))
            })
        },
        tolerance: 0.0,
    },
    Kernel {
        name: "functions",
        body: "float x = f(in[i]); float y = __builtin_fabsf(x) + 0.1f; out[i] = b(__builtin_logf(y) + __builtin_expf(x * 0.25f) + __builtin_sqrtf(y) + __builtin_exp2f(x) * 0.001f \
               + __builtin_truncf(x) + __builtin_ceilf(x) * 2 + __builtin_rintf(y) + __builtin_fminf(x, y) + 1.0f / y + __builtin_copysignf(y, x));",
        input: floats,
        expect: |v| {
            each(|i| {
                let x = f64::from(f(v[i]));
                let y = f64::from(f(v[i]).abs() + 0.1);
                let sum = y.ln()
                    + (x * 0.25).exp()
                    + y.sqrt()
                    + x.exp2() * 0.001
                    + x.trunc()
                    + x.ceil() * 2.0
                    + y.round_ties_even()
                    + x.min(y)
                    + 1.0 / y
                    + y.copysign(x);
                (sum as f32).to_bits()
            })
        },
        tolerance: 1e-5,
    },
    Kernel {
        name: "saturated",
        body: "short x = in[i], y = in[i + 1]; unsigned char p = in[i], q = in[i + 1]; int m = in[i], n = in[i + 1]; \
               out[i] = (u32)__builtin_elementwise_add_sat(x, y) + (u32)__builtin_elementwise_sub_sat(p, q) * 3 + (u32)__builtin_elementwise_add_sat(m, n) + __builtin_elementwise_sub_sat((u32)m, (u32)n);",
        input: mix,
        expect: |v| {
            each(|i| {
                let (a, b) = (v[i], v[i + 1]);
                let x = i32::from((a as i16).saturating_add(b as i16)) as u32;
                let p = u32::from((a as u8).saturating_sub(b as u8)) * 3;
                let m = (a as i32).saturating_add(b as i32) as u32;
                x.wrapping_add(p).wrapping_add(m).wrapping_add(a.saturating_sub(b))
            })
        },
        tolerance: 0.0,
    },
    Kernel {
        name: "pieces",
        body: "((unsigned char*)out)[i * 3] = ((const unsigned char*)in)[i * 5]; ((unsigned char*)out)[i * 3 + 1] = ((const signed char*)in)[i * 5 + 1] / 2; ((unsigned char*)out)[i * 3 + 2] = ((const short*)in)[i + 1] >> 4;",
        input: mix,
        expect: |v| {
            let bytes: Vec<u8> = v.iter().flat_map(|w| w.to_le_bytes()).collect();
            let out: Vec<u8> = (0..ALL)
                .flat_map(|i| {
                    let short = i16::from_le_bytes([bytes[2 * i + 2], bytes[2 * i + 3]]);
                    [bytes[i * 5], ((bytes[i * 5 + 1] as i8) / 2) as u8, (short >> 4) as u8]
                })
                .collect();
            out.chunks(4).map(|c| u32::from_le_bytes(c.try_into().unwrap())).collect()
        },
        tolerance: 0.0,
    },
];
