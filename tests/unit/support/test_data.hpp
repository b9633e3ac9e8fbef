// Optional test data: the directory named by AIV_TEST_DATA, else ../shared beside the checkout. Tests that
// need it skip with a message when it is not there.
#pragma once
#include <cstdlib>
#include <filesystem>
#include <string>

namespace aiv::test {

// Empty if there is none.
inline std::string test_data_dir() {
  if (const char* named = std::getenv("AIV_TEST_DATA"); named != nullptr && *named != '\0') return named;
#ifdef AIV_SOURCE_DIR
  const std::filesystem::path beside = std::filesystem::path(AIV_SOURCE_DIR).parent_path() / "shared";
  std::error_code error;
  if (std::filesystem::is_directory(beside, error)) return beside.string();
#endif
  return {};
}

}  // namespace aiv::test
