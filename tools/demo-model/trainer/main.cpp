// aiv-demo-train: trains the demo model from documents of tokens; tools/demo-model/make is what calls it.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <string>

#include "demo-model/trainer/training.hpp"

namespace {

struct Options {
  aiv::demo::Shape shape;
  aiv::demo::Recipe recipe;
  std::string documents, validation, weights, start, log;
  aiv::demo::Index report_steps = 100;
};

void add_options(CLI::App& app, Options& o) {
  app.add_option("--documents", o.documents, "Documents to learn")->required();
  app.add_option("--validation", o.validation, "Documents to be judged by")->required();
  app.add_option("--weights", o.weights, "File to write, at every report")->required();
  app.add_option("--start", o.start, "Weights to begin with, instead of random ones");
  app.add_option("--log", o.log, "File for the loss, a line per report")->required();
  app.add_option("--vocab", o.shape.vocab)->capture_default_str();
  app.add_option("--width", o.shape.width)->capture_default_str();
  app.add_option("--layers", o.shape.layers)->capture_default_str();
  app.add_option("--heads", o.shape.heads)->capture_default_str();
  app.add_option("--feed-forward", o.shape.feed_forward)->capture_default_str();
  app.add_option("--steps", o.recipe.steps)->capture_default_str();
  app.add_option("--last-step", o.recipe.last_step, "End early, within the schedule")->capture_default_str();
  app.add_option("--batch-tokens", o.recipe.batch_tokens)->capture_default_str();
  app.add_option("--threads", o.recipe.threads)->capture_default_str()->check(CLI::Range(1, 64));
  app.add_option("--rate", o.recipe.rate)->capture_default_str();
  app.add_option("--warmup", o.recipe.warmup_steps)->capture_default_str();
  app.add_option("--seed", o.recipe.seed)->capture_default_str();
  app.add_option("--report-steps", o.report_steps)->capture_default_str()->check(CLI::PositiveNumber);
}

aiv::Result<> run(const Options& o) {
  using namespace aiv;
  const demo::Layout layout(o.shape);
  auto documents = demo::read_documents(o.documents, o.shape.vocab);
  if (!documents) return std::unexpected(documents.error());
  auto validation = demo::read_documents(o.validation, o.shape.vocab);
  if (!validation) return std::unexpected(validation.error());
  std::vector<float> parameters = demo::initial_parameters(layout, o.recipe.seed);
  if (!o.start.empty()) {
    auto read = demo::read_parameters(o.start, layout);
    if (!read) return std::unexpected(read.error());
    parameters = std::move(*read);
  }
  std::FILE* log = std::fopen(o.log.c_str(), "w");
  if (log == nullptr) return fail(ErrorCode::kIo, "cannot be written", o.log);
  std::fprintf(log, "step,tokens,loss,validation_loss,rate,seconds\n");
  std::printf("%lld parameters, %zu documents, %zu to be judged by\n", static_cast<long long>(layout.total),
              documents->size(), validation->size());
  const auto begin = std::chrono::steady_clock::now();
  Result<> written;
  demo::train(
      layout, o.recipe, *documents, *validation, o.report_steps, parameters, [&](const demo::Progress& p) {
        const double seconds =
            std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
        for (std::FILE* to : {log, stdout}) {
          std::fprintf(to, "%lld,%lld,%.4f,%.4f,%.2e,%.0f\n", static_cast<long long>(p.step),
                       static_cast<long long>(p.tokens_seen), p.loss, p.validation_loss, p.rate, seconds);
          std::fflush(to);
        }
        if (written) written = demo::write_parameters(parameters, o.weights);
      });
  std::fclose(log);
  return written;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app{"Trains the demo model"};
  add_options(app, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (const auto done = run(options); !done) {
    std::fprintf(stderr, "aiv-demo-train: %s\n", done.error().message().c_str());
    return 1;
  }
  return 0;
}
