// Ends all tasks of a context where its scope ends: what their frames hold is destroyed there. Declared after what tasks
// refer to. Rationale: left to the context, which outlives all that uses it, a frame would end after the objects that it
// points to.
#pragma once
#include "net/async.hpp"

namespace aiv::net {

class TaskScope {
 public:
  explicit TaskScope(boost::asio::io_context& context) : context_(context) {}
  TaskScope(const TaskScope&) = delete;
  TaskScope& operator=(const TaskScope&) = delete;
  ~TaskScope();

 private:
  boost::asio::io_context& context_;
};

}  // namespace aiv::net
