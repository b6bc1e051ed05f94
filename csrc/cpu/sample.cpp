// Random variates into arrays.
#include "gencore/sample.h"

#include "../runtime/table.h"
#include "parallel.h"
#include "philox.h"

namespace gencore::GENCORE_LEVEL {
namespace {

void uniform(const sample::Uniform& op) {
  const std::int64_t columns = op.out.shape[1];
  parallel_for(op.out.shape[0], [&](std::int64_t r) {
    const auto stream = philox::stream(philox::uniform, static_cast<std::uint64_t>(op.step),
                                       static_cast<std::uint64_t>(op.first_row + r));
    for (std::int64_t j = 0; j < columns; ++j) op.out.row(r)[j] = philox::to_uniform(philox::word_at(op.key, stream, j));
  });
}

}  // namespace

void fill_sample(runtime::Table& table) { table.sample.Uniform = uniform; }

}  // namespace gencore::GENCORE_LEVEL
