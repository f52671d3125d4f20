// Weight types in GGUF's own layout (ggml-common.h). A type says how a lane takes its piece of a row, which activations meet
// that piece, and what their product is. A piece is 16 bytes of quants: one load of a lane.
//
//   len, bytes          values and bytes of a block
//   piece               values of a piece
//   Form                form of the activations
//   fetch(row, p)       piece p of a row
//   meet(token, p)      the activations of piece p
//   dot<Gpu>(w, x)      their product
//   value(row, i)       weight i of a row, for embeddings
//
// Blocks of 18, 34 and 210 bytes put quants at even addresses only. AMD GPUs load 16 bytes from there in one instruction.
#pragma once
#include "vec.h"

namespace hipc {

// Σ over 16 values of two vectors of bytes.
template <class Gpu>
HIPC_DEVICE i32 dot16(u32x4 a, u32x4 b) {
  i32 sum = dot4<Gpu::dot>(a.x, b.x, 0);
  sum = dot4<Gpu::dot>(a.y, b.y, sum);
  sum = dot4<Gpu::dot>(a.z, b.z, sum);
  return dot4<Gpu::dot>(a.w, b.w, sum);
}

template <class Gpu>
HIPC_DEVICE i32 sum16(u32x4 a) {
  return dot16<Gpu>(a, u32x4(0x01010101));
}

HIPC_DEVICE u32x4 low_nibbles(u32x4 q) { return q & 0x0F0F0F0F; }
HIPC_DEVICE u32x4 high_nibbles(u32x4 q) { return q >> 4 & 0x0F0F0F0F; }

// 32 values: f16 d, 16 bytes: byte j holds values j (low nibble) and j + 16. Value d·(q − 8).
struct Q4_0 {
  static constexpr int len = 32, bytes = 18, piece = 32;
  using Form = Q8;
  struct Piece {
    u32x4 q;
    f16 d;
  };
  struct Met {
    u32x4 lo, hi;
    f32 scale;
    i32 sum;
  };
  HIPC_MEMBER static Piece fetch(const u8* row, u32 p) {
    const u8* block = row + p * bytes;
    return {load_once<u32x4, 2>(block + 2), load_once<f16, 2>(block)};
  }
  template <class X>
  HIPC_MEMBER static Met meet(X x, u32 p) {
    return {x.quants(32 * p), x.quants(32 * p + 16), x.scale(p), x.sum(p)};
  }
  template <class Gpu>
  HIPC_MEMBER static f32 dot(const Piece& w, const Met& x) {
    const i32 products = dot16<Gpu>(low_nibbles(w.q), x.lo) + dot16<Gpu>(high_nibbles(w.q), x.hi) - 8 * x.sum;
    return f32(w.d) * x.scale * f32(products);
  }
  HIPC_MEMBER static f32 value(const u8* row, u32 i) {
    const u8* block = row + i / 32 * bytes;
    const u32 q = block[2 + i % 16] >> (i % 32 / 16 * 4) & 15;
    return f32(load<f16, 2>(block)) * f32(i32(q) - 8);
  }
};

// 32 values: f16 d, 32 signed bytes. Value d·q.
struct Q8_0 {
  static constexpr int len = 32, bytes = 34, piece = 16;
  using Form = Q8;
  struct Piece {
    u32x4 q;
    f16 d;
  };
  struct Met {
    u32x4 q;
    f32 scale;
  };
  HIPC_MEMBER static Piece fetch(const u8* row, u32 p) {
    const u8* block = row + p / 2 * bytes;
    return {load_once<u32x4, 2>(block + 2 + p % 2 * 16), load_once<f16, 2>(block)};
  }
  template <class X>
  HIPC_MEMBER static Met meet(X x, u32 p) {
    return {x.quants(16 * p), x.scale(p / 2)};
  }
  template <class Gpu>
  HIPC_MEMBER static f32 dot(const Piece& w, const Met& x) {
    return f32(w.d) * x.scale * f32(dot16<Gpu>(w.q, x.q));
  }
  HIPC_MEMBER static f32 value(const u8* row, u32 i) {
    const u8* block = row + i / 32 * bytes;
    return f32(load<f16, 2>(block)) * f32(i8(block[2 + i % 32]));
  }
};

// 256 values in 8 sub-blocks of 32: f16 d, f16 dmin, 12 bytes of 6-bit scales and mins, 128 bytes of nibbles: the g-th 32
// bytes hold sub-blocks 2g (low) and 2g + 1 (high). Value d·sc·q − dmin·m.
struct Q4_K {
  static constexpr int len = 256, bytes = 144, piece = 32;
  using Form = Q8;
  struct Piece {
    u32x4 q;
    u32x4 header;  // d, dmin, then the packed scales and mins
    u32 p;         // piece within the block: half p % 2 of group p / 2
  };
  struct Met {
    u32x4 lo, hi;
    f32x2 scales;  // of sub-blocks 2g and 2g + 1
    i32 sum;       // of sub-block 2g + p % 2: the two lanes of a group share its mins
  };
  struct ScaleMin {
    u32 scales, mins;  // of sub-blocks 2g (bits 0–5) and 2g + 1 (bits 8–13)
  };
  // Sub-blocks 0–3 have their 6 bits in one byte; those of 4–7 are a nibble and the top two bits of another's byte.
  HIPC_MEMBER static ScaleMin unpack(u32x4 header, u32 g) {
    const u32 shift = g % 2 * 16;
    const u32 s = header.y >> shift, m = header.z >> shift, both = header.w >> shift;
    const ScaleMin first = {s & 0x3F3F, m & 0x3F3F};
    const ScaleMin last = {(both & 0x0F0F) | (s >> 2 & 0x3030), (both >> 4 & 0x0F0F) | (m >> 2 & 0x3030)};
    return {g < 2 ? first.scales : last.scales, g < 2 ? first.mins : last.mins};
  }
  HIPC_MEMBER static f32 d(u32x4 header) { return f32(bits<f16>(u16(header.x))); }
  HIPC_MEMBER static f32 dmin(u32x4 header) { return f32(bits<f16>(u16(header.x >> 16))); }

  HIPC_MEMBER static Piece fetch(const u8* row, u32 p) {
    const u8* block = row + p / 8 * bytes;
    return {load_once<u32x4>(block + 16 + p % 8 * 16), load_once<u32x4>(block), p % 8};
  }
  template <class X>
  HIPC_MEMBER static Met meet(X x, u32 p) {
    const u32 at = p / 2 * 64 + p % 2 * 16;
    return {x.quants(at), x.quants(at + 32), x.scales(p / 2 * 2), x.sum(p)};
  }
  template <class Gpu>
  HIPC_MEMBER static f32 dot(const Piece& w, const Met& x) {
    const ScaleMin sub = unpack(w.header, w.p / 2);
    const i32 lo = dot16<Gpu>(low_nibbles(w.q), x.lo), hi = dot16<Gpu>(high_nibbles(w.q), x.hi);
    const f32 products = x.scales.x * f32(i32(sub.scales & 63) * lo) + x.scales.y * f32(i32(sub.scales >> 8) * hi);
    const f32 offsets = w.p % 2 ? x.scales.y * f32(i32(sub.mins >> 8) * x.sum) : x.scales.x * f32(i32(sub.mins & 63) * x.sum);
    return d(w.header) * products - dmin(w.header) * offsets;
  }
  HIPC_MEMBER static f32 value(const u8* row, u32 i) {
    const u8* block = row + i / 256 * bytes;
    const u32x4 header = load<u32x4>(block);
    const u32 sub = i % 256 / 32, shift = sub % 2 * 8;
    const ScaleMin pair = unpack(header, sub / 2);
    const u32 q = block[16 + sub / 2 * 32 + i % 32] >> (sub % 2 * 4) & 15;
    return d(header) * f32(pair.scales >> shift & 63) * f32(q) - dmin(header) * f32(pair.mins >> shift & 63);
  }
};

// 256 values: 128 bytes of low nibbles, 64 bytes of upper bit pairs, 16 signed scales (one per 16 values), f16 d. In each
// half of 128 values, low nibble j (of 64 bytes) is value j, its high nibble value j + 64; bit pair k of upper byte l
// belongs to value l + 32k. Value d·sc·(q − 32).
struct Q6_K {
  static constexpr int len = 256, bytes = 210, piece = 32;
  using Form = Q8;
  struct Piece {
    u32x4 lower, upper;
    i8 scale_lo, scale_hi;
    f16 d;
    u32 shift;  // of the low nibbles' bit pair: 0 or 2
  };
  struct Met {
    u32x4 lo, hi;
    f32 scale_lo, scale_hi;
  };
  HIPC_MEMBER static Piece fetch(const u8* row, u32 p) {
    const u8* block = row + p / 8 * bytes;
    const u32 half = p % 8 / 4, quarter = p % 4;  // of 16 low bytes each
    const u8* scales = block + 192 + half * 8 + quarter;
    return {load_once<u32x4, 2>(block + p % 8 * 16), load_once<u32x4, 2>(block + 128 + half * 32 + quarter % 2 * 16),
            load<i8>(scales), load<i8>(scales + 4), load_once<f16, 2>(block + 208), quarter / 2 * 2};
  }
  template <class X>
  HIPC_MEMBER static Met meet(X x, u32 p) {
    const u32 at = p / 4 * 128 + p % 4 * 16;
    return {x.quants(at), x.quants(at + 64), x.scale(at / 32), x.scale(at / 32 + 2)};
  }
  template <class Gpu>
  HIPC_MEMBER static f32 dot(const Piece& w, const Met& x) {
    const u32x4 pairs = w.upper >> w.shift;
    const i32 lo = dot16<Gpu>(low_nibbles(w.lower) | (pairs << 4 & 0x30303030), x.lo) - 32 * sum16<Gpu>(x.lo);
    const i32 hi = dot16<Gpu>(high_nibbles(w.lower) | (pairs & 0x30303030), x.hi) - 32 * sum16<Gpu>(x.hi);
    return f32(w.d) * (x.scale_lo * f32(w.scale_lo * lo) + x.scale_hi * f32(w.scale_hi * hi));
  }
  HIPC_MEMBER static f32 value(const u8* row, u32 i) {
    const u8* block = row + i / 256 * bytes;
    const u32 half = i % 256 / 128, j = i % 128;
    const u32 lower = block[half * 64 + j % 64] >> (j / 64 * 4) & 15;
    const u32 upper = block[128 + half * 32 + j % 32] >> (j / 32 * 2) & 3;
    return f32(load<f16, 2>(block + 208)) * f32(i8(block[192 + i % 256 / 16])) * f32(i32(lower | upper << 4) - 32);
  }
};

struct F16 {
  static constexpr int len = 1, bytes = 2, piece = 8;
  using Form = f32;
  using Piece = f16x8;
  struct Met {
    f32x4 a, b;
  };
  HIPC_MEMBER static Piece fetch(const u8* row, u32 p) { return bits<f16x8>(load_once<u32x4>(row + 16 * p)); }
  template <class X>
  HIPC_MEMBER static Met meet(X x, u32 p) {
    return {x.four(8 * p), x.four(8 * p + 4)};
  }
  template <class Gpu>
  HIPC_MEMBER static f32 dot(const Piece& w, const Met& x) {
    f32 sum = 0;
    for (int i = 0; i < 4; ++i) sum += f32(w[i]) * x.a[i];
    for (int i = 0; i < 4; ++i) sum += f32(w[i + 4]) * x.b[i];
    return sum;
  }
  HIPC_MEMBER static f32 value(const u8* row, u32 i) { return f32(load<f16>(row + 2 * i)); }
};

struct BF16 {
  static constexpr int len = 1, bytes = 2, piece = 8;
  using Form = f32;
  using Piece = u32x4;
  using Met = F16::Met;
  HIPC_MEMBER static Piece fetch(const u8* row, u32 p) { return load_once<u32x4>(row + 16 * p); }
  template <class X>
  HIPC_MEMBER static Met meet(X x, u32 p) {
    return F16::meet(x, p);
  }
  template <class Gpu>
  HIPC_MEMBER static f32 dot(const Piece& w, const Met& x) {
    f32 sum = 0;
    for (int i = 0; i < 4; ++i) {
      const f32x4 half = i < 2 ? x.a : x.b;
      sum += bits<f32>(w[i] << 16) * half[i % 2 * 2] + bits<f32>(w[i] & 0xFFFF0000) * half[i % 2 * 2 + 1];
    }
    return sum;
  }
  HIPC_MEMBER static f32 value(const u8* row, u32 i) { return bits<f32>(u32(load<u16>(row + 2 * i)) << 16); }
};

struct F32 {
  static constexpr int len = 1, bytes = 4, piece = 4;
  using Form = f32;
  using Piece = f32x4;
  using Met = f32x4;
  HIPC_MEMBER static Piece fetch(const u8* row, u32 p) { return load_once<f32x4>(row + 16 * p); }
  template <class X>
  HIPC_MEMBER static Met meet(X x, u32 p) {
    return x.four(4 * p);
  }
  template <class Gpu>
  HIPC_MEMBER static f32 dot(const Piece& w, const Met& x) {
    return w.x * x.x + w.y * x.y + w.z * x.z + w.w * x.w;
  }
  HIPC_MEMBER static f32 value(const u8* row, u32 i) { return load<f32>(row + 4 * i); }
};

// A matrix of Rows rows; its columns are those of the input it meets.
template <class T, int RowCount>
struct Matrix {
  using Type = T;
  static constexpr int rows = RowCount;
  const T* w;
  HIPC_MEMBER const u8* data() const { return reinterpret_cast<const u8*>(w); }
  HIPC_MEMBER f32 biased(f32 y, u32) const { return y; }
};

// With a bias, added after the deferred norm.
template <class T, int RowCount>
struct Biased {
  using Type = T;
  static constexpr int rows = RowCount;
  const T* w;
  const f32* bias;
  HIPC_MEMBER const u8* data() const { return reinterpret_cast<const u8*>(w); }
  HIPC_MEMBER f32 biased(f32 y, u32 row) const { return y + bias[row]; }
};

template <class T, int Columns>
constexpr u32 row_bytes = Columns / T::len * T::bytes;

}  // namespace hipc
