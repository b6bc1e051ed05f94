// The kernels of dense_loss.cpp and logistic_mixture.cpp, for those that are made of them.
#pragma once

#include "gencore/dense.h"

namespace gencore::GENCORE_LEVEL {

void bernoulli_log_prob(const dense::BernoulliLogProb& op);
void bernoulli_log_prob_vjp(const dense::BernoulliLogProbVjp& op);
void softmax_cross_entropy(const dense::SoftmaxCrossEntropy& op);
void softmax_cross_entropy_vjp(const dense::SoftmaxCrossEntropyVjp& op);
void logistic_mixture_log_prob(const dense::LogisticMixtureLogProb& op);
void logistic_mixture_log_prob_vjp(const dense::LogisticMixtureLogProbVjp& op);

}  // namespace gencore::GENCORE_LEVEL
