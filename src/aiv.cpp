#include "cli/main.hpp"

int main(int argc, char** argv) { return aiv::cli::run(argc, argv); }
