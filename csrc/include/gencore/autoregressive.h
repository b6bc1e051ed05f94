// Autoregressive models: p(x) = prod_d p(x_d | the dimensions before it).
#pragma once

#include "gencore/masked_linear.h"
#include "gencore/masked_sample.h"
#include "gencore/nade.h"

#define GENCORE_AUTOREGRESSIVE_OPS(X) GENCORE_NADE_OPS(X) GENCORE_MASKED_LINEAR_OPS(X) GENCORE_MASKED_SAMPLE_OPS(X)
