// Decoding: RAttention's cache and its step.
#include <pybind11/stl.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/core_call.h"
#include "bindings/module.h"
#include "rattention/rattention_cache.h"
#include "rattention/rattention_step.h"

namespace py = pybind11;

namespace rattention::bindings {
namespace {

// A cache and who is in it: calls let other threads run Python meanwhile.
struct SharedCache {
  explicit SharedCache(const CacheConfig& config) : cache(config) {}
  explicit SharedCache(const RAttentionCache& other) : cache(other) {}

  RAttentionCache cache;
  std::atomic<int> readers{0};  // kWriter while a thread changes it
};

// Either one thread changes a cache, or any number read it.
class Use {
 public:
  enum Kind : std::uint8_t { change, read };

  Use(SharedCache& shared, Kind kind) : shared_(shared), kind_(kind) {
    int before = shared.readers;
    do {
      if (before == kWriter || (kind == change && before > 0)) {
        throw std::runtime_error("the cache is in use by another thread");
      }
    } while (!shared.readers.compare_exchange_weak(before, kind == read ? before + 1 : kWriter));
  }
  ~Use() {
    if (kind_ == read) {
      --shared_.readers;
    } else {
      shared_.readers = 0;
    }
  }
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;

 private:
  static constexpr int kWriter = -1;

  SharedCache& shared_;
  Kind kind_;
};

DType dtype_of(const std::string& name) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    if (name == name_of(dtype)) return dtype;
  }
  throw py::type_error("dtype must be float32, bfloat16 or float16, got " + name);
}

std::unique_ptr<SharedCache> make_cache(std::int64_t batch, std::int64_t kv_heads, std::int64_t head_dim,
                                        std::int64_t value_dim, std::int64_t window, FeatureMap feature_map,
                                        const std::optional<RateArray>& rope, const std::string& dtype) {
  return std::make_unique<SharedCache>(
      CacheConfig{batch, kv_heads, head_dim, value_dim, window, feature_map, rates_of(rope), dtype_of(dtype)});
}

IndexArray lengths(SharedCache& shared) {
  const Use use(shared, Use::read);
  const std::vector<std::int64_t>& lengths = shared.cache.lengths();
  return IndexArray(static_cast<py::ssize_t>(lengths.size()), lengths.data());
}

std::unique_ptr<SharedCache> copy(SharedCache& shared) {
  const Use use(shared, Use::read);
  const CoreCall call;
  return std::make_unique<SharedCache>(shared.cache);
}

void restore(SharedCache& shared, SharedCache& snapshot) {
  const Use use(shared, Use::change);
  const Use use_snapshot(snapshot, Use::read);
  const CoreCall call;
  shared.cache.restore(snapshot.cache);
}

// Five arrays in the order of CacheContents; keys and values as their storage.
struct ContentArrays {
  IndexArray lengths;
  py::array keys, values;
  FloatArray states, excesses;

  explicit ContentArrays(const RAttentionCache& cache) : ContentArrays(cache.config(), cache.panel_dtype()) {}

  CacheContents contents() {
    return {lengths.mutable_data(), static_cast<std::byte*>(keys.mutable_data()),
            static_cast<std::byte*>(values.mutable_data()), states.mutable_data(), excesses.mutable_data()};
  }

 private:
  ContentArrays(const CacheConfig& config, DType key_dtype)
      : lengths(new_array<std::int64_t>({config.batch})),
        states(new_array<float>({config.batch, config.kv_heads, 2 * config.head_dim, config.value_dim})),
        excesses(new_array<float>({config.batch, config.kv_heads, 2 * config.head_dim, config.value_dim})) {
    OutputView view;
    keys = new_output(key_dtype, {config.batch, config.kv_heads, config.window, config.head_dim}, &view);
    values = new_output(config.dtype, {config.batch, config.kv_heads, config.window, config.value_dim}, &view);
  }
};

py::array recent_keys(SharedCache& shared) {
  const Use use(shared, Use::read);
  const CacheConfig& config = shared.cache.config();
  const std::vector<std::int64_t>& lengths = shared.cache.lengths();
  const std::int64_t n =
      lengths.empty() ? 0 : std::min(config.window, *std::min_element(lengths.begin(), lengths.end()));
  OutputView view;
  py::array keys = new_output(config.dtype, {config.batch, config.kv_heads, n, config.head_dim}, &view);
  {
    const CoreCall call;
    for (std::int64_t b = 0; b < config.batch; ++b) shared.cache.recent_keys(b, n, view.row(b, 0, 0));
  }
  return keys;
}

py::tuple write(SharedCache& shared) {
  const Use use(shared, Use::read);
  ContentArrays arrays(shared.cache);
  const CacheContents contents = arrays.contents();
  {
    const CoreCall call;
    shared.cache.write(contents);
  }
  return py::make_tuple(arrays.lengths, arrays.keys, arrays.values, arrays.states, arrays.excesses);
}

void copy_bytes(const char* name, const py::array& from, py::array& to) {
  const bool contiguous = (from.flags() & py::array::c_style) != 0;
  if (from.nbytes() != to.nbytes() || !contiguous) {
    throw py::value_error(std::string(name) + " must have " + std::to_string(to.nbytes()) + " contiguous bytes, got " +
                          std::to_string(from.nbytes()));
  }
  const auto* first = static_cast<const std::byte*>(from.data());
  std::copy(first, first + from.nbytes(), static_cast<std::byte*>(to.mutable_data()));
}

// The arrays may lie at odd addresses: they are copied byte by byte.
void read(SharedCache& shared, const py::array& lengths, const py::array& keys, const py::array& values,
          const py::array& states, const py::array& excesses) {
  const Use use(shared, Use::change);
  ContentArrays arrays(shared.cache);
  copy_bytes("lengths", lengths, arrays.lengths);
  copy_bytes("keys", keys, arrays.keys);
  copy_bytes("values", values, arrays.values);
  copy_bytes("states", states, arrays.states);
  copy_bytes("excesses", excesses, arrays.excesses);
  const CacheContents contents = arrays.contents();
  const CoreCall call;
  shared.cache.read(contents);
}

py::array step(SharedCache& shared, const py::array& query, const py::array& key, const py::array& value, float scale,
               const std::optional<FloatArray>& local_norm_weight, const std::optional<FloatArray>& linear_norm_weight,
               float eps, const std::optional<IndexArray>& lengths) {
  StepProblem problem;
  problem.query = tensor_view("query", query);
  problem.key = tensor_view("key", key);
  problem.value = tensor_view("value", value);
  problem.scale = scale;
  const std::int64_t heads = problem.query.heads();
  const std::int64_t value_dim = problem.value.dim();
  problem.norms.local_weight = norm_weight("local_norm_weight", local_norm_weight, heads, value_dim);
  problem.norms.linear_weight = norm_weight("linear_norm_weight", linear_norm_weight, heads, value_dim);
  problem.norms.eps = eps;
  // A copy of one's own: another thread may write to the caller's array meanwhile.
  std::vector<std::int64_t> counts;
  if (lengths) {
    if (lengths->ndim() != 1 || lengths->shape(0) != shared.cache.config().batch) {
      throw py::value_error("lengths must have one entry per sequence (" + std::to_string(shared.cache.config().batch) +
                            "), got " + std::to_string(lengths->size()));
    }
    counts.assign(lengths->data(), lengths->data() + lengths->size());
    problem.counts = counts.data();
  }
  const Use use(shared, Use::change);
  OutputView view;
  py::array output =
      new_output(problem.query.dtype,
                 {problem.query.batch(), problem.query.heads(), problem.query.length(), problem.value.dim()}, &view);
  {
    const CoreCall call;
    rattention_step(problem, shared.cache, view);
  }
  return output;
}

}  // namespace

void bind_cache(py::module_& module) {
  py::class_<SharedCache>(module, "RAttentionCache", "Keys and values of the window, and the state of all before it.")
      .def(py::init(&make_cache), py::arg("batch"), py::arg("kv_heads"), py::arg("head_dim"), py::arg("value_dim"),
           py::arg("window"), py::arg("feature_map"), py::arg("rope").noconvert(), py::arg("dtype"))
      .def("lengths", &lengths)
      .def("nbytes", [](const SharedCache& shared) { return shared.cache.bytes(); })
      .def("copy", &copy)
      .def("recent_keys", &recent_keys)
      .def("restore", &restore, py::arg("snapshot"))
      .def("write", &write, "(lengths, keys, values, states, excesses)")
      .def("read", &read, py::arg("lengths"), py::arg("keys"), py::arg("values"), py::arg("states"),
           py::arg("excesses"))
      .def("step", &step, py::arg("query"), py::arg("key"), py::arg("value"), py::arg("scale"),
           py::arg("local_norm_weight"), py::arg("linear_norm_weight"), py::arg("eps"), py::arg("lengths"));
}

}  // namespace rattention::bindings
