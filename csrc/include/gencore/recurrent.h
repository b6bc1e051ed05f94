// Long short-term memory (Hochreiter & Schmidhuber 1997; with forget gates, Gers et al. 2000) along sequences, and along
// the rows and the diagonals of images (van den Oord, Kalchbrenner & Kavukcuoglu 2016).
//
// One step of a cell with H units, from the sums z (4H,) of its four gates, which lie one after the other:
//   i = logistic(z_i), f = logistic(z_f), g = tanh(z_g), o = logistic(z_o), c = f c_before + i g, h = o tanh(c).
#pragma once

#include "gencore/op.h"

#define GENCORE_RECURRENT_OPS(X) X(Lstm) X(LstmVjp) X(MapLstm) X(MapLstmVjp) X(LstmCell)

namespace gencore::recurrent {

// Along sequences: z[n, t] = x[n, t] w_input + h[n, t - 1] w_hidden + bias, and h[n, -1] = h0[n], c[n, -1] = c0[n], or 0.
// Work: N T (D + H) 4H multiply-adds and 5 N T H exponentials. Extra memory: the weights packed once, and for each 32
// sequences under way 4 (2 D + 3 H) bytes a sequence.
struct Lstm : OpBase {
  static constexpr const char* name = "recurrent.lstm";
  View<const float, 3> x{};         // (N, T, D)
  Matrix<const float> w_input{};    // (D, 4H)
  Matrix<const float> w_hidden{};   // (H, 4H)
  Vector<const float> bias{};       // (4H,)
  Matrix<const float> h0{}, c0{};   // (N, H), optional
  View<float, 3> h{};               // (N, T, H)
  Matrix<float> c{};                // (N, H): the last
  View<float, 3> gates{}, cells{};  // i, f, g, o (N, T, 4H) and c (N, T, H): what the gradient starts from; optional

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("x", &Lstm::x);
    f("w_input", &Lstm::w_input);
    f("w_hidden", &Lstm::w_hidden);
    f("bias", &Lstm::bias);
    f("h0", &Lstm::h0);
    f("c0", &Lstm::c0);
    f("h", &Lstm::h);
    f("c", &Lstm::c);
    f("gates", &Lstm::gates);
    f("cells", &Lstm::cells);
  }
};

// Gradients of sum grad_h h + sum grad_c c. Work: twice that of Lstm, less what is not asked for. Extra memory: at most 4 N
// T (5H + D + 32) bytes, the weights packed once and the gradients of the weights once more, and for each 32 sequences
// under way 36 H bytes a sequence.
struct LstmVjp : OpBase {
  static constexpr const char* name = "recurrent.lstm_vjp";
  View<const float, 3> grad_h{};          // (N, T, H)
  Matrix<const float> grad_c{};           // (N, H), optional
  View<const float, 3> x{};               // (N, T, D)
  Matrix<const float> w_input{};          // (D, 4H)
  Matrix<const float> w_hidden{};         // (H, 4H)
  Matrix<const float> h0{}, c0{};         // (N, H), optional
  View<const float, 3> h{};               // (N, T, H)
  View<const float, 3> gates{}, cells{};  // as Lstm left them
  View<float, 3> grad_x{};                // (N, T, D), optional
  Matrix<float> grad_w_input{};           // (D, 4H)
  Matrix<float> grad_w_hidden{};          // (H, 4H)
  Vector<float> grad_bias{};              // (4H,)
  Matrix<float> grad_h0{}, grad_c0{};     // (N, H), optional

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("grad_h", &LstmVjp::grad_h);
    f("grad_c", &LstmVjp::grad_c);
    f("x", &LstmVjp::x);
    f("w_input", &LstmVjp::w_input);
    f("w_hidden", &LstmVjp::w_hidden);
    f("h0", &LstmVjp::h0);
    f("c0", &LstmVjp::c0);
    f("h", &LstmVjp::h);
    f("gates", &LstmVjp::gates);
    f("cells", &LstmVjp::cells);
    f("grad_x", &LstmVjp::grad_x);
    f("grad_w_input", &LstmVjp::grad_w_input);
    f("grad_w_hidden", &LstmVjp::grad_w_hidden);
    f("grad_bias", &LstmVjp::grad_bias);
    f("grad_h0", &LstmVjp::grad_h0);
    f("grad_c0", &LstmVjp::grad_c0);
  }
};

// The order in which the pixels (y, x) of an image follow each other; those of a step do not depend on each other.
enum class Path : std::int32_t {
  rows = 0,      // step y, all x: tap j of w meets h at (y - 1, x + j - taps / 2)
  diagonals = 1  // step y + x: the first of two taps meets h above, the second h before it in the row
};

// Along images: z is given, and h w is added to it. Several sweeps go side by side: sweep s has columns [4 s F, 4 (s + 1)
// F) of z and of gates, columns [s F, (s + 1) F) of h and of cells. The second sweep along diagonals goes from right to
// left: what is before is to its right. h and c are 0 beyond the image. Work: S taps N Y X F 4F multiply-adds and 5 S N Y
// X F exponentials. Extra memory: the weights packed once, and 12 F bytes for each pixel of a step of an image under way.
struct MapLstm : OpBase {
  static constexpr const char* name = "recurrent.map_lstm";
  View<const float, 4> z{};  // (N, Y, X, S 4F)
  View<const float, 4> w{};  // (S, taps, F, 4F)
  Path path = Path::rows;
  View<float, 4> h{};               // (N, Y, X, S F)
  View<float, 4> gates{}, cells{};  // as z and h; optional. gates may be the memory of z, which they then replace

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("z", &MapLstm::z);
    f("w", &MapLstm::w);
    f("path", &MapLstm::path);
    f("h", &MapLstm::h);
    f("gates", &MapLstm::gates);
    f("cells", &MapLstm::cells);
  }
};

// Gradients of sum grad_h h. Work: twice that of MapLstm. Extra memory: for each of at most 16 groups of images one copy
// of grad_w, and for each thread 4 taps Y X F bytes and 36 F bytes for each pixel of a step.
struct MapLstmVjp : OpBase {
  static constexpr const char* name = "recurrent.map_lstm_vjp";
  View<const float, 4> grad_h{};  // (N, Y, X, S F)
  View<const float, 4> w{};       // (S, taps, F, 4F)
  Path path = Path::rows;
  View<const float, 4> h{};               // (N, Y, X, S F)
  View<const float, 4> gates{}, cells{};  // as MapLstm left them
  View<float, 4> grad_z{};                // (N, Y, X, S 4F)
  View<float, 4> grad_w{};                // (S, taps, F, 4F)

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("grad_h", &MapLstmVjp::grad_h);
    f("w", &MapLstmVjp::w);
    f("path", &MapLstmVjp::path);
    f("h", &MapLstmVjp::h);
    f("gates", &MapLstmVjp::gates);
    f("cells", &MapLstmVjp::cells);
    f("grad_z", &MapLstmVjp::grad_z);
    f("grad_w", &MapLstmVjp::grad_w);
  }
};

// One step of cells, from the two parts of their sums: z = input + state. The bits are those of Lstm and MapLstm.
struct LstmCell : OpBase {
  static constexpr const char* name = "recurrent.lstm_cell";
  Matrix<const float> input{}, state{};  // (N, 4H)
  Matrix<const float> before{};          // c before: (N, H)
  Matrix<float> h{}, c{};                // (N, H)

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("input", &LstmCell::input);
    f("state", &LstmCell::state);
    f("before", &LstmCell::before);
    f("h", &LstmCell::h);
    f("c", &LstmCell::c);
  }
};

GENCORE_API void run(const Lstm& op);
GENCORE_API void run(const LstmVjp& op);
GENCORE_API void run(const MapLstm& op);
GENCORE_API void run(const MapLstmVjp& op);
GENCORE_API void run(const LstmCell& op);

namespace detail {
// The inputs that Lstm and LstmVjp share, and those that LstmVjp takes from Lstm.
template <class Op>
void sequences(const Op& op) {
  const char* name = Op::name;
  check::given(name, "x", op.x);
  check::given(name, "w_hidden", op.w_hidden);
  const std::int64_t n = op.x.shape[0], hidden = op.w_hidden.shape[0];
  check::shape(name, "w_hidden", op.w_hidden, {hidden, 4 * hidden}, "four gates of the rows of w_hidden");
  check::shape(name, "w_input", op.w_input, {op.x.shape[2], 4 * hidden},
               "the last axis of x and the columns of w_hidden");
  if (op.h0.given()) check::shape(name, "h0", op.h0, {n, hidden}, "the sequences of x and the rows of w_hidden");
  if (op.c0.given()) check::shape(name, "c0", op.c0, {n, hidden}, "the sequences of x and the rows of w_hidden");
  check::shape(name, "h", op.h, {n, op.x.shape[1], hidden}, "the steps of x and the rows of w_hidden");
}
template <class Op, class View>
void sequences_kept(const Op& op, const View& gates, const View& cells) {
  const std::int64_t n = op.x.shape[0], steps = op.x.shape[1], hidden = op.w_hidden.shape[0];
  check::shape(Op::name, "gates", gates, {n, steps, 4 * hidden}, "the steps of x and the columns of w_hidden");
  check::shape(Op::name, "cells", cells, {n, steps, hidden}, "the steps of x and the rows of w_hidden");
}
template <class Op, class Out>
void apart_from_sequences(const Op& op, const char* name, const Out& out) {
  check::apart(Op::name, name, out, "x", op.x);
  check::apart(Op::name, name, out, "w_input", op.w_input);
  check::apart(Op::name, name, out, "w_hidden", op.w_hidden);
  if (op.h0.given()) check::apart(Op::name, name, out, "h0", op.h0);
  if (op.c0.given()) check::apart(Op::name, name, out, "c0", op.c0);
}
// The weights' axes, against those of an image's map of h.
template <class Op, class View>
void map_weights(const Op& op, const View& h) {
  const char* name = Op::name;
  check::given(name, "w", op.w);
  check::in_range(name, "path", static_cast<std::int64_t>(op.path), 0, 1);
  const std::int64_t hidden = op.w.shape[2], sweeps = op.w.shape[0];
  if (op.path == Path::rows) {
    check::shape(name, "w", op.w, {1, op.w.shape[1], hidden, 4 * hidden},
                 "one sweep, and four gates of the units of w");
    check::at_least(name, "the taps of w", op.w.shape[1], 1);
  } else {
    check::in_range(name, "the sweeps of w", sweeps, 1, 2);
    check::shape(name, "w", op.w, {sweeps, 2, hidden, 4 * hidden}, "two taps, and four gates of the units of w");
  }
  check::given(name, "h", h);
  check::shape(name, "h", h, {h.shape[0], h.shape[1], h.shape[2], sweeps * hidden}, "the sweeps and units of w");
}
template <class View, class Like>
void map_like(const char* op, const char* arg, const View& view, const Like& like, std::int64_t channels,
              const char* because) {
  check::shape(op, arg, view, {like.shape[0], like.shape[1], like.shape[2], channels}, because);
}
}  // namespace detail

inline void Lstm::check() const {
  detail::sequences(*this);
  const std::int64_t hidden = w_hidden.shape[0];
  check::shape(name, "bias", bias, {4 * hidden}, "the columns of w_hidden");
  check::shape(name, "c", c, {x.shape[0], hidden}, "the sequences of x and the rows of w_hidden");
  detail::apart_from_sequences(*this, "h", h);
  detail::apart_from_sequences(*this, "c", c);
  check::apart(name, "h", h, "bias", bias);
  if (!gates.given() && !cells.given()) return;
  check::given(name, "gates", gates);
  check::given(name, "cells", cells);
  detail::sequences_kept(*this, gates, cells);
  detail::apart_from_sequences(*this, "gates", gates);
  detail::apart_from_sequences(*this, "cells", cells);
}

inline void LstmVjp::check() const {
  detail::sequences(*this);
  const std::int64_t n = x.shape[0], hidden = w_hidden.shape[0];
  detail::sequences_kept(*this, gates, cells);
  check::shape(name, "grad_h", grad_h, {n, x.shape[1], hidden}, "the shape of h");
  if (grad_c.given()) check::shape(name, "grad_c", grad_c, {n, hidden}, "the sequences and units of h");
  if (grad_x.given()) check::shape(name, "grad_x", grad_x, {n, x.shape[1], x.shape[2]}, "the shape of x");
  check::shape(name, "grad_w_input", grad_w_input, {x.shape[2], 4 * hidden}, "the shape of w_input");
  check::shape(name, "grad_w_hidden", grad_w_hidden, {hidden, 4 * hidden}, "the shape of w_hidden");
  check::shape(name, "grad_bias", grad_bias, {4 * hidden}, "the columns of w_hidden");
  if (grad_h0.given()) check::shape(name, "grad_h0", grad_h0, {n, hidden}, "the sequences and units of h");
  if (grad_c0.given()) check::shape(name, "grad_c0", grad_c0, {n, hidden}, "the sequences and units of h");
  const auto apart = [&](const char* arg, const auto& out) {
    detail::apart_from_sequences(*this, arg, out);
    check::apart(name, arg, out, "grad_h", grad_h);
  };
  if (grad_x.given()) apart("grad_x", grad_x);
  apart("grad_w_input", grad_w_input);
  apart("grad_w_hidden", grad_w_hidden);
  apart("grad_bias", grad_bias);
}

inline void MapLstm::check() const {
  detail::map_weights(*this, h);
  detail::map_like(name, "z", z, h, 4 * h.shape[3], "the images of h and the gates of w");
  check::apart(name, "h", h, "z", z);
  check::apart(name, "h", h, "w", w);
  if (!gates.given() && !cells.given()) return;
  check::given(name, "gates", gates);
  check::given(name, "cells", cells);
  detail::map_like(name, "gates", gates, h, 4 * h.shape[3], "the shape of z");
  detail::map_like(name, "cells", cells, h, h.shape[3], "the shape of h");
  check::apart(name, "cells", cells, "z", z);
  check::apart(name, "gates", gates, "w", w);
}

inline void MapLstmVjp::check() const {
  detail::map_weights(*this, h);
  detail::map_like(name, "grad_h", grad_h, h, h.shape[3], "the shape of h");
  detail::map_like(name, "gates", gates, h, 4 * h.shape[3], "the images of h and the gates of w");
  detail::map_like(name, "cells", cells, h, h.shape[3], "the shape of h");
  detail::map_like(name, "grad_z", grad_z, h, 4 * h.shape[3], "the shape of gates");
  check::shape(name, "grad_w", grad_w, {w.shape[0], w.shape[1], w.shape[2], w.shape[3]}, "the shape of w");
  check::apart(name, "grad_z", grad_z, "cells", cells);
  check::apart(name, "grad_z", grad_z, "grad_h", grad_h);
  check::apart(name, "grad_w", grad_w, "w", w);
}

inline void LstmCell::check() const {
  check::given(name, "before", before);
  const std::int64_t n = before.shape[0], hidden = before.shape[1];
  check::shape(name, "input", input, {n, 4 * hidden}, "four gates of before");
  check::shape(name, "state", state, {n, 4 * hidden}, "four gates of before");
  check::shape(name, "h", h, {n, hidden}, "the shape of before");
  check::shape(name, "c", c, {n, hidden}, "the shape of before");
}

}  // namespace gencore::recurrent
