// Embedding rows of the chunk's tokens, with what the first norm needs.
#pragma once
#include "finish.h"
#include "quant.h"

namespace hipc {

// A workgroup computes Tile values of one token. An id outside the vocabulary reads the last row.
//
//   embed<Gpu, Waves<8>, Tile<1024>>(state, tokens, Embedding<Q4_K, vocab, n>{w}, Finish{…})
template <class T, int Vocab, int N>
struct Embedding {
  const T* w;
  HIPC_MEMBER f32 at(i32 id, u32 i) const {
    const u32 row = u32(id) < u32(Vocab) ? u32(id) : Vocab - 1;
    return T::template value<N>(reinterpret_cast<const u8*>(w) + row * u64(row_bytes<T, N>), i);
  }
};

template <class Gpu, class W, class L, class T, int Vocab, int N, class Out>
HIPC_DEVICE void embed(const State* state, const i32* tokens, Embedding<T, Vocab, N> embedding, Out out) {
  follow();
  const Chunk chunk = Chunk::of<1>(state);
  if (chunk.empty<1>()) return;
  const i32 id = tokens[chunk.position(0)];
  const u32 start = group_x() * L::value;
  finish<Gpu, W::value * Gpu::wave, L::value, N, 1>(
      out, chunk, start, group_x(), divide_up(N, L::value),
      [&](u32 j, u32) __attribute__((always_inline)) { return embedding.at(id, start + j); });
}

}  // namespace hipc
