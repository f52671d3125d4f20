// Runs HIP kernels on x86-64 Linux: every lane of a workgroup is a fiber, and lanes wait for each other only at shuffles and
// barriers. Included by platform.h where a unit is compiled as plain C++; gives it thread_id, group_x, group_y, barrier,
// shuffle, reduce and HIPC_SHARED.
//
// Order of execution: lanes of a wave run one after the other up to their next rendezvous; wave w+1 starts when all lanes of
// wave w wait at a barrier or have ended. One workgroup at a time, on one thread (LDS variables are plain statics), in an
// order that the launcher may permute. All lanes of a wave must meet at the same rendezvous, all waves of a workgroup at the
// same barrier; a lane that comes to another one, or ends while others wait, stops the launch with a message.
//
// Exported from a unit: hipc_host_find, hipc_host_run, hipc_host_launch, hipc_host_error. Kernels are found by dlsym, so a
// unit needs no table of them; an executable has to be linked with -rdynamic.
#pragma once

#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#if __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define HIPC_HOST_ASAN 1
// Functions with such variables have internal linkage, so AddressSanitizer puts guard zones around them.
#define HIPC_SHARED static
#else
#define HIPC_HOST_ASAN 0
// In one section, so that a launch can begin with rubbish in all of LDS.
#define HIPC_SHARED __attribute__((section("hipc_lds"))) static
extern "C" __attribute__((weak, visibility("hidden"))) char __start_hipc_lds[], __stop_hipc_lds[];
#endif

// All names are private to the unit: a process may load several.
namespace hipc::host {
namespace {

constexpr uint32_t MaxThreads = 1024;
constexpr uint32_t MaxArgs = 32;
constexpr size_t StackBytes = HIPC_HOST_ASAN ? 256 << 10 : 64 << 10;
constexpr size_t GuardBytes = 4096;

// What a lane waits at.
enum class Point : uint32_t { End, Barrier, Shuffle, Reduce };

using Entry = void (*)(void (*)(), void* const*);

struct State {
    uint32_t thread;             // lane that runs now, in the workgroup
    uint32_t threads;            // lanes of the workgroup
    uint32_t wave;               // lanes of a wave; the whole workgroup until the first shuffle tells
    uint32_t round;              // which half of `slots` the current exchange uses
    Point wave_point;            // where the first lane of the running wave went
    Point group_point;           // where the first wave went
    uint32_t group[3];           // workgroup in the grid
    Entry entry;
    void (*kernel)();
    void* args[MaxArgs];
    void* launcher;              // stack pointer of hipc_host_run
    void* stack_of[MaxThreads];  // stack pointers of waiting lanes
    char* stacks;                // MaxThreads × (guard page, stack)
    bool failed;
    char message[512];
    alignas(64) uint64_t slots[2][64];
#if HIPC_HOST_ASAN
    const void* launcher_bottom;
    size_t launcher_size;
#endif
};
State state;

inline const char* kernel_name() {
    Dl_info info;
    return dladdr(reinterpret_cast<void*>(state.kernel), &info) && info.dli_sname ? info.dli_sname : "kernel";
}

inline const char* point_name(Point p) {
    switch (p) {
        case Point::End: return "the end of the kernel";
        case Point::Barrier: return "a barrier";
        case Point::Shuffle: return "a shuffle";
        case Point::Reduce: return "a reduction";
    }
    return "?";
}

// Goes on with the stack whose pointer is `load`, leaving the own one at `save`; comes back when another stack is left for it.
// No call and no return instruction: on another stack than the call's, a return is mispredicted. Whatever isn't pushed is
// clobbered, so the compiler saves what it needs; below the pushes is the red zone of the function this is inlined into.
__attribute__((always_inline, no_sanitize("address"))) inline void swap_stacks(void** save, void* load) {
    __asm__ volatile(
        "leaq -128(%%rsp), %%rsp\n"
        "pushq %%rbp\n pushq %%rbx\n"
        "leaq 1f(%%rip), %%rax\n pushq %%rax\n"
        "movq %%rsp, (%0)\n"
        "movq %1, %%rsp\n"
        "popq %%rax\n popq %%rbx\n popq %%rbp\n"
        "jmpq *%%rax\n"
        "1:\n"
        "leaq 128(%%rsp), %%rsp\n"
        : "+D"(save), "+S"(load)
        :
        : "rax", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4",
          "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "memory", "cc");
}

inline char* stack_bottom(uint32_t thread) { return state.stacks + thread * (StackBytes + GuardBytes) + GuardBytes; }

// From lane `from` to lane `to`; returns when somebody switches back. Lane numbers at or above `threads` mean the launcher.
// (Built without fake stacks, AddressSanitizer only has to know the bounds of the stack in use.)
__attribute__((no_sanitize("address"))) inline void switch_lane(uint32_t from, uint32_t to) {
    bool out = to >= state.threads;
#if HIPC_HOST_ASAN
    void* fake;
    __sanitizer_start_switch_fiber(&fake, out ? state.launcher_bottom : stack_bottom(to), out ? state.launcher_size : StackBytes);
#endif
    state.thread = to;
    swap_stacks(&state.stack_of[from], out ? state.launcher : state.stack_of[to]);
#if HIPC_HOST_ASAN
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

// Ends the launch; the waiting lanes are abandoned.
[[noreturn]] __attribute__((noinline)) inline void fail(const char* what) {
    uint32_t t = state.thread;
    snprintf(state.message, sizeof state.message, "%s: thread %u of workgroup (%u, %u, %u) %s", kernel_name(), t,
             state.group[0], state.group[1], state.group[2], what);
    state.failed = true;
    switch_lane(t, state.threads);
    __builtin_unreachable();
}

[[noreturn]] __attribute__((noinline)) inline void fail_apart(Point here, Point others, uint32_t other) {
    char what[128];
    snprintf(what, sizeof what, "came to %s while thread %u is at %s", point_name(here), other, point_name(others));
    fail(what);
}

// Checks that the lane belongs here: the first lane of a wave sets where the others must follow.
__attribute__((always_inline)) inline void arrive(uint32_t t, Point p) {
    if (t % state.wave == 0) {
        state.wave_point = p;
    } else if (__builtin_expect(state.wave_point != p, 0)) {
        fail_apart(p, state.wave_point, t - t % state.wave);
    }
}

// The same for a point where waves follow each other, then the first wave goes on.
inline void arrive_group(uint32_t t, Point p) {
    arrive(t, p);
    if (t == 0) {
        state.group_point = p;
    } else if (__builtin_expect(state.group_point != p, 0)) {
        fail_apart(p, state.group_point, 0);
    }
}

// First frame of every lane.
[[noreturn]] __attribute__((noinline, no_sanitize("address"))) inline void lane_main() {
#if HIPC_HOST_ASAN
    bool first = state.thread == 0;
    __sanitizer_finish_switch_fiber(nullptr, first ? &state.launcher_bottom : nullptr, first ? &state.launcher_size : nullptr);
#endif
    state.entry(state.kernel, state.args);
    uint32_t t = state.thread;
    arrive_group(t, Point::End);
    switch_lane(t, t + 1);
    __builtin_unreachable();
}

template <size_t... I> struct Indices {};
template <size_t N, size_t... I> struct MakeIndices : MakeIndices<N - 1, N - 1, I...> {};
template <size_t... I> struct MakeIndices<0, I...> { using Type = Indices<I...>; };

template <size_t> using Pointer = void*;

// Every kernel argument is a 64-bit pointer; the callee's own pointer types don't matter to the ABI.
template <size_t... I>
__attribute__((no_sanitize("function"))) void call(void (*kernel)(), void* const* args, Indices<I...>) {
    reinterpret_cast<void (*)(Pointer<I>...)>(kernel)(args[I]...);
}
template <size_t N> __attribute__((no_sanitize("function"))) void call_n(void (*kernel)(), void* const* args) {
    call(kernel, args, typename MakeIndices<N>::Type{});
}
template <size_t... I> Entry entry_for(size_t n, Indices<I...>) {
    static const Entry table[] = {call_n<I>...};
    return table[n];
}

// Puts a lane at the start of lane_main. Stacks begin at different cache sets, or all lanes' frames would share a few.
__attribute__((no_sanitize("address"))) inline void prepare_lane(uint32_t t) {
    char* top = stack_bottom(t) + StackBytes - 64 - (t * 320) % 4096;
    top -= reinterpret_cast<uintptr_t>(top) % 64;
    void** sp = reinterpret_cast<void**>(top);
    *--sp = nullptr;  // lane_main's return address: none; also keeps rsp ≡ 8 (mod 16) at its entry
    *--sp = nullptr;  // rbp: end of the chain of frames
    *--sp = nullptr;  // rbx
    *--sp = reinterpret_cast<void*>(lane_main);
    state.stack_of[t] = sp;
}

inline bool make_stacks() {
    if (state.stacks) return true;
    size_t each = StackBytes + GuardBytes, all = each * MaxThreads;
    void* p = mmap(nullptr, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return false;
    for (uint32_t t = 0; t < MaxThreads; ++t) {
        if (mprotect(static_cast<char*>(p) + t * each, GuardBytes, PROT_NONE)) {
            munmap(p, all);
            return false;
        }
    }
    state.stacks = static_cast<char*>(p);
    return true;
}

// Units come and go in one process, and it has 2048 mappings each time, of the 65530 that Linux allows it.
__attribute__((destructor)) void free_stacks() {
    if (state.stacks) munmap(state.stacks, (StackBytes + GuardBytes) * MaxThreads);
}

// Runs one workgroup; false if the lanes didn't keep together.
__attribute__((no_sanitize("address"))) inline bool run_group(uint32_t x, uint32_t y, uint32_t z) {
    state.group[0] = x, state.group[1] = y, state.group[2] = z;
    state.wave = state.threads;
    for (uint32_t t = 0; t < state.threads; ++t) prepare_lane(t);
    state.thread = 0;
#if HIPC_HOST_ASAN
    void* fake;
    __sanitizer_start_switch_fiber(&fake, stack_bottom(0), StackBytes);
#endif
    swap_stacks(&state.launcher, state.stack_of[0]);
#if HIPC_HOST_ASAN
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
    if (state.failed) __asan_unpoison_memory_region(state.stacks, (StackBytes + GuardBytes) * MaxThreads);
#endif
    return !state.failed;
}

inline uint64_t common_divisor(uint64_t a, uint64_t b) { return b ? common_divisor(b, a % b) : a; }

inline int refuse(const char* what) {
    snprintf(state.message, sizeof state.message, "%s: %s", kernel_name(), what);
    return 1;
}

}  // namespace
}  // namespace hipc::host

namespace hipc {

static inline uint32_t thread_id() { return host::state.thread; }
static inline uint32_t group_x() { return host::state.group[0]; }
static inline uint32_t group_y() { return host::state.group[1]; }

static inline void barrier() {
    uint32_t t = host::state.thread;
    host::arrive_group(t, host::Point::Barrier);
    host::switch_lane(t, t + 1 == host::state.threads ? 0 : t + 1);
}

// A lane comes to an exchange within its wave; the place for the wave's values. Two halves take turns, as a lane may be at the
// next exchange before the others have read.
template <uint32_t Wave> static inline uint64_t* meet(uint32_t t, host::Point p) {
    static_assert(Wave == 32 || Wave == 64, "a wave has 32 or 64 lanes");
    host::State& s = host::state;
    if (__builtin_expect(s.wave != Wave, 0)) {
        if (s.wave != s.threads || s.threads % Wave) host::fail("exchanges values in waves of another size than the workgroup's");
        s.wave = Wave;
    }
    host::arrive(t, p);
    if (t % Wave == 0) s.round ^= 1;
    return s.slots[s.round];
}

// Every lane leaves its value and lets the next one run; the first lane runs again when all have left theirs.
template <uint32_t Wave> static inline uint32_t shuffle(uint32_t v, uint32_t lane) {
    uint32_t t = host::state.thread;
    uint64_t* slots = meet<Wave>(t, host::Point::Shuffle);
    slots[t % Wave] = v;
    host::switch_lane(t, (t + 1) % Wave ? t + 1 : t + 1 - Wave);
    if (__builtin_expect(lane >= Wave, 0)) host::fail("shuffles from a lane outside of its wave");
    return static_cast<uint32_t>(slots[lane]);
}

// The last lane to arrive joins the values of each group, in the order of the butterfly.
template <class Op, uint32_t Wave, uint32_t Lanes, class T> static inline T reduce(T v) {
    static_assert(Lanes <= Wave && (Lanes & (Lanes - 1)) == 0 && sizeof(T) <= 8, "groups of 1, 2, 4 … lanes, 8 bytes at most");
    uint32_t t = host::state.thread;
    uint64_t* slots = meet<Wave>(t, host::Point::Reduce);
    __builtin_memcpy(&slots[t % Wave], &v, sizeof(T));
    if ((t + 1) % Wave) {
        host::switch_lane(t, t + 1);
    } else {
        T values[Wave];
        for (uint32_t i = 0; i < Wave; ++i) __builtin_memcpy(&values[i], &slots[i], sizeof(T));
        for (uint32_t distance = 1; distance < Lanes; distance *= 2) {
            for (uint32_t i = 0; i < Wave; i += 2 * distance) values[i] = Op::join(values[i], values[i + distance]);
        }
        for (uint32_t i = 0; i < Wave; ++i) __builtin_memcpy(&slots[i], &values[i / Lanes * Lanes], sizeof(T));
        host::switch_lane(t, t + 1 - Wave);
    }
    __builtin_memcpy(&v, &slots[t % Wave], sizeof(T));
    return v;
}

}  // namespace hipc

#define HIPC_HOST_EXPORT extern "C" __attribute__((visibility("default"), used))

// What went wrong in the last launch; empty if nothing.
HIPC_HOST_EXPORT const char* hipc_host_error() { return hipc::host::state.message; }

// A kernel of this unit by name, or null.
HIPC_HOST_EXPORT void* hipc_host_find(const char* kernel) {
    static void* self = nullptr;
    if (!self) {
        Dl_info info;
        void* here = reinterpret_cast<void*>(&hipc_host_error);
        if (dladdr(here, &info)) self = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
        if (!self) self = dlopen(nullptr, RTLD_LAZY);
    }
    return dlsym(self, kernel);
}

// Runs a launch to its end: `kernel` from hipc_host_find, `kernargs` a packed array of pointers. `order` permutes the
// workgroups: 0 ascending, 1 descending, others a stride through them. Returns 0, or 1 with a message in hipc_host_error.
HIPC_HOST_EXPORT int hipc_host_run(void* kernel, uint32_t gx, uint32_t gy, uint32_t gz, uint32_t threads, const void* kernargs,
                                   size_t bytes, uint32_t order) {
    using namespace hipc::host;
    state.failed = false;
    state.message[0] = 0;
    state.kernel = reinterpret_cast<void (*)()>(kernel);
    if (threads == 0 || threads > MaxThreads) return refuse("a workgroup has 1 to 1024 threads");
    if (bytes % 8 || bytes / 8 > MaxArgs) return refuse("kernel arguments aren't at most 32 pointers");
    if (!make_stacks()) return refuse("no memory for the lanes' stacks");
    state.threads = threads;
    memcpy(state.args, kernargs, bytes);
    state.entry = entry_for(bytes / 8, MakeIndices<MaxArgs + 1>::Type{});
#if !HIPC_HOST_ASAN
    if (__start_hipc_lds) memset(__start_hipc_lds, 0xff, __stop_hipc_lds - __start_hipc_lds);
#endif
    uint64_t all = uint64_t{gx} * gy * gz;
    uint64_t stride = order < 2 || all == 0 ? 1 : order % all;
    while (common_divisor(stride, all) > 1) ++stride;  // or it wouldn't visit every workgroup
    for (uint64_t i = 0; i < all; ++i) {
        uint64_t g = order == 1 ? all - 1 - i : i * stride % all;
        if (!run_group(g % gx, g / gx % gy, g / (uint64_t{gx} * gy))) return 1;
    }
    return 0;
}

// The same by name, in ascending order.
HIPC_HOST_EXPORT int hipc_host_launch(const char* kernel, uint32_t gx, uint32_t gy, uint32_t gz, uint32_t threads,
                                      const void* kernargs, size_t bytes) {
    void* found = hipc_host_find(kernel);
    if (found) return hipc_host_run(found, gx, gy, gz, threads, kernargs, bytes, 0);
    snprintf(hipc::host::state.message, sizeof hipc::host::state.message, "%s: no such kernel in this unit", kernel);
    return 1;
}
