// What the kernels take from a row of the compiler's target table, and how their work is spread.
#pragma once
#include "platform.h"

namespace hipc {

// Wave:      lanes of a wave, 32 or 64.
// D:         how four signed bytes are multiplied.
// Registers: vector registers each lane can have when a workgroup of 1024 threads is to run.
template <int Wave, Dot D, int Registers>
struct Target {
  static constexpr int wave = Wave;
  static constexpr Dot dot = D;
  static constexpr int registers = Registers;
};

// Vector registers of a lane in a workgroup of so many waves.
template <class Gpu, int WaveCount>
constexpr int registers_for = Gpu::registers * 1024 / (WaveCount * Gpu::wave) > 256 ? 256
                                                                                    : Gpu::registers * 1024 / (WaveCount * Gpu::wave);

// Names for numbers, so that an instantiation reads as its geometry: Geometry<Waves<8>, KWaves<4>, Rows<2>, Steps<1>, …>.
template <int N> struct Waves { static constexpr int value = N; };
template <int N> struct KWaves { static constexpr int value = N; };
template <int N> struct Rows { static constexpr int value = N; };
template <int N> struct Steps { static constexpr int value = N; };
template <int N> struct Tile { static constexpr int value = N; };
template <int N> struct Tokens { static constexpr int value = N; };
template <int N> struct Splits { static constexpr int value = N; };

// A condition as a type, for lambdas.
struct True { static constexpr bool value = true; };
struct False { static constexpr bool value = false; };

constexpr int divide_up(int n, int by) { return (n + by - 1) / by; }
constexpr int round_up(int n, int to) { return divide_up(n, to) * to; }
constexpr int largest(int a) { return a; }
template <class... More>
constexpr int largest(int a, More... more) { return a > largest(more...) ? a : largest(more...); }
constexpr int next_power_of_two(int n) { return n <= 1 ? 1 : 2 * next_power_of_two((n + 1) / 2); }

// First argument of every kernel; the only values, with the token list, that change between steps.
struct State {
  i32 pos;        // position of the chunk's first token
  i32 n;          // tokens in the chunk
  i32 head_from;  // first token whose logits are wanted
  i32 generation; // a number of the host's
};

// Tokens a workgroup works on: slots 0 … Tokens−1 are the chunk's tokens first … ; those that don't exist are computed
// on the last one's data and not stored.
struct Chunk {
  u32 first, from, n, pos;

  template <int Tokens>
  HIPC_MEMBER static Chunk of(const State* state, u32 from = 0) {
    return {group_y() * Tokens, from, static_cast<u32>(state->n), static_cast<u32>(state->pos)};
  }
  template <int Tokens>
  HIPC_MEMBER bool empty() const { return first >= n || first + Tokens <= from; }
  HIPC_MEMBER bool has(u32 slot) const { return first + slot < n && first + slot >= from; }
  HIPC_MEMBER u32 token(u32 slot) const { return first + slot < n ? first + slot : n - 1; }
  HIPC_MEMBER u32 position(u32 slot) const { return pos + token(slot); }
};

}  // namespace hipc
