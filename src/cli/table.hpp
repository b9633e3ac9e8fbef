// Tables for people: columns as wide as their widest cell, no trailing blanks.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/json.hpp"

namespace aiv::cli {

class Table {
 public:
  explicit Table(std::vector<std::string> header) { rows_.push_back(std::move(header)); }
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  [[nodiscard]] std::string text() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

// Columns a terminal needs for UTF-8 text (one per code point).
std::size_t display_width(std::string_view text);

// A field of an item that the API sent, for a cell: empty or 0 when it is absent or of another type.
std::string text_at(const Json& item, const char* key);
std::int64_t number_at(const Json& item, const char* key);

}  // namespace aiv::cli
