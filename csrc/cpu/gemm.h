// c = epilogue(a b) for float32 matrices in any orientation: which path, which blocks, which threads.
//
// Every element of c is one chain of fused multiply-adds over ascending k that starts at 0. Nothing that is decided here
// can change a bit of it: paths, tiles, blocks of k and tasks only reorder independent chains.
#pragma once

#include "gemm_pack.h"
#include "gemm_tile.h"
#include "gemm_vector.h"
#include "parallel.h"

namespace gencore::GENCORE_LEVEL {

#ifndef KBLOCK
#define KBLOCK 256
#endif
#ifndef RBLOCK
#define RBLOCK 128
#endif
constexpr std::int64_t depth_block = KBLOCK;         // rows of a panel of b at a time: it stays near the core
constexpr std::int64_t row_block = RBLOCK;           // rows of c of one task, which packs b for itself
constexpr std::int64_t vector_chunk = 256;        // columns of one task of a vector product
constexpr std::int64_t unpacked_rows = 32;        // up to so many rows of c, b is read where it lies
constexpr double serial_work = 5e5;               // multiply-adds that are not worth waking a thread for

struct Identity {
  GENCORE_INLINE F operator()(F x, std::int64_t) const { return x; }
};

// a (m, k) and b (k, n) by strides, one of the two strides of each being 1; rows of c (m, n) are c_row apart.
struct Product {
  std::int64_t m, n, k;
  const float* a;
  std::int64_t a_row, a_column;
  const float* b;
  std::int64_t b_row, b_column;
  float* c;
  std::int64_t c_row;
};

// Applies the epilogue to finished sums that are still in the first-level cache: `columns` of a row of c, from `first` on.
template <class Epilogue>
GENCORE_INLINE void finish_row(float* c, std::int64_t columns, std::int64_t first, const Epilogue& epilogue) {
  if (columns < lanes) {
    const int valid = static_cast<int>(columns);
    store_first(c, epilogue(load_first(c, valid), first), valid);
    return;
  }
  const std::int64_t tail = columns - lanes;
  const F last = load(c + tail);  // before its overlap is written
  for (std::int64_t j = 0; j < tail; j += lanes) store(c + j, epilogue(load(c + j), first + j));
  store(c + tail, epilogue(last, first + tail));
}
GENCORE_INLINE void finish_row(float*, std::int64_t, std::int64_t, const Identity&) {}

// Rows [begin, end) of one panel of c, over one block of k.
struct Block {
  std::int64_t begin, end;
  std::int64_t column;        // first column of the panel
  std::int64_t k, depth;      // first of the block, and how many
};

template <class Epilogue>
void multiply_block(const Product& g, const Block& block, const Span& span, const float* b, std::int64_t b_row,
                    std::int64_t b_last, const Epilogue& epilogue) {
  const bool adjacent = g.a_row == 1;
  TileArguments t{nullptr, adjacent ? g.a_column : g.a_row, b, b_row, b_last, nullptr, g.c_row, span, block.depth, block.k == 0};
  for (std::int64_t i = block.begin; i < block.end; i += register_rows) {
    const std::int64_t rows = min_of(register_rows, block.end - i);
    t.a = g.a + i * g.a_row + block.k * g.a_column;
    t.c = g.c + i * g.c_row + block.column;
    (adjacent ? tile_kernel<true>(rows, span) : tile_kernel<false>(rows, span))(t);
    if (block.k + block.depth < g.k) continue;
    for (std::int64_t r = 0; r < rows; ++r) finish_row(t.c + r * g.c_row, span.columns, block.column, epilogue);
  }
}

// Rows [begin, end) of the panel of c that starts at `column`.
template <class Epilogue>
void multiply_panel(const Product& g, std::int64_t begin, std::int64_t end, std::int64_t column, const Epilogue& epilogue) {
  const Span span(min_of(panel_columns, g.n - column));
  const bool pack = g.b_column != 1 || end - begin > unpacked_rows;
  alignas(64) float panel[depth_block * panel_columns];
  std::int64_t k = 0;
  do {
    const Block block{begin, end, column, k, min_of(depth_block, g.k - k)};
    const float* b = g.b + k * g.b_row + column * g.b_column;
    if (!pack) {
      multiply_block(g, block, span, b, g.b_row, span.last(), epilogue);
    } else {
      if (g.b_column == 1) {
        pack_rows(block.depth, b, g.b_row, span, panel);
      } else {
        pack_columns(block.depth, b, g.b_column, span, panel);
      }
      multiply_block(g, block, span, panel, span.vectors * lanes, (span.vectors - 1) * lanes, epilogue);
    }
    k += block.depth;
  } while (k < g.k);
}

// Columns [begin, end) of the only row of c.
template <class Epilogue>
void multiply_vector(const Product& g, std::int64_t begin, std::int64_t end, const Epilogue& epilogue) {
  const float* b = g.b + begin * g.b_column;
  if (g.b_column == 1) {
    multiply_vector_rows(end - begin, g.k, g.a, g.a_column, b, g.b_row, g.c + begin);
  } else {
    multiply_vector_columns(end - begin, g.k, g.a, g.a_column, b, g.b_column, g.c + begin);
  }
  finish_row(g.c + begin, end - begin, begin, epilogue);
}

template <class Body>
GENCORE_INLINE void run_tasks(const Product& g, std::int64_t tasks, const Body& body) {
  if (static_cast<double>(g.m) * static_cast<double>(g.n) * static_cast<double>(g.k) >= serial_work) {
    parallel_for(tasks, body);
  } else {
    for (std::int64_t i = 0; i < tasks; ++i) body(i);
  }
}

// a (m, k) and b (k, n) by strides, one of the two strides of each being 1; rows of c (m, n) are c_row apart;
// epilogue(sums, first column) -> what is stored, for a vector of sums of one row.
template <class Epilogue>
void gemm(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t a_row, std::int64_t a_column,
          const float* b, std::int64_t b_row, std::int64_t b_column, float* c, std::int64_t c_row, const Epilogue& epilogue) {
  if (m == 0 || n == 0) return;
  const Product g{m, n, k, a, a_row, a_column, b, b_row, b_column, c, c_row};
  if (m == 1 && n >= lanes && k > 0) {
    const std::int64_t chunks = max_of(n / vector_chunk, 1);
    run_tasks(g, chunks, [&](std::int64_t i) {
      multiply_vector(g, i * vector_chunk, i + 1 == chunks ? n : (i + 1) * vector_chunk, epilogue);
    });
    return;
  }
  const std::int64_t panels = ceil_div(n, panel_columns), blocks = ceil_div(m, row_block);
  run_tasks(g, panels * blocks, [&](std::int64_t task) {
    const std::int64_t begin = task / panels * row_block;
    multiply_panel(g, begin, min_of(m, begin + row_block), task % panels * panel_columns, epilogue);
  });
}

}  // namespace gencore::GENCORE_LEVEL
