// What the kernels need from a machine, and nothing else. This is the only header that knows on which platform it is:
//
//   AMD GPU   clang -x hip --offload-arch=gfx…      the product
//   PTX       clang -x cuda --cuda-gpu-arch=sm_90   a test bench
//   host      clang -x c++                          lanes as fibers, see host.h; for tests
//
// Every platform provides the same primitives, listed here. "Converged" means: all lanes of the wave (of the workgroup, for
// barrier) call it, at the same call, the same number of times. Nothing else in these headers synchronises.
//
//   u32  thread_id()                    thread in its workgroup, x only
//   u32  group_x(), group_y()           workgroup in the grid
//   u32  uniform(u32 v)                 v, known to be equal in all lanes of the wave (a scalar register on AMD)
//   void barrier()                      workgroup barrier; writes to LDS before it are seen after it. Converged
//   u32  shuffle<Wave>(u32 v, u32 lane) v of that lane of the same wave, 0 <= lane < Wave. Converged
//   T    reduce<Op, Wave, Lanes>(T v)   Op::join over each aligned group of Lanes lanes, neighbours first, then pairs of
//                                       pairs …: every lane gets the same bits, since joins commute. Converged
//   u32  partner<Wave, Mask>(u32 v)     v of a lane in the other half of this lane's group of 2·Mask: each of them once. Converged
//   void release_device()               orders this thread's earlier writes before its later atomics, for the whole device
//   void acquire_device()               orders this thread's earlier atomics before its later reads, for the whole device
//   u32  atomic_add(u32* p, u32 v)      relaxed, device scope; returns the value before
//   u32  shared_add(u32* p, u32 v)      the same for a p in LDS, among the workgroup's threads
//   void shared_or(u32* p, u32 v)       sets bits of a p in LDS, the same way
//   void post(u64* p, u64 v)            writes an aligned word at once, for a host that looks at it now and then
//   u32  opaque(u32 v)                  v, of which the compiler knows nothing
//   f64  times(f64 a, f64 b)            a·b, rounded: never fused with an addition
//   T    load_once<T, Align>(p)         a T from an address that is a multiple of Align; read once, so don't keep it in caches
//   i32  dot4<Dot>(u32 a, u32 b, i32 c) c + Σ a_i·b_i over four signed bytes
//   f32  pow2(f32 x), root(f32 x)       2^x and √x, to about 1 ulp
//   HIPC_SHARED T name[N];              an array in LDS, declared inside a device function; never initialised
//   HIPC_DEVICE                         prefix of every function of these headers
//   __global__, __launch_bounds__(N)    of HIP; empty on the host
//
// On the host, host.h provides thread_id, group_x, group_y, barrier, shuffle, reduce and HIPC_SHARED; the rest is plain C++ below.
#pragma once

namespace hipc {

using i8 = signed char;
using u8 = unsigned char;
using u16 = unsigned short;
using i32 = int;
using u32 = unsigned int;
using u64 = unsigned long long;
using f32 = float;
using f64 = double;
using f16 = _Float16;
using u32x2 = u32 __attribute__((ext_vector_type(2)));
using u32x4 = u32 __attribute__((ext_vector_type(4)));
using f32x2 = f32 __attribute__((ext_vector_type(2)));
using f32x4 = f32 __attribute__((ext_vector_type(4)));
using f16x8 = f16 __attribute__((ext_vector_type(8)));

// How a target multiplies four pairs of signed bytes.
enum class Dot {
  Sdot4,    // v_dot4_i32_i8
  Sudot4,   // v_dot4_i32_iu8, signs as modifiers
  MulAdd,   // no such instruction: four multiply-adds
  Dp4a,     // PTX
};

}  // namespace hipc

#if defined(__HIP__) || defined(__CUDA__)
#ifndef __device__
#define __device__ __attribute__((device))
#endif
#ifndef __global__
#define __global__ __attribute__((global))
#endif
#undef __launch_bounds__
#if defined(__HIP__)
#define __launch_bounds__(threads) __attribute__((amdgpu_flat_work_group_size(threads, threads)))
#else
#define __launch_bounds__(threads) __attribute__((launch_bounds(threads)))
#endif
#define HIPC_MEMBER inline __attribute__((device, always_inline))
#define HIPC_SHARED static __attribute__((shared))
#else
#define __global__
#define __launch_bounds__(threads)
#define HIPC_MEMBER inline __attribute__((always_inline))
#endif
#define HIPC_DEVICE static HIPC_MEMBER
// Deduction guides are of both sides by definition; compilers before 22 must be told so.
#if defined(__HIP__) && __clang_major__ < 22
#define HIPC_GUIDE __attribute__((host, device))
#else
#define HIPC_GUIDE
#endif

#if defined(__HIP__)

namespace hipc {

HIPC_DEVICE u32 thread_id() { return __builtin_amdgcn_workitem_id_x(); }
HIPC_DEVICE u32 group_x() { return __builtin_amdgcn_workgroup_id_x(); }
HIPC_DEVICE u32 group_y() { return __builtin_amdgcn_workgroup_id_y(); }
HIPC_DEVICE u32 uniform(u32 v) { return __builtin_amdgcn_readfirstlane(v); }
HIPC_DEVICE u32 opaque(u32 v) {
  asm volatile("" : "+v"(v));
  return v;
}

// Only LDS is ordered, so loads from global memory stay in flight across it (compilers before 19 can't say so).
HIPC_DEVICE void barrier() {
#if __clang_major__ >= 19
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup", "local");
  __builtin_amdgcn_s_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup", "local");
#else
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
  __builtin_amdgcn_s_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
#endif
}

template <int Wave>
HIPC_DEVICE u32 shuffle(u32 v, u32 lane) {
  return __builtin_amdgcn_ds_bpermute(lane * 4, v);
}

template <int Wave, int Mask>
HIPC_DEVICE u32 partner(u32 v) {
  // DPP exchanges within rows of 16 lanes at no cost. Mirrors are as good as an exclusive or, since halves are equal.
  if constexpr (Mask == 1) return __builtin_amdgcn_update_dpp(v, v, 0xB1, 0xF, 0xF, true);        // quad_perm [1,0,3,2]
  else if constexpr (Mask == 2) return __builtin_amdgcn_update_dpp(v, v, 0x4E, 0xF, 0xF, true);   // quad_perm [2,3,0,1]
  else if constexpr (Mask == 4) return __builtin_amdgcn_update_dpp(v, v, 0x141, 0xF, 0xF, true);  // row_half_mirror
  else if constexpr (Mask == 8) return __builtin_amdgcn_update_dpp(v, v, 0x140, 0xF, 0xF, true);  // row_mirror
  else if constexpr (Mask == 16 && Wave == 32) return __builtin_amdgcn_permlanex16(v, v, 0x76543210, 0xFEDCBA98, false, false);
  else if constexpr (Mask == 16) return __builtin_amdgcn_ds_swizzle(v, 0x401F);  // swap halves of 32 lanes
  else return shuffle<Wave>(v, thread_id() % Wave ^ Mask);
}

// The release waits until this wave's writes have reached the cache that all compute units share. The acquire drops what
// this compute unit's own cache holds: in workgroup-processor mode the waves of one workgroup sit on two caches, so every
// wave that reads needs its own acquire.
HIPC_DEVICE void release_device() { __builtin_amdgcn_fence(__ATOMIC_RELEASE, "agent"); }
HIPC_DEVICE void acquire_device() { __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "agent"); }
HIPC_DEVICE u32 atomic_add(u32* p, u32 v) {
  return __hip_atomic_fetch_add(p, v, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
}
HIPC_DEVICE u32 shared_add(u32* p, u32 v) {
  return __hip_atomic_fetch_add(p, v, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_WORKGROUP);
}
HIPC_DEVICE void shared_or(u32* p, u32 v) { __hip_atomic_fetch_or(p, v, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_WORKGROUP); }
HIPC_DEVICE void post(u64* p, u64 v) { __hip_atomic_store(p, v, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_SYSTEM); }
HIPC_DEVICE f64 times(f64 a, f64 b) {
  f64 product = a * b;
  asm("" : "+v"(product));
  return product;
}

#if __has_builtin(__builtin_amdgcn_exp2f)
HIPC_DEVICE f32 pow2(f32 x) { return __builtin_amdgcn_exp2f(x); }
#else
HIPC_DEVICE f32 pow2(f32 x) { return __builtin_exp2f(x); }
#endif
HIPC_DEVICE f32 root(f32 x) { return __builtin_sqrtf(x); }

}  // namespace hipc

#elif defined(__CUDA__)

namespace hipc {

HIPC_DEVICE u32 thread_id() { return __nvvm_read_ptx_sreg_tid_x(); }
HIPC_DEVICE u32 group_x() { return __nvvm_read_ptx_sreg_ctaid_x(); }
HIPC_DEVICE u32 group_y() { return __nvvm_read_ptx_sreg_ctaid_y(); }
HIPC_DEVICE u32 uniform(u32 v) { return v; }
HIPC_DEVICE u32 opaque(u32 v) {
  asm volatile("" : "+r"(v));
  return v;
}
HIPC_DEVICE void barrier() { __syncthreads(); }
template <int Wave>
HIPC_DEVICE u32 shuffle(u32 v, u32 lane) {
  static_assert(Wave == 32, "PTX has waves of 32 lanes");
  return __nvvm_shfl_sync_idx_i32(0xFFFFFFFF, v, lane, 31);
}
template <int Wave, int Mask>
HIPC_DEVICE u32 partner(u32 v) {
  return __nvvm_shfl_sync_bfly_i32(0xFFFFFFFF, v, Mask, 31);
}
HIPC_DEVICE void release_device() { __nvvm_membar_gl(); }
HIPC_DEVICE void acquire_device() { __nvvm_membar_gl(); }
HIPC_DEVICE u32 atomic_add(u32* p, u32 v) { return __nvvm_atom_add_gen_i(reinterpret_cast<i32*>(p), v); }
HIPC_DEVICE u32 shared_add(u32* p, u32 v) { return __nvvm_atom_add_gen_i(reinterpret_cast<i32*>(p), v); }
HIPC_DEVICE void shared_or(u32* p, u32 v) { __nvvm_atom_or_gen_i(reinterpret_cast<i32*>(p), v); }
HIPC_DEVICE void post(u64* p, u64 v) { asm volatile("st.relaxed.sys.u64 [%0], %1;" : : "l"(p), "l"(v) : "memory"); }
HIPC_DEVICE f64 times(f64 a, f64 b) {
  f64 product;
  asm("mul.rn.f64 %0, %1, %2;" : "=d"(product) : "d"(a), "d"(b));
  return product;
}
HIPC_DEVICE f32 pow2(f32 x) { return __nvvm_ex2_approx_f(x); }
HIPC_DEVICE f32 root(f32 x) { return __nvvm_sqrt_rn_f(x); }

}  // namespace hipc

#else

#include "host.h"

namespace hipc {

HIPC_DEVICE u32 uniform(u32 v) { return v; }
HIPC_DEVICE u32 opaque(u32 v) {
  asm volatile("" : "+r"(v));
  return v;
}
template <int Wave, int Mask>
HIPC_DEVICE u32 partner(u32 v) {
  return shuffle<Wave>(v, thread_id() % Wave ^ Mask);
}
HIPC_DEVICE void release_device() { __atomic_thread_fence(__ATOMIC_RELEASE); }
HIPC_DEVICE void acquire_device() { __atomic_thread_fence(__ATOMIC_ACQUIRE); }
HIPC_DEVICE u32 atomic_add(u32* p, u32 v) { return __atomic_fetch_add(p, v, __ATOMIC_RELAXED); }
HIPC_DEVICE u32 shared_add(u32* p, u32 v) { return atomic_add(p, v); }
HIPC_DEVICE void shared_or(u32* p, u32 v) { __atomic_fetch_or(p, v, __ATOMIC_RELAXED); }
HIPC_DEVICE void post(u64* p, u64 v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
HIPC_DEVICE f64 times(f64 a, f64 b) {
  f64 product = a * b;
  asm("" : "+x"(product));
  return product;
}
HIPC_DEVICE f32 pow2(f32 x) { return __builtin_exp2f(x); }
HIPC_DEVICE f32 root(f32 x) { return __builtin_sqrtf(x); }

}  // namespace hipc

#endif

#if defined(__HIP__) || defined(__CUDA__)

namespace hipc {

// A butterfly of partners: v of a lane in the other half of this lane's group of 2·Mask lanes, where all lanes of a half have
// equal v by then.
template <class Op, int Wave, int Lanes, int Mask = 1, class T>
HIPC_DEVICE T reduce(T v) {
  if constexpr (Mask >= Lanes) {
    return v;
  } else {
    static_assert(sizeof(T) % 4 == 0, "values are exchanged word by word");
    u32 words[sizeof(T) / 4];
    __builtin_memcpy(words, &v, sizeof(T));
    for (u32& word : words) word = partner<Wave, Mask>(word);
    T other;
    __builtin_memcpy(&other, words, sizeof(T));
    return reduce<Op, Wave, Lanes, 2 * Mask>(Op::join(v, other));
  }
}

}  // namespace hipc

#endif

namespace hipc {

template <class To, class From>
HIPC_DEVICE To bits(From v) {
  return __builtin_bit_cast(To, v);
}

// A T (scalar or vector) from an address that is a multiple of Align.
template <class T, int Align = alignof(T)>
HIPC_DEVICE T load(const void* p) {
  T v;
  __builtin_memcpy(&v, __builtin_assume_aligned(p, Align), sizeof(T));
  return v;
}

// The same, for what a launch reads once: caches need not keep it. Worth 1–2 % for weights.
template <class T, int Align = alignof(T)>
HIPC_DEVICE T load_once(const void* p) {
#if defined(__HIP__) || defined(__CUDA__)
  typedef T Loose __attribute__((aligned(Align), may_alias));
  return __builtin_nontemporal_load(static_cast<const Loose*>(p));
#else
  return load<T, Align>(p);
#endif
}

template <Dot D>
HIPC_DEVICE i32 dot4(u32 a, u32 b, i32 c) {
#if defined(__HIP__)
  if constexpr (D == Dot::Sdot4) return __builtin_amdgcn_sdot4(a, b, c, false);
#if __has_builtin(__builtin_amdgcn_sudot4)
  if constexpr (D == Dot::Sudot4) return __builtin_amdgcn_sudot4(true, a, true, b, c, false);
#endif
#elif defined(__CUDA__)
  if constexpr (D == Dot::Dp4a) {
    asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(c) : "r"(a), "r"(b), "r"(c));
    return c;
  }
#endif
  // Four multiplications that select their bytes themselves. What is opaque is not widened once and kept in registers, nor
  // are all products made before they are added.
  if constexpr (D == Dot::MulAdd) a = opaque(a), b = opaque(b);
  c += static_cast<i8>(a) * static_cast<i8>(b);
  c += static_cast<i8>(a >> 8) * static_cast<i8>(b >> 8);
  c += static_cast<i8>(a >> 16) * static_cast<i8>(b >> 16);
  c += static_cast<i8>(a >> 24) * static_cast<i8>(b >> 24);
  if constexpr (D == Dot::MulAdd) c = opaque(c);
  return c;
}

}  // namespace hipc
