// A loop over independent tasks, shared out among threads as they become free.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

namespace dtn {

// Calls make_worker() once per thread and the callable it returns once per task index. Results must not depend on which
// thread runs a task: sums over tasks go through one slot per task, so they are the same for any number of threads.
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
  std::vector<std::thread> helpers;
  const int64_t extra = std::min<int64_t>(num_threads, num_tasks) - 1;
  for (int64_t i = 0; i < extra; ++i) {
    try {
      helpers.emplace_back(run);
    } catch (const std::system_error&) {
      break;  // no more threads to be had: the others take over
    }
  }
  run();
  for (auto& helper : helpers) helper.join();
  if (failed) std::rethrow_exception(failure);
}

}  // namespace dtn
