// Tables for people: columns as wide as their widest cell, no trailing blanks.
#pragma once
#include <string>
#include <vector>

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

}  // namespace aiv::cli
