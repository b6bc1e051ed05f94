// Gibbs chains whose weights are rounded to TF32 or bfloat16, and the two ways to run them.
#pragma once

#include "rbm_fragments.cuh"

namespace gencore::cuda {

void gibbs_chain_rounded(const rbm::GibbsChain& op);  // precision is not float32

// Cycles of a multiprocessor for a step of one chain: 1,365 products of bfloat16 a cycle, two thirds of the rate of tensor
// cores, and 40 instructions a draw.
inline double chain_cycles(const RoundedMachine& m, int slots) {
  const double n_visible = static_cast<double>(m.to_hidden.given), n_hidden = static_cast<double>(m.to_hidden.units);
  return 2 * n_visible * n_hidden * slots / Bf16::slots / 1365 + (n_visible + n_hidden) * 40 / 128;
}

// How clusters (rbm_cluster.cu) share the chains.
struct ClusterPlan {
  int blocks = 0;          // 16 `blocks` chains share the weights that a warp reads
  int sets = 0;            // of so many chains, a cluster has; none where its weights do not fit
  int warps = 0;           // of a block
  std::int64_t bytes = 0;  // of a block's shared memory
  double cycles = 0;       // of a step of all chains
};
constexpr int most_cluster_chains = 128;
// How many clusters run at once; for so many of them, a plan. Asking for the first takes a while, and is no wait.
template <class Precision>
int clusters_of_chains(const rbm::GibbsChain& op);
template <class Precision>
ClusterPlan cluster_plan(const rbm::GibbsChain& op, const RoundedMachine& m, std::int64_t clusters);
template <class Precision>
void run_in_clusters(const rbm::GibbsChain& op, const RoundedMachine& m, const ClusterPlan& plan);

}  // namespace gencore::cuda
