// Matrix × vector products that share their input, with what follows them.
//
// A workgroup computes a tile of outputs for a few tokens. Its waves form Waves/KWaves groups; a group takes Rows rows at a
// time, Steps times, and the KWaves waves of a group split K. A lane loads 16 bytes of each of the rows and meets them with
// the activations of those columns; the weights of a piece are used for all tokens. Sums over lanes and over the waves of a
// group are made in a fixed order. Then one thread per output applies what follows.
//
//   gemv<Gpu, Geometry<Waves<8>, KWaves<4>, Rows<2>, Steps<8>, Tile<32>, Tokens<1>>>(state, activations, norm, tail)
//
// activations  Activations<Q8 or f32, K>
// norm         NoNorm, or Norm: a deferred RMSNorm, one scalar per token, from the partial sums of the input's producer
// tail         Vector{combination, residual, Finish{…}}: one result;
//              Separate{To{matrix, destination, rotation}, …}: a result per matrix; Head: logits
#pragma once
#include "act.h"
#include "finish.h"
#include "quant.h"
#include "rope.h"

namespace hipc {

template <class W, class K, class R, class S, class L, class N>
struct Geometry;

template <int W, int K, int R, int S, int L, int N>
struct Geometry<Waves<W>, KWaves<K>, Rows<R>, Steps<S>, Tile<L>, Tokens<N>> {
  static_assert(W % K == 0, "KWaves divides Waves");
  static constexpr int waves = W, k_waves = K, rows = R, steps = S, tile = L, tokens = N;
  static constexpr int row_waves = W / K;
  static constexpr int local_rows = R * row_waves * S;  // rows of the workgroup, of all matrices
};

// ---- deferred norm --------------------------------------------------------------------------------------------------

struct NoNorm {
  template <int Threads>
  HIPC_MEMBER f32 fetch(u32) const { return 0; }
  template <class Gpu, int Threads>
  HIPC_MEMBER void share(f32, f32*) const {}
  template <class Gpu, int Threads>
  HIPC_MEMBER f32 factor(const f32*) const { return 1; }
};

// 1 / √(Σ x² / Size + eps), Σ x² in Parts partial sums. They are fetched before the products and added after them, so that
// nobody waits for them.
template <int Size, int Parts>
struct Norm {
  const f32* ssq;
  f32 eps;

  template <int Threads>
  HIPC_MEMBER f32 fetch(u32 token) const {
    const f32* parts = ssq + token * Parts;
    f32 sum = thread_id() < Parts ? parts[thread_id()] : 0;
    for (u32 i = Threads + thread_id(); i < Parts; i += Threads) sum += parts[i];
    return sum;
  }
  template <class Gpu, int Threads>
  HIPC_MEMBER void share(f32 sum, f32* of_waves) const {
    const u32 wave = uniform(thread_id() / Gpu::wave);
    if (wave * Gpu::wave >= Parts) return;
    sum = reduce<Add, Gpu::wave, Gpu::wave>(sum);
    if (thread_id() % Gpu::wave == 0) of_waves[wave] = sum;
  }
  template <class Gpu, int Threads>
  HIPC_MEMBER f32 factor(const f32* of_waves) const {
    f32 sum = of_waves[0];
    for (int wave = 1; wave < Threads / Gpu::wave && wave * Gpu::wave < Parts; ++wave) sum += of_waves[wave];
    return 1.0f / root(sum / Size + eps);
  }
};

// ---- products -------------------------------------------------------------------------------------------------------

// Consecutive rows of one matrix, from `row` on; rows that don't exist are read as the last.
struct Span {
  const u8* data;
  u32 row, rows;
  u32 matrix;  // which of the tail's

  template <class T, int K>
  HIPC_MEMBER const u8* at(u32 r) const {
    const u32 clamped = row + r < rows ? row + r : rows - 1;
    return data + u64(clamped) * row_bytes<T, K>;
  }
};

// Types of a tail's matrices. each(f) calls f once per distinct type, with the set of matrices that have it.
template <class... Ts>
struct Types {
  template <class T>
  static constexpr u32 set() {
    u32 matrices = 0, i = 0;
    ((matrices |= (__is_same(T, Ts) ? 1u : 0u) << i++), ...);
    return matrices;
  }
  static constexpr int count_distinct() {
    int count = 0;
    u32 seen = 0, i = 0;
    ((count += seen & set<Ts>() ? 0 : 1, seen |= 1u << i++), ...);
    return count;
  }
  static constexpr int distinct = count_distinct();
  template <int K>
  static constexpr int bytes_of_a_row = largest(int(row_bytes<Ts, K>)...);

  template <class F>
  HIPC_MEMBER static void each(F f) {
    each_but<0, F, Ts...>(f);
  }

 private:
  template <u32 Done, class F>
  HIPC_MEMBER static void each_but(F&) {}
  template <u32 Done, class F, class T, class... Rest>
  HIPC_MEMBER static void each_but(F& f) {
    if constexpr ((Done & set<T>()) == 0) f(T{}, set<T>());
    each_but<Done | set<T>(), F, Rest...>(f);
  }
};

// The products of this wave's rows with its part of K, for the steps from … to − 1, all of weight type T, into `sums`.
//
// A wave goes through its steps and, within a step, through the chunks of its rows: K / (stride of a chunk) turns of one
// 16-byte piece per row and lane. With one token the next turn's weights are in flight while this turn's are multiplied, if
// there are registers for them; activations that all steps share are read once; and the rows' sums over the lanes are made
// together, so that a lane ends with one of them: it keeps that of the step that has its number and writes it at the end, so
// that no branch holds a load back. With several tokens the registers serve their products, and activations are read every turn.
//
// `prepare` is called when the first loads are on their way: what it reads, the weights don't wait for. If it finds the
// workgroup without work, the rest is left out.
template <class Gpu, class G, class T, class In, class Tail, class Prepare>
HIPC_DEVICE void multiply(const In& in, const Chunk& chunk, const Tail& tail, u32 row_wave, u32 k_wave, u32 from, u32 to,
                          f32 (&sums)[G::k_waves][G::tokens][G::local_rows], Prepare prepare) {
  static_assert(__is_same(typename T::Form, typename In::Form), "quantised weights meet int8 activations, float weights f32");
  static_assert(In::size % T::len == 0 && In::size % T::piece == 0, "a row is whole blocks and whole pieces");
  static_assert(G::rows * G::steps <= Gpu::wave, "a lane keeps one sum");
  constexpr u32 pieces = In::size / T::piece, stride = Gpu::wave * G::k_waves, chunks = (pieces + stride - 1) / stride;
  constexpr bool ahead = G::tokens == 1 && registers_for<Gpu, G::waves> >= 64 + 16 * G::rows;
  constexpr bool held = ahead && chunks == 1;  // every step meets the same activations
  using Piece = typename T::Piece;
  using Met = typename T::Met;
  const u32 lane = thread_id() % Gpu::wave;

  const auto piece = [&](u32 turn) __attribute__((always_inline)) {
    return turn % chunks * stride + k_wave * Gpu::wave + lane;
  };
  const auto first_row = [&](u32 step) __attribute__((always_inline)) { return (step * G::row_waves + row_wave) * G::rows; };
  const auto fetch = [&](u32 turn, Piece (&w)[G::rows]) __attribute__((always_inline)) {
    const Span span = tail.template span<G>(group_x(), first_row(turn / chunks));
    const u32 p = piece(turn) < pieces ? piece(turn) : pieces - 1;
#pragma unroll
    for (int r = 0; r < G::rows; ++r) w[r] = T::template fetch<In::size>(span.template at<T, In::size>(r), p);
  };
  // Activations of a turn; of one token there are as many rows as workgroups, whether the step has that token or not.
  const auto activations = [&](u32 turn, u32 slot) __attribute__((always_inline)) {
    const u32 clamped = pieces % stride == 0 || piece(turn) < pieces ? piece(turn) : pieces - 1;
    if constexpr (G::tokens == 1) return T::template meet<Gpu>(in.token(group_y()), clamped);
    else return T::template meet<Gpu>(in.token(chunk.token(slot)), opaque(clamped));
  };

  f32 acc[G::rows][G::tokens] = {}, kept = 0;
  Piece w[G::rows];
  Met shared;
  const auto take = [&](u32 turn, auto fetch_next) __attribute__((always_inline)) {
    const bool exists = pieces % stride == 0 || piece(turn) < pieces;
    Piece next[G::rows];
    if constexpr (!ahead) fetch(turn, w);
#pragma unroll
    for (int slot = 0; slot < G::tokens; ++slot) {
      const Met x = held ? shared : activations(turn, slot);
      if constexpr (ahead && fetch_next.value) fetch(turn + 1, next);
#pragma unroll
      for (int r = 0; r < G::rows; ++r) {
        const f32 product = T::template dot<Gpu>(w[r], x);
        acc[r][slot] += exists ? product : 0;
      }
    }
    if constexpr (ahead && fetch_next.value) {
#pragma unroll
      for (int r = 0; r < G::rows; ++r) w[r] = next[r];
    }
    if (turn % chunks != chunks - 1) return;
#pragma unroll
    for (int slot = 0; slot < G::tokens; ++slot) {
      f32 of_slot[G::rows];
#pragma unroll
      for (int r = 0; r < G::rows; ++r) {
        of_slot[r] = acc[r][slot];
        acc[r][slot] = 0;
      }
      const f32 sum = reduce_rows<Gpu::wave, G::rows>(of_slot);
      constexpr u32 lanes = Gpu::wave / G::rows;  // with the same row
      if constexpr (ahead) kept = lane % lanes == turn / chunks ? sum : kept;
      else if (lane % lanes == 0) sums[k_wave][slot][first_row(turn / chunks) + lane / lanes] = sum;
    }
  };
  u32 turn = from * chunks;
  const u32 end = to * chunks;
  if (turn == end) return;
  if constexpr (ahead) fetch(turn, w);
  follow();  // weights are of no launch
  if constexpr (held) shared = activations(turn, 0);
  if (!prepare()) return;
  if constexpr (ahead) {
#pragma unroll 1
    for (; turn + 1 < end; ++turn) take(turn, True{});
    take(turn, False{});
  } else {
#pragma unroll 1
    for (; turn < end; ++turn) take(turn, False{});
  }

  if constexpr (ahead) {
    constexpr u32 lanes = Gpu::wave / G::rows;
    const u32 step = lane % lanes;
    if (step >= from && step < to) sums[k_wave][0][first_row(step) + lane / lanes] = kept;
  }
}

// Sums of products as one thread per output finds them after the barrier.
template <class Gpu, class G, class NormKind>
struct Products {
  const f32 (&sums)[G::k_waves][G::tokens][G::local_rows];
  const f32 (&squares)[G::tokens][G::waves];
  NormKind norm;

  HIPC_MEMBER f32 operator()(u32 local, u32 slot) const {
    f32 sum = sums[0][slot][local];
    for (int k = 1; k < G::k_waves; ++k) sum += sums[k][slot][local];
    return sum * norm.template factor<Gpu, G::waves * Gpu::wave>(squares[slot]);
  }
};

// Whether the next launch begins while this one ends. A launch that reads very much has little to gain and the next one something to
// lose: behind 119 MiB of Q8_0 a product of 60 MiB took 1.8 µs longer on an H200; behind 63 MiB of Q4_K it took 0.9 µs less.
template <class In, class Tail>
constexpr bool lets_next_begin = u64(Tail::all_rows) * Tail::Matrices::template bytes_of_a_row<In::size> < 96u << 20;

template <class Gpu, class G, class In, class NormKind, class Tail>
HIPC_DEVICE void gemv(const State* state, In in, NormKind norm, Tail tail) {
  static_assert(G::local_rows == Tail::template local_rows<G>, "Rows · Waves/KWaves · Steps fill the tile");
  HIPC_SHARED f32 sums[G::k_waves][G::tokens][G::local_rows];
  HIPC_SHARED f32 squares[G::tokens][G::waves];
  constexpr int threads = G::waves * Gpu::wave;

  // What the end needs beside the products. One token's weights don't depend on it, so they are asked for before.
  Chunk chunk;
  f32 ssq[G::tokens];
  typename Tail::template Ahead<Gpu, G> ahead;
  const auto prepare = [&]() __attribute__((always_inline)) {
    chunk = Chunk::of<G::tokens>(state, tail.from(state));
    if (chunk.template empty<G::tokens>()) return false;
#pragma unroll
    for (int slot = 0; slot < G::tokens; ++slot) ssq[slot] = norm.template fetch<threads>(chunk.token(slot));
    ahead.fetch(tail, chunk, group_x());
    return true;
  };
  constexpr bool early = G::tokens > 1;
  if constexpr (early) follow();
  if (early && !prepare()) return;
  bool prepared = early;

  const u32 wave = uniform(thread_id() / Gpu::wave), row_wave = wave / G::k_waves, k_wave = wave % G::k_waves;
  // Turns per weight type, so that each has only its own registers. Steps of one type follow each other.
  Tail::Matrices::each([&](auto type, u32 matrices) __attribute__((always_inline)) {
    const auto has = [&](u32 step) __attribute__((always_inline)) {
      return matrices >> tail.template span<G>(group_x(), (step * G::row_waves + row_wave) * G::rows).matrix & 1;
    };
    u32 from = 0, to = G::steps;
    if constexpr (Tail::Matrices::distinct > 1) {
      while (from < G::steps && !has(from)) ++from;
      for (to = from; to < G::steps && has(to);) ++to;
    }
    multiply<Gpu, G, decltype(type)>(in, chunk, tail, row_wave, k_wave, from, to, sums,
                                     [&]() __attribute__((always_inline)) {
                                       if (prepared) return true;
                                       prepared = true;
                                       return prepare();
                                     });
  });
  if (!early && chunk.template empty<G::tokens>()) return;
  if constexpr (lets_next_begin<In, Tail>) let_next_begin();
  for (int slot = 0; slot < G::tokens; ++slot) norm.template share<Gpu, threads>(ssq[slot], squares[slot]);
  barrier();
  tail.template finish<Gpu, G>(chunk, group_x(), Products<Gpu, G, NormKind>{sums, squares, norm}, ahead);
}

// ---- one result -----------------------------------------------------------------------------------------------------

// y = p
template <class M>
struct One {
  static constexpr int rows = M::rows, matrices = 1;
  using Matrices = Types<typename M::Type>;
  M matrix;

  template <class G>
  HIPC_MEMBER Span span(u32 tile, u32 local) const { return {matrix.data(), tile * G::tile + local, rows, 0}; }
  template <class P>
  HIPC_MEMBER f32 value(const P& product, u32 j, u32, u32 row, u32 slot) const { return matrix.biased(product(j, slot), row); }
};

template <class M>
HIPC_GUIDE One(M) -> One<M>;

// y = act(p)
template <class Act, class M>
struct Activated {
  static constexpr int rows = M::rows, matrices = 1;
  using Matrices = Types<typename M::Type>;
  Act act;
  M matrix;

  template <class G>
  HIPC_MEMBER Span span(u32 tile, u32 local) const { return {matrix.data(), tile * G::tile + local, rows, 0}; }
  template <class P>
  HIPC_MEMBER f32 value(const P& product, u32 j, u32, u32 row, u32 slot) const {
    return act.of(matrix.biased(product(j, slot), row));
  }
};
template <class A, class M>
HIPC_GUIDE Activated(A, M) -> Activated<A, M>;

// y = act(p0) ⊙ p1. A tile holds the rows of both, so that one workgroup has both factors.
template <class Act, class M0, class M1>
struct Gated {
  static constexpr int rows = M0::rows, matrices = 2;
  static_assert(M0::rows == M1::rows, "the factors are of one length");
  using Matrices = Types<typename M0::Type, typename M1::Type>;
  Act act;
  M0 gate;
  M1 up;

  template <class G>
  HIPC_MEMBER Span span(u32 tile, u32 local) const {
    static_assert(G::tile % G::rows == 0, "the rows that a wave takes at a time are of one matrix");
    if (local < G::tile) return {gate.data(), tile * G::tile + local, rows, 0};
    return {up.data(), tile * G::tile + local - G::tile, rows, 1};
  }
  template <class P>
  HIPC_MEMBER f32 value(const P& product, u32 j, u32 tile_size, u32 row, u32 slot) const {
    return act.of(gate.biased(product(j, slot), row)) * up.biased(product(tile_size + j, slot), row);
  }
};

template <class A, class M0, class M1>
HIPC_GUIDE Gated(A, M0, M1) -> Gated<A, M0, M1>;

template <class Combination, class Added, class Out>
struct Vector {
  using Matrices = typename Combination::Matrices;
  Combination combination;
  Added residual;
  Out out;

  static constexpr int all_rows = Combination::matrices * Combination::rows;
  template <class G>
  static constexpr int local_rows = Combination::matrices * G::tile;
  HIPC_MEMBER u32 from(const State*) const { return 0; }
  template <class G>
  HIPC_MEMBER Span span(u32 tile, u32 local) const { return combination.template span<G>(tile, local); }

  // With a thread per output: its residual and its gain.
  template <class Gpu, class G>
  struct Ahead {
    static constexpr bool holds = G::tokens == 1 && round_up(G::tile, 32) <= G::waves * Gpu::wave;
    f32 residual, gain;
    HIPC_MEMBER void fetch(const Vector& tail, const Chunk& chunk, u32 tile) {
      const u32 row = tile * G::tile + thread_id();
      if (!holds || thread_id() >= G::tile || row >= Combination::rows) return;
      residual = tail.residual.at(chunk.first * Combination::rows + row);
      if constexpr (Out::template has<Gain>) gain = tail.out.gain[row];
    }
  };

  template <class Gpu, class G, class P>
  HIPC_MEMBER void finish(const Chunk& chunk, u32 tile, const P& product, const Ahead<Gpu, G>& ahead) const {
    constexpr int n = Combination::rows;
    const u32 start = tile * G::tile;
    hipc::finish<Gpu, G::waves * Gpu::wave, G::tile, n, G::tokens>(
        out, chunk, start, tile, divide_up(n, G::tile),
        [&](u32 j, u32 slot) __attribute__((always_inline)) {
          const u32 row = start + j;
          const f32 added = ahead.holds ? ahead.residual : residual.at((chunk.first + slot) * n + row);
          return combination.value(product, j, G::tile, row, slot) + added;
        },
        [&](u32 i) __attribute__((always_inline)) {
          if constexpr (Ahead<Gpu, G>::holds) return ahead.gain;
          else return gain_of(out, i);
        });
  }
};
template <class C, class A, class O>
HIPC_GUIDE Vector(C, A, O) -> Vector<C, A, O>;

// ---- a result per matrix --------------------------------------------------------------------------------------------

// One matrix, where its rows go, and how they are rotated before.
template <class M, class Destination, class Rope>
struct To {
  using Type = typename M::Type;
  static constexpr int rows = M::rows;
  M matrix;
  Destination destination;
  Rope rope;

  // With pairs (i, i + dims/2) a tile smaller than a head takes half of its rows from each half of the rotated part.
  template <class G>
  static constexpr bool folded = __is_same(Rope, Rotate<Halves, Rope::dims, Rope::head_dim>) && G::tile < Rope::head_dim;

  template <class G>
  static constexpr bool fits() {
    if (Rope::dims == 0) return true;
    if (folded<G>) {
      return Rope::head_dim % G::tile == 0 && Rope::dims % G::tile == 0 && G::tile / 2 % G::rows == 0;
    }
    return G::tile % 2 == 0 && (__is_same(Rope, Rotate<Adjacent, Rope::dims, Rope::head_dim>) || G::tile % Rope::head_dim == 0);
  }

  // Row of the matrix that is row j of a tile.
  template <class G>
  HIPC_MEMBER static u32 row(u32 tile, u32 j) {
    if constexpr (folded<G>) {
      const u32 in_head = tile * G::tile % Rope::head_dim, head = tile * G::tile - in_head;
      if (in_head < Rope::dims) return head + in_head / 2 + j + (j < G::tile / 2 ? 0 : (Rope::dims - G::tile) / 2);
    }
    return tile * G::tile + j;
  }

  // Angle of row j of a tile, as cosine and sine.
  template <class G>
  HIPC_MEMBER f32x2 turn(u32 tile, u32 j, u32 position) const {
    return turn_of(rope, position, row<G>(tile, j) % Rope::head_dim);
  }

  template <class G, class P>
  HIPC_MEMBER f32 value(const P& product, u32 tile, u32 j, f32x2 turn, u32 slot) const {
    const u32 i = row<G>(tile, j), d = i % Rope::head_dim;
    return rotated_by(rope, turn, d, [&](u32 e) __attribute__((always_inline)) {
      u32 local = j + e - d;
      if constexpr (folded<G>) local = e == d ? j : (j + G::tile / 2) % G::tile;
      return matrix.biased(product(local, slot), i + e - d);
    });
  }
};
template <class M, class D, class R>
HIPC_GUIDE To(M, D, R) -> To<M, D, R>;

// Tiles are numbered through the matrices.
template <class... Tos>
struct Separate;

template <>
struct Separate<> {
  static constexpr int all_rows = 0;
  template <class G>
  static constexpr bool fits = true;
};

template <class First, class... Rest>
struct Separate<First, Rest...> {
  using Matrices = Types<typename First::Type, typename Rest::Type...>;
  First first;
  Separate<Rest...> rest;
  static constexpr int all_rows = First::rows + Separate<Rest...>::all_rows;

  template <class G>
  static constexpr int tiles = divide_up(First::rows, G::tile);
  template <class G>
  static constexpr bool fits = First::template fits<G>() && Separate<Rest...>::template fits<G>;
  template <class G>
  static constexpr int local_rows = G::tile;
  HIPC_MEMBER u32 from(const State*) const { return 0; }

  template <class G>
  HIPC_MEMBER Span span(u32 tile, u32 local, u32 matrix = 0) const {
    static_assert(fits<G>, "pairs that turn together are in one tile");
    if constexpr (sizeof...(Rest) > 0) {
      if (tile >= tiles<G>) return rest.template span<G>(tile - tiles<G>, local, matrix + 1);
    }
    return {first.matrix.data(), First::template row<G>(tile, local), First::rows, matrix};
  }

  template <class G>
  HIPC_MEMBER f32x2 turn(u32 tile, u32 j, u32 position) const {
    if constexpr (sizeof...(Rest) > 0) {
      if (tile >= tiles<G>) return rest.template turn<G>(tile - tiles<G>, j, position);
    }
    return first.template turn<G>(tile, j, position);
  }

  // With a thread per output: its angle.
  template <class Gpu, class G>
  struct Ahead {
    static constexpr bool holds = G::tokens == 1 && G::tile <= G::waves * Gpu::wave;
    f32x2 turn;
    HIPC_MEMBER void fetch(const Separate& tail, const Chunk& chunk, u32 tile) {
      if (holds && thread_id() < G::tile) turn = tail.template turn<G>(tile, thread_id(), chunk.position(0));
    }
  };

  template <class Gpu, class G, class P, class A>
  HIPC_MEMBER void finish(const Chunk& chunk, u32 tile, const P& product, const A& ahead) const {
    if constexpr (sizeof...(Rest) > 0) {
      if (tile >= tiles<G>) return rest.template finish<Gpu, G>(chunk, tile - tiles<G>, product, ahead);
    }
    for (u32 e = thread_id(); e < G::tokens * G::tile; e += G::waves * Gpu::wave) {
      const u32 slot = e / G::tile, j = e % G::tile, row = First::template row<G>(tile, j);
      if (row >= First::rows || !chunk.has(slot)) continue;
      const u32 position = chunk.position(slot);
      const f32x2 turn = A::holds ? ahead.turn : first.template turn<G>(tile, j, position);
      const f32 y = first.template value<G>(product, tile, j, turn, slot);
      first.destination.put(chunk.first + slot, position, row, First::rows, y);
    }
  }
};
template <class... Tos>
HIPC_GUIDE Separate(Tos...) -> Separate<Tos...>;

// ---- logits ---------------------------------------------------------------------------------------------------------

// Logits, and the best of each workgroup's; only for tokens whose logits are wanted.
template <class M>
struct Head {
  using Matrices = Types<typename M::Type>;
  M matrix;
  f32* logits;
  Best* partials;

  static constexpr int all_rows = M::rows;
  template <class G>
  static constexpr int local_rows = G::tile;
  HIPC_MEMBER u32 from(const State* state) const { return state->head_from; }
  template <class G>
  HIPC_MEMBER Span span(u32 tile, u32 local) const { return {matrix.data(), tile * G::tile + local, M::rows, 0}; }
  template <class Gpu, class G>
  struct Ahead {
    HIPC_MEMBER void fetch(const Head&, const Chunk&, u32) {}
  };

  template <class Gpu, class G, class P>
  HIPC_MEMBER void finish(const Chunk& chunk, u32 tile, const P& product, const Ahead<Gpu, G>&) const {
    constexpr int span = round_up(G::tile, 32), groups = span / 32, threads = G::waves * Gpu::wave;
    constexpr u32 parts = divide_up(M::rows, G::tile);
    HIPC_SHARED Best best[G::tokens][groups];
    for (u32 at = 0; at < G::tokens * span; at += threads) {
      const u32 e = at + thread_id(), slot = e / span, j = e % span, row = tile * G::tile + j;
      Best mine = Best::none();
      if (slot < G::tokens && j < G::tile && row < M::rows && chunk.has(slot)) {
        mine = {matrix.biased(product(j, slot), row), i32(row)};
        logits[(chunk.first + slot) * u64(M::rows) + row] = mine.value;
      }
      mine = reduce<Best, Gpu::wave, 32>(mine);
      if (j % 32 == 0 && slot < G::tokens) best[slot][j / 32] = mine;
    }
    barrier();
    for (u32 slot = thread_id(); slot < G::tokens; slot += threads) {
      Best of_tile = best[slot][0];
      for (int g = 1; g < groups; ++g) of_tile = Best::join(of_tile, best[slot][g]);
      if (chunk.has(slot)) partials[(chunk.first + slot) * parts + tile] = of_tile;
    }
  }
};

template <class M>
HIPC_GUIDE Head(M, f32*, Best*) -> Head<M>;

}  // namespace hipc
