// Non-linearities, by powers of two: no target has tanh.
#pragma once
#include "target.h"

namespace hipc {

// x / (1 + e^−x)
struct Silu {
  HIPC_MEMBER static f32 of(f32 x) { return x / (1.0f + pow2(-1.44269504f * x)); }
};

// x/2 · (1 + tanh u) with u = √(2/π)·(x + 0.044715·x³), which is x / (1 + e^−2u).
struct Gelu {
  HIPC_MEMBER static f32 of(f32 x) {
    const f32 u = 0.797884561f * (x + 0.044715f * x * x * x);
    return x / (1.0f + pow2(-2.88539008f * u));
  }
};

}  // namespace hipc
