// A function that a CPU and a GPU both compile, and loops that the GPU's compiler takes apart or leaves.
#pragma once

#ifdef __CUDACC__
#define FASTPOP_HD __host__ __device__ __forceinline__
#define FASTPOP_UNROLL _Pragma("unroll")
#define FASTPOP_NO_UNROLL _Pragma("unroll 1")
#else
#define FASTPOP_HD inline
#define FASTPOP_UNROLL
#define FASTPOP_NO_UNROLL
#endif
