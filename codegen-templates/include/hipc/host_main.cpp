// Included behind a unit that is compiled as plain C++ into an executable: serves it to another process, memory and launches
// over stdin and stdout. So the unit can be built with AddressSanitizer and UBSan, which a process that isn't cannot load. Every
// allocation is a malloc of its own with guard zones around. A finding of a sanitizer ends the process, the report on stderr.
//
// Little-endian. A request is u32 kind, u32 length of what follows (a name, kernel arguments), u64 a, u64 b, u32 grid[3],
// u32 threads, then the bytes; an answer is u32 status (0 is good), u32 length, u64 value, then the bytes: a message.
//   1 alloc     a = bytes               value: address; zeroed
//   2 upload    a = address, b = bytes  the data follows the request
//   3 download  a = address, b = bytes  the data follows the answer
//   4 find      name                    value: kernel
//   5 launch    a = kernel, b = order, grid, threads, kernel arguments
//   6 end       frees everything and exits 0
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host.h"

// A fake stack per lane would take megabytes each, and is of no use for lanes that never return.
extern "C" __attribute__((visibility("default"), used)) const char* __asan_default_options() {
    return "detect_stack_use_after_return=0:handle_abort=1";
}

namespace hipc::host {
namespace {

struct Request {
    uint32_t kind, extra;
    uint64_t a, b;
    uint32_t grid[3], threads;
};

struct Answer {
    uint32_t status, length;
    uint64_t value;
};

struct Block {
    void* at;
    Block* next;
};

constexpr uint64_t Align = 256;

FILE *in, *out;

void get(void* to, size_t n) {
    if (n && fread(to, 1, n, in) != n) _Exit(feof(in) ? 0 : 3);  // the other side has gone
}

void answer(uint32_t status, uint64_t value, const char* message = "") {
    Answer a{status, static_cast<uint32_t>(strlen(message)), value};
    fwrite(&a, sizeof a, 1, out);
    fwrite(message, 1, a.length, out);
}

}  // namespace
}  // namespace hipc::host

int main() {
    using namespace hipc::host;
    // Whatever a kernel or a sanitizer prints must not get between the answers.
    in = fdopen(dup(0), "rb");
    out = fdopen(dup(1), "wb");
    if (!in || !out || dup2(2, 1) < 0) return 3;
    Block* blocks = nullptr;
    for (;;) {
        fflush(out);
        Request r;
        get(&r, sizeof r);
        char extra[4096];
        if (r.extra >= sizeof extra) return 3;
        get(extra, r.extra);
        extra[r.extra] = 0;
        switch (r.kind) {
            case 1: {
                void* p = nullptr;
                if (posix_memalign(&p, Align, r.a ? r.a : 1)) {
                    answer(2, 0, "out of memory");
                    break;
                }
                memset(p, 0, r.a);
                blocks = new Block{p, blocks};
                answer(0, reinterpret_cast<uint64_t>(p));
                break;
            }
            case 2:
                get(reinterpret_cast<void*>(r.a), r.b);
                answer(0, 0);
                break;
            case 3:
                answer(0, 0);
                fwrite(reinterpret_cast<void*>(r.a), 1, r.b, out);
                break;
            case 4: {
                void* kernel = hipc_host_find(extra);
                answer(kernel ? 0 : 1, reinterpret_cast<uint64_t>(kernel), kernel ? "" : "no such kernel in this unit");
                break;
            }
            case 5: {
                int status = hipc_host_run(reinterpret_cast<void*>(r.a), r.grid[0], r.grid[1], r.grid[2], r.threads, extra, r.extra,
                                           static_cast<uint32_t>(r.b));
                answer(status, 0, hipc_host_error());
                break;
            }
            case 6:
                while (blocks) {
                    Block* next = blocks->next;
                    free(blocks->at);
                    delete blocks;
                    blocks = next;
                }
                answer(0, 0);
                fflush(out);
                return 0;
            default:
                return 3;
        }
    }
}
