// The choice of the next token for the tokens whose logits are wanted: the arg-max (the lowest index wins ties), or, for the last
// one, a draw.
#pragma once
#include "sample.h"

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

// What becomes of the state: nothing, or the next step's. By one thread, when all have read the state.
struct Stay {
  HIPC_MEMBER void operator()(const Chunk&, i32) const {}
};
struct Advance {
  State* state;
  HIPC_MEMBER void operator()(const Chunk& chunk, i32 generation) const { *state = {i32(chunk.pos + chunk.n), 1, 0, generation}; }
};

// One workgroup per token. Writes the id, and the last token's also behind the token list's end, where the next step's
// embedding finds it, and with the generation's number to the outbox, where the host looks for it.
//
//   choose<Gpu, Waves<8>, Tile<16>, vocab>(state, FromPartials<parts>{partials}, logits, tokens, ids, outbox, sampling, draws, Stay{})
template <class Gpu, class W, class T, int Vocab, class From, class After>
HIPC_DEVICE void choose(const State* state, From from, const f32* logits, i32* tokens, i32* ids, u64* outbox,
                        const Sampling* sampling, const f64* draws, After after) {
  follow();
  const Chunk chunk = Chunk::of<1>(state, state->head_from);
  const i32 generation = state->generation;
  const Sampling how = *sampling;
  // Decided at once, so that it is loaded together with the state.
  const bool drawn = uniform(opaque(how.wanted(Draw<Gpu, W::value, T::value, Vocab, From>::most)));
  if (chunk.empty<1>()) {
    barrier();
    if (thread_id() == 0) after(chunk, generation);
    return;
  }
  constexpr int threads = W::value * Gpu::wave;
  HIPC_SHARED Best shared[W::value];
  const u32 token = chunk.token(0), end = chunk.pos + chunk.n;
  const bool last = token == chunk.n - 1;
  i32 id;
  if (last && drawn) {
    id = draw<Gpu, W::value, T::value, Vocab>(from, logits, token, tokens, end, how, draws, shared);
  } else {
    Best best = Best::none();
    for (u32 i = thread_id(); i < From::count; i += threads) best = Best::join(best, from.at(token, i));
    best = reduce_workgroup<Best, Gpu, threads>(best, shared);
    id = u32(best.index) < u32(Vocab) ? best.index : 0;  // nothing compares to a NaN
  }
  if (thread_id() != 0) return;
  ids[token] = id;
  if (last) {
    tokens[end] = id;
    post(&outbox[end], u64(u32(generation)) << 32 | u32(id));
    after(chunk, generation);
  }
}

}  // namespace hipc
