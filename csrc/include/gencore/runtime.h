// The running process: which ISA level and how many threads serve the kernels, and what is built in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "gencore/view.h"

namespace gencore {

GENCORE_API const char* version();

// Level in use: "baseline", "avx2" or "avx512". Chosen once from cpuid; GENCORE_ISA overrides.
GENCORE_API const char* isa();
// Levels that are built in and that this processor can run, lowest first.
GENCORE_API std::vector<std::string> isa_levels();

// Threads a kernel may use. Default: GENCORE_NUM_THREADS, else OMP_NUM_THREADS, else the affinity mask.
GENCORE_API int num_threads();
GENCORE_API void set_num_threads(int n);

// Memory for large results: 64-byte aligned, out of what kernels keep for the next call, so that it costs no page faults.
// Throws std::bad_alloc. It is given back with the size that it was taken with.
GENCORE_API void* take_memory(std::size_t bytes);
GENCORE_API void give_back_memory(void* memory, std::size_t bytes);
// Frees what is kept for the next call: 256 MB at most, and on CUDA devices all scratch memory but that of calls that are
// still under way there.
GENCORE_API void release_scratch();

// Whether ops on arrays of a CUDA device find kernels: libgencore_cuda was loaded (gencore/cuda.h).
GENCORE_API bool cuda_loaded();
// Number of the CUDA device that holds this memory; -1 where none does, or none is loaded.
GENCORE_API int cuda_device_of(const void* data);

// Multiply-add rate of one core in GFLOP/s (float32), measured for about `seconds`.
GENCORE_API double measure_fma_peak(double seconds);

}  // namespace gencore

extern "C" {
// For threadpoolctl and other foreign callers.
GENCORE_API int gencore_get_num_threads();
GENCORE_API void gencore_set_num_threads(int n);
GENCORE_API const char* gencore_get_version();
GENCORE_API const char* gencore_get_isa();
}
