#include "nn/onednn.h"

#include <dnnl_debug.h>

#include <dnnl.hpp>
#include <new>
#include <stdexcept>

#include "core/scratch.h"
#include "core/threads.h"
#include "nn/dense_product.h"

namespace rattention {
namespace {

using dnnl::memory;

// Never destroyed: threads may outlive the static objects of the main thread.
const dnnl::engine& cpu_engine() {
  static const auto* engine = new dnnl::engine(dnnl::engine::kind::cpu, 0);
  return *engine;
}

dnnl::stream& thread_stream() {
  thread_local dnnl::stream stream(cpu_engine());
  return stream;
}

memory::desc row_major(std::int64_t rows, std::int64_t columns, std::int64_t row_stride) {
  return {memory::dims{rows, columns}, memory::data_type::f32, memory::dims{row_stride, 1}};
}

void append(dnnl::post_ops& operations, Activation activation) {
  switch (activation) {
    case Activation::none:
      return;
    case Activation::gelu:
      return operations.append_eltwise(dnnl::algorithm::eltwise_gelu_erf, 0.0F, 0.0F);
    case Activation::gelu_tanh:
      return operations.append_eltwise(dnnl::algorithm::eltwise_gelu_tanh, 0.0F, 0.0F);
    case Activation::relu:
      return operations.append_eltwise(dnnl::algorithm::eltwise_relu, 0.0F, 0.0F);
    case Activation::silu:
      return operations.append_eltwise(dnnl::algorithm::eltwise_swish, 1.0F, 0.0F);
  }
}

// A scratchpad of the caller's makes one primitive safe to run on several threads at once.
dnnl::primitive_attr attributes(Activation activation) {
  dnnl::post_ops operations;
  append(operations, activation);
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  attributes.set_post_ops(operations);
  return attributes;
}

// The weights keep the plain layout: packed as oneDNN would choose they gain nothing measurable at the tile sizes of
// nn/linear, and its implementation for packed weights writes no strided output.
dnnl::matmul::primitive_desc describe(const DenseProduct::Shape& shape, Activation activation) {
  return {cpu_engine(),
          row_major(shape.rows, shape.depth, shape.depth),
          row_major(shape.depth, shape.columns, shape.columns),
          row_major(1, shape.columns, shape.columns),
          row_major(shape.rows, shape.columns, shape.row_stride),
          attributes(activation)};
}

memory memory_at(const memory::desc& description, const float* data) {
  return {description, cpu_engine(),
          const_cast<float*>(data)};  // oneDNN takes no pointer to const; inputs are only read
}

float* scratchpad(std::size_t bytes) {
  const auto floats = static_cast<std::int64_t>((bytes + sizeof(float) - 1) / sizeof(float));
  Scratch& scratch = thread_scratch();
  scratch.reset(Scratch::round_up(floats));
  return scratch.take(floats);
}

}  // namespace

std::optional<std::string> onednn_version() {
  const dnnl_version_t* version = dnnl_version();
  return std::to_string(version->major) + "." + std::to_string(version->minor) + "." + std::to_string(version->patch);
}

void throw_onednn_error(int status, const std::string& operation) {
  if (status == dnnl_out_of_memory) throw std::bad_alloc();
  throw std::runtime_error("oneDNN failed to " + operation + ": " +
                           dnnl_status2str(static_cast<dnnl_status_t>(status)));
}

struct DenseProduct::Primitive {
  Primitive(const Shape& shape, Activation activation)
      : description(describe(shape, activation)), product(description) {}

  void run(const float* x, const float* w, const float* bias, float* y) const {
    product.execute(thread_stream(),
                    {{DNNL_ARG_SRC, memory_at(description.src_desc(), x)},
                     {DNNL_ARG_WEIGHTS, memory_at(description.weights_desc(), w)},
                     {DNNL_ARG_BIAS, memory_at(description.query_md(dnnl::query::weights_md, 1), bias)},
                     {DNNL_ARG_DST, memory_at(description.dst_desc(), y)},
                     {DNNL_ARG_SCRATCHPAD,
                      memory_at(description.scratchpad_desc(), scratchpad(description.scratchpad_desc().get_size()))}});
  }

  dnnl::matmul::primitive_desc description;
  dnnl::matmul product;
};

DenseProduct::DenseProduct(const Shape& shape, Activation activation) {
  const OneLibraryThread guard;
  try {
    primitive_ = std::make_unique<const Primitive>(shape, activation);
  } catch (const dnnl::error& error) {
    throw_onednn_error(error.status, "prepare a dense layer");
  }
}

DenseProduct::~DenseProduct() = default;

// Measured on products of BERT's sizes: tiles of 128 rows by 384 columns run at 85-95 % of the FMA peak with AVX-512
// and AVX2; narrow layers need narrower panels to give few rows enough tiles.
std::int64_t DenseProduct::panel_width(std::int64_t columns) { return columns <= 768 ? 192 : 384; }

void DenseProduct::operator()(const float* x, const float* w, const float* bias, float* y) const {
  const OneLibraryThread guard;
  try {
    primitive_->run(x, w, bias, y);
  } catch (const dnnl::error& error) {
    throw_onednn_error(error.status, "run a dense layer");
  }
}

}  // namespace rattention
