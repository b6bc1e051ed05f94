// Dispatch tables: one slot an op, one table an ISA level (and one for CUDA). A level's table starts as a copy of the next
// lower level's, so a missing slot falls through.
#pragma once

#include "gencore/autoregressive.h"
#include "gencore/conv.h"
#include "gencore/dense.h"
#include "gencore/optim.h"
#include "gencore/pixels.h"
#include "gencore/rbm.h"
#include "gencore/recurrent.h"
#include "gencore/sample.h"

namespace gencore::runtime {

#define GENCORE_SLOT(Op) void (*Op)(const family::Op&) = nullptr;
struct DenseTable {
#define family dense
  GENCORE_DENSE_OPS(GENCORE_SLOT)
#undef family
};
struct ConvTable {
#define family conv
  GENCORE_CONV_OPS(GENCORE_SLOT)
  GENCORE_PIXELS_OPS(GENCORE_SLOT)
#undef family
};
struct SampleTable {
#define family sample
  GENCORE_SAMPLE_OPS(GENCORE_SLOT)
#undef family
};
struct RbmTable {
#define family rbm
  GENCORE_RBM_OPS(GENCORE_SLOT)
#undef family
};
struct OptimTable {
#define family optim
  GENCORE_OPTIM_OPS(GENCORE_SLOT)
#undef family
};
struct AutoregressiveTable {
#define family autoregressive
  GENCORE_AUTOREGRESSIVE_OPS(GENCORE_SLOT)
#undef family
};
struct RecurrentTable {
#define family recurrent
  GENCORE_RECURRENT_OPS(GENCORE_SLOT)
#undef family
};
#undef GENCORE_SLOT

struct Table {
  DenseTable dense;
  ConvTable conv;
  SampleTable sample;
  RbmTable rbm;
  OptimTable optim;
  AutoregressiveTable autoregressive;
  RecurrentTable recurrent;
  double (*fma_rate)(double seconds) = nullptr;
  // CUDA's only.
  int (*device_of)(const void* data) = nullptr;
  void (*release)() = nullptr;  // gives back the memory that is kept for the next call
};

// The table for ops on this device. CUDA's registers itself when its module is loaded.
const Table& table(DeviceKind kind);
GENCORE_API void register_cuda_table(const Table* table);

}  // namespace gencore::runtime

// The kernel sources; each is compiled once per ISA level, into a namespace of that name, and fills its slots there.
// CMakeLists.txt lists the same names.
// clang-format off
#define GENCORE_SOURCES(X)                                                        \
  X(dense) X(dense_loss) X(logistic_mixture) X(conv) X(pixels) X(pixel_stack)     \
  X(sample) X(sample_reparam) X(sample_relaxed) X(rbm) X(rbm_partition)           \
  X(optim) X(optim_step) X(nade) X(nade_sample) X(masked_linear) X(masked_sample) \
  X(recurrent)
// clang-format on

#define GENCORE_DECLARE_FILL(source) void fill_##source(runtime::Table& table);
#define GENCORE_DECLARE_LEVEL(level)    \
  namespace gencore::level {            \
  GENCORE_SOURCES(GENCORE_DECLARE_FILL) \
  }
GENCORE_DECLARE_LEVEL(baseline)
GENCORE_DECLARE_LEVEL(avx2)
GENCORE_DECLARE_LEVEL(avx512)
#undef GENCORE_DECLARE_LEVEL
#undef GENCORE_DECLARE_FILL
