// aiv-make-model OUT.gguf [--layers N] ...: see random_model.hpp.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "make-model/random_model.hpp"

int main(int argc, char** argv) {
  aiv::RandomModelShape shape;
  std::string path;
  CLI::App app{"Writes a model with random weights: something to load, whose answers are nonsense"};
  app.add_option("OUT", path, "File to write")->required();
  app.add_option("--name", shape.name, "general.name")->capture_default_str();
  app.add_option("--layers", shape.layers)->capture_default_str();
  app.add_option("--embd", shape.embd, "Width")->capture_default_str();
  app.add_option("--heads", shape.heads)->capture_default_str();
  app.add_option("--kv-heads", shape.kv_heads)->capture_default_str();
  app.add_option("--feed-forward", shape.feed_forward)->capture_default_str();
  app.add_option("--ctx-train", shape.ctx_train)->capture_default_str();
  app.add_option("--vocab", shape.vocab)->capture_default_str();
  app.add_flag("--f16", shape.f16, "F16 weights instead of F32");
  app.add_option("--seed", shape.seed)->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (const auto written = aiv::write_random_model(shape, path); !written) {
    std::fprintf(stderr, "aiv-make-model: %s\n", written.error().message().c_str());
    return written.error().code == aiv::ErrorCode::kInvalidArgument ? 2 : 1;
  }
  return 0;
}
