# Writes OUT/assets_data.cpp: every file of DIST, as it is and gzipped, by the assembler's .incbin (g++ 12 has no
# #embed, and an array of numbers costs the compiler a hundred times the time), and a sorted table of them. Without
# DIST/index.html the one file is FALLBACK. The output depends on the input alone: `gzip -n` writes no time or name.

function(content_type_of name out)
  set(known
    html "text/html\; charset=utf-8"  js "text/javascript\; charset=utf-8"  css "text/css\; charset=utf-8"
    svg "image/svg+xml"  png "image/png"  ico "image/x-icon"  json "application/json"
    txt "text/plain\; charset=utf-8"  webmanifest "application/manifest+json"  woff2 "font/woff2")
  string(REGEX MATCH "[^.]*$" extension "${name}")
  list(FIND known "${extension}" at)
  if(at EQUAL -1)
    set(${out} "application/octet-stream" PARENT_SCOPE)
  else()
    math(EXPR at "${at} + 1")
    list(GET known ${at} type)
    set(${out} "${type}" PARENT_SCOPE)
  endif()
endfunction()

file(REMOVE_RECURSE ${OUT}/files)
file(MAKE_DIRECTORY ${OUT}/files)
if(DIST AND EXISTS "${DIST}/index.html")
  set(root "${DIST}")
  file(GLOB_RECURSE names RELATIVE "${DIST}" "${DIST}/*")
  list(SORT names COMPARE STRING)
else()
  set(root ${OUT}/files)
  configure_file(${FALLBACK} ${root}/index.html COPYONLY)
  set(names index.html)
endif()

set(blobs "")
set(symbols "")
set(rows "")
set(index 0)
foreach(name ${names})
  set(raw "${root}/${name}")
  set(packed "${OUT}/files/${index}.gz")
  execute_process(COMMAND ${GZIP} -9nc "${raw}" OUTPUT_FILE "${packed}" RESULT_VARIABLE failed)
  if(failed)
    message(FATAL_ERROR "gzip of ${raw} failed: ${failed}")
  endif()
  file(SIZE "${raw}" raw_size)
  file(SIZE "${packed}" packed_size)
  if(NOT packed_size LESS raw_size)
    set(packed_size 0)
  endif()
  file(SHA256 "${raw}" digest)
  string(SUBSTRING ${digest} 0 32 digest)
  content_type_of("${name}" type)
  set(immutable false)
  if(name MATCHES "^assets/")
    set(immutable true)
  endif()

  string(APPEND blobs "    \"aiv_asset_${index}: .incbin \\\"${raw}\\\"\\n.byte 0\\n\"\n")
  string(APPEND blobs "    \"aiv_asset_${index}_gz: .incbin \\\"${packed}\\\"\\n.byte 0\\n\"\n")
  string(APPEND symbols "extern const char aiv_asset_${index}[];\nextern const char aiv_asset_${index}_gz[];\n")
  string(APPEND rows "    {\"/${name}\", {aiv_asset_${index}, ${raw_size}}, {aiv_asset_${index}_gz, ${packed_size}},\n"
    "     \"${type}\", \"W/\\\"${digest}\\\"\", ${immutable}},\n")
  math(EXPR index "${index} + 1")
endforeach()

file(WRITE ${OUT}/assets_data.cpp
"// Made by cmake/EmbedAssetsStep.cmake.
#include \"gateway/assets.hpp\"

__asm__(\".pushsection .rodata\\n\"
${blobs}    \".popsection\\n\");

extern \"C\" {
${symbols}}

namespace aiv::gateway {
namespace {
const Asset kAssets[] = {
${rows}};
}  // namespace

std::span<const Asset> all_assets() { return kAssets; }

}  // namespace aiv::gateway
")
