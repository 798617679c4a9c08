# The component `core`, for C++ projects: find_package(rattention), then link rattention::core.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(headers ${CMAKE_INSTALL_INCLUDEDIR}/rattention)
set(package ${CMAKE_INSTALL_LIBDIR}/cmake/rattention)

# Projects include <rattention/softmax/...>; the headers name each other from one folder further in.
target_include_directories(rattention_core INTERFACE
  $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}> $<INSTALL_INTERFACE:${headers}>)
set_target_properties(rattention_core PROPERTIES EXPORT_NAME core)
install(TARGETS rattention_core EXPORT rattention COMPONENT core)
install(EXPORT rattention NAMESPACE rattention:: DESTINATION ${package} COMPONENT core)
# What begins with simd wants the compiler options of one instruction set.
install(DIRECTORY core kernels softmax linear rattention metrics nn tasks DESTINATION ${headers} COMPONENT core
  FILES_MATCHING PATTERN "*.h" PATTERN "simd*.h" EXCLUDE)

# A static library leaves its dependencies to be found by whoever links it.
configure_package_config_file(rattention-config.cmake.in rattention-config.cmake INSTALL_DESTINATION ${package})
write_basic_package_version_file(rattention-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/rattention-config.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/rattention-config-version.cmake DESTINATION ${package} COMPONENT core)
