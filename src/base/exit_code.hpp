// Exit codes that scripts rely on (docs/cli.md).
#pragma once
#include "base/result.hpp"

namespace aiv {

enum class ExitCode : int {
  kOk = 0,
  kFailure = 1,
  kUsage = 2,
  kNotFound = 3,
  kRefused = 4,
  kUnauthorized = 5,
  kUnreachable = 6,
  kTimeout = 7,
  kInterrupted = 130,
};

[[nodiscard]] constexpr ExitCode exit_code_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kNotFound: return ExitCode::kNotFound;
    case ErrorCode::kRefused: return ExitCode::kRefused;
    case ErrorCode::kUnauthorized: return ExitCode::kUnauthorized;
    case ErrorCode::kUnavailable: return ExitCode::kUnreachable;
    case ErrorCode::kTimeout: return ExitCode::kTimeout;
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kConflict:
    case ErrorCode::kCancelled:
    case ErrorCode::kCorrupt:
    case ErrorCode::kTooLarge:
    case ErrorCode::kIo:
    case ErrorCode::kInternal: return ExitCode::kFailure;
  }
  return ExitCode::kFailure;
}

}  // namespace aiv
