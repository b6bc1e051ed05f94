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
constexpr std::int64_t near_depth = 512;    // so many columns of a and
constexpr std::int64_t near_rows = 256;     // so many rows of them stay in the second-level cache for all panels
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

// Columns [begin, end) of a, on which all tasks work before any goes on.
struct Slab {
  std::int64_t begin, end;
  const float* tiles;  // those columns, tile after tile and column after column of register_rows rows; null: not packed

  GENCORE_INLINE static std::int64_t tile_floats(std::int64_t depth) { return register_rows * depth + line; }
  GENCORE_INLINE std::int64_t tile_floats() const { return tile_floats(end - begin); }
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

// Rows cut into tiles of nearly as many each, the longer ones last.
struct Tiles {
  std::int64_t count, rows, first_longer;
  GENCORE_INLINE explicit Tiles(std::int64_t n)
      : count(ceil_div(n, register_rows)), rows(count > 0 ? n / count : 0), first_longer(count - (n - rows * count)) {}
  GENCORE_INLINE std::int64_t rows_of(std::int64_t tile) const { return rows + (tile >= first_longer ? 1 : 0); }
};

// Where the tiles of a block have their rows of a.
struct Left {
  const float* at;         // the first tile's first
  std::int64_t row, tile;  // from a row, and beside that from a tile, to the next
  std::int64_t stride;     // between columns where rows are adjacent, else between rows
  bool adjacent;

  GENCORE_INLINE Left(const Product& g, const Slab& slab, const Block& block)
      : at(g.a + block.begin * g.a_row + block.k * g.a_column),
        row(g.a_row),
        tile(0),
        stride(g.a_row == 1 ? g.a_column : g.a_row),
        adjacent(g.a_row == 1) {
    if (slab.tiles == nullptr) return;
    row = 0;
    tile = slab.tile_floats();
    stride = register_rows;
    at = slab.tiles + block.begin / register_rows * tile + (block.k - slab.begin) * register_rows;
  }
};

template <class Epilogue>
void multiply_block(const Product& g, const Slab& slab, const Block& block, const Span& span, const float* b,
                    std::int64_t b_row, std::int64_t b_last, const Ahead& ahead, const Epilogue& epilogue) {
  const Tiles tiles(block.end - block.begin);
  const Left left(g, slab, block);
  const bool finished = block.k + block.depth == g.k;
  const float* a = left.at;
  float* c = g.c + block.begin * g.c_row + block.column;
  for (std::int64_t tile = 0; tile < tiles.count; ++tile) {
    const std::int64_t rows = tiles.rows_of(tile);
    const Segment segment{a, b, block.depth};
    const TileArguments t{&segment, 1, left.stride, b_row, b_last, c, g.c_row, span, block.k == 0};
    ahead.fetch(tile, tiles.count);
    (left.adjacent ? tile_kernel<true>(rows, span) : tile_kernel<false>(rows, span))(t);
    a += left.tile + rows * left.row;
    for (std::int64_t r = 0; r < rows; ++r, c += g.c_row) {
      if (finished) finish_row(c, span.columns, block.column, epilogue);
    }
  }
}

// Rows [begin, end) of `columns` columns of c from `column` on; `next` is the column of the panel that is likely next.
template <class Epilogue>
void multiply_panel(const Product& g, const Slab& slab, std::int64_t begin, std::int64_t end, std::int64_t column,
                    std::int64_t columns, std::int64_t next, const Epilogue& epilogue) {
  const Span span(columns);
  const bool pack = g.b_column != 1 || end - begin > unpacked_rows;
  const std::int64_t size = slab.end - slab.begin;
  const Cut blocks{size, max_of(ceil_div(size, depth_block), 1)};
  alignas(64) float panel[depth_block * panel_columns];
  for (std::int64_t i = 0; i < blocks.count; ++i) {
    const std::int64_t k = slab.begin + blocks.begin(i);
    const Block block{begin, end, column, k, slab.begin + blocks.begin(i + 1) - k};
    const float* b = g.b + k * g.b_row + column * g.b_column;
    if (!pack) {
      multiply_block(g, slab, block, span, b, g.b_row, span.last(), Ahead{nullptr, 0, 0, 0}, epilogue);
      continue;
    }
    if (g.b_column == 1) {
      pack_rows(block.depth, b, g.b_row, span, panel);
    } else {
      pack_columns(block.depth, b, g.b_column, span, panel);
    }
    const bool last = i + 1 == blocks.count;
    const std::int64_t k_next = last ? 0 : blocks.begin(i + 1), depth = blocks.begin(last ? 1 : i + 2) - k_next;
    const float* b_next = g.b + (slab.begin + k_next) * g.b_row + (last ? next : column) * g.b_column;
    const Ahead ahead = last && next < 0  ? Ahead{nullptr, 0, 0, 0}
                        : g.b_column == 1 ? Ahead{b_next, depth, g.b_row, columns}
                                          : Ahead{b_next, columns, g.b_column, depth};
    multiply_block(g, slab, block, span, panel, span.vectors * lanes, (span.vectors - 1) * lanes, ahead, epilogue);
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

// Columns of a that lie a multiple of 1 KB apart compete for a few places in the cache, and a tile of few rows uses up
// little of the line that it fetches.
GENCORE_INLINE bool columns_compete(const Product& g) {
  return register_rows < 8 && g.a_column % 256 == 0 && g.k >= 64;
}

// Columns of rows [begin, end) of a, whose rows are adjacent, into tiles. A few columns at a time: each line is used up.
inline void pack_tiles(const Product& g, const Slab& slab, std::int64_t begin, std::int64_t end, float* out) {
  constexpr std::int64_t few = 8;
  const Tiles tiles(end - begin);
  out += begin / register_rows * slab.tile_floats();
  for (std::int64_t k = slab.begin; k < slab.end; k += few) {
    std::int64_t first = begin, rows = 0;
    for (std::int64_t tile = 0; tile < tiles.count; ++tile, first += rows) {
      rows = tiles.rows_of(tile);
      const float* in = g.a + first + k * g.a_column;
      float* to = out + tile * slab.tile_floats() + (k - slab.begin) * register_rows;
      for (std::int64_t p = 0; p < min_of(few, slab.end - k); ++p, in += g.a_column, to += register_rows) {
        if (rows == register_rows) {
          std::memcpy(to, in, 4 * register_rows);
        } else {
          for (std::int64_t r = 0; r < rows; ++r) to[r] = in[r];
        }
      }
    }
  }
}

// How a product is cut: into slabs, and each of them into tasks by panels of columns and blocks of rows.
struct Parts {
  Cut slabs, panels, blocks;  // of k; of vectors of columns; of tiles of rows

  GENCORE_INLINE explicit Parts(const Product& g)
      : slabs{g.k, 1},
        panels{ceil_div(g.n, lanes), ceil_div(g.n, panel_columns)},
        blocks{ceil_div(g.m, register_rows), 1} {
    std::int64_t wanted = ceil_div(enough_tasks, panels.count);
    if (far(g)) {
      slabs.count = ceil_div(g.k, near_depth);
      wanted = max_of(wanted, ceil_div(g.m, near_rows));
    }
    blocks.count = max_of(min_of(wanted, g.m / least_rows), 1);
  }
  // Whether panels would wait for a from the third level.
  GENCORE_INLINE bool far(const Product& g) const { return panels.count > 1 && g.m * g.k > near_rows * near_depth; }
  GENCORE_INLINE bool packs_tiles(const Product& g) const {
    return g.a_row == 1 && g.a_column != 1 && panels.count >= enough_tasks && (far(g) || columns_compete(g));
  }
  GENCORE_INLINE std::int64_t first_row(std::int64_t block, const Product& g) const {
    return min_of(blocks.begin(block) * register_rows, g.m);
  }
};

template <class Epilogue>
void multiply_slab(const Product& g, const Parts& parts, const Slab& slab, const Epilogue& epilogue) {
  // Panels of whole vectors: the last has at least two of them or is alone, so that only n < lanes needs masks.
  const Cut& panels = parts.panels;
  const std::int64_t half = ceil_div(panels.count, 2);
  run_tasks(g, panels.count * parts.blocks.count, [&](std::int64_t task) {
    // From both halves in turn: neighbours write to the cache lines on their border, and should not do so together.
    const std::int64_t turn = task % panels.count, block = task / panels.count;
    const auto panel_of = [&](std::int64_t t) { return t % 2 == 0 ? t / 2 : half + t / 2; };
    const std::int64_t panel = panel_of(turn), column = panels.begin(panel) * lanes;
    const std::int64_t end = min_of(panels.begin(panel + 1) * lanes, g.n);
    const std::int64_t next = turn + 1 < panels.count ? panels.begin(panel_of(turn + 1)) * lanes : -1;
    multiply_panel(g, slab, parts.first_row(block, g), parts.first_row(block + 1, g), column, end - column, next,
                   epilogue);
  });
}

template <class Epilogue>
void multiply_matrix(const Product& g, const Epilogue& epilogue) {
  const Parts parts(g);
  const Cut& slabs = parts.slabs;
  if (!parts.packs_tiles(g)) {
    for (std::int64_t s = 0; s < slabs.count; ++s) {
      multiply_slab(g, parts, Slab{slabs.begin(s), slabs.begin(s + 1), nullptr}, epilogue);
    }
    return;
  }
  const auto floats = static_cast<std::size_t>(parts.blocks.size * Slab::tile_floats(ceil_div(g.k, slabs.count)));
  runtime::Scratch scratch(4 * floats);
  float* const tiles = scratch.carve<float>(floats);
  for (std::int64_t s = 0; s < slabs.count; ++s) {
    const Slab slab{slabs.begin(s), slabs.begin(s + 1), tiles};
    run_tasks(g, parts.blocks.count, [&](std::int64_t block) {
      pack_tiles(g, slab, parts.first_row(block, g), parts.first_row(block + 1, g), tiles);
    });
    multiply_slab(g, parts, slab, epilogue);
  }
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
  } else {
    multiply_matrix(g, epilogue);
  }
}

}  // namespace gencore::GENCORE_LEVEL
