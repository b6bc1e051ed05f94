// run(op): check once, pick the table, call the kernel.
#include <atomic>

#include "gencore/runtime.h"
#include "isa.h"
#include "scratch.h"
#include "table.h"

namespace gencore::runtime {

static Table build_cpu_table() {
  Table t;
#define X(source) baseline::fill_##source(t);
  GENCORE_SOURCES(X)
#undef X
#if defined(GENCORE_BUILT_AVX2)
  if (active_level() >= Level::avx2) {
#define X(source) avx2::fill_##source(t);
    GENCORE_SOURCES(X)
#undef X
  }
#endif
#if defined(GENCORE_BUILT_AVX512)
  if (active_level() >= Level::avx512) {
#define X(source) avx512::fill_##source(t);
    GENCORE_SOURCES(X)
#undef X
  }
#endif
  return t;
}

static std::atomic<const Table*> cuda_table{nullptr};

void register_cuda_table(const Table* t) { cuda_table.store(t, std::memory_order_release); }

static const Table* loaded_cuda_table() { return cuda_table.load(std::memory_order_acquire); }

const Table& table(DeviceKind kind) {
  static const Table cpu = build_cpu_table();
  if (kind == DeviceKind::cpu) return cpu;
  const Table* cuda = loaded_cuda_table();
  if (cuda == nullptr) throw TypeError("gencore: the arrays are on a CUDA device, and no CUDA module is loaded");
  return *cuda;
}

template <class Op>
static void dispatch(const Op& op, void (*kernel)(const Op&)) {
  if (kernel == nullptr) throw TypeError(std::string(Op::name) + ": has no kernel for this device");
  kernel(op);
}

}  // namespace gencore::runtime

namespace gencore {

#define GENCORE_RUN(family, Op)                                      \
  void family::run(const family::Op& op) {                           \
    op.check();                                                      \
    runtime::dispatch(op, runtime::table(op.device.kind).family.Op); \
  }
#define X(Op) GENCORE_RUN(dense, Op)
GENCORE_DENSE_OPS(X)
#undef X
#define X(Op) GENCORE_RUN(conv, Op)
GENCORE_CONV_OPS(X)
GENCORE_PIXELS_OPS(X)
#undef X
#define X(Op) GENCORE_RUN(sample, Op)
GENCORE_SAMPLE_OPS(X)
#undef X
#define X(Op) GENCORE_RUN(rbm, Op)
GENCORE_RBM_OPS(X)
#undef X
#define X(Op) GENCORE_RUN(optim, Op)
GENCORE_OPTIM_OPS(X)
#undef X
#define X(Op) GENCORE_RUN(autoregressive, Op)
GENCORE_AUTOREGRESSIVE_OPS(X)
#undef X
#define X(Op) GENCORE_RUN(recurrent, Op)
GENCORE_RECURRENT_OPS(X)
#undef X

double measure_fma_peak(double seconds) { return runtime::table(DeviceKind::cpu).fma_rate(seconds); }

bool cuda_loaded() { return runtime::loaded_cuda_table() != nullptr; }

int cuda_device_of(const void* data) {
  const runtime::Table* cuda = runtime::loaded_cuda_table();
  return cuda == nullptr ? -1 : cuda->device_of(data);
}

void release_scratch() {
  runtime::release_kept_scratch();
  const runtime::Table* cuda = runtime::loaded_cuda_table();
  if (cuda != nullptr && cuda->release != nullptr) cuda->release();
}

const char* version() { return GENCORE_VERSION; }

}  // namespace gencore

extern "C" {
const char* gencore_get_version() { return gencore::version(); }
const char* gencore_get_isa() { return gencore::isa(); }
}
