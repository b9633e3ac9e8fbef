// What llama.cpp v0.5.0 does with each architecture, as far as memory is concerned: one row per name.
#pragma once
#include <cstdint>
#include <span>
#include <string_view>

#include "core/vram.hpp"

namespace aiv {

// Which layers hold only a sliding window.
enum class WindowRule : std::uint8_t {
  kNone,             // never, whatever the file says
  kPeriod,           // every `period`-th layer is full, the others are windows
  kPeriodFullFirst,  // the same, counted from a full first layer
  kArray,            // the file must say it per layer
  kAllAttention      // every attention layer
};

// Which layers are recurrent.
enum class RecurrentRule : std::uint8_t {
  kNone,
  kAll,
  kNoKvHeads,      // head_count_kv is 0 in them
  kNoKvHeadsNoFf,  // and feed_forward_length too; with one of them the layer keeps nothing
  kInterval,       // all but every `full_attention_interval`-th
  kBoth            // every layer has both caches
};

struct ArchitectureRow {
  std::string_view name;
  ModelFamily family = ModelFamily::kAttention;
  WindowRule window = WindowRule::kNone;
  std::int64_t period = 0;
  std::int64_t default_window = 0;  // where the file has no key; 0 = then no window
  RecurrentRule recurrent = RecurrentRule::kNone;
};

// nullptr: not in the table.
[[nodiscard]] const ArchitectureRow* find_architecture(std::string_view name);
[[nodiscard]] std::span<const ArchitectureRow> architectures();

}  // namespace aiv
