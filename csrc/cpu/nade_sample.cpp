// Ancestral sampling from NADE, blocks of eight rows dimension by dimension. Draws are those of bernoulli.h: 16 bits
// decide, and 16 more where they leave it open.
#include "../runtime/table.h"
#include "bernoulli.h"
#include "nade.h"

namespace gencore::GENCORE_LEVEL {
namespace {

using autoregressive::NadeSample;

constexpr int draw_lanes = row_parts * lanes;  // the rows of a block in whole vectors

// From the head h of u, 16 bits: x / T above `sure` is drawn, below `never` it is not, whatever the tail. log odds of
// (h + 1) / 2^16 and h / 2^16, times the temperature T, with room for the rounding of both sides: 8 roundings of odds
// near 1 here and in draw_tail, and of |log odds|.
struct Thresholds {
  F sure, never;
};
GENCORE_INLINE Thresholds thresholds_of(F head, F temperature) {
  const F above = head + 1.0f, one = splat(65536.0f);
  const F low = log(head / (one - head)), high = log(above / (one - above));  // -inf and inf at the ends
  const F room = splat(0x1p-20f);
  return {temperature * (high + fma(abs(high), room, room)), temperature * (low - fma(abs(low), room, room))};
}

// sure[8 d + r], never[8 d + r] for row first_row + r and unit d.
void draw_thresholds(const NadeSample& op, std::int64_t first_row, std::int64_t dims, float* sure, float* never) {
  for (int r = 0; r < nade_rows; ++r) {
    const philox::Stream stream = philox::stream(philox::nade_head, static_cast<std::uint64_t>(op.step),
                                                 static_cast<std::uint64_t>(first_row + r));
    for (std::int64_t first = 0; first < dims; first += 128) {
      Superblock random[1];
      philox_superblocks({op.key, stream}, static_cast<std::uint32_t>(first / 128), random);
      float found[2][128];
      for (int i = 0; i < 8 * parts; ++i) {
        const U word = random[0].word[i % (4 * parts) / parts][i % parts];
        const F head = to_float((I)(i < 4 * parts ? word & 0xFFFFu : word >> 16));
        const Thresholds at = thresholds_of(head, splat(op.temperature));
        store(found[0] + i * lanes, at.sure);
        store(found[1] + i * lanes, at.never);
      }
      for (std::int64_t i = 0; i < min_of(128, dims - first); ++i) {
        sure[nade_rows * (first + i) + r] = found[0][i];
        never[nade_rows * (first + i) + r] = found[1][i];
      }
    }
  }
}

class Sampler {
 public:
  Sampler(const NadeSample& op, std::int64_t first_row) : op_(op), first_row_(first_row) {}

  // Bit r: whether unit d of row r is drawn.
  GENCORE_INLINE unsigned draw(std::int64_t d, const RowSums& logits, const float* sure, const float* never) {
    unsigned drawn = 0, possible = 0;
    GENCORE_UNROLL
    for (int i = 0; i < row_parts; ++i) {
      const int r = i * lanes;
      const F logit = logits.part[i];
      drawn |= bits(less(load(sure + r), logit)) << r;
      possible |= (bits(less_equal(logit, load(never + r))) ^ ((1u << lanes) - 1)) << r;  // NaN, too
    }
    for (unsigned open = possible & ~drawn & all_rows; __builtin_expect(open != 0, 0); open &= open - 1) {
      const int r = __builtin_ctz(open);
      if (decide(d, r, logits.part[r / lanes][r % lanes])) drawn |= 1u << r;
    }
    return drawn & all_rows;
  }

  // Whether some logit was NaN.
  bool any_nan() const { return nan_; }

  static constexpr unsigned all_rows = (1u << nade_rows) - 1;

 private:
  // By all 32 bits.
  __attribute__((noinline, cold)) bool decide(std::int64_t d, int r, float logit) {
    nan_ = nan_ || logit != logit;
    const Draw row = make_draw(op_.key, philox::nade_head, static_cast<std::uint64_t>(op_.step),
                               static_cast<std::uint64_t>(first_row_ + r));
    const Odds odds = odds_of(with_tail(splat(logit / op_.temperature)));
    return draw_tail(row, d, odds.threshold[0], odds.scale[0]);
  }

  const NadeSample& op_;
  std::int64_t first_row_;
  bool nan_ = false;
};

// One row for all of a block, or the block's own.
bool pack_given(const ConstStates& states, std::int64_t first, std::int64_t rows, std::uint8_t* bits) {
  if (states.shape[0] != 1) return nade_pack(states, first, rows, bits);
  if (!nade_pack(states, 0, 1, bits)) return false;
  for (std::int64_t d = 0; d < states.shape[1]; ++d) bits[d] = bits[d] != 0 ? 0xFF : 0;
  return true;
}

struct Flags {
  Flag given, mask, logits;
};

void sample_block(const NadeSample& op, const Nade& model, std::int64_t first, std::int64_t rows, Flags& wrong) {
  const auto dims = static_cast<std::size_t>(model.dims);
  Scratch scratch(NadeHidden::bytes(model.hidden) + 2 * dims + 8 * (nade_rows * dims + draw_lanes) + 256);
  NadeHidden hidden(scratch, model.hidden);
  auto* keep = scratch.carve<std::uint8_t>(dims);
  auto* given = scratch.carve<std::uint8_t>(dims);
  auto* sure = scratch.carve<float>(nade_rows * dims + draw_lanes);
  auto* never = scratch.carve<float>(nade_rows * dims + draw_lanes);
  const unsigned present = (1u << rows) - 1;
  for (std::int64_t d = 0; d < model.dims; ++d) keep[d] = given[d] = 0;
  if (op.mask.given()) {
    if (!pack_given(op.given, first, rows, given)) return wrong.given.raise();
    if (!pack_given(op.mask, first, rows, keep)) return wrong.mask.raise();
  }
  draw_thresholds(op, op.first_row + first, model.dims, sure, never);
  Sampler sampler(op, op.first_row + first);
  hidden.reset(model.c);
  for (std::int64_t i = 0; i < model.dims; ++i) {
    const std::int64_t d = model.at(i);
    unsigned ones = given[d] & keep[d];
    if ((~keep[d] & present) != 0) {
      RowSums logits = hidden.dot(model.v + d * model.hidden);
      for (F& part : logits.part) part += splat(model.b[d]);
      ones |= sampler.draw(d, logits, sure + nade_rows * d, never + nade_rows * d) & ~static_cast<unsigned>(keep[d]);
    }
    ones &= present;
    for (std::int64_t r = 0; r < rows; ++r) op.out.row(first + r)[d] = static_cast<std::uint8_t>((ones >> r) & 1);
    if (i + 1 == model.dims) break;
    for (; ones != 0; ones &= ones - 1) hidden.add(__builtin_ctz(ones), model.w + d * model.hidden);
  }
  if (sampler.any_nan()) wrong.logits.raise();
}

// Some logit is NaN: names what is not finite.
void reject_parameters(const NadeSample& op) {
  check::finite(op.name, "w", op.w.data, op.w.size());
  check::finite(op.name, "c", op.c.data, op.c.size());
  check::finite(op.name, "v", op.v.data, op.v.size());
  check::finite(op.name, "b", op.b.data, op.b.size());
  runtime::reject_overflow(op.name, "v");
}

void nade_sample(const NadeSample& op) {
  runtime::check_permutation(op.name, "order", op.order);
  const Nade model(op);
  const std::int64_t n = op.out.shape[0];
  Flags wrong;
  parallel_for(nade_blocks(n), [&](std::int64_t block) {
    const std::int64_t first = block * nade_rows;
    sample_block(op, model, first, min_of(nade_rows, n - first), wrong);
  });
  if (wrong.given.raised != 0) runtime::reject_states(op.name, "given", op.given);
  if (wrong.mask.raised != 0) runtime::reject_states(op.name, "mask", op.mask);
  if (wrong.logits.raised != 0) reject_parameters(op);
}

}  // namespace

void fill_nade_sample(runtime::Table& table) { table.autoregressive.NadeSample = nade_sample; }

}  // namespace gencore::GENCORE_LEVEL
