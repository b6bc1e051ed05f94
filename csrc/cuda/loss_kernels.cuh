// The kernels of dense_loss.cu and logistic_mixture.cu, for those that are made of them.
#pragma once

#include "gencore/dense_loss.h"
#include "gencore/logistic_mixture.h"

namespace gencore::cuda {

void bernoulli_log_prob(const dense::BernoulliLogProb& op);
void bernoulli_log_prob_vjp(const dense::BernoulliLogProbVjp& op);
void softmax_cross_entropy(const dense::SoftmaxCrossEntropy& op);
void softmax_cross_entropy_vjp(const dense::SoftmaxCrossEntropyVjp& op);
void logistic_mixture_log_prob(const dense::LogisticMixtureLogProb& op);
void logistic_mixture_log_prob_vjp(const dense::LogisticMixtureLogProbVjp& op);

}  // namespace gencore::cuda
