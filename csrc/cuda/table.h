// Each family's kernels, put into their slots of CUDA's dispatch table.
#pragma once

#include "../runtime/table.h"

namespace gencore::cuda {

void fill_sample(runtime::Table& table);
void fill_sample_reparam(runtime::Table& table);
void fill_sample_relaxed(runtime::Table& table);
void fill_dense_loss(runtime::Table& table);
void fill_dense(runtime::Table& table);
void fill_rbm_layer(runtime::Table& table);
void fill_rbm_cd(runtime::Table& table);
void fill_rbm_ais(runtime::Table& table);
void fill_rbm_partition(runtime::Table& table);
void fill_optim(runtime::Table& table);
void fill_rbm(runtime::Table& table);
void fill_logistic_mixture(runtime::Table& table);
void fill_conv(runtime::Table& table);
void fill_conv_weight(runtime::Table& table);
void fill_masked_linear(runtime::Table& table);
void fill_masked_sample(runtime::Table& table);
void fill_nade(runtime::Table& table);
void fill_nade_vjp(runtime::Table& table);
void fill_pixel_stack(runtime::Table& table);
void fill_pixels(runtime::Table& table);
void fill_recurrent(runtime::Table& table);
void fill_recurrent_vjp(runtime::Table& table);

}  // namespace gencore::cuda
