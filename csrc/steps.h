// A kernel's work as steps of pieces, some of which need others: threads take whatever may begin.
//
// A piece is taken by one thread, from the first step that has one which may begin. So a single thread goes
// through the steps in the order in which they were added, and where one of several is kept from its core in
// the middle of a piece, the others go on with all that does not need it. Who takes what decides nothing but
// the time: sums whose order matters follow each other (`follows`), whoever makes them.
#pragma once

#include <cstdint>
#include <vector>

#include "signal.h"
#include "team.h"

namespace fastpop {

class Steps {
 public:
  static constexpr int kMostFollowing = 64;  // pieces of a step that follows another

  // What a step waits for, by the numbers that add() gave; -1: nothing.
  struct Needs {
    int one = -1, other = -1;  // steps that have to be done
    int follows = -1;          // a step whose piece of the same number has to be done
  };
  struct Piece {
    int kind;
    int64_t what;  // as they were added
    int64_t number, of;
  };

  // `ahead`: how many steps past the first that is open may begin.
  explicit Steps(int ahead) : ahead_(ahead) {}

  int add(int kind, int64_t what, int64_t pieces, Needs needs) {
    steps_.push_back(Step{kind, what, pieces, needs, false});
    return static_cast<int>(steps_.size()) - 1;
  }

  // A step that waits for all before it; what comes after it says itself what it needs.
  int gate(int kind, int64_t what, int64_t pieces) {
    steps_.push_back(Step{kind, what, pieces, {}, true});
    num_gates_ += steps_.size() > 1;
    return static_cast<int>(steps_.size()) - 1;
  }

  // work(piece, me) for every piece, around it enter() and leave() on each thread. Once.
  template <class Work, class Enter, class Leave>
  void run(int threads, const Work& work, const Enter& enter, const Leave& leave) {
    if (threads > 1) num_meetings.fetch_add(num_gates_, std::memory_order_relaxed);
    in_team(threads, [&](int me) {
      enter();
      Place place;
      while (next(place)) {
        const Step& step = steps_[place.step];
        try {
          work(Piece{step.kind, step.what, place.number, step.pieces}, me);
        } catch (...) {
          signal_.change([&] { failed_ = true; });
          leave();
          throw;
        }
      }
      leave();
    });
  }
  template <class Work>
  void run(int threads, const Work& work) {
    run(threads, work, [] {}, [] {});
  }

 private:
  struct Step {
    int kind;
    int64_t what, pieces;
    Needs needs;
    bool is_gate;
    int64_t num_taken = 0, num_done = 0;
    uint64_t taken = 0, done = 0;  // a bit a piece, of the first 64
  };
  struct Place {
    int64_t step = -1, number = 0;
  };

  // The piece at `place` is done; the next one into it. False when all are taken.
  bool next(Place& place) {
    signal_.change([&] { finish(place); });
    bool found = false;
    signal_.wait([&] {
      found = !failed_ && take(place);
      return found || failed_ || open_ == num_steps();
    });
    return found;
  }

  int64_t num_steps() const { return static_cast<int64_t>(steps_.size()); }
  bool is_done(int64_t s) const { return s < 0 || steps_[s].num_done == steps_[s].pieces; }

  void finish(const Place& place) {
    if (place.step < 0) return;
    Step& step = steps_[place.step];
    ++step.num_done;
    if (place.number < kMostFollowing) step.done |= uint64_t{1} << place.number;
    while (undone_ < num_steps() && is_done(undone_)) ++undone_;
  }

  bool take(Place& place) {
    for (int64_t s = open_; s < num_steps() && s <= open_ + ahead_; ++s) {
      Step& step = steps_[s];
      if (step.is_gate && undone_ < s) return false;
      if (step.num_taken == step.pieces || !is_done(step.needs.one) || !is_done(step.needs.other)) continue;
      int64_t number = step.num_taken;
      if (step.needs.follows >= 0) {
        const uint64_t may = steps_[step.needs.follows].done & ~step.taken;
        if (may == 0) continue;
        number = __builtin_ctzll(may);
      }
      ++step.num_taken;
      if (number < kMostFollowing) step.taken |= uint64_t{1} << number;
      place = {s, number};
      while (open_ < num_steps() && steps_[open_].num_taken == steps_[open_].pieces) ++open_;
      return true;
    }
    return false;
  }

  const int ahead_;
  std::vector<Step> steps_;
  int num_gates_ = 0;
  Signal signal_;
  int64_t open_ = 0;    // the first step that has pieces to take
  int64_t undone_ = 0;  // the first step that is not done
  bool failed_ = false;
};

}  // namespace fastpop
