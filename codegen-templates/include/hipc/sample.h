// A draw from the likeliest tokens, by one workgroup: repeat penalty, top-k, top-p, min-p, temperature, draw, as the reference's
// `sampling` has them: the same operations on f64 in the same order, none of them fused, so that both choose the same token from
// the same logits.
//
// The likeliest are found by the partials of the head launch: one largest logit per tile. At least k tokens without a penalty are
// as good as the k-th largest of those partials that have none. So a radix selection finds about that (a little less is as
// good: it saves passes), and only tiles whose partial reaches it can hold one of the k likeliest. What reaches it in them is
// ranked by counting. Where so many are equal that LDS can't hold them, the k are found one after the other.
#pragma once
#include "reduce.h"

namespace hipc {

// How the next token is chosen; all zero is the arg-max.
struct Sampling {
  f32 temperature;
  u32 top_k;
  f32 top_p;
  f32 min_p;
  f32 repeat_penalty;
  u32 repeat_last_n;

  HIPC_MEMBER bool draws() const { return temperature > 0; }
  HIPC_MEMBER bool penalises() const { return repeat_penalty != 0 && repeat_penalty != 1; }
  // Whether it is more than the arg-max, and not for the host to do.
  HIPC_MEMBER bool wanted(u32 most) const { return draws() ? top_k - 1 < most : penalises(); }
};

// The larger value first, the lower index among equals.
HIPC_DEVICE bool precedes(Best a, Best b) { return a.value > b.value || (a.value == b.value && a.index < b.index); }

// A number that is ordered as the value is; 0 for what is no candidate: -∞ and NaN.
HIPC_DEVICE u32 rank_of(f32 value) {
  const u32 word = bits<u32>(value + 0.0f);  // no -0
  if (!(value > -__builtin_huge_valf())) return 0;
  return word & 0x80000000 ? ~word : word | 0x80000000;
}

// e^x for x ≤ 0: 2^k · e^r, e^r by its series.
HIPC_DEVICE f64 exponential(f64 x) {
  if (!(x >= -708.0)) return 0;
  const i32 k = i32(times(x, 1.4426950408889634) - 0.5);
  const f64 r = (x - times(k, 0.6931471803691238)) - times(k, 1.9082149292705877e-10);
  f64 series = 1.0 / 87178291200.0;
  constexpr f64 c[] = {1.0,           1.0,            1.0 / 2.0,       1.0 / 6.0,        1.0 / 24.0,
                       1.0 / 120.0,   1.0 / 720.0,    1.0 / 5040.0,    1.0 / 40320.0,    1.0 / 362880.0,
                       1.0 / 3628800.0, 1.0 / 39916800.0, 1.0 / 479001600.0, 1.0 / 6227020800.0};
#pragma unroll
  for (int i = 13; i >= 0; --i) series = times(series, r) + c[i];
  return times(series, bits<f64>(u64(1023 + k) << 52));
}

// Tokens under a penalty: those of a window of the token list.
struct Penalty {
  static constexpr u32 Filter = 4096;

  f32 by;
  const i32* window;
  u32 count;  // 0 without a penalty
  // Not zero for every id of the window, by its low bits.
  const u8* filter;

  HIPC_MEMBER bool has(u32 id) const {
    if (count == 0 || filter[id % Filter] == 0) return false;
    for (u32 i = 0; i < count; ++i) {
      if (u32(window[i]) == id) return true;
    }
    return false;
  }
  HIPC_MEMBER f32 on(f32 logit) const {
    return logit > 0 ? __builtin_fminf(logit / by, 3.40282347e38f) : logit * by;
  }
};

// LDS of a draw.
struct DrawMemory {
  static constexpr u32 Candidates = 4096, Tiles = 1024, Most = 128;

  Best candidates[Candidates];
  u32 tiles[Tiles];
  u32 histogram[256];
  u32 filter[Penalty::Filter / 4];
  Best sorted[Most];
  f64 weight[Most], scaled[Most];
  u32 digit, above, inside;  // what the search of a histogram found
  u32 tile_count, count;
  u32 kept;
  f64 sum;
  i32 chosen;
};

template <class Gpu, int WaveCount, int TileRows, int Vocab, class From>
struct Draw {
  static constexpr u32 threads = WaveCount * Gpu::wave;
  static constexpr u32 most = DrawMemory::Candidates / TileRows < DrawMemory::Most ? DrawMemory::Candidates / TileRows
                                                                                   : DrawMemory::Most;
  // Tiles more than k that are as good as fewer.
  static constexpr u32 spare = 64;

  const From& from;
  const f32* logits;  // of this token
  u32 token;
  Sampling how;
  Penalty penalty;
  DrawMemory& lds;
  Best* shared;  // a place per wave

  // One lane's bins of the histogram, and wave 0's search for the bin that holds the wanted-th largest. Leaves 256 if there are
  // fewer in all.
  HIPC_MEMBER void search(u32 wanted) const {
    constexpr u32 each = 256 / Gpu::wave;
    const u32 lane = thread_id();
    if (lane >= Gpu::wave) return;
    u32 own = 0;
    for (u32 i = 0; i < each; ++i) own += lds.histogram[lane * each + i];
    u32 upto = own;  // of this lane's bins and those above
    for (u32 step = 1; step < Gpu::wave; step *= 2) {
      const u32 other = shuffle<Gpu::wave>(upto, (lane + step) % Gpu::wave);
      if (lane + step < Gpu::wave) upto += other;
    }
    u32 above = upto - own;
    if (above < wanted && upto >= wanted) {
      u32 bin = (lane + 1) * each - 1;
      for (; above + lds.histogram[bin] < wanted; --bin) above += lds.histogram[bin];
      lds.digit = bin, lds.above = above, lds.inside = lds.histogram[bin];
    }
    if (lane == 0 && upto < wanted) lds.digit = 256;
  }

  // A rank that at least k tokens without a penalty reach; 1, which every candidate reaches, if no such thing is known.
  HIPC_MEMBER u32 bound(u32 k) const {
    u32 prefix = 0, wanted = k;
    for (u32 shift = 24;; shift -= 8) {
      for (u32 i = thread_id(); i < 256; i += threads) lds.histogram[i] = 0;
      barrier();
      for (u32 i = thread_id(); i < From::count; i += threads) {
        const Best best = from.at(token, i);
        const u32 rank = rank_of(best.value);
        const bool here = shift == 24 || rank >> (shift + 8) == prefix;
        if (rank != 0 && here && !penalty.has(best.index)) shared_add(&lds.histogram[rank >> shift & 255], 1);
      }
      barrier();
      search(wanted);
      barrier();
      const u32 digit = lds.digit;
      if (digit == 256) return 1;
      prefix = prefix << 8 | digit;
      wanted -= lds.above;
      if (shift == 0 || lds.inside - wanted <= spare) return prefix << shift;
    }
  }

  HIPC_MEMBER void append(Best candidate) const {
    const u32 at = shared_add(&lds.count, 1);
    if (at < DrawMemory::Candidates) lds.candidates[at] = candidate;
  }

  // A token's logit behind the penalty.
  HIPC_MEMBER Best behind(u32 id) const {
    const f32 logit = logits[id];
    return {penalty.has(id) ? penalty.on(logit) : logit, i32(id)};
  }

  // Whether the window has this place's token nowhere before.
  HIPC_MEMBER bool is_first(u32 place) const {
    for (u32 i = 0; i < place; ++i) {
      if (penalty.window[i] == penalty.window[place]) return false;
    }
    return true;
  }

  // All tokens that reach the rank, in any order; false if LDS can't hold them.
  HIPC_MEMBER bool gather(u32 least) const {
    if (thread_id() == 0) lds.tile_count = 0, lds.count = 0;
    barrier();
    for (u32 i = thread_id(); i < From::count; i += threads) {
      if (rank_of(from.at(token, i).value) < least) continue;
      const u32 at = shared_add(&lds.tile_count, 1);
      if (at < DrawMemory::Tiles) lds.tiles[at] = i;
    }
    barrier();
    const u32 tiles = lds.tile_count;
    if (tiles > DrawMemory::Tiles) return false;
    for (u32 i = thread_id(); i < tiles * TileRows; i += threads) {
      const u32 id = lds.tiles[i / TileRows] * TileRows + i % TileRows;
      if (id >= Vocab) continue;
      const f32 logit = logits[id];
      if (rank_of(logit) >= least && !penalty.has(id)) append({logit, i32(id)});
    }
    for (u32 i = thread_id(); i < penalty.count; i += threads) {
      const u32 id = penalty.window[i];
      if (id >= Vocab || !is_first(i)) continue;
      const f32 logit = penalty.on(logits[id]);
      if (rank_of(logit) >= least) append({logit, i32(id)});
    }
    barrier();
    return lds.count <= DrawMemory::Candidates;
  }

  // The k likeliest in order; how many there are.
  HIPC_MEMBER u32 likeliest(u32 k) const {
    if (gather(bound(k))) {
      const u32 count = lds.count;
      for (u32 i = thread_id(); i < count; i += threads) {
        const Best own = lds.candidates[i];
        u32 place = 0;
        for (u32 j = 0; j < count; ++j) place += precedes(lds.candidates[j], own);
        if (place < k) lds.sorted[place] = own;
      }
      barrier();
      return count < k ? count : k;
    }
    Best last = {__builtin_huge_valf(), -1};
    u32 found = 0;
    for (; found < k; ++found) {
      Best next = Best::none();
      for (u32 id = thread_id(); id < Vocab; id += threads) {
        const Best candidate = behind(id);
        if (precedes(last, candidate)) next = Best::join(next, candidate);
      }
      next = reduce_workgroup<Best, Gpu, threads>(next, shared);
      barrier();
      if (rank_of(next.value) == 0) break;
      last = next;
      if (thread_id() == 0) lds.sorted[found] = next;
    }
    barrier();
    return found;
  }

  // Top-p and min-p, and the sum of what is left; one thread.
  HIPC_MEMBER void cut(u32 count) const {
    u32 kept = count;
    const f64 top_p = how.top_p, min_p = how.min_p;
    if (top_p < 1.0) {
      f64 sum = 0;
      for (u32 i = 0; i < count; ++i) sum += lds.weight[i];
      const f64 enough = times(top_p, sum);
      sum = 0;
      for (kept = 0; kept < count;) {
        sum += lds.weight[kept++];
        if (sum >= enough) break;
      }
    }
    f64 sum = 0;
    for (u32 i = 0; i < kept; ++i) {
      if (min_p > 0 && !(lds.weight[i] >= min_p)) lds.scaled[i] = 0;
      sum += lds.scaled[i];
    }
    lds.kept = kept;
    lds.sum = sum;
  }

  // The token for a uniform number in 0 … 1; every thread gets it.
  HIPC_MEMBER i32 operator()(const f64* draw) const {
    const u32 count = likeliest(how.draws() ? how.top_k : 1);
    if (count == 0) return 0;
    const Best first = lds.sorted[0];
    if (!how.draws()) return first.index;
    const f64 factor = 1.0 / f64(how.temperature);
    for (u32 i = thread_id(); i < count; i += threads) {
      const f64 distance = f64(lds.sorted[i].value) - f64(first.value);
      lds.weight[i] = exponential(distance);
      lds.scaled[i] = exponential(times(distance, factor));
    }
    barrier();
    if (thread_id() == 0) cut(count);
    barrier();
    const u32 kept = lds.kept;
    for (u32 i = thread_id(); i < kept; i += threads) lds.scaled[i] = lds.scaled[i] / lds.sum;
    barrier();
    if (thread_id() == 0) {
      f64 left = *draw;
      // Rounding can leave a rest; then it is the last that can be drawn.
      i32 chosen = first.index;
      for (u32 i = 0; i < kept; ++i) {
        const f64 probability = lds.scaled[i];
        if (probability > 0) chosen = lds.sorted[i].index;
        left -= probability;
        if (left < 0) break;
      }
      lds.chosen = chosen;
    }
    barrier();
    return lds.chosen;
  }
};

// The token that follows `end` tokens, `how` being wanted. `shared` has a place per wave.
template <class Gpu, int WaveCount, int TileRows, int Vocab, class From>
HIPC_DEVICE i32 draw(const From& from, const f32* logits, u32 token, const i32* tokens, u32 end, const Sampling& how,
                     const f64* draws, Best* shared) {
  HIPC_SHARED DrawMemory lds[1];
  constexpr u32 threads = WaveCount * Gpu::wave;
  const u32 count = !how.penalises() ? 0 : how.repeat_last_n < end ? how.repeat_last_n : end;
  const i32* window = tokens + (end - count);
  if (count > 0) {
    for (u32 i = thread_id(); i < Penalty::Filter / 4; i += threads) lds->filter[i] = 0;
    barrier();
    for (u32 i = thread_id(); i < count; i += threads) {
      // An id may be there twice, or its like: waves don't store to the same byte.
      const u32 place = u32(window[i]) % Penalty::Filter;
      shared_or(&lds->filter[place / 4], 1u << place % 4 * 8);
    }
    barrier();
  }
  const Penalty penalty = {how.repeat_penalty, window, count, reinterpret_cast<const u8*>(lds->filter)};
  const Draw<Gpu, WaveCount, TileRows, Vocab, From> draw = {from, logits + token * u64(Vocab), token, how, penalty, *lds, shared};
  return draw(draws + end);
}

}  // namespace hipc
