; What differs between generations, for the kernels of ../sanitizer.rs. GFX is 9, 10, 11 or 12.

.macro wait_load n=0
  .if GFX == 12
    s_wait_loadcnt \n
  .else
    s_waitcnt vmcnt(\n)
  .endif
.endm

.macro wait_store
  .if GFX == 12
    s_wait_storecnt 0
  .elseif GFX == 9
    s_waitcnt vmcnt(0)
  .else
    s_waitcnt_vscnt null, 0
  .endif
.endm

.macro wait_lds n=0
  .if GFX == 12
    s_wait_dscnt \n
  .else
    s_waitcnt lgkmcnt(\n)
  .endif
.endm

.macro wait_scalar
  .if GFX == 12
    s_wait_kmcnt 0
  .else
    s_waitcnt lgkmcnt(0)
  .endif
.endm

.macro barrier
  .if GFX == 12
    s_barrier_signal -1
    s_barrier_wait -1
  .else
    s_barrier
  .endif
.endm

.macro invalidate
  .if GFX == 12
    global_inv scope:SCOPE_DEV
  .elseif GFX == 9
    buffer_inv sc1
  .else
    buffer_gl0_inv
  .endif
.endm

; d = the workgroup's number.
.macro group_id d
  .if GFX == 12
    s_mov_b32 \d, ttmp9
  .else
    s_mov_b32 \d, s2
  .endif
.endm

; The first lane only.
.macro one_lane
  .if GFX == 9
    s_mov_b64 exec, 1
  .else
    s_mov_b32 exec_lo, 1
  .endif
.endm

.macro add d, a, b
  .if GFX == 9
    v_add_u32 \d, \a, \b
  .else
    v_add_nc_u32 \d, \a, \b
  .endif
.endm

.macro load d, address, base, offset=0
  .if GFX < 11
    global_load_dword \d, \address, \base offset:\offset
  .else
    global_load_b32 \d, \address, \base offset:\offset
  .endif
.endm

.macro load_half d, address, base
  .if GFX < 11
    global_load_short_d16 \d, \address, \base
  .else
    global_load_d16_b16 \d, \address, \base
  .endif
.endm

.macro load_upper_half d, address, base
  .if GFX < 11
    global_load_short_d16_hi \d, \address, \base
  .else
    global_load_d16_hi_b16 \d, \address, \base
  .endif
.endm

.macro store address, data, base, offset=0
  .if GFX < 11
    global_store_dword \address, \data, \base offset:\offset
  .else
    global_store_b32 \address, \data, \base offset:\offset
  .endif
.endm

.macro lds_load d, address, offset=0
  .if GFX < 11
    ds_read_b32 \d, \address offset:\offset
  .else
    ds_load_b32 \d, \address offset:\offset
  .endif
.endm

.macro lds_store address, data, offset=0
  .if GFX < 11
    ds_write_b32 \address, \data offset:\offset
  .else
    ds_store_b32 \address, \data offset:\offset
  .endif
.endm

.macro scalar_load2 d, base, offset
  .if GFX < 11
    s_load_dwordx2 \d, \base, \offset
  .else
    s_load_b64 \d, \base, \offset
  .endif
.endm

; d = the old value.
.macro atomic_add d, address, data, base
  .if GFX == 12
    global_atomic_add_u32 \d, \address, \data, \base th:TH_ATOMIC_RETURN scope:SCOPE_DEV
  .elseif GFX == 11
    global_atomic_add_u32 \d, \address, \data, \base glc
  .elseif GFX == 10
    global_atomic_add \d, \address, \data, \base glc
  .else
    global_atomic_add \d, \address, \data, \base sc0
  .endif
.endm

; Of the buffer that s[8:11] describes; d = the old value, where the data were.
.macro buffer_atomic old, new, d, address
  .if GFX == 12
    buffer_atomic_\new \d, \address, s[8:11], null offen th:TH_ATOMIC_RETURN scope:SCOPE_DEV
  .elseif GFX == 11
    buffer_atomic_\new \d, \address, s[8:11], 0 offen glc
  .elseif GFX == 10
    buffer_atomic_\old \d, \address, s[8:11], 0 offen glc
  .else
    buffer_atomic_\old \d, \address, s[8:11], 0 offen sc0
  .endif
.endm

; s[4:5] = the buffer; v1 = 4 · the work-item's number; v2 = 0; s6 = the number of the wave's first work-item; s7 = the workgroup's.
.macro begin
  group_id s7
  scalar_load2 s[4:5], s[0:1], 0
  v_lshlrev_b32 v1, 2, v0
  v_mov_b32 v2, 0
  v_readfirstlane_b32 s6, v0
  wait_scalar
.endm
