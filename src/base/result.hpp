// Expected failures as values. Bugs abort (AIV_ASSERT); exceptions of libraries are caught at the edge of a
// connection, of a supervised task, and in main, and never cross core.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <expected>
#include <string>
#include <utility>

namespace aiv {

// What kind of failure it is; exit codes and HTTP statuses are derived from this alone (base/exit_code.hpp).
enum class ErrorCode {
  kInvalidArgument,  // the caller's input is wrong
  kNotFound,         // the named thing does not exist
  kRefused,          // does not fit, or policy forbids it
  kUnauthorized,     // no, bad or insufficient credentials
  kConflict,         // the state moved on; re-read and decide again
  kUnavailable,      // a peer cannot be reached or is not ready
  kTimeout,          // a deadline passed
  kCancelled,        // the other side, or we, gave it up
  kCorrupt,          // stored or received bytes are not what they must be
  kTooLarge,         // over a named bound
  kIo,               // the operating system said no
  kInternal,         // our own fault
};

// `reason` says what is wrong in words for a person; `where` is the field, file, offset or peer it is about
// (may be empty). The caller adds the context it owns; the callee does not repeat its arguments.
struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string reason;
  std::string where;

  [[nodiscard]] std::string message() const { return where.empty() ? reason : where + ": " + reason; }
  friend bool operator==(const Error&, const Error&) = default;
};

template <class T = void>
using Result = std::expected<T, Error>;

[[nodiscard]] inline std::unexpected<Error> fail(ErrorCode code, std::string reason, std::string where = {}) {
  return std::unexpected(Error{code, std::move(reason), std::move(where)});
}

[[noreturn]] inline void assertion_failed(const char* what, const char* file, int line) {
  std::fprintf(stderr, "assertion failed: %s at %s:%d\n", what, file, line);
  std::abort();
}

}  // namespace aiv

// On in every build: a broken invariant must not go on.
#define AIV_ASSERT(condition) \
  ((condition) ? static_cast<void>(0) : ::aiv::assertion_failed(#condition, __FILE__, __LINE__))
