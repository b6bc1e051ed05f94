// Gibbs chains whose weights are rounded to TF32 or bfloat16.
#pragma once

#include "gencore/rbm.h"

namespace gencore::cuda {

void gibbs_chain_rounded(const rbm::GibbsChain& op);  // precision is not float32

}  // namespace gencore::cuda
