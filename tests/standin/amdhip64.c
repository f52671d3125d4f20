// A stand-in for libamdhip64 on machines without an AMD GPU. It is compiled against HIP's own header, so every function here
// has the signature of the real one; our runtime opens it like the real one.
//
// - A stream is lazy: copies and launches happen when it is waited for, so that memory which is reused too early shows. Waiting for
//   an event does what comes before it and no more, so that nothing can be read that nobody waited for. Each question whether a
//   stream is done does one thing more.
// - A stream that captures executes nothing; launches of its graph do what was captured. What would disturb a real capture
//   invalidates this one.
// - Device memory lies between guard bytes; copies outside of live blocks, damaged guards, double frees are violations.
// - A module must be an AMD code object for the architecture at hand. A kernel's argument buffer must have exactly the size
//   that the code object's metadata states, its workgroup must not be larger. The launch is then executed by the same unit
//   compiled for x86-64 (hipc_host_run of host.h).
// - Any call can be told to fail.
//
// Settings, from the environment or by standin_configure:
//   STANDIN_FAIL  "hipMalloc:2:3,hipInit:100:1": the 3rd call of hipMalloc returns 2 …; "hipMalloc:2:0": every call
//   STANDIN_META  file with lines "kernel bytes threads": size of the explicit kernel arguments, largest workgroup
//   STANDIN_UNIT  the unit as a shared object for x86-64
//   STANDIN_ARCH  the GPU's architecture with features, "gfx1100" if not set; "none": there is no GPU; several with commas
//   STANDIN_FREE  bytes of device memory, 1 GiB if not set
// Compiled with -DSTANDIN_R0600 it has HIP 6's device properties, else HIP 5's.
#include <dlfcn.h>
#include <elf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <hip/hip_runtime_api.h>

#define EXPORT __attribute__((visibility("default")))
enum { Guard = 256, GuardByte = 0xa5, Rubbish = 0xcd, Streams = 8, Modules = 8, Names = 64, Events = 64, Graphs = 64 };

typedef struct Block {
    struct Block *next;
    char *at;  // Guard bytes before and behind
    size_t bytes;
    int host, mapped;
} Block;

typedef struct Op {
    struct Op *next;
    enum { CopyIn, CopyOut, Fill, Launch, Record } kind;
    hipEvent_t event;
    void *to;
    const void *from;
    size_t bytes;
    int value;
    void *kernel;
    unsigned grid[3], threads;
    char args[512];
} Op;

typedef struct {
    char name[96];
    size_t bytes;
    unsigned threads;
    void *kernel;
} Function;

struct ihipStream_t {
    int live, capturing, invalid;
    Op *first, **last;
    Op *captured, **captured_last;
};
struct ihipEvent_t {
    int live, recorded, pending;  // Pending: records that are enqueued and not reached
    struct timespec at;
    hipStream_t stream;
};
struct ihipGraph {
    int live;
    Op *ops;
};
struct hipGraphExec {
    int live;
    Op *ops;
};
struct ihipModule_t {
    int live;
};
struct ihipModuleSymbol_t {
    Function f;
};

typedef int (*Run)(void *, uint32_t, uint32_t, uint32_t, uint32_t, const void *, size_t, uint32_t);

static struct {
    int configured;
    char fail[256], meta[512], unit[512], arch[64];
    size_t memory, used;
    Block *blocks;
    struct ihipStream_t streams[Streams];
    struct ihipModule_t modules[Modules];
    struct ihipEvent_t events[Events];
    struct ihipGraph graphs[Graphs];
    struct hipGraphExec execs[Graphs];
    struct ihipModuleSymbol_t *functions;
    size_t n_functions;
    void *library;
    Run run;
    void *(*find)(const char *);
    const char *(*message)(void);
    struct {
        char name[48];
        int calls;
    } counts[Names];
    char report[4096];
    int launches, graph_launches, device;
} s;

static void violation(const char *what) {
    size_t used = strlen(s.report);
    snprintf(s.report + used, sizeof s.report - used, "%s\n", what);
}

static void copy_setting(char *to, size_t size, const char *value) { snprintf(to, size, "%s", value ? value : ""); }

// Forgets everything and takes new settings; null takes the environment's.
EXPORT void standin_configure(const char *fail, const char *meta, const char *unit, const char *arch, size_t memory) {
    memset(&s, 0, sizeof s);
    const char *free_bytes = getenv("STANDIN_FREE");
    copy_setting(s.fail, sizeof s.fail, fail ? fail : getenv("STANDIN_FAIL"));
    copy_setting(s.meta, sizeof s.meta, meta ? meta : getenv("STANDIN_META"));
    copy_setting(s.unit, sizeof s.unit, unit ? unit : getenv("STANDIN_UNIT"));
    copy_setting(s.arch, sizeof s.arch, arch ? arch : getenv("STANDIN_ARCH"));
    if (!s.arch[0]) strcpy(s.arch, "gfx1100");
    s.memory = memory ? memory : free_bytes ? strtoull(free_bytes, NULL, 10) : (size_t)1 << 30;
    s.configured = 1;
}

// Number of launches executed.
EXPORT int standin_launches(void) { return s.launches; }

// Number of graphs launched.
EXPORT int standin_graph_launches(void) { return s.graph_launches; }

// What went wrong, one line each, then one line for each thing that is still alive; empty if all is well.
EXPORT const char *standin_report(void) {
    for (Block *b = s.blocks; b; b = b->next) violation(b->host ? "leaked pinned memory" : "leaked device memory");
    for (int i = 0; i < Streams; ++i)
        if (s.streams[i].live) violation("leaked stream");
    for (int i = 0; i < Modules; ++i)
        if (s.modules[i].live) violation("leaked module");
    for (int i = 0; i < Events; ++i)
        if (s.events[i].live) violation("leaked event");
    for (int i = 0; i < Graphs; ++i) {
        if (s.graphs[i].live) violation("leaked graph");
        if (s.execs[i].live) violation("leaked executable graph");
    }
    return s.report;
}

// Counts a call; whether it is told to fail, and with what.
static hipError_t enter(const char *name) {
    if (!s.configured) standin_configure(NULL, NULL, NULL, NULL, 0);
    int calls = 0;
    for (int i = 0; i < Names; ++i) {
        if (!s.counts[i].name[0]) copy_setting(s.counts[i].name, sizeof s.counts[i].name, name);
        if (strcmp(s.counts[i].name, name) == 0) {
            calls = ++s.counts[i].calls;
            break;
        }
    }
    for (const char *p = s.fail; *p; p += strcspn(p, ","), p += *p == ',') {
        char which[48];
        int code, nth;
        if (sscanf(p, "%47[^:]:%d:%d", which, &code, &nth) == 3 && strcmp(which, name) == 0 && (nth == 0 || nth == calls))
            return (hipError_t)code;
    }
    return hipSuccess;
}
#define ENTER()                            \
    do {                                   \
        hipError_t told = enter(__func__); \
        if (told != hipSuccess) return told; \
    } while (0)

static int no_gpu(void) { return strcmp(s.arch, "none") == 0; }

static int devices(void) {
    int count = !no_gpu();
    for (const char *c = s.arch; *c; ++c) count += *c == ',';
    return count;
}

static int no_device(int device) { return device < 0 || device >= devices(); }

// Of one device.
static const char *arch(int device) {
    static char one[sizeof s.arch];
    const char *from = s.arch;
    while (device--) from = strchr(from, ',') + 1;
    snprintf(one, sizeof one, "%.*s", (int)strcspn(from, ","), from);
    return one;
}

static Block *block_of(const void *p, size_t bytes) {
    uintptr_t at = (uintptr_t)p;
    for (Block *b = s.blocks; b; b = b->next) {
        uintptr_t start = (uintptr_t)b->at;
        if (at >= start && at - start <= b->bytes && bytes <= b->bytes - (at - start)) return b;
    }
    return NULL;
}

static void check_guards(const Block *b) {
    for (int i = 0; i < Guard; ++i) {
        if ((unsigned char)b->at[i - Guard] != GuardByte || (unsigned char)b->at[(ptrdiff_t)b->bytes + i] != GuardByte) {
            violation("guard bytes of a block are damaged");
            return;
        }
    }
}

static hipError_t allocate(void **out, size_t bytes, int host, int mapped) {
    if (!out || !bytes) return hipErrorInvalidValue;
    if (!host && bytes > s.memory - s.used) return hipErrorOutOfMemory;
    size_t all = (bytes + 2 * Guard + 255) / 256 * 256;
    Block *b = malloc(sizeof *b);
    char *raw = aligned_alloc(256, all);
    if (!b || !raw) {
        free(b);
        free(raw);
        return hipErrorOutOfMemory;
    }
    memset(raw, GuardByte, all);
    memset(raw + Guard, Rubbish, bytes);
    *b = (Block){s.blocks, raw + Guard, bytes, host, mapped};
    s.blocks = b;
    if (!host) s.used += bytes;
    *out = b->at;
    return hipSuccess;
}

static hipError_t release(void *p, int host) {
    if (!p) return hipSuccess;
    for (Block **link = &s.blocks; *link; link = &(*link)->next) {
        Block *b = *link;
        if (b->at == p && b->host == host) {
            check_guards(b);
            *link = b->next;
            if (!host) s.used -= b->bytes;
            free(b->at - Guard);
            free(b);
            return hipSuccess;
        }
    }
    violation("freed what isn't allocated");
    return hipErrorInvalidValue;
}

static hipError_t append(Op ***last, Op op) {
    Op *copy = malloc(sizeof *copy);
    if (!copy) return hipErrorOutOfMemory;
    *copy = op;
    copy->next = NULL;
    **last = copy;
    *last = &copy->next;
    return hipSuccess;
}

static void free_ops(Op *op) {
    while (op) {
        Op *next = op->next;
        free(op);
        op = next;
    }
}

static hipError_t push(hipStream_t stream, Op op) {
    if (!stream || !stream->live) return hipErrorInvalidHandle;
    return append(stream->capturing ? &stream->captured_last : &stream->last, op);
}

// Does what was enqueued first.
static hipError_t drain_one(hipStream_t stream) {
    hipError_t result = hipSuccess;
    Op *op = stream->first;
    stream->first = op->next;
    if (!stream->first) stream->last = &stream->first;
    switch (op->kind) {
        case CopyIn:
        case CopyOut:
            memcpy(op->to, op->from, op->bytes);
            break;
        case Fill:
            memset(op->to, op->value, op->bytes);
            break;
        case Launch:
            ++s.launches;
            if (s.run(op->kernel, op->grid[0], op->grid[1], op->grid[2], op->threads, op->args, op->bytes, 0)) {
                violation(s.message());
                result = hipErrorLaunchFailure;
            }
            for (Block *b = s.blocks; b; b = b->next) check_guards(b);
            break;
        case Record:
            --op->event->pending;
            clock_gettime(CLOCK_MONOTONIC, &op->event->at);
            break;
    }
    free(op);
    return result;
}

// Does what was enqueued; up to the first record of an event, if one is named.
static hipError_t drain_to(hipStream_t stream, hipEvent_t event) {
    hipError_t result = hipSuccess;
    while (stream->first && !(event && !event->pending)) {
        hipError_t one = drain_one(stream);
        if (one != hipSuccess) result = one;
    }
    return result;
}

static hipError_t drain(hipStream_t stream) { return drain_to(stream, NULL); }

// Whether a call that a capturing thread must not make is made while one captures; the capture is then void.
static int disturbs_capture(void) {
    int any = 0;
    for (int i = 0; i < Streams; ++i)
        if (s.streams[i].live && s.streams[i].capturing) any = s.streams[i].invalid = 1;
    return any;
}

EXPORT hipError_t hipInit(unsigned int flags) {
    ENTER();
    return flags ? hipErrorInvalidValue : no_gpu() ? hipErrorInvalidDevice : hipSuccess;
}
EXPORT hipError_t hipDriverGetVersion(int *version) {
    ENTER();
    *version = 50221153;
    return hipSuccess;
}
EXPORT hipError_t hipRuntimeGetVersion(int *version) {
    ENTER();
    *version = 50221153;
    return hipSuccess;
}
EXPORT hipError_t hipGetDeviceCount(int *count) {
    ENTER();
    *count = devices();
    return no_gpu() ? hipErrorNoDevice : hipSuccess;
}
EXPORT hipError_t hipSetDevice(int device) {
    ENTER();
    if (no_device(device)) return hipErrorInvalidDevice;
    s.device = device;
    return hipSuccess;
}
EXPORT hipError_t hipGetDevice(int *device) {
    ENTER();
    *device = s.device;
    return hipSuccess;
}
EXPORT hipError_t hipDeviceSynchronize(void) {
    ENTER();
    for (int i = 0; i < Streams; ++i)
        if (s.streams[i].live) drain(&s.streams[i]);
    return hipSuccess;
}
EXPORT hipError_t hipDeviceGetName(char *name, int length, hipDevice_t device) {
    ENTER();
    if (no_device(device)) return hipErrorInvalidDevice;
    snprintf(name, (size_t)length, "Stand-in");
    return hipSuccess;
}
EXPORT hipError_t hipDeviceGetAttribute(int *value, hipDeviceAttribute_t attribute, int device) {
    ENTER();
    if (no_device(device)) return hipErrorInvalidDevice;
    switch (attribute) {
        case hipDeviceAttributeWarpSize: *value = strncmp(arch(device), "gfx9", 4) ? 32 : 64; return hipSuccess;
        case hipDeviceAttributeMultiprocessorCount: *value = 48; return hipSuccess;
        default: return hipErrorInvalidValue;
    }
}

#ifdef STANDIN_R0600
// HIP 6 renamed the function with the structure, of which the header at hand knows nothing: name and gcnArchName are enough.
EXPORT hipError_t hipGetDevicePropertiesR0600(void *properties, int device) {
    ENTER();
    if (no_device(device)) return hipErrorInvalidDevice;
    memset(properties, 0xff, 1472);
    strcpy((char *)properties, "Stand-in");
    strcpy((char *)properties + 1160, arch(device));
    return hipSuccess;
}
#else
EXPORT hipError_t hipGetDeviceProperties(hipDeviceProp_t *properties, int device) {
    ENTER();
    if (no_device(device)) return hipErrorInvalidDevice;
    memset(properties, 0xff, sizeof *properties);
    strcpy(properties->name, "Stand-in");
    strcpy(properties->gcnArchName, arch(device));
    return hipSuccess;
}
#endif

EXPORT hipError_t hipMemGetInfo(size_t *free_bytes, size_t *total) {
    ENTER();
    *free_bytes = s.memory - s.used;
    *total = s.memory;
    return hipSuccess;
}
EXPORT hipError_t hipMalloc(void **out, size_t bytes) {
    ENTER();
    if (disturbs_capture()) return hipErrorStreamCaptureUnsupported;
    return allocate(out, bytes, 0, 0);
}
EXPORT hipError_t hipFree(void *p) {
    ENTER();
    for (int i = 0; i < Streams; ++i)
        if (s.streams[i].live) drain(&s.streams[i]);
    return release(p, 0);
}
EXPORT hipError_t hipHostMalloc(void **out, size_t bytes, unsigned int flags) {
    ENTER();
    if (disturbs_capture()) return hipErrorStreamCaptureUnsupported;
    int mapped = flags == (hipHostMallocMapped | hipHostMallocPortable | hipHostMallocCoherent);
    return flags && !mapped ? hipErrorInvalidValue : allocate(out, bytes, 1, mapped);
}
EXPORT hipError_t hipHostGetDevicePointer(void **out, void *host, unsigned int flags) {
    ENTER();
    Block *b = block_of(host, 1);
    if (!out || flags || !b || !b->mapped) return hipErrorInvalidValue;
    *out = host;
    return hipSuccess;
}
EXPORT hipError_t hipHostFree(void *p) {
    ENTER();
    return release(p, 1);
}

static hipError_t queue_copy(hipStream_t stream, void *to, const void *from, size_t bytes, int in) {
    if (!block_of(in ? to : from, bytes)) {
        violation("a copy reaches outside of device memory");
        return hipErrorInvalidValue;
    }
    return push(stream, (Op){.kind = in ? CopyIn : CopyOut, .to = to, .from = from, .bytes = bytes});
}
EXPORT hipError_t hipMemcpyHtoDAsync(hipDeviceptr_t to, void *from, size_t bytes, hipStream_t stream) {
    ENTER();
    return queue_copy(stream, to, from, bytes, 1);
}
EXPORT hipError_t hipMemcpyDtoHAsync(void *to, hipDeviceptr_t from, size_t bytes, hipStream_t stream) {
    ENTER();
    return queue_copy(stream, to, from, bytes, 0);
}
EXPORT hipError_t hipMemsetAsync(void *to, int value, size_t bytes, hipStream_t stream) {
    ENTER();
    if (!block_of(to, bytes)) {
        violation("a fill reaches outside of device memory");
        return hipErrorInvalidValue;
    }
    return push(stream, (Op){.kind = Fill, .to = to, .value = value, .bytes = bytes});
}

EXPORT hipError_t hipStreamCreateWithFlags(hipStream_t *out, unsigned int flags) {
    ENTER();
    if (flags != hipStreamNonBlocking) return hipErrorInvalidValue;
    for (int i = 0; i < Streams; ++i) {
        if (!s.streams[i].live) {
            s.streams[i] = (struct ihipStream_t){.live = 1, .last = &s.streams[i].first};
            *out = &s.streams[i];
            return hipSuccess;
        }
    }
    return hipErrorOutOfMemory;
}
EXPORT hipError_t hipStreamSynchronize(hipStream_t stream) {
    ENTER();
    if (stream && stream->live && stream->capturing) {
        stream->invalid = 1;
        return hipErrorStreamCaptureUnsupported;
    }
    return stream && stream->live ? drain(stream) : hipSuccess;
}
EXPORT hipError_t hipStreamQuery(hipStream_t stream) {
    ENTER();
    if (!stream || !stream->live) return hipErrorInvalidHandle;
    if (stream->capturing) {
        stream->invalid = 1;
        return hipErrorStreamCaptureUnsupported;
    }
    hipError_t result = stream->first ? drain_one(stream) : hipSuccess;
    return result != hipSuccess ? result : stream->first ? hipErrorNotReady : hipSuccess;
}
EXPORT hipError_t hipStreamDestroy(hipStream_t stream) {
    ENTER();
    if (!stream || !stream->live) return hipErrorInvalidHandle;
    drain(stream);
    free_ops(stream->captured);
    stream->live = 0;
    return hipSuccess;
}

EXPORT hipError_t hipEventCreateWithFlags(hipEvent_t *out, unsigned flags) {
    ENTER();
    if (flags != hipEventDefault) return hipErrorInvalidValue;
    for (int i = 0; i < Events; ++i) {
        if (!s.events[i].live) {
            s.events[i] = (struct ihipEvent_t){.live = 1};
            *out = &s.events[i];
            return hipSuccess;
        }
    }
    return hipErrorOutOfMemory;
}
EXPORT hipError_t hipEventRecord(hipEvent_t event, hipStream_t stream) {
    ENTER();
    if (!event || !event->live || !stream || !stream->live) return hipErrorInvalidHandle;
    if (stream->capturing) return hipErrorStreamCaptureUnsupported;
    event->recorded = 1;
    ++event->pending;
    event->stream = stream;
    return push(stream, (Op){.kind = Record, .event = event});
}
EXPORT hipError_t hipEventSynchronize(hipEvent_t event) {
    ENTER();
    if (!event || !event->live) return hipErrorInvalidHandle;
    return event->recorded ? drain_to(event->stream, event) : hipSuccess;
}
EXPORT hipError_t hipEventElapsedTime(float *ms, hipEvent_t start, hipEvent_t stop) {
    ENTER();
    if (!start || !stop || !start->live || !stop->live || !start->recorded || !stop->recorded) return hipErrorInvalidHandle;
    if (start->pending || stop->pending) return hipErrorNotReady;
    *ms = (float)((stop->at.tv_sec - start->at.tv_sec) * 1e3 + (stop->at.tv_nsec - start->at.tv_nsec) * 1e-6);
    return hipSuccess;
}
EXPORT hipError_t hipEventDestroy(hipEvent_t event) {
    ENTER();
    if (!event || !event->live) return hipErrorInvalidHandle;
    event->live = 0;
    return hipSuccess;
}

EXPORT hipError_t hipStreamBeginCapture(hipStream_t stream, hipStreamCaptureMode mode) {
    ENTER();
    if (!stream || !stream->live || mode != hipStreamCaptureModeThreadLocal) return hipErrorInvalidValue;
    if (stream->capturing) return hipErrorIllegalState;
    stream->capturing = 1;
    stream->invalid = 0;
    stream->captured = NULL;
    stream->captured_last = &stream->captured;
    return hipSuccess;
}
EXPORT hipError_t hipStreamEndCapture(hipStream_t stream, hipGraph_t *out) {
    ENTER();
    if (!stream || !stream->live || !out) return hipErrorInvalidValue;
    *out = NULL;
    if (!stream->capturing) return hipErrorIllegalState;
    Op *ops = stream->captured;
    stream->captured = NULL;
    stream->capturing = 0;
    for (int i = 0; i < Graphs && !stream->invalid; ++i) {
        if (!s.graphs[i].live) {
            s.graphs[i] = (struct ihipGraph){1, ops};
            *out = &s.graphs[i];
            return hipSuccess;
        }
    }
    free_ops(ops);
    return stream->invalid ? hipErrorStreamCaptureInvalidated : hipErrorOutOfMemory;
}
EXPORT hipError_t hipGraphDestroy(hipGraph_t graph) {
    ENTER();
    if (!graph || !graph->live) return hipErrorInvalidValue;
    free_ops(graph->ops);
    graph->live = 0;
    return hipSuccess;
}
EXPORT hipError_t hipGraphInstantiateWithFlags(hipGraphExec_t *out, hipGraph_t graph, unsigned long long flags) {
    ENTER();
    if (!out || !graph || !graph->live || flags) return hipErrorInvalidValue;
    for (int i = 0; i < Graphs; ++i) {
        if (s.execs[i].live) continue;
        s.execs[i] = (struct hipGraphExec){1, NULL};
        Op **last = &s.execs[i].ops;
        for (Op *op = graph->ops; op; op = op->next) {
            hipError_t appended = append(&last, *op);
            if (appended != hipSuccess) return appended;
        }
        *out = &s.execs[i];
        return hipSuccess;
    }
    return hipErrorOutOfMemory;
}
EXPORT hipError_t hipGraphLaunch(hipGraphExec_t exec, hipStream_t stream) {
    ENTER();
    if (!exec || !exec->live || !stream || !stream->live) return hipErrorInvalidValue;
    ++s.graph_launches;
    hipError_t result = hipSuccess;
    for (Op *op = exec->ops; op && result == hipSuccess; op = op->next) result = push(stream, *op);
    return result;
}
EXPORT hipError_t hipGraphExecDestroy(hipGraphExec_t exec) {
    ENTER();
    if (!exec || !exec->live) return hipErrorInvalidValue;
    free_ops(exec->ops);
    exec->live = 0;
    return hipSuccess;
}

// EF_AMDGPU_MACH of LLVM's AMDGPU ABI.
static unsigned machine(void) {
    static const struct {
        const char *name;
        unsigned mach;
    } known[] = {{"gfx90a", 0x3f}, {"gfx942", 0x4c}, {"gfx1030", 0x36}, {"gfx1100", 0x41}, {"gfx1201", 0x4e}};
    const char *own = arch(s.device);
    size_t length = strcspn(own, ":");
    for (size_t i = 0; i < sizeof known / sizeof *known; ++i)
        if (strlen(known[i].name) == length && strncmp(known[i].name, own, length) == 0) return known[i].mach;
    return 0;
}

static hipError_t read_functions(void) {
    FILE *f = fopen(s.meta, "r");
    if (!f) return hipErrorFileNotFound;
    free(s.functions);
    s.functions = NULL;
    s.n_functions = 0;
    Function one = {0};
    while (fscanf(f, "%95s %zu %u", one.name, &one.bytes, &one.threads) == 3) {
        struct ihipModuleSymbol_t *more = realloc(s.functions, (s.n_functions + 1) * sizeof *more);
        if (!more) break;
        s.functions = more;
        one.kernel = s.find(one.name);
        s.functions[s.n_functions++].f = one;
    }
    fclose(f);
    return hipSuccess;
}

EXPORT hipError_t hipModuleLoadData(hipModule_t *out, const void *image) {
    ENTER();
    const Elf64_Ehdr *elf = image;
    if (memcmp(elf->e_ident, ELFMAG, SELFMAG) != 0 || elf->e_machine != 224) return hipErrorInvalidImage;
    if ((elf->e_flags & 0xff) != machine()) return hipErrorNoBinaryForGpu;
    if (!s.library) {
        s.library = dlopen(s.unit, RTLD_NOW | RTLD_LOCAL);
        if (!s.library) return hipErrorSharedObjectInitFailed;
        s.run = (Run)dlsym(s.library, "hipc_host_run");
        s.find = (void *(*)(const char *))dlsym(s.library, "hipc_host_find");
        s.message = (const char *(*)(void))dlsym(s.library, "hipc_host_error");
        if (!s.run || !s.find || !s.message) return hipErrorSharedObjectSymbolNotFound;
    }
    hipError_t read = read_functions();
    if (read != hipSuccess) return read;
    for (int i = 0; i < Modules; ++i) {
        if (!s.modules[i].live) {
            s.modules[i].live = 1;
            *out = &s.modules[i];
            return hipSuccess;
        }
    }
    return hipErrorOutOfMemory;
}
EXPORT hipError_t hipModuleUnload(hipModule_t module) {
    ENTER();
    if (!module || !module->live) return hipErrorInvalidHandle;
    module->live = 0;
    return hipSuccess;
}
EXPORT hipError_t hipModuleGetFunction(hipFunction_t *out, hipModule_t module, const char *name) {
    ENTER();
    if (!module || !module->live) return hipErrorInvalidHandle;
    for (size_t i = 0; i < s.n_functions; ++i) {
        if (strcmp(s.functions[i].f.name, name) == 0 && s.functions[i].f.kernel) {
            *out = &s.functions[i];
            return hipSuccess;
        }
    }
    return hipErrorNotFound;
}
EXPORT hipError_t hipModuleLaunchKernel(hipFunction_t function, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx,
                                        unsigned int by, unsigned int bz, unsigned int lds, hipStream_t stream, void **params,
                                        void **extra) {
    ENTER();
    const Function *f = &function->f;
    if (params || !extra || by != 1 || bz != 1 || lds || !gx || !gy || !gz) return hipErrorInvalidValue;
    const void *buffer = NULL;
    size_t bytes = 0;
    for (void **e = extra; *e != HIP_LAUNCH_PARAM_END; e += 2) {
        if (*e == HIP_LAUNCH_PARAM_BUFFER_POINTER) buffer = e[1];
        else if (*e == HIP_LAUNCH_PARAM_BUFFER_SIZE) bytes = *(size_t *)e[1];
        else return hipErrorInvalidValue;
    }
    Op op = {.kind = Launch, .bytes = bytes, .kernel = f->kernel, .grid = {gx, gy, gz}, .threads = bx};
    if (!buffer || bytes != f->bytes || bytes > sizeof op.args) {
        violation("kernel arguments of another size than the code object's metadata says");
        return hipErrorInvalidValue;
    }
    if (bx > f->threads) {
        violation("a workgroup larger than the code object allows");
        return hipErrorInvalidConfiguration;
    }
    memcpy(op.args, buffer, bytes);
    return push(stream, op);
}

EXPORT const char *hipGetErrorName(hipError_t error) {
    switch ((int)error) {
        case hipSuccess: return "hipSuccess";
        case hipErrorInvalidValue: return "hipErrorInvalidValue";
        case hipErrorOutOfMemory: return "hipErrorOutOfMemory";
        case hipErrorNoDevice: return "hipErrorNoDevice";
        case hipErrorInvalidDevice: return "hipErrorInvalidDevice";
        case hipErrorNoBinaryForGpu: return "hipErrorNoBinaryForGpu";
        case hipErrorNotFound: return "hipErrorNotFound";
        case hipErrorIllegalAddress: return "hipErrorIllegalAddress";
        case hipErrorLaunchFailure: return "hipErrorLaunchFailure";
        case hipErrorNotSupported: return "hipErrorNotSupported";
        case hipErrorStreamCaptureInvalidated: return "hipErrorStreamCaptureInvalidated";
        default: return NULL;
    }
}
EXPORT const char *hipGetErrorString(hipError_t error) { return hipGetErrorName(error); }
EXPORT hipError_t hipGetLastError(void) { return enter(__func__); }
EXPORT hipError_t hipPeekAtLastError(void) { return enter(__func__); }
