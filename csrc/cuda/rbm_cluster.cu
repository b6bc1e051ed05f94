// Gibbs chains on tensor cores whose weights never leave the chip: the eight blocks of a cluster, each on a multiprocessor
// of its own, hold an eighth of both directions each, fetched once a call. All of them have the states of all of the
// cluster's chains, as bits; each draws the units that it has the weights of and puts them into all eight.
//
// The limits (arithmetic for an H100, 784x500 and bfloat16, in cycles of 1.7 GHz, and not measured): 209 KB of weights a
// block leave room for 128 chains. A step of a chain takes 72 cycles of each multiprocessor for products, 50 for draws
// and, at 32 bytes a cycle to other blocks, 40 to put them there; two barriers and the length of the longest sums are
// 5,000 whatever the number of chains. 16 clusters of 128 chains, where so many run at once: 2048 * 1284 / 26,000 * 1.7 =
// 170 unit updates a nanosecond; of one chain, 7,600 cycles a step against 65,000 where weights come from the second-level
// cache.
#include "cluster.cuh"
#include "rbm_rounded.cuh"
#include "rbm_tile_draw.cuh"

namespace gencore::cuda {
namespace {

using rbm::GibbsChain;

constexpr int most_warps = 16;  // of a block

// What a warp computes at a time. Eighths of whole tiles would make the largest of 784x500 1 KB too large.
constexpr int piece_fragments = tile_fragments / 2;
constexpr int tile_pieces = tile_fragments / piece_fragments;

struct Piece {
  std::int64_t tile;
  int first, fragments;  // fragments first, first + 1, ... of the tile
};

// The blocks take turns at the pieces: piece i is that of block i % 8. Only the last of a block's pieces is not whole.
struct Pieces {
  const RoundedDirection& d;

  GENCORE_INLINE std::int64_t count() const { return tile_pieces * d.tiles(); }
  GENCORE_INLINE Piece piece(std::int64_t i) const {
    const std::int64_t tile = i / tile_pieces;
    const int first = static_cast<int>(i % tile_pieces) * piece_fragments, rest = d.fragments(tile) - first;
    return {tile, first, rest < 0 ? 0 : rest < piece_fragments ? rest : piece_fragments};
  }
  GENCORE_INLINE std::int64_t count_of(int rank) const {
    return (count() - rank + cluster_blocks - 1) / cluster_blocks;
  }
  GENCORE_INLINE Piece piece_of(int rank, std::int64_t k) const { return piece(rank + k * cluster_blocks); }

  // Words of weights: of a fragment, and of all that a block has.
  GENCORE_INLINE std::int64_t fragment_words(int slots) const { return d.words() * warp_lanes * slots; }
  GENCORE_INLINE std::int64_t words_of(int rank, int slots) const {
    std::int64_t fragments = 0;
    for (std::int64_t k = 0; k < count_of(rank); ++k) fragments += piece_of(rank, k).fragments;
    return fragments * fragment_words(slots);
  }
};

// Whatever a cluster of `sets` times 16 `blocks` chains does.
template <class Precision, int blocks>
struct ClusterChains {
  static constexpr int set_rows = fragment_rows * blocks;  // chains that share the weights of a warp
  static constexpr int slots = Precision::slots;

  GibbsChain op;
  RoundedMachine m;
  int sets;

  GENCORE_INLINE int chains() const { return sets * set_rows; }
  __device__ std::int64_t first_row() const {
    return static_cast<std::int64_t>(blockIdx.x) / cluster_blocks * chains();
  }

  // States lie at the same place in every block, so that a block knows where the others have them.
  __device__ void operator()() const {
    BlockMemory memory{dynamic_shared()};
    const PackedStates states(m, chains(), memory);
    const auto& [visible, hidden] = states;
    const unsigned* hidden_weights = fetch(m.to_hidden, memory);
    const unsigned* visible_weights = fetch(m.to_visible, memory);
    begin_chains(op, first_row(), chains(), states);
    cluster_barrier();
    for (std::int64_t i = 0; i < op.steps; ++i) {
      draw_side(m.to_hidden, hidden_weights, visible, hidden, philox::hidden_head, i, false);
      draw_side(m.to_visible, visible_weights, hidden, visible, philox::visible_head, i, op.clamp.given());
    }
    end_chains(op, first_row(), chains(), cluster_rank(), cluster_blocks, visible);
  }

  // This block's weights: words [piece][32 given units][fragment][lane][slot].
  __device__ const unsigned* fetch(const RoundedDirection& d, BlockMemory& memory) const {
    const Pieces pieces{d};
    const int rank = cluster_rank();
    unsigned* const held = memory.carve<unsigned>(pieces.words_of(rank, slots));
    uint4* to = reinterpret_cast<uint4*>(held);
    for (std::int64_t k = 0; k < pieces.count_of(rank); ++k) {
      const Piece piece = pieces.piece_of(rank, k);
      constexpr int fragment = warp_lanes * slots / 4;
      const int own = piece.fragments * fragment;
      const uint4* from = reinterpret_cast<const uint4*>(d.w + piece.tile * d.tile_words(slots)) +
                          piece.first * fragment;
      for (std::int64_t i = threadIdx.x; i < d.words() * own; i += blockDim.x) {
        to[i] = __ldg(from + i / own * (tile_fragments * fragment) + i % own);
      }
      to += d.words() * own;
    }
    return held;
  }

  __device__ void draw_side(const RoundedDirection& d, const unsigned* weights, const PackedSide& given,
                            const PackedSide& drawn, philox::Domain domain, std::int64_t step, bool clamped) const {
    const Pieces pieces{d};
    const int rank = cluster_rank();
    for (std::int64_t t = warp_index(); t < pieces.count_of(rank) * sets; t += warps_of_block()) {
      const std::int64_t k = t / sets;
      const int first = static_cast<int>(t % sets) * set_rows;
      const Piece piece = pieces.piece_of(rank, k);
      if (piece.fragments == 0) continue;
      TileSums<blocks, piece_fragments> sums = {};
      add_products(d.words(), weights + k * piece_fragments * pieces.fragment_words(slots), piece.fragments,
                   given.row(first), given.stride(), sums);
      const TileDraw draw{op,          d,      drawn, first_row(), RoundedDirection::first_unit(piece.tile),
                          piece.first, domain, step,  clamped};
      draw.each(first, sums,
                [&](int chain, const unsigned (&bits)[1]) { put_everywhere(draw, drawn, chain, bits[0]); });
    }
    cluster_barrier();
  }

  // sums += states weights, from where a piece's words begin.
  __device__ static void add_products(std::int64_t words, const unsigned* weights, int fragments,
                                      const unsigned* states, std::int64_t stride,
                                      TileSums<blocks, piece_fragments>& sums) {
    constexpr int count = Weights<Precision>::count;
    const int lane = static_cast<int>(threadIdx.x) % warp_lanes, shift = slots * (lane % 4);
    const unsigned* w = weights + lane * slots;
    const unsigned* row = states + lane / 4 * stride;
#pragma unroll 2
    for (std::int64_t i = 0; i < words; ++i, w += fragments * warp_lanes * slots) {
      unsigned word[blocks][2];
      read_words(row + i, stride, shift, word);
#pragma unroll
      for (int first = 0; first < piece_fragments; first += count) {
        Weights<Precision> some;
        some.template load<true>(w, first, fragments);
        multiply_words<Precision>(word, some, first, fragments, sums);
      }
    }
  }

  // Lane t of four puts the units of fragment t.
  __device__ static void put_everywhere(const TileDraw& draw, const PackedSide& drawn, int chain, unsigned bits) {
    const int t = static_cast<int>(threadIdx.x) % piece_fragments;
#pragma unroll 1
    for (int rank = 0; rank < cluster_blocks; ++rank) {
      draw.put({shared_of(drawn.words, rank), drawn.units}, chain, t, bits >> 8 * t);
    }
  }
};

template <class Body>
__global__ void __launch_bounds__(most_warps* warp_lanes) over_cluster_chains(Body body) {
  body();
}

template <class Precision, int blocks>
std::size_t most_shared_of(const GibbsChain& op) {
  return most_shared(op, over_cluster_chains<ClusterChains<Precision, blocks>>);
}

template <class Precision, int blocks>
int at_once(const GibbsChain& op) {
  return clusters_at_once(op, most_warps * warp_lanes, most_shared_of<Precision, blocks>(op),
                          over_cluster_chains<ClusterChains<Precision, blocks>>);
}

template <class Precision, int blocks>
void launch(const GibbsChain& op, const RoundedMachine& m, const ClusterPlan& plan) {
  const ClusterChains<Precision, blocks> body{op, m, plan.sets};
  launch_clusters(op, ceil_div(op.v.shape[0], body.chains()), cluster_blocks, plan.warps * warp_lanes,
                  static_cast<std::size_t>(plan.bytes), over_cluster_chains<ClusterChains<Precision, blocks>>, body);
}

}  // namespace

template <class Precision>
int clusters_of_chains(const GibbsChain& op) {
  const int few = at_once<Precision, 1>(op), many = at_once<Precision, 2>(op);
  return few < many ? few : many;
}

template <class Precision>
ClusterPlan cluster_plan(const GibbsChain& op, const RoundedMachine& m, std::int64_t clusters) {
  constexpr int slots = Precision::slots;
  const std::int64_t chains = op.v.shape[0];
  ClusterPlan plan;
  if (clusters == 0) return plan;
  const Pieces to_hidden{m.to_hidden}, to_visible{m.to_visible};
  std::int64_t weights = 0;  // of the block that has most
  for (int rank = 0; rank < cluster_blocks; ++rank) {
    const std::int64_t own = block_bytes<unsigned>(to_hidden.words_of(rank, slots)) +
                             block_bytes<unsigned>(to_visible.words_of(rank, slots));
    if (own > weights) weights = own;
  }
  const std::int64_t each = ceil_div(chains, clusters);
  plan.blocks = each <= fragment_rows ? 1 : 2;
  const std::size_t most = plan.blocks == 1 ? most_shared_of<Precision, 1>(op) : most_shared_of<Precision, 2>(op);
  const std::int64_t set = fragment_rows * plan.blocks;
  plan.sets = static_cast<int>(each < most_cluster_chains ? ceil_div(each, set) : most_cluster_chains / set);
  const auto bytes = [&] { return weights + PackedStates::bytes(m, plan.sets * set); };
  while (plan.sets > 0 && static_cast<std::size_t>(bytes()) > most) --plan.sets;
  if (plan.sets == 0) return plan;
  plan.bytes = bytes();
  const std::int64_t tasks = plan.sets * (to_hidden.count() > to_visible.count() ? to_hidden : to_visible).count_of(0);
  plan.warps = static_cast<int>(tasks < most_warps ? tasks : most_warps);
  const std::int64_t own = plan.sets * set, rounds = ceil_div(ceil_div(chains, own), clusters);
  const double units = static_cast<double>(m.to_hidden.units + m.to_visible.units);
  plan.cycles = static_cast<double>(rounds) *
                (5000 + static_cast<double>(own) * (chain_cycles(m, slots) / cluster_blocks + units / 32));
  return plan;
}

template <class Precision>
void run_in_clusters(const GibbsChain& op, const RoundedMachine& m, const ClusterPlan& plan) {
  (plan.blocks == 1 ? launch<Precision, 1> : launch<Precision, 2>)(op, m, plan);
}
template int clusters_of_chains<Bf16>(const GibbsChain&);
template int clusters_of_chains<Tf32>(const GibbsChain&);
template ClusterPlan cluster_plan<Bf16>(const GibbsChain&, const RoundedMachine&, std::int64_t);
template ClusterPlan cluster_plan<Tf32>(const GibbsChain&, const RoundedMachine&, std::int64_t);
template void run_in_clusters<Bf16>(const GibbsChain&, const RoundedMachine&, const ClusterPlan&);
template void run_in_clusters<Tf32>(const GibbsChain&, const RoundedMachine&, const ClusterPlan&);

}  // namespace gencore::cuda
