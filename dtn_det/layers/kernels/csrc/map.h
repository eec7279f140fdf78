// An uninitialised array that starts at a cache line: a load across two cache lines takes twice as long.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace dtn {

template <class T>
class Map {
 public:
  explicit Map(int64_t count) {
    // The system maps a large array page by page at the first access. With small pages this takes longer than filling
    // the array, so large arrays use huge pages. Smaller arrays reuse the memory that the allocator keeps from the last
    // call.
    constexpr size_t line = 64, huge_page = size_t(2) << 20, large = 4 * huge_page;
    const size_t wanted = size_t(count) * sizeof(T), unit = wanted < large ? line : huge_page;
    const size_t bytes = (wanted + unit - 1) / unit * unit;
    data = static_cast<T*>(std::aligned_alloc(unit, bytes));
    if (data == nullptr) throw std::bad_alloc();
#if defined(__linux__)
    if (unit == huge_page) madvise(data, bytes, MADV_HUGEPAGE);
#endif
  }
  ~Map() { std::free(data); }
  Map(Map&& other) noexcept : data(std::exchange(other.data, nullptr)) {}
  Map& operator=(Map&&) = delete;

  T& operator[](int64_t index) { return data[index]; }

 private:
  T* data;
};

}  // namespace dtn
