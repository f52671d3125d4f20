// Weight types. A type says how a lane takes its piece of a row, which activations meet that piece, and what their product
// is. A piece is 16 bytes of quants: one load of a lane.
//
//   len, bytes          values and bytes of a block
//   piece               values of a piece
//   Form                form of the activations
//   fetch<K>(row, p)    piece p of a row of K values
//   meet<Gpu>(token, p) the activations of piece p
//   dot<Gpu>(w, x)      their product
//   value<K>(row, i)    weight i of a row of K values, for embeddings
//   row_bytes<T, K>     from one row to the next
//
// Q4_0 and the others are blocks as GGUF has them (ggml-common.h). Blocks of 18, 34 and 210 bytes put quants at even addresses
// only; AMD GPUs load 16 bytes from there in one instruction. Split<T> are the same blocks repacked by rows: first the quants
// of all blocks, then what belongs to blocks, so that every load is aligned and a wave's loads are next to each other. Where a
// type differs from its split form only in the place of bytes, the arithmetic is the former's.
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

// A type's blocks repacked by rows.
template <class T>
struct Split;

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
  template <int K>
  HIPC_MEMBER static Piece fetch(const u8* row, u32 p) {
    const u8* block = row + p * bytes;
    return {load_once<u32x4, 2>(block + 2), load_once<f16, 2>(block)};
  }
  template <class Gpu, class X>
  HIPC_MEMBER static Met meet(X x, u32 p) {
    return {x.quants(32 * p), x.quants(32 * p + 16), x.scale(p), x.sum(p)};
  }
  template <class Gpu>
  HIPC_MEMBER static f32 dot(const Piece& w, const Met& x) {
    const i32 products = dot16<Gpu>(low_nibbles(w.q), x.lo) + dot16<Gpu>(high_nibbles(w.q), x.hi) - 8 * x.sum;
    return f32(w.d) * x.scale * f32(products);
  }
  HIPC_MEMBER static f32 value_of(const u8* quants, f16 d, u32 i) {
    const u32 q = quants[i % 16] >> (i % 32 / 16 * 4) & 15;
    return f32(d) * f32(i32(q) - 8);
  }
  template <int K>
  HIPC_MEMBER static f32 value(const u8* row, u32 i) {
    const u8* block = row + i / 32 * bytes;
    return value_of(block + 2, load<f16, 2>(block), i);
  }
};

// 16 bytes of each block, then d of each.
template <>
struct Split<Q4_0> : Q4_0 {
  template <int K>
  HIPC_MEMBER static Piece fetch(const u8* row, u32 p) {
    return {load_once<u32x4>(row + 16 * p), load_once<f16>(row + K / 2 + 2 * p)};
  }
  template <int K>
  HIPC_MEMBER static f32 value(const u8* row, u32 i) {
    return value_of(row + i / 32 * 16, load<f16>(row + K / 2 + i / 32 * 2), i);
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
  template <int K>
  HIPC_MEMBER static Piece fetch(const u8* row, u32 p) {
    const u8* block = row + p / 2 * bytes;
    return {load_once<u32x4, 2>(block + 2 + p % 2 * 16), load_once<f16, 2>(block)};
  }
  template <class Gpu, class X>
  HIPC_MEMBER static Met meet(X x, u32 p) {
    return {x.quants(16 * p), x.scale(p / 2)};
  }
  template <class Gpu>
  HIPC_MEMBER static f32 dot(const Piece& w, const Met& x) {
    return f32(w.d) * x.scale * f32(dot16<Gpu>(w.q, x.q));
  }
  template <int K>
  HIPC_MEMBER static f32 value(const u8* row, u32 i) {
    const u8* block = row + i / 32 * bytes;
    return f32(load<f16, 2>(block)) * f32(i8(block[2 + i % 32]));
  }
};

// All quants, then d of each block.
template <>
struct Split<Q8_0> : Q8_0 {
  template <int K>
  HIPC_MEMBER static Piece fetch(const u8* row, u32 p) {
    return {load_once<u32x4>(row + 16 * p), load_once<f16>(row + K + p / 2 * 2)};
  }
  template <int K>
  HIPC_MEMBER static f32 value(const u8* row, u32 i) {
    return f32(load<f16>(row + K + i / 32 * 2)) * f32(i8(row[i]));
  }
};

// 256 values in 8 sub-blocks of 32: f16 d, f16 dmin, the 6-bit scales and minimums of the sub-blocks in 12 bytes, and 128
// bytes of nibbles: the g-th 32 bytes hold sub-blocks 2g (low) and 2g + 1 (high). Value d·sc·q − dmin·m.
// Of a piece's two sub-blocks, Packing::of finds the scales, and the minimum of the one whose sum the lane adds: the two lanes
// of a group share its minimums.
struct ScalesMin {
  u32 lo, hi, min;
};

template <class Packing>
struct Q4_K_Blocks {
  static constexpr int len = 256, bytes = 144, piece = 32;
  using Form = Q8;
  struct Piece {
    u32x4 q;
    u32x4 header;  // d, dmin, then the packed scales and minimums
    u32 p;         // piece within the block: half p % 2 of group p / 2
  };
  struct Met {
    u32x4 lo, hi;
    f32x2 scales;  // of sub-blocks 2g and 2g + 1
    i32 sum;       // of sub-block 2g + p % 2
  };
  HIPC_MEMBER static f32 d(u32x4 header) { return f32(bits<f16>(u16(header.x))); }
  HIPC_MEMBER static f32 dmin(u32x4 header) { return f32(bits<f16>(u16(header.x >> 16))); }

  template <class Gpu, class X>
  HIPC_MEMBER static Met meet(X x, u32 p) {
    const u32 at = p / 2 * 64 + p % 2 * 16;
    return {x.quants(at), x.quants(at + 32), x.scales(p / 2 * 2), x.sum(p)};
  }
  template <class Gpu>
  HIPC_MEMBER static f32 dot(const Piece& w, const Met& x) {
    const ScalesMin sub = Packing::of(w.header, w.p);
    const i32 lo = dot16<Gpu>(low_nibbles(w.q), x.lo), hi = dot16<Gpu>(high_nibbles(w.q), x.hi);
    const f32 products = x.scales.x * f32(i32(sub.lo) * lo) + x.scales.y * f32(i32(sub.hi) * hi);
    const f32 offset = (w.p % 2 ? x.scales.y : x.scales.x) * f32(i32(sub.min) * x.sum);
    return d(w.header) * products - dmin(w.header) * offset;
  }
  HIPC_MEMBER static f32 value_of(const u8* nibbles, u32x4 header, u32 i) {
    const u32 sub = i % 256 / 32;
    const ScalesMin of = Packing::of(header, sub);
    const u32 q = nibbles[sub / 2 * 32 + i % 32] >> (sub % 2 * 4) & 15;
    return d(header) * f32(sub % 2 ? of.hi : of.lo) * f32(q) - dmin(header) * f32(of.min);
  }
};

// Sub-blocks 0–3 have their 6 bits in one byte; those of 4–7 are a nibble and the top two bits of another's byte.
struct GgufScales {
  HIPC_MEMBER static ScalesMin of(u32x4 header, u32 p) {
    const u32 shift = p / 2 % 2 * 16;
    const u32 s = header.y >> shift, m = header.z >> shift, both = header.w >> shift;
    const u32 scales = p < 4 ? s & 0x3F3F : (both & 0x0F0F) | (s >> 2 & 0x3030);
    const u32 mins = p < 4 ? m & 0x3F3F : (both >> 4 & 0x0F0F) | (m >> 2 & 0x3030);
    return {scales & 63, scales >> 8 & 63, mins >> (p % 2 * 8) & 63};
  }
};

// A u16 for each pair of sub-blocks: their scales in bits 0–5 and 6–11, the upper bits of their minimums in 12–13 and 14–15.
// Then a nibble for each sub-block: the lower bits of its minimum.
struct SplitScales {
  HIPC_MEMBER static ScalesMin of(u32x4 header, u32 p) {
    const u32 pair = (p < 4 ? header.y : header.z) >> (p / 2 % 2 * 16);
    const u32 upper = pair >> (12 + p % 2 * 2) & 3;
    return {pair & 63, pair >> 6 & 63, (header.w >> (4 * p) & 15) | upper << 4};
  }
};

struct Q4_K : Q4_K_Blocks<GgufScales> {
  template <int K>
  HIPC_MEMBER static Piece fetch(const u8* row, u32 p) {
    const u8* block = row + p / 8 * bytes;
    return {load_once<u32x4>(block + 16 + p % 8 * 16), load_once<u32x4>(block), p % 8};
  }
  template <int K>
  HIPC_MEMBER static f32 value(const u8* row, u32 i) {
    const u8* block = row + i / 256 * bytes;
    return value_of(block + 16, load<u32x4>(block), i);
  }
};

// 128 bytes of nibbles of each block, then the 16 bytes before them.
template <>
struct Split<Q4_K> : Q4_K_Blocks<SplitScales> {
  template <int K>
  HIPC_MEMBER static Piece fetch(const u8* row, u32 p) {
    return {load_once<u32x4>(row + 16 * p), load_once<u32x4>(row + K / 2 + p / 8 * 16), p % 8};
  }
  template <int K>
  HIPC_MEMBER static f32 value(const u8* row, u32 i) {
    return value_of(row + i / 256 * 128, load<u32x4>(row + K / 2 + i / 256 * 16), i);
  }
};

// 256 values: 128 bytes of low nibbles, 64 bytes of upper bit pairs, 16 signed scales (one per 16 values), f16 d. In each
// half of 128 values, low nibble j (of 64 bytes) is value j, its high nibble value j + 64. Value d·sc·(q − 32).
// Pairs::lo and hi find a piece's upper bits for its low and its high nibbles: pair j at bits 4 and 5 of byte j.
template <class Pairs>
struct Q6_K_Blocks {
  static constexpr int len = 256, bytes = 210, piece = 32;
  using Form = Q8;
  struct Piece {
    u32x4 lower;
    Pairs upper;
    i8 scale_lo, scale_hi;
    f16 d;
  };
  struct Met {
    u32x4 lo, hi;
    f32 scale_lo, scale_hi;
    i32 offset_lo, offset_hi;  // 32 times the sums of 16: what the quants' offset takes off
  };
  template <class Gpu, class X>
  HIPC_MEMBER static Met meet(X x, u32 p) {
    const u32 at = p / 4 * 128 + p % 4 * 16;
    const u32x4 lo = x.quants(at), hi = x.quants(at + 64);
    return {lo, hi, x.scale(at / 32), x.scale(at / 32 + 2), 32 * sum16<Gpu>(lo), 32 * sum16<Gpu>(hi)};
  }
  template <class Gpu>
  HIPC_MEMBER static f32 dot(const Piece& w, const Met& x) {
    const i32 lo = dot16<Gpu>(low_nibbles(w.lower) | w.upper.lo(), x.lo) - x.offset_lo;
    const i32 hi = dot16<Gpu>(high_nibbles(w.lower) | w.upper.hi(), x.hi) - x.offset_hi;
    return f32(w.d) * (x.scale_lo * f32(w.scale_lo * lo) + x.scale_hi * f32(w.scale_hi * hi));
  }
  HIPC_MEMBER static f32 value_of(const u8* lower, u32 pair, i8 scale, f16 d, u32 i) {
    const u32 nibble = lower[i % 256 / 128 * 64 + i % 64] >> (i % 128 / 64 * 4) & 15;
    return f32(d) * f32(scale) * f32(i32(nibble | pair << 4) - 32);
  }
};

// Bit pair k of upper byte l of a half belongs to value l + 32k, so two pieces share 16 bytes.
struct GgufPairs {
  u32x4 bytes;
  u32 shift;  // of the low nibbles' pair: 0 or 2
  HIPC_MEMBER u32x4 lo() const { return bytes >> shift << 4 & 0x30303030; }
  HIPC_MEMBER u32x4 hi() const { return bytes >> shift & 0x30303030; }
};

// 8 bytes of its own for each piece: a u32 for the low nibbles, one for the high. Pair i of byte b is that of nibble 4i + b.
struct SplitPairs {
  u32x2 words;
  HIPC_MEMBER static u32x4 spread(u32 w) { return u32x4{w << 4, w << 2, w, w >> 2} & 0x30303030; }
  HIPC_MEMBER u32x4 lo() const { return spread(words.x); }
  HIPC_MEMBER u32x4 hi() const { return spread(words.y); }
};

struct Q6_K : Q6_K_Blocks<GgufPairs> {
  template <int K>
  HIPC_MEMBER static Piece fetch(const u8* row, u32 p) {
    const u8* block = row + p / 8 * bytes;
    const u32 half = p % 8 / 4, quarter = p % 4;  // of 16 low bytes each
    const u8* scales = block + 192 + half * 8 + quarter;
    const u32x4 upper = load_once<u32x4, 2>(block + 128 + half * 32 + quarter % 2 * 16);
    return {load_once<u32x4, 2>(block + p % 8 * 16), {upper, quarter / 2 * 2}, load<i8>(scales), load<i8>(scales + 4),
            load_once<f16, 2>(block + 208)};
  }
  template <int K>
  HIPC_MEMBER static f32 value(const u8* row, u32 i) {
    const u8* block = row + i / 256 * bytes;
    const u32 pair = block[128 + i % 256 / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
    return value_of(block, pair, i8(block[192 + i % 256 / 16]), load<f16, 2>(block + 208), i);
  }
};

// 128 bytes of low nibbles of each block; 8 bytes of upper pairs of each piece; two scales of each piece; d of each block.
template <>
struct Split<Q6_K> : Q6_K_Blocks<SplitPairs> {
  template <int K>
  HIPC_MEMBER static Piece fetch(const u8* row, u32 p) {
    const u16 scales = load_once<u16>(row + K / 4 * 3 + 2 * p);
    return {load_once<u32x4>(row + 16 * p), {load_once<u32x2>(row + K / 2 + 8 * p)}, i8(scales), i8(scales >> 8),
            load_once<f16>(row + K / 16 * 13 + p / 8 * 2)};
  }
  template <int K>
  HIPC_MEMBER static f32 value(const u8* row, u32 i) {
    const u32 high = i % 128 / 64, piece = i / 128 * 4 + i % 64 / 16;
    const u32 pair = row[K / 2 + 8 * piece + 4 * high + i % 4] >> (i % 16 / 4 * 2) & 3;
    const i8 scale = i8(row[K / 4 * 3 + 2 * piece + high]);
    return value_of(row + i / 256 * 128, pair, scale, load<f16>(row + K / 16 * 13 + i / 256 * 2), i);
  }
};

struct F16 {
  static constexpr int len = 1, bytes = 2, piece = 8;
  using Form = f32;
  using Piece = f16x8;
  struct Met {
    f32x4 a, b;
  };
  template <int K>
  HIPC_MEMBER static Piece fetch(const u8* row, u32 p) { return bits<f16x8>(load_once<u32x4>(row + 16 * p)); }
  template <class Gpu, class X>
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
  template <int K>
  HIPC_MEMBER static f32 value(const u8* row, u32 i) { return f32(load<f16>(row + 2 * i)); }
};

struct BF16 {
  static constexpr int len = 1, bytes = 2, piece = 8;
  using Form = f32;
  using Piece = u32x4;
  using Met = F16::Met;
  template <int K>
  HIPC_MEMBER static Piece fetch(const u8* row, u32 p) { return load_once<u32x4>(row + 16 * p); }
  template <class Gpu, class X>
  HIPC_MEMBER static Met meet(X x, u32 p) {
    return F16::meet<Gpu>(x, p);
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
  template <int K>
  HIPC_MEMBER static f32 value(const u8* row, u32 i) { return bits<f32>(u32(load<u16>(row + 2 * i)) << 16); }
};

struct F32 {
  static constexpr int len = 1, bytes = 4, piece = 4;
  using Form = f32;
  using Piece = f32x4;
  using Met = f32x4;
  template <int K>
  HIPC_MEMBER static Piece fetch(const u8* row, u32 p) { return load_once<f32x4>(row + 16 * p); }
  template <class Gpu, class X>
  HIPC_MEMBER static Met meet(X x, u32 p) {
    return x.four(4 * p);
  }
  template <class Gpu>
  HIPC_MEMBER static f32 dot(const Piece& w, const Met& x) {
    return w.x * x.x + w.y * x.y + w.z * x.z + w.w * x.w;
  }
  template <int K>
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

// From one row to the next; rows of split types begin at multiples of 16 bytes.
template <class T, int K>
constexpr u32 row_bytes = K / T::len * T::bytes;
template <class T, int K>
constexpr u32 row_bytes<Split<T>, K> = round_up(K / T::len * T::bytes, 16);

}  // namespace hipc
