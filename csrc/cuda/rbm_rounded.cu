// Gibbs chains on tensor cores: weights rounded once a call, all steps in one launch. A block of threads has 16, 32 or 64
// chains, whose states stay on chip as bits; a warp computes 128 sums of each and draws from them where they lie. Weights
// come from the second-level cache straight into the registers of the one warp (of 64 chains, two) that needs them.
//
// The limits (arithmetic for an H100 and 784x500, in cycles of 1.7 GHz, and not measured). The cache gives 24 bytes a cycle
// to each of 132 multiprocessors; a step takes 1.57 MB of bfloat16, 65,000 cycles: 32 chains a multiprocessor make
// 32 * 1284 / 65,000 * 132 * 1.7 = 140 unit updates a nanosecond, in TF32 half as many, and 64 chains twice as many. The
// products of 32 chains are 19,000 cycles at two thirds of the rate of tensor cores, and the draws, at 40 instructions each,
// 13,000. Where the weights fit, a cluster may keep them on chip (rbm_cluster.cu).
#include "cluster.cuh"
#include "rbm_chains.cuh"
#include "rbm_rounded.cuh"
#include "rbm_tile_draw.cuh"

namespace gencore::cuda {
namespace {

using rbm::GibbsChain;

constexpr int tile_warps = 8;  // of a block, at most: sums, weights and draws of a tile are 216 registers

// Whatever a block of `sets` times 16 `blocks` chains does.
template <class Precision, int blocks>
struct RoundedChains {
  static constexpr int set_rows = fragment_rows * blocks;  // chains that share the weights of a warp

  GibbsChain op;
  RoundedMachine m;
  int sets;

  GENCORE_INLINE int chains() const { return sets * set_rows; }
  __device__ std::int64_t first_row() const { return static_cast<std::int64_t>(blockIdx.x) * chains(); }

  __device__ void operator()(BlockMemory memory) const {
    const PackedStates states(m, chains(), memory);
    const auto& [visible, hidden] = states;
    begin_chains(op, first_row(), chains(), states);
    __syncthreads();
    for (std::int64_t i = 0; i < op.steps; ++i) {
      draw_side(m.to_hidden, visible, hidden, philox::hidden_head, i, false);
      draw_side(m.to_visible, hidden, visible, philox::visible_head, i, op.clamp.given());
    }
    end_chains(op, first_row(), chains(), 0, 1, visible);
  }

  // Neighbours share a tile, whose weights the first of them fetches.
  __device__ void draw_side(const RoundedDirection& d, const PackedSide& given, const PackedSide& drawn,
                            philox::Domain domain, std::int64_t step, bool clamped) const {
    for (std::int64_t t = warp_index(); t < d.tiles() * sets; t += warps_of_block()) {
      const std::int64_t tile = t / sets;
      const int first = static_cast<int>(t % sets) * set_rows, fragments = d.fragments(tile);
      if (fragments == 0) continue;
      TileSums<blocks> sums = {};
      add_products<Precision, blocks>(d, tile, fragments, given.row(first), given.stride(), sums);
      const TileDraw draw{op, d, drawn, first_row(), RoundedDirection::first_unit(tile), 0, domain, step, clamped};
      draw.each(first, sums, [&](int chain, const unsigned (&bits)[2]) {
        // Lane t of four puts bytes 2 t and 2 t + 1 of the eight that they have together.
        const int t = static_cast<int>(threadIdx.x) % 4;
        for (int i = 2 * t; i < 2 * t + 2; ++i) draw.put(drawn, chain, i, bits[t / 2] >> 8 * (i % 4));
      });
    }
    __syncthreads();
  }
};

template <class Body>
__global__ void __launch_bounds__(tile_warps* warp_lanes)
    over_rounded_chains(Body body, unsigned char* memory, std::int64_t bytes) {
  body(BlockMemory::own(memory, bytes));
}

template <class Precision, int blocks>
void launch_rounded(const GibbsChain& op, const RoundedMachine& m, int sets) {
  const RoundedChains<Precision, blocks> body{op, m, sets};
  const std::int64_t tiles = sets * (m.to_hidden.tiles() > m.to_visible.tiles() ? m.to_hidden : m.to_visible).tiles();
  const int threads = warp_lanes * static_cast<int>(tiles < tile_warps ? tiles : tile_warps);
  launch_with_memory(op, ceil_div(op.v.shape[0], body.chains()), threads, PackedStates::bytes(m, body.chains()),
                     over_rounded_chains<RoundedChains<Precision, blocks>>, body);
}

// As few chains a block as give each multiprocessor one.
struct BlockPlan {
  int blocks, sets;
  double cycles;  // of a step of all chains
};

BlockPlan block_plan(const RoundedMachine& m, int slots, std::int64_t chains, int multiprocessors) {
  const std::int64_t each = ceil_div(chains, multiprocessors);
  BlockPlan plan = {each <= fragment_rows ? 1 : 2, each <= 2 * fragment_rows ? 1 : 2, 0};
  const int own = fragment_rows * plan.blocks * plan.sets;
  const std::int64_t rounds = ceil_div(ceil_div(chains, own), multiprocessors);
  const std::int64_t words = m.to_hidden.tiles() * m.to_hidden.tile_words(slots) +
                             m.to_visible.tiles() * m.to_visible.tile_words(slots);
  const double fetching = static_cast<double>(words) * sizeof(unsigned) / 24, computing = own * chain_cycles(m, slots);
  plan.cycles = static_cast<double>(rounds) * (3000 + (fetching > computing ? fetching : computing));
  return plan;
}

// In clusters or in blocks, whichever takes fewer cycles by the arithmetic of both.
template <class Precision>
void run_rounded(const GibbsChain& op) {
  RoundedMachine m = rounded_sizes(op);
  DeviceScratch scratch(op, rounded_bytes<Precision>(m));
  round_weights<Precision>(op, scratch, false, m.to_hidden);
  round_weights<Precision>(op, scratch, true, m.to_visible);
  const Limits limits = limits_of(op.name, op.device);
  const BlockPlan in_blocks = block_plan(m, Precision::slots, op.v.shape[0], limits.multiprocessors);
  const auto chosen = [&](const ClusterPlan& plan) {
    return plan.sets > 0 && (limits.clusters == Clusters::always || plan.cycles < in_blocks.cycles);
  };
  ClusterPlan in_clusters;
  if (limits.clusters != Clusters::never) {
    in_clusters = cluster_plan<Precision>(op, m, ceil_div(limits.multiprocessors, cluster_blocks));  // at best
    if (chosen(in_clusters)) in_clusters = cluster_plan<Precision>(op, m, clusters_of_chains<Precision>(op));
  }
  if (chosen(in_clusters)) {
    run_in_clusters<Precision>(op, m, in_clusters);
  } else {
    (in_blocks.blocks == 1 ? launch_rounded<Precision, 1> : launch_rounded<Precision, 2>)(op, m, in_blocks.sets);
  }
}

}  // namespace

void gibbs_chain_rounded(const GibbsChain& op) {
  if (op.v.shape[0] == 0) return;
  (op.precision == rbm::Precision::bf16 ? run_rounded<Bf16> : run_rounded<Tf32>)(op);
}

}  // namespace gencore::cuda
