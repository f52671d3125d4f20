// What is written of a freshly computed vector y: y itself; with a gain, z = y ⊙ g, else z = y; z as f32 or as int8 blocks; and
// the sum of y² over the part of y that the workgroup computed, for a norm that the consumer applies (deferred: it is one
// scalar per token, and a matrix commutes with a scalar).
#pragma once
#include "reduce.h"
#include "vec.h"

namespace hipc {

struct Raw { f32* raw; };
struct Gain { const f32* gain; };
struct Gained { f32* gained; };
struct Quantized { Q8* quantized; };
struct Ssq { f32* ssq; };

// Any of the above.
template <class... Parts>
struct Finish : Parts... {
  template <class Part>
  static constexpr bool has = (__is_same(Part, Parts) || ...);
};
template <class... Parts>
HIPC_GUIDE Finish(Parts...) -> Finish<Parts...>;

// Gain of element i, which nobody asks for without one.
template <class Out>
HIPC_DEVICE f32 gain_of(const Out& out, u32 i) {
  if constexpr (Out::template has<Gain>) return out.gain[i];
  else return 1;
}

// What is added before.
struct Residual {
  const f32* x;
  HIPC_MEMBER f32 at(u32 i) const { return x[i]; }
};
struct NoResidual {
  HIPC_MEMBER f32 at(u32) const { return 0; }
};

// Elements start … start + Tile − 1 (of N per token) of the tokens of a chunk; y(j, slot) computes element start + j of a
// slot, gain_at(i) gives the gain of element i. Lanes are taken in groups of 32, one int8 block each: the block is the workgroup's own, so start and Tile must be
// multiples of 32 if int8 blocks are written. Called by all threads of the workgroup.
template <class Gpu, int Threads, int Tile, int N, int Tokens, class Out, class Y, class GainAt>
HIPC_DEVICE void finish(const Out& out, const Chunk& chunk, u32 start, u32 part, u32 parts, Y y_of, GainAt gain_at) {
  constexpr bool raw = Out::template has<Raw>, gain = Out::template has<Gain>, gained = Out::template has<Gained>;
  constexpr bool quantized = Out::template has<Quantized>, ssq = Out::template has<Ssq>;
  static_assert(!quantized || (Tile % 32 == 0 && N % 32 == 0), "an int8 block has one owner");
  constexpr int span = round_up(Tile, 32), groups = span / 32;
  HIPC_SHARED f32 squares[Tokens * groups];

  for (u32 at = 0; at < Tokens * span; at += Threads) {
    const u32 e = at + thread_id(), slot = e / span, j = e % span, i = start + j;
    const bool exists = slot < Tokens && j < Tile && i < N && chunk.has(slot);
    const u32 token = chunk.first + slot;
    const f32 y = exists ? y_of(j, slot) : 0;
    f32 z = y;
    if constexpr (gain) z = exists ? y * gain_at(i) : 0;
    if constexpr (raw) {
      if (exists) out.raw[token * N + i] = y;
    }
    if constexpr (gained) {
      if (exists) out.gained[token * N + i] = z;
    }
    if constexpr (quantized) {
      const f32 scale = reduce<Max, Gpu::wave, 32>(__builtin_fabsf(z)) / 127.0f;
      const i32 q = scale > 0 ? i32(__builtin_rintf(z / scale)) : 0;
      const i32 sum = reduce<Add, Gpu::wave, 32>(q);
      if (exists) {
        u8* base = out.quantized->bytes + token * Q8Layout<N>::stride;
        base[i] = u8(q);
        if (j % 32 == 0) {
          *reinterpret_cast<f32*>(base + Q8Layout<N>::scales + i / 8) = scale;
          *reinterpret_cast<i32*>(base + Q8Layout<N>::sums + i / 8) = sum;
        }
      }
    }
    if constexpr (ssq) {
      const f32 sum = reduce<Add, Gpu::wave, 32>(y * y);
      if (j % 32 == 0 && slot < Tokens) {
        if constexpr (groups > 1) squares[slot * groups + j / 32] = sum;
        else if (chunk.has(slot)) out.ssq[token * parts + part] = sum;
      }
    }
  }
  if constexpr (ssq && groups > 1) {
    barrier();
    for (u32 slot = thread_id(); slot < Tokens; slot += Threads) {
      f32 sum = 0;
      for (int g = 0; g < groups; ++g) sum += squares[slot * groups + g];
      if (chunk.has(slot)) out.ssq[(chunk.first + slot) * parts + part] = sum;
    }
  }
}

// The same with the gains where they are.
template <class Gpu, int Threads, int Tile, int N, int Tokens, class Out, class Y>
HIPC_DEVICE void finish(const Out& out, const Chunk& chunk, u32 start, u32 part, u32 parts, Y y_of) {
  finish<Gpu, Threads, Tile, N, Tokens>(out, chunk, start, part, parts, y_of,
                                        [&](u32 i) __attribute__((always_inline)) { return gain_of(out, i); });
}

}  // namespace hipc
