// Looking processes up in /proc: for faults on purpose, and for what a killed cluster left behind.
#pragma once
#include <sys/types.h>

#include <cstdint>

#include <string>
#include <vector>

namespace aiv::net {

struct ProcessEntry {
  pid_t pid = 0;
  pid_t parent = 0;
  std::int64_t start_time = 0;
  std::vector<std::string> arguments;
};

// Processes of our user with an argument that contains `text`, this one left out.
std::vector<ProcessEntry> processes_with_argument(const std::string& text);
// The environment of this process as "NAME=value".
std::vector<std::string> own_environment();

}  // namespace aiv::net
