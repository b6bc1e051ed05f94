// Random variates into arrays. A variate depends on its coordinates alone, so work may be cut anywhere between
// superblocks.
#include "gencore/sample.h"

#include "../runtime/reject.h"
#include "../runtime/scratch.h"
#include "../runtime/table.h"
#include "bernoulli.h"
#include "elements.h"
#include "noise.h"
#include "parallel.h"

namespace gencore::GENCORE_LEVEL {
namespace {

using runtime::Scratch;

// Calls body(row, first, end) for stretches of units of every row; `first` is a multiple of 256.
template <class Body>
void for_each_stretch(std::int64_t rows, std::int64_t units, const Body& body) {
  const std::int64_t cuts = ceil_div(units, task_units), block = max_of(task_units / max_of(units, 1), 1);
  parallel_for(ceil_div(rows, block) * cuts, [&](std::int64_t task) {
    const std::int64_t first = task % cuts * task_units, end = min_of(first + task_units, units);
    for (std::int64_t r = task / cuts * block; r < min_of(rows, (task / cuts + 1) * block); ++r) body(r, first, end);
  });
}

GENCORE_INLINE philox::Stream stream_of(const sample::Coordinates& op, philox::Domain domain, std::int64_t row) {
  return philox::stream(domain, static_cast<std::uint64_t>(op.step), static_cast<std::uint64_t>(op.first_row + row));
}

template <class Op, class Noise>
void fill(const Op& op, philox::Domain domain, Noise noise) {
  const NoiseSource source(op, domain, op.out.shape[1]);
  for_each_noise_tile(noise, source, op.out.size(), [&](std::int64_t first, std::int64_t count, const float* draws) {
    float* out = op.out.data + first;
    for_each_vector(count, [&](std::int64_t i, auto at) { at.store(out + i, load(draws + i)); });
  });
}

void uniform(const sample::Uniform& op) { fill(op, philox::uniform, UniformNoise{}); }

void exponential(const sample::Exponential& op) { fill(op, philox::exponential, ExponentialNoise{}); }

void normal(const sample::Normal& op) { fill(op, philox::normal, NormalNoise{}); }

// --- Bernoulli -----------------------------------------------------------------------------------------------------

// Units u .. end - 1, at most 128, of one row. False where a p is not in [0, 1].
GENCORE_INLINE bool draw_some(const Draw& draw, std::int64_t u, std::int64_t end, const float* p,
                              std::uint64_t words[2]) {
  std::uint32_t inside = (1u << lanes) - 1;
  draw_group(draw, u, end - u, [&](int offset) {
    const std::int64_t count = end - u - offset;
    const F v = count >= lanes ? load(p + offset) : load_first(p + offset, static_cast<int>(count));
    inside &= bits(less_equal(splat(0.0f), v)) & bits(less_equal(v, splat(1.0f)));
    return Odds{v, splat(1.0f)};
  }, words);
  return inside == (1u << lanes) - 1;
}

// put(row, first unit, word, units of it) for each 64 units of each row; p has a row for each, or one for all.
template <class Op, class Put>
GENCORE_INLINE void draw_rows(const Op& op, std::int64_t rows, const Put& put) {
  constexpr std::int64_t at_once = 128 * superblocks_at_once;
  constexpr bool by_halves = lanes > 4;  // four lanes are SSE2's, which compares no unsigned halves
  Flag outside;                          // raised where a p is not in [0, 1]
  for_each_stretch(rows, op.p.shape[1], [&](std::int64_t r, std::int64_t first, std::int64_t end) {
    const auto draw = make_draw(op.key, philox::bernoulli_head, static_cast<std::uint64_t>(op.step),
                                static_cast<std::uint64_t>(op.first_row + r));
    const float* p = op.p.row(op.p.shape[0] == 1 ? 0 : r);
    bool inside = true;
    for (std::int64_t u = first; u < end; u += at_once) {
      std::uint64_t words[2 * superblocks_at_once];
      if (!by_halves || end - u < at_once || !draw_probabilities(draw, u, p + u, words)) {
        for (std::int64_t i = 0; i < superblocks_at_once && u + 128 * i < end; ++i) {
          inside = draw_some(draw, u + 128 * i, end, p + u + 128 * i, words + 2 * i) && inside;
        }
      }
      for (std::int64_t i = 0; i < 2 * superblocks_at_once && u + 64 * i < end; ++i) {
        put(r, u + 64 * i, words[i], static_cast<int>(min_of(64, end - u - 64 * i)));
      }
    }
    if (!inside) outside.raise();
  });
  if (outside.raised) runtime::reject_probability(op.name, "p", op.p);
}

void bernoulli(const sample::Bernoulli& op) {
  draw_rows(op, op.p.shape[0], [&](std::int64_t r, std::int64_t unit, std::uint64_t word, int count) {
    store_bits(op.out.row(r) + unit, word, count);
  });
}

void bernoulli_bits(const sample::BernoulliBits& op) {
  draw_rows(op, op.out.shape[0],
            [&](std::int64_t r, std::int64_t unit, std::uint64_t word, int) { op.out.row(r)[unit / 64] = word; });
}

// --- categorical ---------------------------------------------------------------------------------------------------

constexpr std::int64_t block_categories = 64;

// The first `count` lanes from memory, `rest` in the others.
GENCORE_INLINE F load_or(const float* p, std::int64_t count, F rest) {
  if (count >= lanes) return load(p);
  if (count <= 0) return rest;
  return select(less(to_float((I)iota()), splat(static_cast<float>(count))), load_first(p, static_cast<int>(count)),
                rest);
}

// The largest of n logits; NaN where one is NaN or inf.
float largest(const float* logits, std::int64_t n) {
  const F infinity = splat(__builtin_inff());
  F top = -infinity;
  std::uint32_t valid = ~0u;
  for (std::int64_t k = 0; k < n; k += lanes) {
    const F v = load_or(logits + k, n - k, -infinity);
    top = max(v, top);
    valid &= bits(less(v, infinity));
  }
  float lane[lanes];
  store(lane, top);
  for (int i = 1; i < lanes; ++i) lane[0] = lane[i] > lane[0] ? lane[i] : lane[0];
  return valid == (1u << lanes) - 1 ? lane[0] : __builtin_nanf("");
}

// Masses exp(logit - top) of one row's categories, and their sums over blocks.
struct Masses {
  float* mass;
  double* block_sums;
  std::int64_t n, blocks;
  double total;

  static std::size_t bytes(std::int64_t n) {
    const auto blocks = static_cast<std::size_t>(ceil_div(n, block_categories));
    return blocks * (4 * block_categories + 8) + 128;
  }
  Masses(Scratch& scratch, std::int64_t categories) : n(categories), blocks(ceil_div(n, block_categories)), total(0) {
    mass = scratch.carve<float>(static_cast<std::size_t>(blocks * block_categories));
    block_sums = scratch.carve<double>(static_cast<std::size_t>(blocks));
  }

  void weigh(const float* logits, float top) {
    total = 0;
    for (std::int64_t block = 0; block < blocks; ++block) {
      F sums{};
      for (std::int64_t k = block * block_categories; k < min_of((block + 1) * block_categories, n); k += lanes) {
        const F e = exp(load_or(logits + k, n - k, splat(-__builtin_inff())) - splat(top));
        store(mass + k, e);
        sums += e;
      }
      block_sums[block] = sum(sums);
      total += block_sums[block];
    }
  }

  // The first category at which the running sum passes `target`; where rounding leaves none, the last of positive mass.
  std::int64_t at(double target) const {
    std::int64_t block = 0, found = 0;
    for (std::int64_t b = 0; b < blocks; ++b) {
      if (block_sums[b] == 0) continue;
      block = b;
      if (target < block_sums[b]) break;
      target -= block_sums[b];
    }
    for (std::int64_t k = block * block_categories; k < min_of((block + 1) * block_categories, n); ++k) {
      if (mass[k] == 0) continue;
      found = k;
      if (target < static_cast<double>(mass[k])) break;
      target -= static_cast<double>(mass[k]);
    }
    return found;
  }
};

void categorical(const sample::Categorical& op) {
  const std::int64_t rows = op.logits.shape[0], n = op.logits.shape[1], block = max_of(task_units / max_of(n, 1), 1);
  Flag bad;  // raised where a row has no distribution
  parallel_for(ceil_div(rows, block), [&](std::int64_t task) {
    Scratch scratch(Masses::bytes(n));
    Masses masses(scratch, n);
    for (std::int64_t r = task * block; r < min_of(rows, (task + 1) * block); ++r) {
      const float top = largest(op.logits.row(r), n);
      if (!(top > -__builtin_inff())) {
        bad.raise();
        continue;
      }
      masses.weigh(op.logits.row(r), top);
      const float u = philox::to_uniform(philox::word_at(op.key, stream_of(op, philox::categorical, r), 0));
      op.out[r] = masses.at(static_cast<double>(u) * masses.total);
    }
  });
  if (bad.raised) runtime::reject_logits(op.name, "logits", op.logits);
}

}  // namespace

void fill_sample(runtime::Table& table) {
  table.sample.Uniform = uniform;
  table.sample.Normal = normal;
  table.sample.Exponential = exponential;
  table.sample.Bernoulli = bernoulli;
  table.sample.BernoulliBits = bernoulli_bits;
  table.sample.Categorical = categorical;
}

}  // namespace gencore::GENCORE_LEVEL
