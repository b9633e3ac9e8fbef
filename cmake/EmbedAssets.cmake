# aiv_embed_assets(TARGET): adds the built web page to TARGET as constant data (src/gateway/assets.hpp says how it is
# found there). Which page, is -DAIV_UI:
#   prebuilt  web/dist where it exists, else a page that says how to build it; needs no Node (the default)
#   build     runs `npm ci` and `npm run build` in web/ whenever its sources changed
#   off       never the page, even if it is there
# The embedding itself is cmake/EmbedAssetsStep.cmake, run at build time, so that a rebuilt web/dist is seen by the
# next build of the server without a new configure.
function(aiv_embed_assets target)
  set(web ${CMAKE_SOURCE_DIR}/web)
  set(out ${CMAKE_CURRENT_BINARY_DIR}/embedded)
  set(fallback ${CMAKE_SOURCE_DIR}/src/gateway/no_page.html)
  set(dist ${web}/dist)
  set(inputs ${fallback})

  if(AIV_UI STREQUAL "build")
    find_program(AIV_NPM npm REQUIRED)
    file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${web}/src/* ${web}/public/*)
    set(stamp ${out}/page.stamp)
    add_custom_command(
      OUTPUT ${stamp}
      COMMAND ${AIV_NPM} ci --no-audit --no-fund
      COMMAND ${AIV_NPM} run build
      COMMAND ${CMAKE_COMMAND} -E make_directory ${out}
      COMMAND ${CMAKE_COMMAND} -E touch ${stamp}
      DEPENDS ${sources} ${web}/package.json ${web}/package-lock.json ${web}/index.html ${web}/vite.config.ts
      WORKING_DIRECTORY ${web}
      COMMENT "Building the web page (npm ci, vite build)"
      VERBATIM)
    list(APPEND inputs ${stamp})
  elseif(AIV_UI STREQUAL "prebuilt")
    file(GLOB_RECURSE built CONFIGURE_DEPENDS ${dist}/*)
    list(APPEND inputs ${built})
  elseif(AIV_UI STREQUAL "off")
    set(dist "")
  else()
    message(FATAL_ERROR "AIV_UI is '${AIV_UI}'; it must be build, prebuilt or off")
  endif()

  find_program(AIV_GZIP gzip REQUIRED)
  set(step ${CMAKE_SOURCE_DIR}/cmake/EmbedAssetsStep.cmake)
  add_custom_command(
    OUTPUT ${out}/assets_data.cpp
    COMMAND ${CMAKE_COMMAND} -D "DIST=${dist}" -D "FALLBACK=${fallback}" -D "OUT=${out}" -D "GZIP=${AIV_GZIP}"
            -P ${step}
    DEPENDS ${inputs} ${step}
    COMMENT "Embedding the web page"
    VERBATIM)
  target_sources(${target} PRIVATE ${out}/assets_data.cpp)
endfunction()
