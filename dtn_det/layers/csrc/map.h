// A large array that is written before it is read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace dtn {

template <class T>
class Map {
 public:
  explicit Map(int64_t count) {
    constexpr size_t page = size_t(2) << 20;
    const size_t bytes = (size_t(count) * sizeof(T) + page - 1) / page * page;
    data = static_cast<T*>(std::aligned_alloc(page, bytes));
    if (data == nullptr) throw std::bad_alloc();
#if defined(__linux__)
    // The system hands such an array out page by page at first touch; with small pages that takes longer than filling it.
    if (bytes > page) madvise(data, bytes, MADV_HUGEPAGE);
#endif
  }
  ~Map() { std::free(data); }
  Map(const Map&) = delete;
  Map& operator=(const Map&) = delete;

  T& operator[](int64_t index) { return data[index]; }

 private:
  T* data;
};

}  // namespace dtn
