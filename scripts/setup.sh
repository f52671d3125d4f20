# shellcheck shell=bash
# Sourced by `scripts/demo` and `scripts/test`: checks the machine and installs what is missing, saying so. Safe to run twice.

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$1" >&2; shift; for line in "$@"; do printf '  %s\n' "$line" >&2; done; exit 3; }
[ -t 2 ] || say() { printf '==> %s\n' "$*" >&2; }

need_rust() {
    if ! command -v cargo >/dev/null 2>&1; then
        [ -f "${HOME:-}/.cargo/env" ] && . "$HOME/.cargo/env"
    fi
    command -v cargo >/dev/null 2>&1 || die "Rust isn't installed." \
        "hipc needs Rust 1.95 or newer; distributions usually carry an older one." \
        "Install it with rustup (see the Rust project's site, 'Install'), then run this again."
    local have
    have=$(rustc --version | cut -d' ' -f2) || die "Rust is here, but rustc doesn't run." "Install a toolchain with: rustup default stable"
    if [ "$(printf '1.95.0\n%s\n' "${have%%-*}" | sort -V | head -n1)" != 1.95.0 ]; then
        die "Rust $have is too old: hipc needs 1.95 or newer." "Update it with: rustup update stable"
    fi
}

# A clang of version 19 or newer that compiles a kernel for an AMD GPU, with its linker: the one that HIPC_CLANG names, or any.
find_clang() {
    local c v names=(clang-22 clang-23 clang-21 clang-20 clang-19 clang /opt/rocm/llvm/bin/clang)
    [ -z "${HIPC_CLANG:-}" ] || names=("$HIPC_CLANG")
    for c in "${names[@]}"; do
        v=$("$c" -dumpversion 2>/dev/null | cut -d. -f1)
        [ "${v:-0}" -ge 19 ] 2>/dev/null || continue
        if printf 'extern "C" __attribute__((amdgpu_kernel)) void probe(int *p) { *p = 1; }' | "$c" -x c++ --target=amdgcn-amd-amdhsa \
            -mcpu=gfx1100 -nogpulib -o /dev/null - >/dev/null 2>&1; then
            printf '%s' "$c"
            return 0
        fi
    done
    return 1
}

have_package() { dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'install ok installed'; }

# available NAME: whether apt knows the package.
available() { apt-cache show "$1" >/dev/null 2>&1; }

# install_packages NAME...: those that are missing, with apt; asks before it uses sudo, and tries twice, since mirrors fail now and
# then. Where it can't, it says what is missing and how to get it, and fails.
install_packages() {
    local missing=() sudo=() p answer log attempt
    for p in "$@"; do have_package "$p" || missing+=("$p"); done
    [ ${#missing[@]} -eq 0 ] && return 0
    if ! command -v apt-get >/dev/null 2>&1; then
        say "missing: ${missing[*]}; packages are installed on Debian and its relatives only: install their equivalents"
        return 1
    fi
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null 2>&1; then
            say "missing: ${missing[*]}; as root: apt-get install ${missing[*]}"
            return 1
        elif [ ! -t 0 ]; then
            say "missing: ${missing[*]}; nobody can be asked here, so first: sudo apt-get install ${missing[*]}"
            return 1
        fi
        read -r -p "Install ${missing[*]} with sudo apt-get? [Y/n] " answer
        case "$answer" in n* | N*) return 1 ;; esac
        sudo=(sudo)
    fi
    say "installing ${missing[*]}"
    log=$(mktemp)
    for attempt in 1 2; do
        "${sudo[@]}" apt-get update >"$log" 2>&1 || say "apt-get update failed; going on with what apt knows"
        if "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" >>"$log" 2>&1; then
            rm -f "$log"
            return 0
        fi
        [ "$attempt" = 1 ] && say "that failed; trying once more"
    done
    tail -n 5 "$log" >&2
    rm -f "$log"
    return 1
}

# The newest clang that apt knows; 19, the oldest that serves, if it knows none.
newest_clang() {
    local v
    for v in 22 21 20; do
        available "clang-$v" && break
        v=19
    done
    printf '%s' "$v"
}

# What compiles kernels, whatever serves already, else the newest that the distribution has; and a cc, which links Rust programs.
# Sets HIPC_CLANG, so that everything uses the one that was tried.
need_compilers() {
    local missing=() v found
    command -v cc >/dev/null 2>&1 || missing+=(gcc libc6-dev)
    if ! found=$(find_clang); then
        [ -z "${HIPC_CLANG:-}" ] || die "HIPC_CLANG=$HIPC_CLANG doesn't compile for AMD GPUs." "It must be a clang ≥ 19 with the AMDGPU target and lld."
        # A fresh system knows no packages at all.
        [ "$(id -u)" -ne 0 ] || available clang-19 || apt-get update >/dev/null 2>&1 || true
        v=$(newest_clang)
        missing+=("clang-$v" "lld-$v")
    fi
    if [ ${#missing[@]} -gt 0 ]; then
        install_packages "${missing[@]}" || die "hipc can't be built and used without these." \
            "Any clang ≥ 19 with the AMDGPU target and its lld will do; HIPC_CLANG names one that isn't found."
        found=$(find_clang) || die "The clang of this machine doesn't compile for AMD GPUs." "Set HIPC_CLANG to one (≥ 19) that does."
    fi
    export HIPC_CLANG=$found
    say "kernels are compiled by $(command -v "$HIPC_CLANG") ($("$HIPC_CLANG" -dumpversion))"
}

# LLVM 22 with its headers, which the LLVM back end is linked against.
find_llvm() {
    local c v
    for c in ${LLVM_SYS_221_PREFIX:+"$LLVM_SYS_221_PREFIX/bin/llvm-config"} llvm-config-22 llvm-config; do
        v=$("$c" --version 2>/dev/null) || continue
        case "$v" in 22.1.*) ;; *) continue ;; esac
        [ -f "$("$c" --includedir)/llvm-c/Core.h" ] && return 0
    done
    return 1
}

# Sets FEATURES: the flags with which cargo builds what this machine can have.
find_features() {
    FEATURES=()
    if ! find_llvm; then
        say "LLVM 22's development package isn't here (Debian: apt-get install llvm-22-dev): hipc is built without its LLVM back end"
        FEATURES=(--no-default-features)
    fi
}

# usable_archs HIPC HIPFIRE_RUN MODEL: architectures of this machine's AMD GPUs that the compiler has code for, each once, with
# commas; nothing without any. What can't be compiled for is said, with the reason.
usable_archs() {
    local arch usable="" why folder
    folder=$(mktemp -d)
    for arch in $("$2" doctor --print-arch 2>/dev/null | sort -u); do
        # By itself, so that a GPU nobody can compile for doesn't take the others with it. The unit is cached.
        if why=$("$1" compile "$3" --arch "$arch" -q -o "$folder/plan.bin" 2>&1); then
            say "found an AMD GPU: $arch"
            usable=${usable:+$usable,}$arch
        else
            say "found an AMD GPU that hipc can't compile for ($arch): ${why%%$'\n'*}"
        fi
    done
    rm -rf "$folder"
    printf '%s' "$usable"
}

# with_sanitizers: whether the clang links programs with AddressSanitizer and UBSan.
with_sanitizers() {
    printf 'int main() { return 0; }\n' | "$HIPC_CLANG" --driver-mode=g++ -fsanitize=address,undefined -fuse-ld=lld -x c++ -o /dev/null - >/dev/null 2>&1
}

# may_mount: whether a file system may be mounted here.
may_mount() {
    local folder done=1
    folder=$(mktemp -d)
    mount -t tmpfs -o size=64k tmpfs "$folder" 2>/dev/null && umount "$folder" && done=0
    rmdir "$folder"
    return $done
}

# find_hipcc: whether there is a hipcc.
find_hipcc() { command -v "${HIPC_HIPCC:-hipcc}" >/dev/null 2>&1 || [ -x /opt/rocm/bin/hipcc ]; }

# say_skipped: what tests need that isn't here, one line each: tests that lack something pass without doing anything, and cargo
# doesn't show what a passing test prints. Sets SKIPPED to how many there are.
say_skipped() {
    local shared=${HIPC_SHARED:-../shared} library=/usr/lib/x86_64-linux-gnu/libamdhip64.so.5
    SKIPPED=0
    lacks() { SKIPPED=$((SKIPPED + 1)); say "skipped: $1"; }
    [ -d "$shared/golden" ] || lacks "comparisons with reference data ($shared/golden isn't there; HIPC_SHARED names the folder)"
    [ -d "$shared/models" ] || lacks "reference models ($shared/models isn't there; HIPC_SHARED names the folder)"
    [ -f /usr/include/hip/hip_runtime_api.h ] || lacks "the device hip on a stand-in driver (no HIP headers; package libamdhip64-dev)"
    [ -f "$library" ] || lacks "the real HIP runtime without a GPU (no $library; package libamdhip64-5)"
    find_hipcc || lacks "the kernels through another compiler (no hipcc)"
    with_sanitizers || lacks "kernels under AddressSanitizer and UBSan (no sanitizer runtime; package libclang-rt-N-dev)"
    find_llvm || lacks "hipc's LLVM back end (package llvm-22-dev)"
    case "$("$HIPC_CLANG" --version)" in
        *"version 22.1.8"*) ;;
        *) lacks "snapshots of registers and instructions (they are of clang 22.1.8)" ;;
    esac
    command -v script >/dev/null 2>&1 || lacks "what a person at a terminal meets (no \`script\`; package bsdutils or util-linux)"
    command -v python3 >/dev/null 2>&1 || lacks "the tests of bench/compare.py (no python3)"
    may_mount || lacks "a full disk (no right to mount one)"
}
