// Runs ops of every family with one thread, with several, and from several callers at once, and compares the bytes.
// Under ThreadSanitizer, tasks of one kernel that touch the same memory show themselves.
#include <gencore/gencore.h>

#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

namespace {

using gencore::Matrix;
using gencore::Vector;
using Bytes = std::vector<unsigned char>;

constexpr std::int64_t n_visible = 131, n_hidden = 17, rows = 77, runs = 65;
const gencore::Key key = gencore::make_key(20060724);

template <class T>
class Array {
 public:
  explicit Array(std::int64_t n, std::int64_t m = 1) : n_(n), m_(m), values_(static_cast<std::size_t>(n * m)) {}
  Vector<T> vector() { return {values_.data(), {n_}}; }
  Vector<const T> const_vector() { return {values_.data(), {n_}}; }
  Matrix<T> matrix() { return {values_.data(), {n_, m_}}; }
  Matrix<const T> const_matrix() { return {values_.data(), {n_, m_}}; }
  void append_to(Bytes& bytes) const {
    const auto* first = reinterpret_cast<const unsigned char*>(values_.data());
    bytes.insert(bytes.end(), first, first + sizeof(T) * values_.size());
  }

 private:
  std::int64_t n_, m_;
  std::vector<T> values_;
};

Array<float> normals(std::int64_t n, std::int64_t m, std::int64_t step) {
  Array<float> out(n, m);
  gencore::sample::Normal op;
  op.out = out.matrix();
  op.key = key;
  op.step = step;
  gencore::sample::run(op);
  return out;
}

void sample_and_dense(Bytes& bytes) {
  Array<float> a = normals(rows, n_visible, 0), b = normals(n_visible, 200, 1), product(rows, 200);
  a.append_to(bytes);
  gencore::dense::MatMul matmul;
  matmul.a = a.const_matrix();
  matmul.b = b.const_matrix();
  matmul.out = product.matrix();
  matmul.activation = gencore::dense::Activation::logistic;
  gencore::dense::run(matmul);
  product.append_to(bytes);
  Array<std::uint8_t> bits(rows, 200);
  gencore::sample::Bernoulli bernoulli;
  bernoulli.p = product.const_matrix();
  bernoulli.out = bits.matrix();
  bernoulli.key = key;
  gencore::sample::run(bernoulli);
  bits.append_to(bytes);
  Array<std::int64_t> classes(rows);
  gencore::sample::Categorical categorical;
  categorical.logits = a.const_matrix();
  categorical.out = classes.vector();
  categorical.key = key;
  gencore::sample::run(categorical);
  classes.append_to(bytes);
}

template <class Op>
Op machine(Array<float>& w, Array<float>& b, Array<float>& c) {
  Op op;
  op.w = w.const_matrix();
  op.b = b.const_vector();
  op.c = c.const_vector();
  return op;
}

void rbm(Bytes& bytes) {
  namespace rbm = gencore::rbm;
  Array<float> w = normals(n_visible, n_hidden, 2), b = normals(n_visible, 1, 3), c = normals(n_hidden, 1, 4);
  Array<std::uint8_t> states(rows, n_visible);
  const gencore::States v{states.matrix().data, {rows, n_visible}};
  const float beta = 1;
  auto gibbs = machine<rbm::GibbsChain>(w, b, c);
  gibbs.v = v;
  gibbs.v_out = v;
  gibbs.beta = {&beta, {1}};
  gibbs.steps = 5;
  gibbs.key = key;
  rbm::run(gibbs);
  states.append_to(bytes);

  Array<double> numbers(rows);
  auto free_energy = machine<rbm::FreeEnergy>(w, b, c);
  free_energy.v = v;
  free_energy.out = numbers.vector();
  rbm::run(free_energy);
  numbers.append_to(bytes);
  auto pseudo = machine<rbm::PseudoLogLikelihood>(w, b, c);
  pseudo.v = v;
  pseudo.out = numbers.vector();
  rbm::run(pseudo);
  numbers.append_to(bytes);

  Array<float> grad_w(n_visible, n_hidden), grad_b(n_visible), grad_c(n_hidden);
  Array<std::uint8_t> chains(rows, n_visible);
  auto gradient = machine<rbm::CdGradient>(w, b, c);
  gradient.v = v;
  gradient.chains_out = chains.matrix();
  gradient.k = 2;
  gradient.key = key;
  gradient.grad_w = grad_w.matrix();
  gradient.grad_b = grad_b.vector();
  gradient.grad_c = grad_c.vector();
  rbm::run(gradient);
  for (const auto* array : {&grad_w, &grad_b, &grad_c}) array->append_to(bytes);
  chains.append_to(bytes);

  Array<double> log_z(1);
  auto partition = machine<rbm::LogPartitionExact>(w, b, c);
  partition.out = log_z.vector();
  rbm::run(partition);
  log_z.append_to(bytes);

  std::vector<double> betas;
  for (int i = 0; i <= 20; ++i) betas.push_back(i / 20.0);
  Array<double> log_weights(runs);
  Array<std::uint8_t> ends(runs, n_visible);
  auto ais = machine<rbm::Ais>(w, b, c);
  ais.betas = {betas.data(), {static_cast<std::int64_t>(betas.size())}};
  ais.base_bias = b.const_vector();
  ais.log_weights = log_weights.vector();
  ais.v_out = ends.matrix();
  ais.key = key;
  rbm::run(ais);
  log_weights.append_to(bytes);
  ends.append_to(bytes);
}

void optim(Bytes& bytes) {
  namespace optim = gencore::optim;
  std::vector<Array<float>> params, grads, means, squares;
  std::vector<Vector<float>> p, m, s;
  std::vector<Vector<const float>> g;
  for (const std::int64_t n : {5, 140001, 0, 700}) {
    params.push_back(normals(n, 1, 5));
    grads.push_back(normals(n, 1, 6));
    means.emplace_back(n);
    squares.emplace_back(n);
  }
  for (std::size_t k = 0; k < params.size(); ++k) {
    p.push_back(params[k].vector());
    g.push_back(grads[k].const_vector());
    m.push_back(means[k].vector());
    s.push_back(squares[k].vector());
  }
  const auto count = static_cast<std::int64_t>(params.size());
  optim::AdamStep adam;
  adam.params = {p.data(), count};
  adam.grads = {g.data(), count};
  adam.exp_avgs = {m.data(), count};
  adam.exp_avg_sqs = {s.data(), count};
  adam.lr = 0.1;
  for (adam.step = 1; adam.step <= 3; ++adam.step) optim::run(adam);
  for (const auto* arrays : {&params, &means, &squares})
    for (const Array<float>& array : *arrays) array.append_to(bytes);
  Array<double> norm(1);
  optim::SquareSum sum;
  sum.arrays = {g.data(), count};
  sum.out = norm.vector();
  optim::run(sum);
  norm.append_to(bytes);
}

Bytes everything() {
  Bytes bytes;
  sample_and_dense(bytes);
  rbm(bytes);
  optim(bytes);
  return bytes;
}

void require(bool same, const char* when) {
  if (same) return;
  std::fprintf(stderr, "kernel_stress: other bytes %s\n", when);
  std::exit(1);
}

}  // namespace

int main() {
  gencore::set_num_threads(1);
  const Bytes expected = everything();
  gencore::set_num_threads(4);
  for (int repeat = 0; repeat < 3; ++repeat) require(everything() == expected, "with four threads");
  std::vector<Bytes> results(3);
  std::vector<std::thread> callers;
  for (Bytes& result : results) callers.emplace_back([&result] { result = everything(); });
  for (std::thread& caller : callers) caller.join();
  for (const Bytes& result : results) require(result == expected, "from several callers");
  std::printf("kernel_stress: passed at level %s\n", gencore::isa());
}
