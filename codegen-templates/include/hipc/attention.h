// Causal softmax attention for one token, split over the context.
//
// Splits workgroups share a KV head and a token; each takes a range of positions that follows from the token's position, and
// those without one leave at once. In a workgroup a wave has a set of the query heads that share the KV head, and some of the
// positions: a lane holds 8 values of a head, so L lanes hold a head and a wave has Wave/L slots, each with a position of
// its own, U of them at a time. The query heads of a wave share its loads; the next positions' K is in flight while V is
// multiplied. Every slot runs its own online softmax; slots, waves and workgroups are joined at the end, in the order of
// their index. The last workgroup to finish joins the workgroups' results and writes the output.
//
// The number of query heads in a wave follows from the registers that a lane can have.
//
//   attend<Gpu, Waves<8>, Splits<8>, Heads<32>>(state, Queries{q} or Prologue{…}, Cache<f16, 8, 128, ctx>{k}, …{v}, scale,
//                                               Finish{…}, scratch, counters)
#pragma once
#include "finish.h"
#include "heads.h"

namespace hipc {

template <int N> struct Heads { static constexpr int value = N; };

// K or V of one layer, [heads, positions, head_dim].
template <class T, int HeadCount, int HeadDim, int Positions>
struct Cache {
  using Type = T;
  static constexpr int heads = HeadCount, head_dim = HeadDim, positions = Positions;
  T* data;
  HIPC_MEMBER T* row(u32 head, u32 position) const { return data + u64(head * Positions + position) * HeadDim; }
};

// 8 consecutive values of a cache row, in the cache's type.
template <class T>
struct Eight;

template <>
struct Eight<f16> {
  f16x8 v;
  HIPC_MEMBER static Eight at(const f16* p) { return {load<f16x8, 16>(p)}; }
  HIPC_MEMBER f32 operator[](int i) const { return v[i]; }
};

template <>
struct Eight<f32> {
  f32x4 a, b;
  HIPC_MEMBER static Eight at(const f32* p) { return {load<f32x4>(p), load<f32x4>(p + 4)}; }
  HIPC_MEMBER f32 operator[](int i) const { return i < 4 ? a[i] : b[i - 4]; }
};

// How a workgroup is divided: constants that follow from the target, the heads and the cache.
template <class Gpu, int WaveCount, int QueryHeads, class K>
struct AttentionShape {
  static constexpr int waves = WaveCount, threads = waves * Gpu::wave;
  static constexpr int head_dim = K::head_dim, shared_by = QueryHeads / K::heads;  // query heads per KV head
  static_assert(QueryHeads % K::heads == 0 && head_dim % 8 == 0 && head_dim <= 256, "");
  static constexpr int lanes = next_power_of_two(head_dim / 8);   // of a slot
  static constexpr int slots = Gpu::wave / lanes;

  // A query head costs a lane 8 values of q, 8 of the result and a few more; K, V and addresses take the rest.
  static constexpr int registers = registers_for<Gpu, waves>;
  // Positions of a slot: their keys and values are what is in flight. Up to 8,192 positions few workgroups must fill the memory's pipe;
  // beyond, there are more of them, and registers for a second workgroup matter more. Measured on an H200, 8B with GQA 4: four of them
  // make a step at depth 4,096 5 % faster and one at depth 32,768 9 % slower.
  static constexpr bool few_workgroups = K::positions <= 8192;
  static constexpr int at_once = sizeof(typename K::Type) == 4 ? 1 : few_workgroups && registers >= 192 ? 4 : 2;
  static constexpr int affordable = registers >= 152 ? 4 : registers >= 128 ? 3 : registers >= 96 ? 2 : 1;
  static constexpr int sets() {  // of query heads; each set has waves of its own
    int n = divide_up(shared_by, affordable);
    while (n < waves && waves % n != 0) ++n;
    return n;
  }
  static constexpr int head_sets = sets(), heads = divide_up(shared_by, head_sets);  // query heads of a wave
  static_assert(waves % head_sets == 0, "there are waves for all query heads");
  static constexpr int position_waves = waves / head_sets;
  static constexpr int step = position_waves * slots * at_once;  // positions of a workgroup at a time

  // Positions of a workgroup, of so many in all: few workgroups leave few results to join, but long contexts want as many loads in
  // flight as there can be. Sixteen workgroups share until each has 512 positions; only then more take part.
  template <int Splits>
  HIPC_MEMBER static u32 share(u32 positions) {
    const u32 even = (positions + Splits - 1) / Splits, sixteenth = (positions + 15) / 16;
    const u32 wanted = sixteenth < 128 ? 128 : sixteenth < 512 ? sixteenth : 512;
    return round_up(even > wanted ? even : wanted, step);
  }
};

// Queries as they are; the new K is in the cache.
struct Queries {
  static constexpr bool appends = false;
  const f32* q;
  NoHeadNorm q_norm;
  Straight rope;
};

// RMSNorm and rotation of the queries and of the new key. The workgroup whose range ends with the new position appends the
// key and takes it from LDS; the others don't meet it. Only for one token.
template <class Norm, class Rope>
struct Prologue {
  static constexpr bool appends = true;
  const f32* q;
  const f32* k;
  Norm q_norm, k_norm;
  Rope rope;
};
template <class N, class R>
HIPC_GUIDE Prologue(const f32*, const f32*, N, N, R) -> Prologue<N, R>;

// Online softmax of a slot for some query heads: the maximum so far (of scores in units of log 2), the sum of 2^(score −
// maximum), and this lane's 8 values of the sum of V weighted so.
template <int HeadCount>
struct Running {
  f32 max[HeadCount], sum[HeadCount], values[HeadCount][8];

  HIPC_MEMBER void clear() {
#pragma unroll
    for (int h = 0; h < HeadCount; ++h) {
      max[h] = -1e30f;  // finite, so that a slot without positions joins as nothing and not as NaN
      sum[h] = 0;
      for (int i = 0; i < 8; ++i) values[h][i] = 0;
    }
  }
  template <int Count, class V>
  HIPC_MEMBER void add(const f32 (&scores)[Count][HeadCount], const V (&v)[Count]) {
#pragma unroll
    for (int h = 0; h < HeadCount; ++h) {
      f32 highest = max[h];
#pragma unroll
      for (int u = 0; u < Count; ++u) highest = __builtin_fmaxf(highest, scores[u][h]);
      const f32 before = pow2(max[h] - highest);
      max[h] = highest;
      sum[h] *= before;
#pragma unroll
      for (int i = 0; i < 8; ++i) values[h][i] *= before;
#pragma unroll
      for (int u = 0; u < Count; ++u) {
        const f32 weight = pow2(scores[u][h] - highest);
        sum[h] += weight;
#pragma unroll
        for (int i = 0; i < 8; ++i) values[h][i] += weight * v[u][i];
      }
    }
  }
  // Joins the slots of a wave; the first slot has the result. Converged.
  template <int Wave, int Lanes>
  HIPC_MEMBER void join_slots() {
#pragma unroll
    for (int mask = Lanes; mask < Wave; mask *= 2) {
      const u32 other = thread_id() % Wave ^ mask;
#pragma unroll
      for (int h = 0; h < HeadCount; ++h) {
        const f32 its_max = bits<f32>(shuffle<Wave>(bits<u32>(max[h]), other));
        const f32 highest = __builtin_fmaxf(max[h], its_max);
        const f32 mine = pow2(max[h] - highest), its = pow2(its_max - highest);
        max[h] = highest;
        sum[h] = sum[h] * mine + bits<f32>(shuffle<Wave>(bits<u32>(sum[h]), other)) * its;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          values[h][i] = values[h][i] * mine + bits<f32>(shuffle<Wave>(bits<u32>(values[h][i]), other)) * its;
        }
      }
    }
  }
};

// A part of a softmax for one value: joined with others by the rules of the online softmax.
struct Part {
  f32 max, sum, value;
  HIPC_MEMBER static Part none() { return {-1e30f, 0, 0}; }
};
template <int Count>
HIPC_DEVICE Part join_parts(Part all, const Part (&parts)[Count]) {
  f32 highest = all.max;
#pragma unroll
  for (int i = 0; i < Count; ++i) highest = __builtin_fmaxf(highest, parts[i].max);
  const f32 before = pow2(all.max - highest);
  Part joined = {highest, all.sum * before, all.value * before};
#pragma unroll
  for (int i = 0; i < Count; ++i) {
    const f32 weight = pow2(parts[i].max - highest);
    joined.sum += weight * parts[i].sum;
    joined.value += weight * parts[i].value;
  }
  return joined;
}

template <class Gpu, class W, class S, class H, class Q, class K, class Out>
HIPC_DEVICE void attend(const State* state, Q queries, K k_cache, K v_cache, f32 scale, Out out, f32* scratch,
                        u32* counters) {
  using A = AttentionShape<Gpu, W::value, H::value, K>;
  using T = typename K::Type;
  constexpr int splits = S::value, head_dim = A::head_dim, shared_by = A::shared_by, at_once = A::at_once;
  follow();
  const Chunk chunk = Chunk::of<1>(state);
  if (chunk.empty<1>()) return;

  // This workgroup's positions: begin … end − 1.
  const u32 kv = group_x() / splits, split = group_x() % splits, token = chunk.token(0), position = chunk.position(0);
  const u32 each = A::template share<splits>(position + 1);
  const u32 used = position / each + 1, begin = split * each;
  if (split >= used) return;
  const u32 end = split + 1 < used ? begin + each : position + 1;
  const bool appends = Q::appends && split + 1 == used;
  const u32 cached = appends ? end - 1 : end;  // … of which those from begin to here come from the K cache

  const u32 wave = uniform(thread_id() / Gpu::wave), lane = thread_id() % Gpu::wave;
  const u32 set = wave / A::position_waves, position_wave = wave % A::position_waves, slot = lane / A::lanes;
  const bool holds = lane % A::lanes * 8 < head_dim;  // of 16 lanes for a head_dim of 80, ten hold something
  const u32 d0 = holds ? lane % A::lanes * 8 : 0;
  const auto position_at = [&](u32 step, u32 u) __attribute__((always_inline)) {
    return begin + ((step * A::position_waves + position_wave) * at_once + u) * A::slots + slot;
  };
  const auto fetch = [&](const K& cache, u32 step, Eight<T> (&to)[at_once]) __attribute__((always_inline)) {
#pragma unroll
    for (int u = 0; u < at_once; ++u) {
      const u32 p = position_at(step, u), last = cached > begin ? cached - 1 : begin;
      to[u] = Eight<T>::at(cache.row(kv, p < last ? p : last) + d0);
    }
  };
  // The first keys and values are on their way while the queries are made.
  Eight<T> k[at_once], v[at_once];
  fetch(k_cache, 0, k);
  fetch(v_cache, 0, v);

  f32 q[A::heads][8];
  const f32 to_log2 = scale * 1.44269504f;
  HIPC_SHARED T new_key[head_dim];
  if constexpr (Q::appends) {
    // Queries, normed, into LDS; in the workgroup that appends, also the new key.
    HIPC_SHARED f32 normed[(shared_by + 1) * head_dim];
    for (u32 h = wave; h < shared_by; h += A::waves) {
      norm_head<Gpu, head_dim>(queries.q + (token * H::value + kv * shared_by + h) * head_dim, queries.q_norm,
                               normed + h * head_dim);
    }
    f32* key = normed + shared_by * head_dim;
    if (appends && wave == shared_by % A::waves) {
      norm_head<Gpu, head_dim>(queries.k + (token * K::heads + kv) * head_dim, queries.k_norm, key);
    }
    barrier();
    for (u32 d = thread_id(); appends && d < head_dim; d += A::threads) {
      new_key[d] = T(rotated(queries.rope, position, d, [&](u32 e) __attribute__((always_inline)) { return key[e]; }));
      k_cache.row(kv, position)[d] = new_key[d];
    }
    barrier();
#pragma unroll
    for (int h = 0; h < A::heads; ++h) {
      const u32 head = set * A::heads + h < shared_by ? set * A::heads + h : shared_by - 1;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const f32 turned = rotated(queries.rope, position, d0 + i,
                                   [&](u32 e) __attribute__((always_inline)) { return normed[head * head_dim + e]; });
        q[h][i] = holds ? turned * to_log2 : 0;
      }
    }
  } else {
#pragma unroll
    for (int h = 0; h < A::heads; ++h) {
      const u32 head = set * A::heads + h < shared_by ? set * A::heads + h : shared_by - 1;
      const f32* of_head = queries.q + (token * H::value + kv * shared_by + head) * head_dim + d0;
      const f32x4 low = load<f32x4>(of_head), high = load<f32x4>(of_head + 4);
#pragma unroll
      for (int i = 0; i < 8; ++i) q[h][i] = holds ? (i < 4 ? low[i] : high[i - 4]) * to_log2 : 0;
    }
  }

  const auto score = [&](const Eight<T>& of, f32 (&scores)[A::heads], bool exists) __attribute__((always_inline)) {
#pragma unroll
    for (int h = 0; h < A::heads; ++h) {
      f32 sum = 0;
#pragma unroll
      for (int i = 0; i < 8; ++i) sum += q[h][i] * of[i];
      sum = reduce<Add, Gpu::wave, A::lanes>(sum);
      scores[h] = exists ? sum : -__builtin_huge_valf();
    }
  };

  Running<A::heads> running;
  running.clear();
  const u32 steps = (cached - begin + A::step - 1) / A::step;
#pragma unroll 1
  for (u32 step = 0; step < steps; ++step) {
    // Also after the last step: a load that nobody needs is cheaper than a branch.
    f32 scores[at_once][A::heads];
#pragma unroll
    for (int u = 0; u < at_once; ++u) score(k[u], scores[u], position_at(step, u) < cached);
    fetch(k_cache, step + 1, k);
    running.add(scores, v);
    fetch(v_cache, step + 1, v);
  }
  if constexpr (Q::appends) {
    if (appends && position_wave == 0) {
      const Eight<T> new_value[1] = {Eight<T>::at(v_cache.row(kv, position) + d0)};
      f32 scores[1][A::heads];
      score(Eight<T>::at(new_key + d0), scores[0], slot == 0);
      running.add(scores, new_value);
    }
  }

  let_next_begin();
  // Join slots, then waves.
  running.template join_slots<Gpu::wave, A::lanes>();
  HIPC_SHARED f32 wave_values[A::waves][A::heads][head_dim], wave_max[A::waves][A::heads], wave_sum[A::waves][A::heads];
#pragma unroll
  for (int h = 0; h < A::heads; ++h) {
    if (slot == 0 && holds) {
#pragma unroll
      for (int i = 0; i < 8; ++i) wave_values[wave][h][d0 + i] = running.values[h][i];
    }
    if (lane == 0) {
      wave_max[wave][h] = running.max[h];
      wave_sum[wave][h] = running.sum[h];
    }
  }
  barrier();
  // Value e of the KV head's query heads, of this workgroup's positions.
  const auto of_waves = [&](u32 e) __attribute__((always_inline)) {
    const u32 head = e / head_dim, h = head % A::heads, first = head / A::heads * A::position_waves;
    Part parts[A::position_waves];
#pragma unroll
    for (int w = 0; w < A::position_waves; ++w) {
      parts[w] = {wave_max[first + w][h], wave_sum[first + w][h], wave_values[first + w][h][e % head_dim]};
    }
    return join_parts(Part::none(), parts);
  };

  // Join workgroups: each leaves its result; the last one to do so has them all, and reads them in the order of the splits.
  constexpr u32 record = head_dim + 2;  // maximum, sum, values
  f32* records = scratch + (token * H::value + kv * shared_by) * u64(splits * record);
  if (splits > 1 && used > 1) {
    for (u32 e = thread_id(); e < shared_by * head_dim; e += A::threads) {
      const Part mine = of_waves(e);
      f32* to = records + (e / head_dim * splits + split) * record;
      to[2 + e % head_dim] = mine.value;
      if (e % head_dim == 0) {
        to[0] = mine.max;
        to[1] = mine.sum;
      }
    }
    release_device();
    barrier();
    HIPC_SHARED u32 before;
    u32* counter = counters + token * K::heads + kv;
    if (thread_id() == 0) before = atomic_add(counter, 1);
    barrier();
    if (before + 1 != used) return;
    acquire_device();
    if (thread_id() == 0) *counter = 0;
  }

  const auto value = [&](u32 e, u32) __attribute__((always_inline)) {
    Part all = Part::none();
    if (splits == 1 || used == 1) {
      all = of_waves(e);
    } else {
      constexpr int at_a_time = splits < 16 ? splits : 16;
      for (u32 from = 0; from < used; from += at_a_time) {
        Part parts[at_a_time];
#pragma unroll
        for (int i = 0; i < at_a_time; ++i) {
          const bool exists = from + i < used;
          const f32* of = records + (e / head_dim * splits + (exists ? from + i : from)) * record;
          parts[i] = {of[0], exists ? of[1] : 0, exists ? of[2 + e % head_dim] : 0};
        }
        all = join_parts(all, parts);
      }
    }
    return all.value / all.sum;
  };
  finish<Gpu, A::threads, shared_by * head_dim, H::value * head_dim, 1>(out, chunk, kv * shared_by * head_dim, 0, 1, value);
}

}  // namespace hipc
