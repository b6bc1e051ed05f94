// Chains of draws, from one side of the machine to the other and back, all steps in one launch: a block of threads keeps
// the states of its chains as bits on chip and reads the weights from the second-level cache. Chains never meet, so blocks
// need not wait for each other.
//
// Every sum adds the weights of the units that are on in ascending order to 0, which are the bits of the CPU.
//
// Two ways (arithmetic for an H100 and 784x500, in cycles of 1.7 GHz, and not measured; M = 392,000 weights):
// - One chain a block adds up the rows of the units that are on: p M weights of a share p, some 0.25. The cache gives
//   3,200 bytes a cycle to all multiprocessors together: n chains take 4 p M n / 3,200 = 122 n cycles for a side.
// - 8, 16 or 32 chains a block share each weight that a thread reads, which it adds or not for each of them: 8 M / 128
//   cycles for 8 chains on the 128 adders of a multiprocessor, at 70 % of their rate 35,000; and the blocks together read
//   all of the weights once each, 490 cycles a block.
// So up to two chains a multiprocessor go alone; beyond, as few together as give each multiprocessor a block.
#pragma once

#include "rbm_machine.cuh"

namespace gencore::cuda {

constexpr int set_chains = 8;  // that share the weights a warp reads: one bit each of a unit's byte
constexpr int most_sets = 4;
constexpr int chain_warps = 16;  // of a block, at most

__device__ inline int warp_index() { return static_cast<int>(threadIdx.x) / warp_lanes; }
__device__ inline int warps_of_block() { return static_cast<int>(blockDim.x) / warp_lanes; }

template <class T>
GENCORE_INLINE std::int64_t block_bytes(std::int64_t n) {
  return (n * static_cast<std::int64_t>(sizeof(T)) + 15) / 16 * 16;
}

// The memory of a block: on chip, or where that is too small a part of device memory.
struct BlockMemory {
  unsigned char* at;

  // This block's `bytes`, as launch_with_memory gives them.
  __device__ static BlockMemory own(unsigned char* memory, std::int64_t bytes) {
    return {memory == nullptr ? dynamic_shared() : memory + blockIdx.x * bytes};
  }
  template <class T>
  __device__ T* carve(std::int64_t n) {
    T* part = reinterpret_cast<T*>(at);
    at += block_bytes<T>(n);
    return part;
  }
};

// kernel(arguments..., memory, bytes) by blocks with a BlockMemory of so many bytes each.
template <class Op, class... Parameters, class... Arguments>
void launch_with_memory(const Op& op, std::int64_t blocks, int threads, std::int64_t bytes,
                        void (*kernel)(Parameters...), const Arguments&... arguments) {
  const bool on_chip = static_cast<std::size_t>(bytes) <= most_shared(op, kernel);
  DeviceScratch scratch(op, on_chip ? 0 : DeviceScratch::bytes<unsigned char>(blocks * bytes));
  unsigned char* memory = on_chip ? nullptr : scratch.carve<unsigned char>(blocks * bytes);
  launch_blocks(op, blocks, threads, on_chip ? static_cast<std::size_t>(bytes) : 0, kernel, arguments..., memory,
                bytes);
}

// Which chains a block has.
struct Chains {
  std::int64_t count;  // of all blocks
  int sets;            // of each block; 0: one chain
  std::int64_t n_visible, n_hidden;

  __device__ std::int64_t first() const {
    return static_cast<std::int64_t>(blockIdx.x) * (sets == 0 ? 1 : sets * set_chains);
  }
};

// --- one chain a block -------------------------------------------------------------------------------------------------

struct SingleChain {
  struct Side {
    unsigned* words;  // unit u is bit u % 32 of word u / 32; whole groups
    std::int64_t units;
  };
  Side visible, hidden;
  std::int64_t chain;  // of the op's

  static GENCORE_INLINE std::int64_t bytes(const Chains& c) {
    return block_bytes<unsigned>(word_count(c.n_visible)) + block_bytes<unsigned>(word_count(c.n_hidden)) +
           block_bytes<unsigned>(c.n_visible > c.n_hidden ? c.n_visible : c.n_hidden) + block_bytes<unsigned>(1);
  }

  __device__ SingleChain(const Chains& c, BlockMemory memory)
      : visible{memory.carve<unsigned>(word_count(c.n_visible)), c.n_visible},
        hidden{memory.carve<unsigned>(word_count(c.n_hidden)), c.n_hidden},
        chain(c.first()),
        list_(memory.carve<unsigned>(c.n_visible > c.n_hidden ? c.n_visible : c.n_hidden)),
        listed_(memory.carve<unsigned>(1)) {}

  static GENCORE_INLINE std::int64_t word_count(std::int64_t units) {
    return round_up(units, group_units) / warp_lanes;
  }
  __device__ static constexpr int chains() { return 1; }

  __device__ static bool on(const Side& side, int, std::int64_t unit) {
    return (side.words[unit / warp_lanes] >> (unit % warp_lanes) & 1u) != 0;
  }

  // on(chain of the op, unit) -> bool for each unit.
  template <class On>
  __device__ void fill(const Side& side, const On& on) const {
    const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
    for (std::int64_t w = warp_index(); w < word_count(side.units); w += warps_of_block()) {
      const std::int64_t unit = w * warp_lanes + lane;
      const unsigned word = __ballot_sync(all_lanes, unit < side.units && on(chain, unit));
      if (lane == 0) side.words[w] = word;
    }
    __syncthreads();
  }

  // body(chain in the block, chain of the op, unit, on) for each unit.
  template <class Body>
  __device__ void each(const Side& side, const Body& body) const {
    for (std::int64_t u = threadIdx.x; u < side.units; u += blockDim.x) body(0, chain, u, on(side, 0, u));
  }

  // take(chain in the block, chain of the op, first unit, sums of units first + lane + 32 c), from whole warps.
  template <class Take>
  __device__ void sums(const Direction& d, const Side& given, const Take& take) const {
    list_units(given);
    for (std::int64_t first = warp_index() * group_units; first < d.units; first += warps_of_block() * group_units) {
      float sum[lane_units];
      add_rows(d, first, sum);
      take(0, chain, first, sum);
    }
    __syncthreads();
  }

  // The same where take returns the bits of the units as draw_group does, into `drawn`.
  template <class Take>
  __device__ void draw(const Direction& d, const Side& given, const Side& drawn, const Take& take) const {
    sums(d, given, [&](int c, std::int64_t at, std::int64_t first, const float (&sum)[lane_units]) {
      put(drawn, first, take(c, at, first, sum));
    });
  }

  // The same without sums.
  template <class Take>
  __device__ void draw(const Side& drawn, const Take& take) const {
    for (std::int64_t first = warp_index() * group_units; first < drawn.units;
         first += warps_of_block() * group_units) {
      put(drawn, first, take(0, chain, first));
    }
    __syncthreads();
  }

 private:
  unsigned *list_, *listed_;  // the units that are on, in ascending order, and how many

  __device__ static void put(const Side& side, std::int64_t first, unsigned bits) {
    const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
    __syncwarp();  // all lanes have read what the words held; a ballot orders no memory
#pragma unroll
    for (int c = 0; c < lane_units; ++c) {
      const unsigned word = __ballot_sync(all_lanes, (bits >> c & 1u) != 0);
      if (lane == c) side.words[first / warp_lanes + c] = word;
    }
  }

  // Each warp counts what comes before its 32 words, and each lane writes out one of them.
  __device__ void list_units(const Side& side) const {
    const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
    const std::int64_t words = word_count(side.units);
    for (std::int64_t begin = warp_index() * warp_lanes; begin < words; begin += warps_of_block() * warp_lanes) {
      int before = 0;
      for (std::int64_t w = lane; w < begin; w += warp_lanes) before += __popc(side.words[w]);
      for (int step = warp_lanes / 2; step > 0; step /= 2) before += __shfl_xor_sync(all_lanes, before, step);
      const unsigned word = begin + lane < words ? side.words[begin + lane] : 0;
      int end = __popc(word);
      for (int step = 1; step < warp_lanes; step *= 2) {
        const int other = __shfl_up_sync(all_lanes, end, step);
        if (lane >= step) end += other;
      }
      end += before;
      unsigned* to = list_ + end - __popc(word);
      for (unsigned rest = word; rest != 0; rest &= rest - 1) {
        *to++ = static_cast<unsigned>((begin + lane) * warp_lanes + __ffs(static_cast<int>(rest)) - 1);
      }
      if (begin + warp_lanes >= words && lane == warp_lanes - 1) *listed_ = static_cast<unsigned>(end);
    }
    __syncthreads();
  }

  // Many loads are under way before the first is added.
  __device__ void add_rows(const Direction& d, std::int64_t first, float (&sum)[lane_units]) const {
    constexpr int ahead = 16;
    const float* w = d.w + first + threadIdx.x % warp_lanes;
    const unsigned count = *listed_;
#pragma unroll
    for (int c = 0; c < lane_units; ++c) sum[c] = 0;
    unsigned k = 0;
    for (; k + ahead <= count; k += ahead) {
      float x[ahead][lane_units];
#pragma unroll
      for (int u = 0; u < ahead; ++u) load_row(w + list_[k + u] * d.stride, x[u]);
#pragma unroll
      for (int u = 0; u < ahead; ++u) {
#pragma unroll
        for (int c = 0; c < lane_units; ++c) sum[c] += x[u][c];
      }
    }
#pragma unroll 4
    for (; k < count; ++k) {
      float x[lane_units];
      load_row(w + list_[k] * d.stride, x);
#pragma unroll
      for (int c = 0; c < lane_units; ++c) sum[c] += x[c];
    }
  }

  __device__ static void load_row(const float* w, float (&x)[lane_units]) {
#pragma unroll
    for (int c = 0; c < lane_units; ++c) x[c] = __ldg(w + warp_lanes * c);
  }
};

// --- sets of eight chains ----------------------------------------------------------------------------------------------

struct ChainSets {
  struct Side {
    std::uint8_t* bytes;  // [set][unit]: bit r is the state of chain r of the set; whole steps of units
    std::int64_t units;
    __device__ std::int64_t stride() const { return round_up(units, step_rows); }
  };
  Side visible, hidden;
  std::int64_t chain;  // of the op's, the block's first
  std::int64_t count;
  int sets;

  static GENCORE_INLINE std::int64_t bytes(const Chains& c) {
    return block_bytes<std::uint8_t>(c.sets * round_up(c.n_visible, step_rows)) +
           block_bytes<std::uint8_t>(c.sets * round_up(c.n_hidden, step_rows));
  }

  __device__ ChainSets(const Chains& c, BlockMemory memory)
      : visible{memory.carve<std::uint8_t>(c.sets * round_up(c.n_visible, step_rows)), c.n_visible},
        hidden{memory.carve<std::uint8_t>(c.sets * round_up(c.n_hidden, step_rows)), c.n_hidden},
        chain(c.first()),
        count(c.count),
        sets(c.sets) {}

  __device__ int chains() const { return sets * set_chains; }
  __device__ bool has(int c) const { return chain + c < count; }

  __device__ static bool on(const Side& side, int c, std::int64_t unit) {
    return (side.bytes[c / set_chains * side.stride() + unit] >> (c % set_chains) & 1) != 0;
  }

  template <class On>
  __device__ void fill(const Side& side, const On& on) const {
    for (std::int64_t i = threadIdx.x; i < sets * side.stride(); i += blockDim.x) {
      const std::int64_t unit = i % side.stride();
      const int set = static_cast<int>(i / side.stride());
      unsigned byte = 0;
      for (int r = 0; r < set_chains; ++r) {
        const int c = set * set_chains + r;
        byte |= static_cast<unsigned>(unit < side.units && has(c) && on(chain + c, unit)) << r;
      }
      side.bytes[i] = static_cast<std::uint8_t>(byte);
    }
    __syncthreads();
  }

  template <class Body>
  __device__ void each(const Side& side, const Body& body) const {
    for (int c = 0; c < chains() && has(c); ++c) {
      for (std::int64_t u = threadIdx.x; u < side.units; u += blockDim.x) body(c, chain + c, u, on(side, c, u));
    }
  }

  template <class Take>
  __device__ void sums(const Direction& d, const Side& given, const Take& take) const {
    for_each_tile(d.units, [&](int set, std::int64_t first) {
      float sum[set_chains][lane_units];
      add_rows(d, given.bytes + set * given.stride(), first, sum);
      each_chain(set, sum, [&](int c, int, const float (&own)[lane_units]) { take(c, chain + c, first, own); });
    });
    __syncthreads();
  }

  template <class Take>
  __device__ void draw(const Direction& d, const Side& given, const Side& drawn, const Take& take) const {
    for_each_tile(d.units, [&](int set, std::int64_t first) {
      float sum[set_chains][lane_units];
      add_rows(d, given.bytes + set * given.stride(), first, sum);
      unsigned bytes[lane_units] = {};
      each_chain(set, sum, [&](int c, int r, const float (&own)[lane_units]) {
        gather(take(c, chain + c, first, own), r, bytes);
      });
      put(drawn, set, first, bytes);
    });
    __syncthreads();
  }

  template <class Take>
  __device__ void draw(const Side& drawn, const Take& take) const {
    for_each_tile(drawn.units, [&](int set, std::int64_t first) {
      unsigned bytes[lane_units] = {};
      for (int r = 0; r < set_chains; ++r) {
        const int c = set * set_chains + r;
        if (has(c)) gather(take(c, chain + c, first), r, bytes);
      }
      put(drawn, set, first, bytes);
    });
    __syncthreads();
  }

 private:
  // body(set, first unit of a group) by this warp; neighbours share the group, whose weights the first of them fetches.
  template <class Body>
  __device__ void for_each_tile(std::int64_t units, const Body& body) const {
    const std::int64_t tiles = (units + group_units - 1) / group_units * sets;
    for (std::int64_t t = warp_index(); t < tiles; t += warps_of_block()) {
      body(static_cast<int>(t % sets), t / sets * group_units);
    }
  }

  // take(chain in the block, in its set, sums) for the chains that there are. A loop that is not unrolled, so that what
  // is done to the sums is compiled once: the sums move up instead.
  template <class Take>
  __device__ void each_chain(int set, float (&sum)[set_chains][lane_units], const Take& take) const {
#pragma unroll 1
    for (int r = 0; r < set_chains; ++r) {
      const int c = set * set_chains + r;
      if (has(c)) take(c, r, sum[0]);
#pragma unroll
      for (int other = 1; other < set_chains; ++other) {
#pragma unroll
        for (int i = 0; i < lane_units; ++i) sum[other - 1][i] = sum[other][i];
      }
    }
  }

  __device__ static void gather(unsigned bits, int r, unsigned (&bytes)[lane_units]) {
#pragma unroll
    for (int i = 0; i < lane_units; ++i) bytes[i] |= (bits >> i & 1u) << r;
  }

  __device__ static void put(const Side& side, int set, std::int64_t first, const unsigned (&bytes)[lane_units]) {
#pragma unroll
    for (int i = 0; i < lane_units; ++i) {
      const std::int64_t unit = first + warp_lanes * i + threadIdx.x % warp_lanes;
      if (unit < side.stride()) side.bytes[set * side.stride() + unit] = static_cast<std::uint8_t>(bytes[i]);
    }
  }

  // Of the 64 states that eight units have in eight chains, often none is on.
  __device__ static void add_rows(const Direction& d, const std::uint8_t* given, std::int64_t first,
                                  float (&sum)[set_chains][lane_units]) {
#pragma unroll
    for (int r = 0; r < set_chains; ++r) {
#pragma unroll
      for (int c = 0; c < lane_units; ++c) sum[r][c] = 0;
    }
    const float* w = d.w + first + threadIdx.x % warp_lanes;
    for (std::int64_t i = 0; i < d.given; i += step_rows, w += step_rows * d.stride) {
      const std::uint64_t states = *reinterpret_cast<const std::uint64_t*>(given + i);
      if (states == 0) continue;
      float x[step_rows][lane_units];
#pragma unroll
      for (int u = 0; u < step_rows; ++u) {
#pragma unroll
        for (int c = 0; c < lane_units; ++c) x[u][c] = __ldg(w + u * d.stride + warp_lanes * c);
      }
#pragma unroll
      for (int u = 0; u < step_rows; ++u) {
#pragma unroll
        for (int r = 0; r < set_chains; ++r) {
          if ((states >> (8 * u + r) & 1) != 0) {
#pragma unroll
            for (int c = 0; c < lane_units; ++c) sum[r][c] += x[u][c];
          }
        }
      }
    }
  }
};

// --- launching ---------------------------------------------------------------------------------------------------------

// body(way, memory of its own) by every block, for its part of the chains.
template <class Way, class Body>
__global__ void __launch_bounds__(chain_warps* warp_lanes)
    over_chains(Body body, Chains chains, unsigned char* memory, std::int64_t bytes) {
  const BlockMemory own = BlockMemory::own(memory, bytes);
  body(Way(chains, own), BlockMemory{own.at + Way::bytes(chains)});
}

// As the comment above says.
inline int sets_for(std::int64_t chains, int multiprocessors) {
  if (chains <= 2 * multiprocessors) return 0;
  int sets = 1;
  while (sets < most_sets && chains > static_cast<std::int64_t>(sets) * set_chains * multiprocessors) sets *= 2;
  return sets;
}

template <class Way, class Op, class Body>
void launch_chains(const Op& op, const Chains& chains, const Body& body) {
  const std::int64_t a_block = chains.sets == 0 ? 1 : chains.sets * set_chains;
  const std::int64_t blocks = ceil_div(chains.count, a_block);
  const std::int64_t groups = ceil_div(chains.n_visible > chains.n_hidden ? chains.n_visible : chains.n_hidden,
                                       group_units);
  const std::int64_t tiles = groups * (chains.sets == 0 ? 1 : chains.sets);
  const int threads = warp_lanes * static_cast<int>(tiles < chain_warps ? tiles : chain_warps);
  const std::int64_t bytes = Way::bytes(chains) + Body::bytes(chains);
  launch_with_memory(op, blocks, threads, bytes, over_chains<Way, Body>, body, chains);
}

// Body(way, memory) for `count` chains: Body::bytes says how much memory a block needs beside the states of its chains.
template <class Op, class Body>
void for_chains(const Op& op, std::int64_t count, const Body& body) {
  if (count == 0) return;
  const int multiprocessors = limits_of(Op::name, op.device).multiprocessors;
  const Chains chains{count, sets_for(count, multiprocessors), op.w.shape[0], op.w.shape[1]};
  if (chains.sets == 0) {
    launch_chains<SingleChain>(op, chains, body);
  } else {
    launch_chains<ChainSets>(op, chains, body);
  }
}

}  // namespace gencore::cuda
