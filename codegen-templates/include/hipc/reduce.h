// What is reduced, and how a workgroup does it, in a fixed order: the same bits on every run. Waves reduce by platform.h.
#pragma once
#include "target.h"

namespace hipc {

struct Add {
  template <class T>
  HIPC_MEMBER static T join(T a, T b) { return a + b; }
};

struct Max {
  HIPC_MEMBER static f32 join(f32 a, f32 b) { return __builtin_fmaxf(a, b); }
};

// A value and where it was found; of equal values, the one with the lowest index. Also the layout of arg-max partials.
struct Best {
  f32 value;
  i32 index;

  HIPC_MEMBER static Best none() { return {-__builtin_huge_valf(), 0x7FFFFFFF}; }
  HIPC_MEMBER static Best join(Best a, Best b) {
    return b.value > a.value || (b.value == a.value && b.index < a.index) ? b : a;
  }
};

// Sums of Rows values (a power of two) over the lanes of a wave: lane l has that of value l / (Wave / Rows). Half of the lanes
// give up half of the values at each step, so that Rows values cost little more than one. Converged.
template <int Wave, int Rows, int Lanes = Wave>
HIPC_DEVICE f32 reduce_rows(const f32 (&values)[Rows]) {
  if constexpr (Rows == 1) {
    return reduce<Add, Wave, Lanes>(values[0]);
  } else {
    const bool upper = thread_id() % Lanes >= Lanes / 2;
    f32 half[Rows / 2];
#pragma unroll
    for (int r = 0; r < Rows / 2; ++r) {
      const f32 mine = upper ? values[Rows / 2 + r] : values[r], other = upper ? values[r] : values[Rows / 2 + r];
      half[r] = mine + bits<f32>(partner<Wave, Lanes / 2>(bits<u32>(other)));
    }
    return reduce_rows<Wave, Rows / 2, Lanes / 2>(half);
  }
}

// Over a workgroup: every thread gets the same bits. `shared` has a place per wave and is free again after the next barrier.
template <class Op, class Gpu, int Threads, class T>
HIPC_DEVICE T reduce_workgroup(T v, T* shared) {
  v = reduce<Op, Gpu::wave, Gpu::wave>(v);
  if (thread_id() % Gpu::wave == 0) shared[thread_id() / Gpu::wave] = v;
  barrier();
  v = shared[0];
  for (int wave = 1; wave < Threads / Gpu::wave; ++wave) v = Op::join(v, shared[wave]);
  return v;
}

}  // namespace hipc
