# shellcheck shell=bash
# Sourced by `scripts/demo` and `scripts/test`: checks the machine and installs what is missing, saying so. Safe to run twice.

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$1" >&2; shift; for line in "$@"; do printf '  %s\n' "$line" >&2; done; exit 3; }
[ -t 2 ] || say() { printf '==> %s\n' "$*" >&2; }

need_rust() {
    if ! command -v cargo >/dev/null 2>&1; then
        [ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
    fi
    command -v cargo >/dev/null 2>&1 || die "Rust isn't installed." \
        "hipc needs Rust 1.95 or newer; distributions usually carry an older one." \
        "Install it with rustup (see the Rust project's site, 'Install'), then run this again."
    local have
    have=$(rustc --version | cut -d' ' -f2)
    if [ "$(printf '1.95.0\n%s\n' "${have%%-*}" | sort -V | head -n1)" != 1.95.0 ]; then
        die "Rust $have is too old: hipc needs 1.95 or newer." "Update it with: rustup update stable"
    fi
}

# A clang of version 19 or newer that compiles a kernel for an AMD GPU, with its linker.
find_clang() {
    local c
    for c in "${HIPC_CLANG:-}" clang-22 clang-23 clang-21 clang-20 clang-19 clang /opt/rocm/llvm/bin/clang; do
        [ -n "$c" ] && command -v "$c" >/dev/null 2>&1 || continue
        local v
        v=$("$c" -dumpversion 2>/dev/null | cut -d. -f1)
        [ "${v:-0}" -ge 19 ] || continue
        if printf 'extern "C" __attribute__((amdgpu_kernel)) void probe(int *p) { *p = 1; }' | "$c" -x c++ --target=amdgcn-amd-amdhsa -mcpu=gfx1100 \
            -nogpulib -o /dev/null - >/dev/null 2>&1; then
            printf '%s' "$c"
            return 0
        fi
    done
    return 1
}

have_package() { dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'install ok installed'; }

# install_packages NAME...: with apt, asking before sudo is used; one retry, since mirrors fail now and then.
install_packages() {
    local missing=() p
    for p in "$@"; do have_package "$p" || missing+=("$p"); done
    [ ${#missing[@]} -eq 0 ] && return 0
    command -v apt-get >/dev/null 2>&1 || die "These packages are missing: ${missing[*]}" \
        "This script installs packages on Debian and its relatives only; on other systems install their equivalents" \
        "(clang 19 or newer with the AMDGPU target, lld) and run it again."
    local sudo=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null 2>&1 || die "These packages are missing: ${missing[*]}" "Install them as root: apt-get install ${missing[*]}"
        if [ -t 0 ]; then
            read -r -p "Install ${missing[*]} with sudo apt-get? [Y/n] " answer
            case "$answer" in n* | N*) die "Not installed: ${missing[*]}" ;; esac
        else
            die "These packages are missing: ${missing[*]}" "Install them first: sudo apt-get install ${missing[*]}"
        fi
        sudo=(sudo)
    fi
    say "installing ${missing[*]}"
    local attempt
    for attempt in 1 2; do
        if { "${sudo[@]}" apt-get update && DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y --no-install-recommends "${missing[@]}"; } \
            >/tmp/hipc-apt.log 2>&1; then
            return 0
        fi
        [ "$attempt" = 1 ] && say "that failed; trying once more"
    done
    tail -n 5 /tmp/hipc-apt.log >&2
    return 1
}

# available NAME: whether apt knows the package.
available() { apt-cache show "$1" >/dev/null 2>&1; }

# The compiler for the kernels: whatever serves already, else the newest one that the distribution has.
need_clang() {
    need_cc
    if ! CLANG=$(find_clang); then
        command -v apt-get >/dev/null 2>&1 && ! available clang-22 && ! available clang-19 && [ "$(id -u)" -eq 0 ] && apt-get update >/dev/null 2>&1
        local v
        for v in 22 21 20 19; do
            available "clang-$v" && break
        done
        install_packages "clang-$v" "lld-$v" || die "Could not install clang-$v and lld-$v." "Install any clang ≥ 19 with the AMDGPU target and set HIPC_CLANG."
        CLANG=$(find_clang) || die "clang-$v doesn't compile for AMD GPUs here." "Set HIPC_CLANG to one that does."
    fi
    say "kernels are compiled by $(command -v "$CLANG") ($("$CLANG" -dumpversion))"
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

# cc links Rust programs.
need_cc() {
    command -v cc >/dev/null 2>&1 || install_packages gcc libc6-dev || die "No C compiler: Rust needs one to link." "Install gcc."
}
