// Activation vectors: f32, or int8 blocks.
#pragma once
#include "target.h"

namespace hipc {

// An int8 vector of n values per token: n quants, then an f32 scale per block of 32, then an i32 sum of quants per block; the
// stride from token to token is rounded up to 128 bytes. Scales are f32 because nothing is normalised: small models would
// fall into f16's subnormals. The sums serve weight types with an offset.
struct Q8 {
  u8 bytes[1];
};

template <int N>
struct Q8Layout {
  static_assert(N % 32 == 0, "an int8 vector is whole blocks of 32");
  static constexpr int scales = N, sums = N + N / 8, stride = round_up(N + N / 4, 128);
};

// One token of an int8 vector.
template <int N>
struct Q8Token {
  const u8* base;

  // 16 quants from value i, a multiple of 16.
  HIPC_MEMBER u32x4 quants(u32 i) const { return load<u32x4>(base + i); }
  HIPC_MEMBER f32 scale(u32 block) const { return load<f32>(base + Q8Layout<N>::scales + 4 * block); }
  // Scales of an even block and the next.
  HIPC_MEMBER f32x2 scales(u32 block) const { return load<f32x2>(base + Q8Layout<N>::scales + 4 * block); }
  HIPC_MEMBER i32 sum(u32 block) const { return load<i32>(base + Q8Layout<N>::sums + 4 * block); }
};

// One token of an f32 vector.
struct F32Token {
  const f32* base;

  // 4 values from value i, a multiple of 4.
  HIPC_MEMBER f32x4 four(u32 i) const { return load<f32x4>(base + i); }
};

// The input of a GEMV: [tokens, N] in one of the two forms.
template <class Form, int N>
struct Activations;

template <int N>
struct Activations<Q8, N> {
  static constexpr int size = N;
  using Form = Q8;
  const Q8* x;
  HIPC_MEMBER Q8Token<N> token(u32 t) const { return {x->bytes + t * Q8Layout<N>::stride}; }
};

template <int N>
struct Activations<f32, N> {
  static constexpr int size = N;
  using Form = f32;
  static_assert(N % 4 == 0, "f32 vectors are read four values at a time");
  const f32* x;
  HIPC_MEMBER F32Token token(u32 t) const { return {x + t * N}; }
};

}  // namespace hipc
