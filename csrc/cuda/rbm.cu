// Gibbs chains: all steps in one launch (rbm_chains.cuh; with rounded weights, rbm_rounded.cu).
#include "rbm_chains.cuh"
#include "rbm_rounded.cuh"
#include "table.h"

namespace gencore::cuda {
namespace {

using rbm::GibbsChain;

// --- Gibbs chains ------------------------------------------------------------------------------------------------------

struct RunGibbs {
  GibbsChain op;
  Machine m;

  static GENCORE_INLINE std::int64_t bytes(const Chains&) { return 0; }

  template <class Way>
  __device__ void operator()(const Way& way, BlockMemory) const {
    way.fill(way.visible, [&](std::int64_t row, std::int64_t unit) { return is_on(op.v, row, unit); });
    for (std::int64_t i = 0; i < op.steps; ++i) {
      way.draw(m.to_hidden, way.visible, way.hidden,
               [&](int, std::int64_t row, std::int64_t first, const float (&sum)[lane_units]) {
        return drawn(m.to_hidden, philox::hidden_head, i, row, first, sum);
      });
      way.draw(m.to_visible, way.hidden, way.visible,
               [&](int chain, std::int64_t row, std::int64_t first, const float (&sum)[lane_units]) {
        const unsigned bits = drawn(m.to_visible, philox::visible_head, i, row, first, sum);
        return op.clamp.given() ? clamped(way, chain, row, first, bits) : bits;
      });
    }
    way.each(way.visible,
             [&](int, std::int64_t row, std::int64_t unit, bool on) { put_state(op.v_out, row, unit, on); });
  }

  __device__ unsigned drawn(const Direction& d, philox::Domain domain, std::int64_t step, std::int64_t row,
                            std::int64_t first, const float (&sum)[lane_units]) const {
    const float beta = op.beta[op.beta.shape[0] == 1 ? 0 : row];
    Odds odds[lane_units];
#pragma unroll
    for (int c = 0; c < lane_units; ++c) odds[c] = odds_of((sum[c] + d.bias_of(lane_unit(first, c))) * beta);
    return draw_group({op.key, domain, static_cast<std::uint64_t>(op.first_step + step),
                       static_cast<std::uint64_t>(op.first_row + row)},
                      first, d.units, odds);
  }

  // Units that are clamped keep the state they have.
  template <class Way>
  __device__ unsigned clamped(const Way& way, int chain, std::int64_t row, std::int64_t first, unsigned bits) const {
    const std::uint8_t* mask = op.clamp.row(op.clamp.shape[0] == 1 ? 0 : row);
#pragma unroll
    for (int c = 0; c < lane_units; ++c) {
      const std::int64_t unit = lane_unit(first, c);
      if (unit >= m.to_visible.units || mask[unit] == 0) continue;
      bits = (bits & ~(1u << c)) | static_cast<unsigned>(Way::on(way.visible, chain, unit)) << c;
    }
    return bits;
  }
};

void gibbs_chain(const GibbsChain& op) {
  if (op.precision != rbm::Precision::float32) return gibbs_chain_rounded(op);
  DeviceScratch scratch(op, Machine::bytes(op));
  for_chains(op, op.v.shape[0], RunGibbs{op, pack_machine(op, scratch)});
}

}  // namespace

void fill_rbm(runtime::Table& table) { table.rbm.GibbsChain = gibbs_chain; }

}  // namespace gencore::cuda
