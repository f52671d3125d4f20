// Arg-max of the logits for the tokens whose logits are wanted; the lowest index wins ties.
#pragma once
#include "reduce.h"

namespace hipc {

// Candidates of a token: the partials of the head launch, or the logits themselves.
template <int Parts>
struct FromPartials {
  static constexpr int count = Parts;
  const Best* partials;
  HIPC_MEMBER Best at(u32 token, u32 i) const { return partials[token * Parts + i]; }
};
template <int N>
struct FromLogits {
  static constexpr int count = N;
  const f32* logits;
  HIPC_MEMBER Best at(u32 token, u32 i) const { return {logits[token * u64(N) + i], i32(i)}; }
};

// One workgroup per token. Writes the id, and the last token's also behind the token list's end, where the next step's
// embedding finds it.
//
//   argmax<Gpu, Waves<8>, vocab>(state, FromPartials<parts>{partials}, tokens, ids)
template <class Gpu, class W, int Vocab, class From>
HIPC_DEVICE void argmax(const State* state, From from, i32* tokens, i32* ids) {
  const Chunk chunk = Chunk::of<1>(state, state->head_from);
  if (chunk.empty<1>()) return;
  constexpr int threads = W::value * Gpu::wave;
  HIPC_SHARED Best shared[W::value];
  const u32 token = chunk.token(0);
  Best best = Best::none();
  for (u32 i = thread_id(); i < From::count; i += threads) best = Best::join(best, from.at(token, i));
  best = reduce_workgroup<Best, Gpu, threads>(best, shared);
  if (thread_id() != 0) return;
  const i32 id = u32(best.index) < u32(Vocab) ? best.index : 0;  // nothing compares to a NaN
  ids[token] = id;
  if (token == chunk.n - 1) tokens[chunk.pos + chunk.n] = id;
}

}  // namespace hipc
