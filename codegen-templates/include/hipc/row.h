// Element-wise work on one vector that no other launch took: an expression, perhaps a residual, and what is written.
#pragma once
#include "act.h"
#include "finish.h"

namespace hipc {

// Expressions. prepare() is called by all threads of the workgroup before at(); at(i) is element i of the token.

struct Copy {
  const f32* x;
  template <class Gpu, int Threads, int Tile, int N>
  HIPC_MEMBER void prepare(u32, u32) {}
  template <int N>
  HIPC_MEMBER f32 at(u32 token, u32 i) const { return x[token * N + i]; }
};

struct Sum : Copy {
  const f32* y;
  template <int N>
  HIPC_MEMBER f32 at(u32 token, u32 i) const { return x[token * N + i] + y[token * N + i]; }
};

struct Product : Copy {
  const f32* y;
  template <int N>
  HIPC_MEMBER f32 at(u32 token, u32 i) const { return x[token * N + i] * y[token * N + i]; }
};

template <class Act>
struct ActOf : Copy {
  template <int N>
  HIPC_MEMBER f32 at(u32 token, u32 i) const { return Act::of(x[token * N + i]); }
};

template <class Act>
struct GatedBy : Copy {
  const f32* y;
  template <int N>
  HIPC_MEMBER f32 at(u32 token, u32 i) const { return Act::of(x[token * N + i]) * y[token * N + i]; }
};

struct WithBias : Copy {
  const f32* bias;
  template <int N>
  HIPC_MEMBER f32 at(u32 token, u32 i) const { return x[token * N + i] + bias[i]; }
};

// r · x, r from the partial sums of a deferred norm over Size values.
template <int Size, int Parts>
struct Scaled : Copy {
  const f32* ssq;
  f32 eps;
  f32 factor = 0;

  template <class Gpu, int Threads, int Tile, int N>
  HIPC_MEMBER void prepare(u32 token, u32) {
    HIPC_SHARED f32 sums[Threads / Gpu::wave];
    f32 sum = 0;
    for (u32 i = thread_id(); i < Parts; i += Threads) sum += ssq[token * Parts + i];
    factor = 1.0f / root(reduce_workgroup<Add, Gpu, Threads>(sum, sums) / Size + eps);
  }
  template <int N>
  HIPC_MEMBER f32 at(u32 token, u32 i) const { return factor * x[token * N + i]; }
};

// RMSNorm of each group of Group values with a gain. A tile is whole groups. One group is summed by the whole workgroup,
// several by a wave each.
template <int Group>
struct Normed : Copy {
  const f32* gain;
  f32 eps;
  const f32* factors = nullptr;
  u32 first = 0;

  template <class Gpu, int Threads, int Tile, int N>
  HIPC_MEMBER void prepare(u32 token, u32 start) {
    static_assert(Tile % Group == 0 && N % Group == 0, "a group is normed by one workgroup");
    constexpr u32 groups = Tile / Group;
    HIPC_SHARED f32 shared[groups];
    const f32* row = x + token * N + start;
    if constexpr (groups == 1) {
      HIPC_SHARED f32 sums[Threads / Gpu::wave];
      f32 sum = 0;
      for (u32 i = thread_id(); i < Group; i += Threads) sum += row[i] * row[i];
      sum = reduce_workgroup<Add, Gpu, Threads>(sum, sums);
      if (thread_id() == 0) shared[0] = 1.0f / root(sum / Group + eps);
    } else {
      for (u32 g = uniform(thread_id() / Gpu::wave); g < groups; g += Threads / Gpu::wave) {
        f32 sum = 0;
        for (u32 i = thread_id() % Gpu::wave; i < Group; i += Gpu::wave) {
          const f32 v = start + g * Group < N ? row[g * Group + i] : 0;
          sum += v * v;
        }
        sum = reduce<Add, Gpu::wave, Gpu::wave>(sum);
        if (thread_id() % Gpu::wave == 0) shared[g] = 1.0f / root(sum / Group + eps);
      }
    }
    barrier();
    factors = shared;
    first = start;
  }
  template <int N>
  HIPC_MEMBER f32 at(u32 token, u32 i) const {
    return factors[(i - first) / Group] * x[token * N + i] * gain[i % Group];
  }
};

// A workgroup computes Tile of the N values of one token.
//
//   row<Gpu, Waves<8>, Tile<1024>, N>(state, Sum{x, y}, NoResidual{}, Finish{…})
template <class Gpu, class W, class L, int N, class Expr, class Added, class Out>
HIPC_DEVICE void row(const State* state, Expr expr, Added residual, Out out) {
  follow();
  const Chunk chunk = Chunk::of<1>(state);
  if (chunk.empty<1>()) return;
  constexpr int threads = W::value * Gpu::wave;
  const u32 start = group_x() * L::value, token = chunk.token(0);
  expr.template prepare<Gpu, threads, L::value, N>(token, start);
  finish<Gpu, threads, L::value, N, 1>(
      out, chunk, start, group_x(), divide_up(N, L::value), [&](u32 j, u32) __attribute__((always_inline)) {
        return expr.template at<N>(token, start + j) + residual.at(token * N + start + j);
      });
}

}  // namespace hipc
