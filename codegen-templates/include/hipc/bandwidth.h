// Reads a span of memory once and does nothing else: how fast that goes on a card is what every other kernel is compared with.
#pragma once
#include "platform.h"

namespace hipc {

struct ReadSpan {
  u64 tiles;   // of `ReadTile` bytes each
  u32 groups;  // workgroups of the launch
  u32 reserved;
};

constexpr u32 ReadThreads = 256;
constexpr u32 ReadLoads = 8;  // 16-byte loads that a lane has in flight
constexpr u32 ReadTile = 16 * ReadThreads * ReadLoads;

// Workgroup g reads tiles g, g + groups, …; each lane leaves the exclusive or of all words it has read, so that none is skipped.
HIPC_DEVICE void read_span(const u32x4* from, const ReadSpan* span, u32* seen) {
  follow();
  u64 tiles = span->tiles;
  u32 groups = span->groups, lane = thread_id(), all = 0;
  for (u64 tile = group_x(); tile < tiles; tile += groups) {
    const u32x4* at = from + tile * (ReadThreads * ReadLoads) + lane;
    u32x4 v[ReadLoads];
#pragma clang loop unroll(full)
    for (u32 i = 0; i < ReadLoads; ++i) v[i] = load_once<u32x4>(at + i * ReadThreads);
#pragma clang loop unroll(full)
    for (u32 i = 0; i < ReadLoads; ++i) all ^= v[i].x ^ v[i].y ^ v[i].z ^ v[i].w;
  }
  seen[group_x() * ReadThreads + lane] = all;
}

}  // namespace hipc
