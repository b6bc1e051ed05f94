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

  __device__ RowSource(Key key, philox::Stream stream) : key(key), stream(stream) {}
  RowSource(const sample::Coordinates& op, philox::Domain domain)
      : key(op.key),
        stream(philox::stream(domain, static_cast<std::uint64_t>(op.step), static_cast<std::uint64_t>(op.first_row))) {}
  __device__ philox::Stream of(std::int64_t row) const {
    return {stream.row + static_cast<std::uint32_t>(row), stream.step, stream.tag};
  }
  __device__ philox::Block block(std::int64_t row, std::uint32_t number) const {
    return philox::block(key, number, of(row).row, stream.step, stream.tag);
  }
};

// --- Bernoulli -----------------------------------------------------------------------------------------------------

// u < p by the head of u, the tail where the head leaves it open. A p outside [0, 1] counts as the nearer end, NaN as 0.
__device__ bool draw(const RowSource& tail, std::int64_t row, std::int64_t unit, std::uint32_t head, float p) {
  const float low = static_cast<float>(head) * 0x1p-16f;
  if (!(low < p)) return false;
  if (low + 0x1p-16f <= p) return true;
  return static_cast<float>(philox::half_at(tail.key, tail.of(row), unit)) + 0.5f < (p - low) * 0x1p32f;
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

// --- packed bits ---------------------------------------------------------------------------------------------------

// The 16 bits of p that a head is compared with, in the upper half of a word: 128 + p, rounded down, has floor(2^16 p) in
// its last bits. A head below them draws a 1; one that is equal leaves the unit to `draw` (p = 1, too, whose bits would
// be 2^16). NaN counts as 0.
__device__ std::uint32_t head_threshold(float p) {
  const float inside = min(0x1.fffffep-1f, max(p, 0.0f));
  return __float_as_uint(__fadd_rd(inside, 128.0f)) << 16;
}

// `draw` as a function of its own: called once in 2^16 units, it keeps the loop over them small.
__device__ __attribute__((noinline)) bool draw_open(Key key, philox::Stream tail, std::int64_t unit, std::uint32_t head,
                                                    float p) {
  return draw({key, tail}, 0, unit, head, p);
}

// As above, sixteen threads have 128 units of a row; here they compare integers, and a ballot's halves are sixteen bits of
// two rows' words. Threads go on to further rows, whose thresholds are the same where p is one row for all.
//
// The limit, where p is one row: the Philox arithmetic, 60 operations (four products of 32 bits and two xors in each of ten
// rounds) for eight units at 64 a cycle and multiprocessor, 2,000 units a nanosecond on an H100. Beside them a unit takes
// two comparisons, a ballot and half a shift; and where p is a row each, a threshold and four bytes. Not measured.
__global__ void __launch_bounds__(block_threads)
    draw_packed(sample::BernoulliBits op, RowSource head, RowSource tail, int rows_each) {
  const std::int64_t units = op.p.shape[1], rows = op.out.shape[0], words = op.out.shape[1];
  std::int64_t slice, number;
  divide(global_thread(), (units + 127) / 128 * 16, slice, number);
  const std::int64_t first = number / 16 * 128;
  const int lane = static_cast<int>(number % 16);
  const bool one_row = op.p.shape[0] == 1;
  std::uint32_t threshold[8] = {};
  for (int r = 0; r < rows_each; ++r) {
    const std::int64_t row = slice * rows_each + r;
    const bool exists = row < rows;
    const std::int64_t begin = (one_row ? 0 : row * units) + first + lane;
    const auto has = [&](int i) { return exists && first + 16 * i + lane < units; };
    if (r == 0 || !one_row) {
#pragma unroll
      for (int i = 0; i < 8; ++i) threshold[i] = has(i) ? head_threshold(op.p[begin + 16 * i]) : 0;
    }
    const philox::Block random = head.block(row, static_cast<std::uint32_t>(number));
    const auto top = [&](int i) { return i < 4 ? random.word[i % 4] << 16 : random.word[i % 4]; };
    const auto is_open = [&](int i) { return top(i) >= threshold[i] && top(i) <= (threshold[i] | 0xFFFFu); };
    bool one[8], open = false;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      one[i] = top(i) < threshold[i];
      open = open || is_open(i);
    }
    if (open) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        if (!is_open(i) || !has(i)) continue;
        one[i] = draw_open(tail.key, tail.of(row), first + 16 * i + lane, top(i) >> 16, op.p[begin + 16 * i]);
      }
    }
    std::uint32_t bits[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) bits[i] = __ballot_sync(all_lanes, one[i]);
    if (lane != 0 || !exists) continue;
    const unsigned halves = threadIdx.x % warp_lanes < 16 ? 0x5410u : 0x7632u;
    std::uint64_t* out = op.out.row(row) + first / 64;
#pragma unroll
    for (int w = 0; w < 2; ++w) {
      const std::uint64_t low = __byte_perm(bits[4 * w], bits[4 * w + 1], halves),
                          high = __byte_perm(bits[4 * w + 2], bits[4 * w + 3], halves);
      if (first / 64 + w < words) out[w] = low | high << 32;
    }
  }
}

void bernoulli_bits(const sample::BernoulliBits& op) {
  constexpr std::int64_t most_rows = 8, resident = 2048;  // threads of a multiprocessor
  const std::int64_t rows = op.out.shape[0], threads = ceil_div(op.p.shape[1], 128) * 16;
  std::int64_t rows_each = 1;
  if (op.p.shape[0] == 1) {  // as many as leave work for all multiprocessors
    const std::int64_t enough = resident * limits_of(op.name, op.device).multiprocessors;
    while (rows_each < most_rows && ceil_div(rows, 2 * rows_each) * threads >= enough) rows_each *= 2;
  }
  launch(op, ceil_div(rows, rows_each) * threads, draw_packed, op, RowSource(op, philox::bernoulli_head),
         RowSource(op, philox::bernoulli_tail), static_cast<int>(rows_each));
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
  table.sample.BernoulliBits = bernoulli_bits;
  table.sample.Categorical = categorical;
}

}  // namespace gencore::cuda
