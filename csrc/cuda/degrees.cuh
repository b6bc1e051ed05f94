// Degrees of masked layers, which lie on the device: their order is found there, by counting.
#pragma once

#include "common.cuh"

namespace gencore::cuda {

// By ascending degree, equal ones as they lie: the place of degree i. For all threads of a team.
__device__ inline int place_of(const Team& team, const Vector<const std::int64_t>& degrees, std::int64_t i,
                               bool exists) {
  const std::int64_t degree = exists ? degrees[i] : 0;
  int before = 0;
  for (std::int64_t j = team.rank; exists && j < degrees.shape[0]; j += team.size) {
    before += static_cast<int>(degrees[j] < degree || (degrees[j] == degree && j < i));
  }
  return team.sum(before);
}

__device__ inline bool sees(std::int64_t unit_degree, std::int64_t input_degree, bool strict) {
  return strict ? unit_degree > input_degree : unit_degree >= input_degree;
}

}  // namespace gencore::cuda
