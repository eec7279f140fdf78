// A loop over independent tasks: each thread takes the next task when it is free.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <system_error>
#include <thread>
#include <vector>

namespace dtn {

// GOMP_parallel of the OpenMP runtime that PyTorch uses, or null if the runtime has no such function. It calls a
// function on each thread of a team and waits for all of them. Threads of this library would compete for the cores with
// PyTorch's idle threads, which spin for a while.
using OpenMPParallel = void (*)(void (*function)(void*), void* data, unsigned num_threads, unsigned flags);
inline OpenMPParallel openmp_parallel = nullptr;

template <class Run>
void run_on_own_threads(int64_t team, Run& run) {
  std::vector<std::thread> helpers;
  for (int64_t i = 1; i < team; ++i) {
    try {
      helpers.emplace_back(std::ref(run));
    } catch (const std::system_error&) {
      break;  // no more threads can be started: the existing threads take over the tasks
    }
  }
  run();
  for (auto& helper : helpers) helper.join();
}

// Calls make_worker() once per thread, and the callable that it returns once per task index. Results must not depend on
// which thread runs a task, so sums over tasks use one slot per task (see Slots).
template <class MakeWorker>
void parallel_for(int64_t num_tasks, int num_threads, MakeWorker make_worker) {
  std::atomic<int64_t> next{0};
  std::exception_ptr failure;
  std::atomic<bool> failed{false};
  auto run = [&] {
    try {
      auto worker = make_worker();
      for (int64_t task; (task = next.fetch_add(1)) < num_tasks;) worker(task);
    } catch (...) {
      next.store(num_tasks);
      if (!failed.exchange(true)) failure = std::current_exception();
    }
  };
  const int64_t team = std::min<int64_t>(num_threads, num_tasks);
  if (team <= 1) {
    run();
  } else if (openmp_parallel != nullptr) {
    // The full team is used even for fewer tasks, because the runtime would create a new team for another size.
    openmp_parallel([](void* data) { (*static_cast<decltype(run)*>(data))(); }, &run, unsigned(num_threads), 0);
  } else {
    run_on_own_threads(team, run);
  }
  if (failed) std::rethrow_exception(failure);
}

// Sums over tasks. Each task has a slot, and slots are added up in order, so results do not depend on the threads.
struct Slots {
  int64_t size;
  std::vector<double> values;
  Slots(int64_t tasks, int64_t size) : size(size), values(size_t(tasks * size), 0.0) {}
  double* operator[](int64_t task) { return values.data() + task * size; }
  std::vector<double> total() const {
    std::vector<double> sums(size, 0.0);
    for (size_t first = 0; first < values.size(); first += size) {
      for (int64_t i = 0; i < size; ++i) sums[i] += values[first + i];
    }
    return sums;
  }
};

}  // namespace dtn
