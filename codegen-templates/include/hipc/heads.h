// Work on vectors of heads outside of other launches: RMSNorm per head, rotation, store or append.
#pragma once
#include "reduce.h"
#include "rope.h"

namespace hipc {

// RMSNorm over a head with a gain.
struct HeadNorm {
  const f32* gain;
  f32 eps;
  template <class Gpu, int HeadDim>
  HIPC_MEMBER f32 factor(f32 squares) const {
    return 1.0f / root(reduce<Add, Gpu::wave, Gpu::wave>(squares) / HeadDim + eps);
  }
  HIPC_MEMBER f32 at(u32 d) const { return gain[d]; }
};

struct NoHeadNorm {
  template <class Gpu, int HeadDim>
  HIPC_MEMBER f32 factor(f32) const { return 1; }
  HIPC_MEMBER f32 at(u32) const { return 1; }
};

// A wave norms one head into LDS. Converged within the wave.
template <class Gpu, int HeadDim, class Norm>
HIPC_DEVICE void norm_head(const f32* x, const Norm& norm, f32* shared) {
  constexpr int each = divide_up(HeadDim, Gpu::wave);
  const u32 lane = thread_id() % Gpu::wave;
  f32 v[each], squares = 0;
  for (int i = 0; i < each; ++i) {
    const u32 d = lane + i * Gpu::wave;
    v[i] = d < HeadDim ? x[d] : 0;
    squares += v[i] * v[i];
  }
  const f32 factor = norm.template factor<Gpu, HeadDim>(squares);
  for (int i = 0; i < each; ++i) {
    const u32 d = lane + i * Gpu::wave;
    if (d < HeadDim) shared[d] = v[i] * factor * norm.at(d);
  }
}

// One vector of heads.
template <int Count, int HeadDim, class Norm, class Rope, class Destination>
struct HeadPart {
  static constexpr int head_dim = HeadDim;
  const f32* x;
  Norm norm;
  Rope rope;
  Destination destination;
};

template <class Gpu, class L, int Count, int HeadDim, class Norm, class Rope, class Destination, class... Rest>
HIPC_DEVICE void heads_of(const Chunk& chunk, u32 tile, f32* shared,
                          const HeadPart<Count, HeadDim, Norm, Rope, Destination>& part, const Rest&... rest) {
  constexpr int tiles = divide_up(Count, L::value);
  if constexpr (sizeof...(Rest) > 0) {
    if (tile >= tiles) return heads_of<Gpu, L>(chunk, tile - tiles, shared, rest...);
  }
  const u32 wave = uniform(thread_id() / Gpu::wave), token = chunk.token(0), position = chunk.position(0);
  const u32 head = tile * L::value + wave;
  f32* normed = shared + wave * HeadDim;
  if (head < Count) norm_head<Gpu, HeadDim>(part.x + (token * Count + head) * HeadDim, part.norm, normed);
  barrier();
  if (head >= Count) return;
  for (u32 d = thread_id() % Gpu::wave; d < HeadDim; d += Gpu::wave) {
    const f32 y = rotated(part.rope, position, d, [&](u32 e) __attribute__((always_inline)) { return normed[e]; });
    part.destination.put(token, position, head * HeadDim + d, Count * HeadDim, y);
  }
}

// Parts one after the other, Tile heads of one token per workgroup, one wave per head.
//
//   heads<Gpu, Tile<4>>(state, HeadPart<32, 128, HeadNorm, Rotate<…>, Store>{x, {gain, eps}, {table}, {out}}, …)
template <class Gpu, class L, class... Parts>
HIPC_DEVICE void heads(const State* state, Parts... parts) {
  follow();
  const Chunk chunk = Chunk::of<1>(state);
  if (chunk.empty<1>()) return;
  constexpr int head_dim = largest(Parts::head_dim...);
  HIPC_SHARED f32 shared[L::value * head_dim];
  heads_of<Gpu, L>(chunk, group_x(), shared, parts...);
}

}  // namespace hipc
