// The kernels behind the code objects in this folder:
//   clang-22 -x hip --offload-arch=ARCH --cuda-device-only --no-gpu-bundle-output -nogpuinc -nogpulib -fuse-cuid=none
//            -mcode-object-version=N -O3 -o ARCH-vN.hsaco kernels.hip
#define GLOBAL __attribute__((global))
#define SHARED __attribute__((shared))

// 1 KiB of LDS, workgroups of up to 256 threads, an argument of each size.
extern "C" GLOBAL __attribute__((amdgpu_flat_work_group_size(1, 256))) void reduce(float *out, const float *in, int n,
                                                                                   unsigned char flag) {
  SHARED static float part[256];
  unsigned i = __builtin_amdgcn_workitem_id_x();
  part[i] = in[i];
  __builtin_amdgcn_s_barrier();
  if (flag) out[i] = part[255 - i] + n;
}

// 100 vector registers; on CDNA 32 accumulation registers as well.
extern "C" GLOBAL __attribute__((amdgpu_flat_work_group_size(64, 64))) void registers(int *out) {
  asm volatile("" ::: "v99");
#ifdef __gfx90a__
  asm volatile("" ::: "a31");
#endif
  *out = 1;
}
