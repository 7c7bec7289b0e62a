# How Python files get into the extension: by Slicer's own macros, or into a plain install tree where there is no Slicer.

# Copy files, given relative to the current folder, beside the modules, folders and all.
function(medxlate_install_files)
  foreach(file IN LISTS ARGN)
    get_filename_component(folder "${file}" DIRECTORY)
    install(FILES "${file}" DESTINATION "${Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR}/${folder}" COMPONENT Runtime)
  endforeach()
endfunction()

# Package a library: the folder of that name below the current one, all of it. Files are found, not listed, so that none
# can be forgotten; CMake looks again at every build.
macro(medxlate_add_library name)
  file(GLOB_RECURSE scripts CONFIGURE_DEPENDS RELATIVE "${CMAKE_CURRENT_SOURCE_DIR}" "${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.py")
  file(GLOB_RECURSE resources CONFIGURE_DEPENDS RELATIVE "${CMAKE_CURRENT_SOURCE_DIR}"
    "${CMAKE_CURRENT_SOURCE_DIR}/${name}/resources/*" "${CMAKE_CURRENT_SOURCE_DIR}/${name}/py.typed")
  list(FILTER resources EXCLUDE REGEX "__pycache__|\\.lock$|/\\.")
  if(Slicer_DIR)
    ctkMacroCompilePythonScript(
      TARGET_NAME ${name}
      SCRIPTS "${scripts}"
      RESOURCES "${resources}"
      DESTINATION_DIR ${CMAKE_BINARY_DIR}/${Slicer_QTSCRIPTEDMODULES_LIB_DIR}
      INSTALL_DIR ${Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR}
      NO_INSTALL_SUBDIR
      )
  else()
    medxlate_install_files(${scripts} ${resources})
  endif()
endmacro()

# Package a scripted module: medxlate_add_module(NAME SCRIPTS file... RESOURCES file...)
macro(medxlate_add_module name)
  cmake_parse_arguments(MODULE "" "" "SCRIPTS;RESOURCES" ${ARGN})
  if(Slicer_DIR)
    slicerMacroBuildScriptedModule(
      NAME ${name}
      SCRIPTS ${MODULE_SCRIPTS}
      RESOURCES ${MODULE_RESOURCES}
      WITH_GENERIC_TESTS
      )
  else()
    medxlate_install_files(${MODULE_SCRIPTS} ${MODULE_RESOURCES})
  endif()
endmacro()
