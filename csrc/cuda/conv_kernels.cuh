// The kernels of conv.cu and conv_weight.cu, for those that are made of them.
#pragma once

#include "gencore/conv.h"

namespace gencore::cuda {

void conv2d(const conv::Conv2d& op);
void conv2d_input(const conv::Conv2dInput& op);
void conv2d_weight(const conv::Conv2dWeight& op);

}  // namespace gencore::cuda
