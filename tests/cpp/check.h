// What a test program needs: named cases, checks that go on after a failure, and an exit status.
#pragma once

#include <cmath>
#include <cstdio>
#include <exception>
#include <functional>
#include <string>
#include <vector>

namespace rattention::test {

inline int failures = 0;

inline void check(bool passed, const char* file, int line, const char* what) {
  if (passed) return;
  ++failures;
  std::fprintf(stderr, "%s:%d: failed: %s\n", file, line, what);
}

// NaN is close to nothing.
inline void check_close(double got, double want, double tolerance, const char* file, int line, const char* what) {
  if (std::fabs(got - want) <= tolerance || got == want) return;
  ++failures;
  std::fprintf(stderr, "%s:%d: failed: %s is %.9g, want %.9g within %.3g\n", file, line, what, got, want, tolerance);
}

// Matrices of float32 and float64; the tolerance is relative to the largest value wanted, or to 1.
template <typename Got, typename Want>
void check_near(const Got& got, const Want& want, double tolerance, const char* file, int line, const char* what) {
  if (want.size() == 0) return;
  const double scale = std::fmax(1.0, want.cwiseAbs().maxCoeff());
  check_close((got.template cast<double>() - want).cwiseAbs().maxCoeff(), 0.0, tolerance * scale, file, line, what);
}

inline bool mentions(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

struct Case {
  const char* name;
  std::function<void()> run;
};

inline int run(const std::vector<Case>& cases) {
  for (const Case& test : cases) {
    const int before = failures;
    try {
      test.run();
    } catch (const std::exception& error) {
      ++failures;
      std::fprintf(stderr, "unexpected exception: %s\n", error.what());
    }
    std::printf("%s %s\n", failures == before ? "ok    " : "FAILED", test.name);
  }
  return failures == 0 ? 0 : 1;
}

}  // namespace rattention::test

#define CHECK(condition) ::rattention::test::check((condition), __FILE__, __LINE__, #condition)
#define CHECK_CLOSE(got, want, tolerance) \
  ::rattention::test::check_close((got), (want), (tolerance), __FILE__, __LINE__, #got)
#define CHECK_NEAR(got, want, tolerance) \
  ::rattention::test::check_near((got), (want), (tolerance), __FILE__, __LINE__, #got)
