# Helpers that keep every folder's CMakeLists.txt to a few lines and hold the layering:
# a library may link only what src/README.md allows it.

find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)

add_library(aiv_flags INTERFACE)
# Designated initialisers leave fields at their defaults on purpose.
target_compile_options(aiv_flags INTERFACE -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wno-missing-field-initializers)
if(AIV_WERROR)
  target_compile_options(aiv_flags INTERFACE -Werror)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # g++ 12 reports these inside libstdc++ and Boost headers at -O2 where there is no fault.
  target_compile_options(aiv_flags INTERFACE -Wno-maybe-uninitialized -Wno-restrict
    -Wno-array-bounds -Wno-stringop-overflow -Wno-stringop-overread -Wno-dangling-pointer
    -Wno-mismatched-new-delete)
endif()
if(AIV_SANITIZE)
  target_compile_options(aiv_flags INTERFACE -fsanitize=${AIV_SANITIZE} -fno-omit-frame-pointer)
  target_link_options(aiv_flags INTERFACE -fsanitize=${AIV_SANITIZE})
endif()
target_include_directories(aiv_flags INTERFACE ${CMAKE_SOURCE_DIR}/src)
target_compile_definitions(aiv_flags INTERFACE AIV_VERSION="${PROJECT_VERSION}")

# aiv_library(NAME [JOINED count] [DEPS target...]): a static library from every .cpp of the current folder.
# JOINED: with -DAIV_JOINED=ON (the release preset) that many sources are compiled as one, which takes a third of the
# time where each of them reads the same large headers. Their anonymous namespaces then share a scope: two helpers of
# one name are an error of that build, and one of them belongs into a header.
function(aiv_library name)
  cmake_parse_arguments(A "" "JOINED" "DEPS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp)
  if(NOT sources)  # a library without code yet still has to link
    file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/empty.cpp "")
    set(sources ${CMAKE_CURRENT_BINARY_DIR}/empty.cpp)
  endif()
  add_library(${name} STATIC ${sources})
  target_link_libraries(${name} PUBLIC aiv_flags ${A_DEPS})
  if(A_JOINED AND AIV_JOINED)
    set_target_properties(${name} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE ${A_JOINED})
    # g++ takes every included source for a header that others might include too.
    target_compile_options(${name} PRIVATE $<$<CXX_COMPILER_ID:GNU>:-Wno-subobject-linkage>)
  endif()
endfunction()

# aiv_test(NAME SOURCES... [DEPS target...] [LABELS l...] [TIMEOUT s]): a GoogleTest binary, registered as
# one ctest entry (its own output counts the cases).
function(aiv_test name)
  cmake_parse_arguments(A "" "TIMEOUT" "SOURCES;DEPS;LABELS" ${ARGN})
  add_executable(${name} ${A_SOURCES})
  target_link_libraries(${name} PRIVATE aiv_flags ${A_DEPS} GTest::gtest GTest::gmock GTest::gtest_main)
  add_test(NAME ${name} COMMAND ${name})
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 120)
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${A_TIMEOUT} LABELS "${A_LABELS}")
endfunction()

# aiv_fuzzer(NAME SOURCES... DEPS...): a libFuzzer binary with ASan and UBSan, only with -DAIV_FUZZ=ON (clang).
function(aiv_fuzzer name)
  cmake_parse_arguments(A "" "" "SOURCES;DEPS" ${ARGN})
  if(AIV_FUZZ)
    add_executable(${name} ${A_SOURCES})
    target_link_libraries(${name} PRIVATE aiv_flags ${A_DEPS})
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  endif()
endfunction()

# aiv_node_test(NAME SOURCES file.mjs... [LABELS l...] [TIMEOUT s]): tests for Node's runner (node:test), one ctest
# entry whose cases scripts/run-tests.sh counts. AIV_BUILD_DIR names the build folder to them.
function(aiv_node_test name)
  cmake_parse_arguments(A "" "TIMEOUT" "SOURCES;LABELS" ${ARGN})
  list(TRANSFORM A_SOURCES PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/ REGEX "^[^/]")
  add_test(NAME ${name} COMMAND ${CMAKE_SOURCE_DIR}/scripts/node-test.sh ${name} ${A_SOURCES})
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 300)
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${A_TIMEOUT} LABELS "${A_LABELS}"
    ENVIRONMENT "AIV_BUILD_DIR=${CMAKE_BINARY_DIR}")
endfunction()
