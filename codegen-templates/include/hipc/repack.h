// Brings weights from GGUF's layout into the split one, once, when they are loaded.
#pragma once
#include "quant.h"

namespace hipc {

// 16 bytes of a split row that begin at byte 16 · u, from the row's blocks.
template <class T>
struct Unit;

// `each` bytes apart: 8 of `count` f16, from number `first` on; zeros behind the last.
HIPC_DEVICE u32x4 halves(const u8* at, u32 each, u32 first, u32 count) {
  u32 words[4] = {};
  for (u32 i = 0; i < 8; ++i) {
    const u32 value = first + i < count ? load<u16, 2>(at + (first + i) * each) : 0;
    words[i / 2] |= value << (i % 2 * 16);
  }
  return {words[0], words[1], words[2], words[3]};
}

template <>
struct Unit<Q4_0> {
  template <int K>
  HIPC_MEMBER static u32x4 of(const u8* row, u32 u) {
    constexpr u32 blocks = K / 32;
    if (u < blocks) return load<u32x4, 2>(row + u * Q4_0::bytes + 2);
    return halves(row, Q4_0::bytes, (u - blocks) * 8, blocks);
  }
};

template <>
struct Unit<Q8_0> {
  template <int K>
  HIPC_MEMBER static u32x4 of(const u8* row, u32 u) {
    constexpr u32 blocks = K / 32;
    if (u < 2 * blocks) return load<u32x4, 2>(row + u / 2 * Q8_0::bytes + 2 + u % 2 * 16);
    return halves(row, Q8_0::bytes, (u - 2 * blocks) * 8, blocks);
  }
};

template <>
struct Unit<Q4_K> {
  template <int K>
  HIPC_MEMBER static u32x4 of(const u8* row, u32 u) {
    constexpr u32 pieces = K / 32;
    if (u < pieces) return load<u32x4>(row + u / 8 * Q4_K::bytes + 16 + u % 8 * 16);
    const u32x4 header = load<u32x4>(row + (u - pieces) * Q4_K::bytes);
    u32 pairs[4], lower = 0;
    for (u32 g = 0; g < 4; ++g) {
      const ScalesMin even = GgufScales::of(header, 2 * g), odd = GgufScales::of(header, 2 * g + 1);
      pairs[g] = even.lo | even.hi << 6 | even.min >> 4 << 12 | odd.min >> 4 << 14;
      lower |= (even.min & 15) << (8 * g) | (odd.min & 15) << (8 * g + 4);
    }
    return {header.x, pairs[0] | pairs[1] << 16, pairs[2] | pairs[3] << 16, lower};
  }
};

template <>
struct Unit<Q6_K> {
  // The bit pairs at `shift` of 16 bytes, as SplitPairs has them.
  HIPC_MEMBER static u32 pairs(u32x4 bytes, u32 shift) {
    const u32x4 pair = bytes >> shift & 0x03030303;
    return pair.x | pair.y << 2 | pair.z << 4 | pair.w << 6;
  }
  // The upper bits of a piece's low and high nibbles.
  HIPC_MEMBER static u32x2 upper(const u8* row, u32 p) {
    const u32 half = p % 8 / 4, quarter = p % 4;
    const u32x4 bytes = load<u32x4, 2>(row + p / 8 * Q6_K::bytes + 128 + half * 32 + quarter % 2 * 16);
    return {pairs(bytes, quarter / 2 * 2), pairs(bytes, quarter / 2 * 2 + 4)};
  }
  template <int K>
  HIPC_MEMBER static u32x4 of(const u8* row, u32 u) {
    constexpr u32 pieces = K / 32, blocks = K / 256;
    if (u < pieces) return load<u32x4, 2>(row + u / 8 * Q6_K::bytes + u % 8 * 16);
    u -= pieces;
    if (u < pieces / 2) {
      const u32x2 first = upper(row, 2 * u), second = upper(row, 2 * u + 1);
      return {first.x, first.y, second.x, second.y};
    }
    u -= pieces / 2;
    if (u < blocks) {
      const u8* scales = row + u * Q6_K::bytes + 192;
      u32 words[4] = {};
      for (u32 p = 0; p < 8; ++p) {
        const u8* of = scales + p / 4 * 8 + p % 4;
        words[p / 2] |= (of[0] | of[4] << 8) << (p % 2 * 16);
      }
      return {words[0], words[1], words[2], words[3]};
    }
    return halves(row + 208, Q6_K::bytes, (u - blocks) * 8, blocks);
  }
};

// Rows state->pos … + n − 1 of a weight, which are the first n rows of a staging buffer. A workgroup writes a row, a thread 16
// bytes of it at a time.
//
//   repack<Gpu, Waves<8>, Q4_K, K>(state, staging, w)
template <class Gpu, class W, class T, int K>
HIPC_DEVICE void repack(const State* state, const T* staging, Split<T>* w) {
  follow();
  if (group_x() >= u32(state->n)) return;
  constexpr u32 bytes = row_bytes<Split<T>, K>;
  const u8* from = reinterpret_cast<const u8*>(staging) + u64(group_x()) * row_bytes<T, K>;
  u8* to = reinterpret_cast<u8*>(w) + (u64(u32(state->pos)) + group_x()) * bytes;
  for (u32 u = thread_id(); u < bytes / 16; u += W::value * Gpu::wave) {
    *reinterpret_cast<u32x4*>(to + 16 * u) = Unit<T>::template of<K>(from, u);
  }
}

}  // namespace hipc
