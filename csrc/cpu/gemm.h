// c = epilogue(a b) for float32 matrices in any orientation: which path, which blocks, which threads.
//
// Every element of c is one chain of fused multiply-adds over ascending k that starts at 0. Nothing decided here can
// change a bit of it: paths, tiles, blocks of k and tasks only reorder independent chains.
#pragma once

#include "../runtime/scratch.h"
#include "gemm_pack.h"
#include "gemm_tile.h"
#include "gemm_vector.h"
#include "parallel.h"

namespace gencore::GENCORE_LEVEL {

constexpr std::int64_t depth_block = 256;   // rows of a panel of b at a time: it stays near the core
constexpr std::int64_t enough_tasks = 8;    // panels that need no cutting by rows
constexpr std::int64_t vector_chunk = 256;  // columns of one task of a vector product
constexpr std::int64_t least_rows = 64;     // of a task, which packs b for itself
constexpr std::int64_t unpacked_rows = 32;  // up to so many rows of c, b is read where it lies
constexpr double serial_work = 5e5;         // multiply-adds that are not worth waking a thread for

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

// Applies the epilogue to finished sums that are still in the first-level cache: `columns` of a row of c, the first of
// them column `first`.
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

// A range cut into `count` nearly equal parts, the longer ones last.
struct Cut {
  std::int64_t size, count;
  GENCORE_INLINE std::int64_t begin(std::int64_t part) const { return size * part / count; }
};

// Rows [begin, end) of one panel of c, over one block of k.
struct Block {
  std::int64_t begin, end;
  std::int64_t column;    // first column of the panel
  std::int64_t k, depth;  // first of the block, and how many
};

// The part of b that will be packed next. It is fetched into the second-level cache while the tiles of this part are
// computed: packing alone waits for the third.
struct Ahead {
  const float* b;                    // null: unknown
  std::int64_t count, stride, size;  // stretches of adjacent floats

  GENCORE_INLINE void fetch(std::int64_t part, std::int64_t parts) const {
    if (b == nullptr) return;
    for (std::int64_t i = count * part / parts; i < count * (part + 1) / parts; ++i) {
      for (std::int64_t j = 0; j < size; j += line) __builtin_prefetch(b + i * stride + j, 0, 2);
      __builtin_prefetch(b + i * stride + size - 1, 0, 2);
    }
  }
};

template <class Epilogue>
void multiply_block(const Product& g, const Block& block, const Span& span, const float* b, std::int64_t b_row,
                    std::int64_t b_last, const Ahead& ahead, const Epilogue& epilogue) {
  const bool adjacent = g.a_row == 1, finished = block.k + block.depth == g.k;
  const std::int64_t a_stride = adjacent ? g.a_column : g.a_row;
  const Cut tiles{block.end - block.begin, ceil_div(block.end - block.begin, register_rows)};
  std::int64_t i = block.begin, rows = 0;
  for (std::int64_t tile = 0; tile < tiles.count; ++tile, i += rows) {
    rows = block.begin + tiles.begin(tile + 1) - i;
    const float* a = g.a + i * g.a_row + block.k * g.a_column;
    float* c = g.c + i * g.c_row + block.column;
    const Segment segment{a, b, block.depth};
    const TileArguments t{&segment, 1, a_stride, b_row, b_last, c, g.c_row, span, block.k == 0};
    ahead.fetch(tile, tiles.count);
    (adjacent ? tile_kernel<true>(rows, span) : tile_kernel<false>(rows, span))(t);
    if (!finished) continue;
    for (std::int64_t r = 0; r < rows; ++r) finish_row(c + r * g.c_row, span.columns, block.column, epilogue);
  }
}

// Rows [begin, end) of `columns` columns of c from `column` on; `next` is the column of the panel that is likely next.
template <class Epilogue>
void multiply_panel(const Product& g, std::int64_t begin, std::int64_t end, std::int64_t column, std::int64_t columns,
                    std::int64_t next, const Epilogue& epilogue) {
  const Span span(columns);
  const bool pack = g.b_column != 1 || end - begin > unpacked_rows;
  const Cut blocks{g.k, max_of(ceil_div(g.k, depth_block), 1)};
  alignas(64) float panel[depth_block * panel_columns];
  for (std::int64_t i = 0; i < blocks.count; ++i) {
    const std::int64_t k = blocks.begin(i);
    const Block block{begin, end, column, k, blocks.begin(i + 1) - k};
    const float* b = g.b + k * g.b_row + column * g.b_column;
    if (!pack) {
      multiply_block(g, block, span, b, g.b_row, span.last(), Ahead{nullptr, 0, 0, 0}, epilogue);
      continue;
    }
    if (g.b_column == 1) {
      pack_rows(block.depth, b, g.b_row, span, panel);
    } else {
      pack_columns(block.depth, b, g.b_column, span, panel);
    }
    const bool last = i + 1 == blocks.count;
    const std::int64_t k_next = last ? 0 : blocks.begin(i + 1), depth = blocks.begin(last ? 1 : i + 2) - k_next;
    const float* b_next = g.b + k_next * g.b_row + (last ? next : column) * g.b_column;
    const Ahead ahead = last && next < 0  ? Ahead{nullptr, 0, 0, 0}
                        : g.b_column == 1 ? Ahead{b_next, depth, g.b_row, columns}
                                          : Ahead{b_next, columns, g.b_column, depth};
    multiply_block(g, block, span, panel, span.vectors * lanes, (span.vectors - 1) * lanes, ahead, epilogue);
  }
}

// Columns [begin, end) of the only row of c, fewer than 2 vector_chunk. The sums, written many times, rest on the stack:
// in c two tasks would fight over the cache line on their border.
template <class Epilogue>
void multiply_vector(const Product& g, std::int64_t begin, std::int64_t end, const Epilogue& epilogue) {
  alignas(64) float sums[2 * vector_chunk];
  const float* b = g.b + begin * g.b_column;
  if (g.b_column == 1) {
    multiply_vector_rows(end - begin, g.k, g.a, b, g.b_row, sums);
  } else {
    multiply_vector_columns(end - begin, g.k, g.a, b, g.b_column, sums);
  }
  std::memcpy(g.c + begin, sums, 4 * static_cast<std::size_t>(end - begin));
  finish_row(g.c + begin, end - begin, begin, epilogue);
}

// Whether the work is worth waking a thread for. A vector product is bound by reading b, 1 / 5 as fast.
GENCORE_INLINE bool worth_threads(const Product& g) {
  const double work = static_cast<double>(g.m) * static_cast<double>(g.n) * static_cast<double>(g.k);
  return work >= (g.m == 1 ? serial_work / 5 : serial_work);
}

template <class Body>
GENCORE_INLINE void run_tasks(const Product& g, std::int64_t tasks, const Body& body) {
  if (worth_threads(g)) {
    parallel_for(tasks, body);
  } else {
    for (std::int64_t i = 0; i < tasks; ++i) body(i);
  }
}

template <class Epilogue>
void multiply_row(const Product& g, const Epilogue& epilogue) {
  const Cut chunks{g.n, max_of(g.n / vector_chunk, 1)};
  run_tasks(g, chunks.count,
            [&](std::int64_t i) { multiply_vector(g, chunks.begin(i), chunks.begin(i + 1), epilogue); });
}

template <class Epilogue>
void multiply_matrix(const Product& g, const Epilogue& epilogue) {
  // Panels of whole vectors: the last has at least two of them or is alone, so that only n < lanes needs masks.
  const Cut panels{ceil_div(g.n, lanes), ceil_div(g.n, panel_columns)};
  const Cut blocks{g.m, max_of(min_of(ceil_div(enough_tasks, panels.count), g.m / least_rows), 1)};
  const std::int64_t half = ceil_div(panels.count, 2);
  run_tasks(g, panels.count * blocks.count, [&](std::int64_t task) {
    // From both halves in turn: neighbours write to the cache lines on their border, and should not do so together.
    const std::int64_t turn = task % panels.count, block = task / panels.count;
    const auto panel_of = [&](std::int64_t t) { return t % 2 == 0 ? t / 2 : half + t / 2; };
    const std::int64_t panel = panel_of(turn), column = panels.begin(panel) * lanes;
    const std::int64_t end = min_of(panels.begin(panel + 1) * lanes, g.n);
    const std::int64_t next = turn + 1 < panels.count ? panels.begin(panel_of(turn + 1)) * lanes : -1;
    multiply_panel(g, blocks.begin(block), blocks.begin(block + 1), column, end - column, next, epilogue);
  });
}

// Columns of a that lie a multiple of 1 KB apart compete for a few places in the cache, and a tile of few rows uses up
// little of the line that it fetches. Where many panels read them, a copy pays whose columns lie an odd number of lines
// apart.
GENCORE_INLINE bool columns_compete(const Product& g) {
  return register_rows < 8 && g.a_row == 1 && g.a_column % 256 == 0 && g.k >= 64 && g.n >= enough_tasks * panel_columns;
}

template <class Epilogue>
void multiply_spread(Product g, const Epilogue& epilogue) {
  const std::int64_t stride = (ceil_div(g.m, line) | 1) * line;
  runtime::Scratch scratch(4 * static_cast<std::size_t>(stride * g.k));
  float* copy = scratch.carve<float>(static_cast<std::size_t>(stride * g.k));
  parallel_for(ceil_div(g.k, 64), [&](std::int64_t task) {
    for (std::int64_t k = 64 * task; k < min_of(g.k, 64 * task + 64); ++k) {
      std::memcpy(copy + k * stride, g.a + k * g.a_column, 4 * static_cast<std::size_t>(g.m));
    }
  });
  g.a = copy;
  g.a_column = stride;
  multiply_matrix(g, epilogue);
}

// a (m, k) and b (k, n) by strides, one of the two strides of each being 1; rows of c (m, n) are c_row apart;
// epilogue(sums, first column) -> what is stored, for a vector of sums of one row.
template <class Epilogue>
void gemm(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t a_row, std::int64_t a_column,
          const float* b, std::int64_t b_row, std::int64_t b_column, float* c, std::int64_t c_row,
          const Epilogue& epilogue) {
  if (m == 0 || n == 0) return;
  const Product g{m, n, k, a, a_row, a_column, b, b_row, b_column, c, c_row};
  if (m == 1 && a_column == 1 && n >= lanes && k >= load_depth) {
    multiply_row(g, epilogue);
  } else if (columns_compete(g)) {
    multiply_spread(g, epilogue);
  } else {
    multiply_matrix(g, epilogue);
  }
}

}  // namespace gencore::GENCORE_LEVEL
