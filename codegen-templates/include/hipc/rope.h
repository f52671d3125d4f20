// Rotary embedding, and where vectors of heads go.
#pragma once
#include "target.h"

namespace hipc {

// Elements of a head that turn together: (2i, 2i + 1), or (i, i + Dims/2).
struct Adjacent {};
struct Halves {};

// Rotates the first Dims values of each head of HeadDim by tables of (cos, sin), [positions, Dims/2].
template <class Pairs, int RotatedDims, int HeadDimension>
struct Rotate;

template <int Dims, int HeadDim>
struct Rotate<Adjacent, Dims, HeadDim> {
  static constexpr int dims = Dims, head_dim = HeadDim;
  const f32x2* table;
  HIPC_MEMBER static bool turns(u32 d) { return d < Dims; }
  HIPC_MEMBER static u32 other(u32 d) { return d ^ 1; }
  HIPC_MEMBER static u32 pair(u32 d) { return d / 2; }
  HIPC_MEMBER static bool second(u32 d) { return d % 2; }
};

template <int Dims, int HeadDim>
struct Rotate<Halves, Dims, HeadDim> {
  static constexpr int dims = Dims, head_dim = HeadDim;
  const f32x2* table;
  HIPC_MEMBER static bool turns(u32 d) { return d < Dims; }
  HIPC_MEMBER static u32 other(u32 d) { return d < Dims / 2 ? d + Dims / 2 : d - Dims / 2; }
  HIPC_MEMBER static u32 pair(u32 d) { return d % (Dims / 2); }
  HIPC_MEMBER static bool second(u32 d) { return d >= Dims / 2; }
};

// (cos, sin) of value d at a position; of a value that doesn't turn, anything.
template <class Rope>
HIPC_DEVICE f32x2 turn_of(const Rope& rope, u32 position, u32 d) {
  return rope.table[position * (Rope::dims / 2) + (Rope::turns(d) ? Rope::pair(d) : 0)];
}

// Value d of a head, turned; at(d) gives the head's values before the rotation.
template <class Rope, class At>
HIPC_DEVICE f32 rotated_by(const Rope&, f32x2 turn, u32 d, At at) {
  const f32 x = at(d);
  if (!Rope::turns(d)) return x;
  const f32 y = at(Rope::other(d));
  return Rope::second(d) ? y * turn.y + x * turn.x : x * turn.x - y * turn.y;
}

// No rotation.
struct Straight {
  static constexpr int dims = 0, head_dim = 1;
};
HIPC_DEVICE f32x2 turn_of(const Straight&, u32, u32) { return {1, 0}; }
template <class At>
HIPC_DEVICE f32 rotated_by(const Straight&, f32x2, u32 d, At at) { return at(d); }

// The same at a position.
template <class Rope, class At>
HIPC_DEVICE f32 rotated(const Rope& rope, u32 position, u32 d, At at) {
  return rotated_by(rope, turn_of(rope, position, d), d, at);
}

// Where a vector of heads goes: an f32 vector …
struct Store {
  f32* out;
  HIPC_MEMBER void put(u32 token, u32, u32 i, u32 n, f32 y) const { out[token * n + i] = y; }
};

// … or a cache [heads, positions, head_dim], at the token's position.
template <class T, int Heads, int HeadDim, int Positions>
struct Append {
  T* cache;
  HIPC_MEMBER void put(u32, u32 position, u32 i, u32, f32 y) const {
    cache[u64(i / HeadDim * Positions + position) * HeadDim + i % HeadDim] = T(y);
  }
};

}  // namespace hipc
