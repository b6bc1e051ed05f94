// Random variates into arrays, each thread its Philox blocks. Continuous noise lies flat: no word is wasted, however
// short the rows.
//
// The limit: a block is ten rounds of two 32 x 32 -> 64 products and four xors and gives four words, 25 integer
// instructions a word; a multiprocessor of an H100 issues 64 of them a cycle, so 132 of them at 1.7 GHz make 570 words a
// nanosecond. Written as float32 at 3 TB/s, 750 could leave: uniforms are bound by arithmetic and bandwidth about alike,
// normal and exponential variates by arithmetic; Bernoulli draws, half a word each, by the 5 bytes that each moves.
#include "gencore/sample.h"
#include "noise.cuh"
#include "table.h"

namespace gencore::cuda {
namespace {

// Noise of one kind into a matrix.
template <class Noise>
struct Fill {
  float* out;
  NoiseSource source;
  __device__ void operator()(const Quad& q) const {
    const FourVariates v = noise_of<Noise>(source, q);
    q.each([&](int w, std::int64_t i) { out[i] = v.value[w]; });
  }
};

template <class Noise, class Op>
void fill(const Op& op, philox::Domain domain) {
  const NoiseSource source(op, domain, op.out.shape[1]);
  for_each_quad(op, source, op.out.size(), Fill<Noise>{op.out.data, source});
}

void uniform(const sample::Uniform& op) { fill<UniformNoise>(op, philox::uniform); }

void exponential(const sample::Exponential& op) { fill<ExponentialNoise>(op, philox::exponential); }

void normal(const sample::Normal& op) { fill<NormalNoise>(op, philox::normal); }

// --- rows of Philox --------------------------------------------------------------------------------------------------

// Where random numbers are found that do not lie in the flat layout: row r of the op has a row of Philox.
struct RowSource {
  Key key;
  philox::Stream stream;  // its row is that of row 0

  RowSource(const sample::Coordinates& op, philox::Domain domain)
      : key(op.key),
        stream(philox::stream(domain, static_cast<std::uint64_t>(op.step), static_cast<std::uint64_t>(op.first_row))) {}
  __device__ philox::Block block(std::int64_t row, std::uint32_t number) const {
    return philox::block(key, number, stream.row + static_cast<std::uint32_t>(row), stream.step, stream.tag);
  }
};

// --- Bernoulli -----------------------------------------------------------------------------------------------------

// u < p by the head of u, the tail where the head leaves it open. A p outside [0, 1] counts as the nearer end, NaN as 0.
__device__ bool draw(const RowSource& tail, std::int64_t row, std::int64_t unit, std::uint32_t head, float p) {
  const float low = static_cast<float>(head) * 0x1p-16f;
  if (!(low < p)) return false;
  if (low + 0x1p-16f <= p) return true;
  philox::Stream stream = tail.stream;
  stream.row += static_cast<std::uint32_t>(row);
  return static_cast<float>(philox::half_at(tail.key, stream, unit)) + 0.5f < (p - low) * 0x1p32f;
}

// Four bits to four bytes of 0 and 1.
__device__ std::uint32_t spread(std::uint32_t bits) { return (bits & 0xFu) * 0x00204081u & 0x01010101u; }

// Sixteen threads draw 128 units of a row, of which each has eight, 16 apart. Ballots put their bits in order, so that each
// can write eight neighbours in one access.
__global__ void __launch_bounds__(block_threads)
    draw_probabilities(sample::Bernoulli op, RowSource head, RowSource tail) {
  const std::int64_t units = op.p.shape[1], threads = (units + 127) / 128 * 16;
  std::int64_t row, number;
  divide(global_thread(), threads, row, number);
  const bool exists = row < op.p.shape[0];
  const std::int64_t first = number / 16 * 128;
  const int lane = static_cast<int>(number % 16), shift = threadIdx.x % warp_lanes / 16 * 16;
  const philox::Block words = head.block(row, static_cast<std::uint32_t>(number));
  std::uint32_t mine = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const std::int64_t unit = first + 16 * i + lane;
    const std::uint32_t word = words.word[i % 4];
    const bool one = exists && unit < units &&
                     draw(tail, row, unit, i < 4 ? word & 0xFFFFu : word >> 16, op.p[row * units + unit]);
    const std::uint32_t bits = __ballot_sync(all_lanes, one) >> shift;
    if (lane / 2 == i) mine = bits >> (lane % 2 * 8) & 0xFFu;
  }
  const std::int64_t begin = first + 8 * lane;
  if (!exists || begin >= units) return;
  std::uint8_t* out = op.out.row(row) + begin;
  const uint2 bytes = {spread(mine), spread(mine >> 4)};
  if (begin + 8 <= units && reinterpret_cast<std::uintptr_t>(out) % sizeof bytes == 0) {
    *reinterpret_cast<uint2*>(out) = bytes;
    return;
  }
  for (int i = 0; i < 8 && begin + i < units; ++i) out[i] = static_cast<std::uint8_t>(mine >> i & 1u);
}

void bernoulli(const sample::Bernoulli& op) {
  launch(op, op.p.shape[0] * (ceil_div(op.p.shape[1], 128) * 16), draw_probabilities, op,
         RowSource(op, philox::bernoulli_head), RowSource(op, philox::bernoulli_tail));
}

// --- categorical ---------------------------------------------------------------------------------------------------

// The mass at which the uniform falls, by running sums in float64. A row without a distribution gets -1.
struct Inversion {
  sample::Categorical op;
  RowSource source;

  __device__ void operator()(const Team& team, std::int64_t row, bool exists) const {
    const std::int64_t n = exists ? op.logits.shape[1] : 0;
    const float* logits = op.logits.data + (exists ? row * n : 0);
    float top = -infinity;
    int bad = 0;
    for (std::int64_t k = team.rank; k < n; k += team.size) {
      const float x = logits[k];
      bad |= static_cast<int>(!(x < infinity));
      top = max(x, top);
    }
    top = team.max(top);
    bad = team.max(bad) | static_cast<int>(top == -infinity);
    double total = 0;
    for (std::int64_t k = team.rank; k < n; k += team.size) total += static_cast<double>(exp(logits[k] - top));
    const double target = uniform_of(row) * team.sum(total);
    const std::int64_t found = category(team, exists, logits, top, target);
    if (exists && team.rank == 0) op.out[row] = bad != 0 ? -1 : found;
  }

  __device__ double uniform_of(std::int64_t row) const {
    return static_cast<double>(philox::to_uniform(source.block(row, 0).word[0]));
  }

  // The first category at which the running sum passes `target`; where rounding leaves none, the last of positive mass.
  // Every thread of the block walks as far as every other: rows are equally long, those that do not exist, too.
  __device__ std::int64_t category(const Team& team, bool exists, const float* logits, float top, double target) const {
    const std::int64_t n = op.logits.shape[1];
    long long passed = n, last = 0;
    double before = 0;
    for (std::int64_t begin = 0; begin < n; begin += team.size) {
      const std::int64_t k = begin + team.rank;
      const double mass = exists && k < n ? static_cast<double>(exp(logits[k] - top)) : 0.0;
      const double running = before + team.running_sum(mass);
      if (mass > 0) {
        last = k;
        if (target < running && k < passed) passed = k;
      }
      before += team.sum(mass);
    }
    passed = team.min(passed);
    last = team.max(last);
    return passed < n ? passed : last;
  }
};

void categorical(const sample::Categorical& op) {
  for_each_row(op, op.logits.shape[0], op.logits.shape[1], Inversion{op, RowSource(op, philox::categorical)});
}

}  // namespace

void fill_sample(runtime::Table& table) {
  table.sample.Uniform = uniform;
  table.sample.Normal = normal;
  table.sample.Exponential = exponential;
  table.sample.Bernoulli = bernoulli;
  table.sample.Categorical = categorical;
}

}  // namespace gencore::cuda
