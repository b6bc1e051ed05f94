// Annealed importance sampling, all temperatures in one launch (rbm_chains.cuh). Log-weights accumulate in float64.
//
// The limit for 100 runs of 784x500 over 14,500 temperatures: 100 blocks read the weights of the units that are on, twice a
// temperature; at 3,200 bytes a cycle for all of them 12,000 cycles a side, 0.2 s. One launch a temperature would alone
// cost as much.
#include "rbm_chains.cuh"
#include "table.h"

namespace gencore::cuda {
namespace {

using rbm::Ais;

__device__ double warp_sum(double value) {
  for (int step = warp_lanes / 2; step > 0; step /= 2) value += __shfl_xor_sync(all_lanes, value, step);
  return value;
}

// What groups of units add to each chain's log-weight: one number a chain and group, by whichever warp had the group.
struct Parts {
  double* parts;
  std::int64_t groups;

  static GENCORE_INLINE std::int64_t groups_of(std::int64_t units) {
    return round_up(units, group_units) / group_units;
  }
  __device__ Parts(BlockMemory& memory, int chains, std::int64_t units)
      : parts(memory.carve<double>(chains * groups_of(units))), groups(groups_of(units)) {}
  // By a whole warp.
  __device__ void put(int chain, std::int64_t first, double of_lane) const {
    const double total = warp_sum(of_lane);
    if (threadIdx.x % warp_lanes == 0) parts[chain * groups + first / group_units] = total;
  }
  __device__ double sum(int chain) const {
    double total = 0;
    for (std::int64_t g = 0; g < groups; ++g) total += parts[chain * groups + g];
    return total;
  }
};

struct RunAis {
  Ais op;
  Machine m;

  static GENCORE_INLINE std::int64_t bytes(const Chains& c) {
    const std::int64_t chains = c.sets == 0 ? 1 : c.sets * set_chains;
    return block_bytes<double>(chains * Parts::groups_of(c.n_visible)) +
           block_bytes<double>(chains * Parts::groups_of(c.n_hidden)) + block_bytes<double>(chains);
  }

  template <class Way>
  __device__ void operator()(const Way& way, BlockMemory memory) const {
    const Parts of_biases(memory, way.chains(), m.to_visible.units), of_fields(memory, way.chains(), m.to_hidden.units);
    double* log_weight = memory.carve<double>(way.chains());
    const std::int64_t count = way.chains() < op.log_weights.shape[0] - way.chain
                                   ? way.chains()
                                   : op.log_weights.shape[0] - way.chain;  // chains that there are
    const auto each_chain = [&](const auto& body) {
      for (int c = static_cast<int>(threadIdx.x); c < count; c += static_cast<int>(blockDim.x)) body(c);
    };
    each_chain([&](int c) { log_weight[c] = 0; });
    way.draw(way.visible, [&](int chain, std::int64_t row, std::int64_t first) {
      return weighed(op.start.given() ? given(row, first) : drawn_from_base(row, first), chain, first, of_biases);
    });
    for (std::int64_t k = 1; k < op.betas.shape[0]; ++k) {
      const double now = op.betas[k - 1], next = op.betas[k];
      way.draw(m.to_hidden, way.visible, way.hidden,
               [&](int chain, std::int64_t row, std::int64_t first, const float (&sum)[lane_units]) {
        return weigh_and_draw_hidden(k, now, next, chain, row, first, sum, of_fields);
      });
      each_chain([&](int c) { log_weight[c] += (next - now) * of_biases.sum(c) + of_fields.sum(c); });
      __syncthreads();
      way.draw(m.to_visible, way.hidden, way.visible,
               [&](int chain, std::int64_t row, std::int64_t first, const float (&sum)[lane_units]) {
        return weighed(draw_visible(k, next, row, first, sum), chain, first, of_biases);
      });
    }
    each_chain([&](int c) { op.log_weights[way.chain + c] = log_weight[c]; });
    way.each(way.visible, [&](int, std::int64_t row, std::int64_t unit, bool on) { op.v_out.row(row)[unit] = on; });
  }

  __device__ RowDraw row_draw(philox::Domain domain, std::int64_t step, std::int64_t row) const {
    return {op.key, domain, static_cast<std::uint64_t>(step), static_cast<std::uint64_t>(op.first_row + row)};
  }

  __device__ unsigned given(std::int64_t row, std::int64_t first) const {
    unsigned bits = 0;
#pragma unroll
    for (int c = 0; c < lane_units; ++c) {
      const std::int64_t unit = lane_unit(first, c);
      bits |= static_cast<unsigned>(unit < m.to_visible.units && is_on(op.start, row, unit)) << c;
    }
    return bits;
  }

  __device__ float base_of(std::int64_t unit) const { return unit < m.to_visible.units ? op.base_bias[unit] : 0.0f; }

  // v ~ prod_i logistic(b0_i).
  __device__ unsigned drawn_from_base(std::int64_t row, std::int64_t first) const {
    Odds odds[lane_units];
#pragma unroll
    for (int c = 0; c < lane_units; ++c) odds[c] = odds_of(base_of(lane_unit(first, c)));
    return draw_group(row_draw(philox::ais_start, 0, row), first, m.to_visible.units, odds);
  }

  // Keeps sum_i (b_i - b0_i) v_i of these units.
  __device__ unsigned weighed(unsigned bits, int chain, std::int64_t first, const Parts& of_biases) const {
    double difference = 0;
#pragma unroll
    for (int c = 0; c < lane_units; ++c) {
      if ((bits >> c & 1u) == 0) continue;
      const std::int64_t unit = lane_unit(first, c);
      difference += static_cast<double>(m.to_visible.bias[unit]) - static_cast<double>(op.base_bias[unit]);
    }
    of_biases.put(chain, first, difference);
    return bits;
  }

  // Keeps what the hidden units of v add to log f_next(v) / f_now(v), and draws them at `next`, from the same sums.
  __device__ unsigned weigh_and_draw_hidden(std::int64_t k, double now, double next, int chain, std::int64_t row,
                                            std::int64_t first, const float (&sum)[lane_units],
                                            const Parts& of_fields) const {
    const float beta0 = static_cast<float>(now), beta1 = static_cast<float>(next);
    float before = 1, after = 1, positive = 0;
    Odds odds[lane_units];
#pragma unroll
    for (int c = 0; c < lane_units; ++c) {
      const std::int64_t unit = lane_unit(first, c);
      const float field = sum[c] + m.to_hidden.bias_of(unit);
      odds[c] = odds_of(field * beta1);
      if (unit >= m.to_hidden.units) continue;
      before *= 1.0f + exp_minus_abs(field * beta0);
      after *= odds[c].scale;
      positive += max(field, 0.0f);
    }
    of_fields.put(chain, first,
                  (next - now) * static_cast<double>(positive) + static_cast<double>(log(after / before)));
    return draw_group(row_draw(philox::hidden_head, k, row), first, m.to_hidden.units, odds);
  }

  __device__ unsigned draw_visible(std::int64_t k, double next, std::int64_t row, std::int64_t first,
                                   const float (&sum)[lane_units]) const {
    const float beta = static_cast<float>(next), rest = static_cast<float>(1 - next);
    Odds odds[lane_units];
#pragma unroll
    for (int c = 0; c < lane_units; ++c) {
      const std::int64_t unit = lane_unit(first, c);
      odds[c] = odds_of(fmaf(sum[c] + m.to_visible.bias_of(unit), beta, base_of(unit) * rest));
    }
    return draw_group(row_draw(philox::visible_head, k, row), first, m.to_visible.units, odds);
  }
};

void ais(const Ais& op) {
  DeviceScratch scratch(op, Machine::bytes(op));
  for_chains(op, op.log_weights.shape[0], RunAis{op, pack_machine(op, scratch)});
}

}  // namespace

void fill_rbm_ais(runtime::Table& table) { table.rbm.Ais = ais; }

}  // namespace gencore::cuda
