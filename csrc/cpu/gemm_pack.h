// Panels of b for the tile kernel: panel_columns columns, row after row, so that the inner loop reads straight on.
#pragma once

#include "gemm_tile.h"
#include "transpose.h"

namespace gencore::GENCORE_LEVEL {

// Packs rows 0 .. k of b (row p at b + p * stride), the columns of `span`.
inline void pack_rows(std::int64_t k, const float* b, std::int64_t stride, const Span& span, float* panel) {
  const std::int64_t width = span.vectors * lanes;
  for (std::int64_t p = 0; p < k; ++p, b += stride, panel += width) {
    if (span.masked()) {
      store(panel, load_first(b, span.columns));
      continue;
    }
    for (int j = 0; j + 1 < span.vectors; ++j) store(panel + j * lanes, load(b + j * lanes));
    store(panel + width - lanes, load(b + span.last()));
  }
}

// The same where b is stored by columns (column j at b + j * stride).
inline void pack_columns(std::int64_t k, const float* b, std::int64_t stride, const Span& span, float* panel) {
  const std::int64_t width = span.vectors * lanes;
  for (int j = 0; j < span.vectors; ++j) {
    const float* in = b + (j + 1 == span.vectors ? span.last() : j * lanes) * stride;
    float* out = panel + j * lanes;
    const int columns = span.masked() ? span.columns : lanes;
    std::int64_t p = 0;
    for (; columns == lanes && p + load_depth <= k; p += load_depth) {
      F v[load_depth];
      load_columns(in + p, stride, v);
      GENCORE_UNROLL
      for (int i = 0; i < load_depth; ++i) store(out + (p + i) * width, v[i]);
    }
    for (; p < k; ++p) {
      for (int l = 0; l < columns; ++l) out[p * width + l] = in[l * stride + p];
    }
  }
}

}  // namespace gencore::GENCORE_LEVEL
