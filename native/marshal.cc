#include "marshal.h"

#include <cmath>

namespace attune {

namespace {

constexpr double kMaxSafeInteger = 9007199254740991.0;  // 2^53 - 1
constexpr int64_t kMaxElements = int64_t(1) << 44;      // bytes of which stay far from overflow

[[noreturn]] void expected(const std::string& what, const char* kind) { throw Error("ERR_PROGRAM", what + ": expected " + kind); }

std::string at(const std::string& what, size_t i) { return what + "[" + std::to_string(i) + "]"; }

Napi::Object to_object(const Napi::Value& value, const std::string& what) {
  if (!value.IsObject() || value.IsFunction()) expected(what, "an object");
  return value.As<Napi::Object>();
}

/// Calls each(element, "what[i]") inside a handle scope of its own: a program has tens of thousands of values.
template <typename Each>
void for_each(const Napi::Value& value, const std::string& what, Each&& each) {
  const Napi::Array array = to_array(value, what);
  for (uint32_t i = 0; i < array.Length(); i++) {
    const Napi::HandleScope scope(value.Env());
    each(array.Get(i), at(what, i));
  }
}

std::vector<int64_t> to_ids(const Napi::Value& value, const std::string& what) {
  std::vector<int64_t> ids;
  for_each(value, what, [&](const Napi::Value& v, const std::string& where) { ids.push_back(to_integer(v, where)); });
  return ids;
}

std::vector<std::string> to_texts(const Napi::Value& value, const std::string& what) {
  std::vector<std::string> texts;
  for_each(value, what, [&](const Napi::Value& v, const std::string& where) { texts.push_back(to_text(v, where)); });
  return texts;
}

std::vector<Port> to_ports(const Napi::Value& value, const std::string& what) {
  std::vector<Port> ports;
  for_each(value, what, [&](const Napi::Value& v, const std::string& where) {
    const Napi::Object o = to_object(v, where);
    ports.push_back({to_text(o.Get("name"), where + ".name"), to_integer(o.Get("tensor"), where + ".tensor")});
  });
  return ports;
}

Attrs::Value to_attr(const Napi::Value& value, const std::string& what) {
  if (value.IsNumber()) return value.As<Napi::Number>().DoubleValue();
  if (value.IsBoolean()) return value.As<Napi::Boolean>().Value();
  if (value.IsString()) return value.As<Napi::String>().Utf8Value();
  if (!value.IsArray()) expected(what, "a number, a boolean, a string or a list of numbers");
  return to_doubles(value, what);
}

Attrs to_attrs(const Napi::Value& value, const std::string& what) {
  const Napi::Object object = to_object(value, what);
  Attrs attrs;
  for (const std::string& key : to_texts(object.GetPropertyNames(), what)) attrs.set(key, to_attr(object.Get(key), what + "." + key));
  return attrs;
}

ProgramTensor to_tensor(const Napi::Value& value, const std::string& what) {
  const Napi::Object o = to_object(value, what);
  ProgramTensor t;
  t.arena = to_integer(o.Get("arena"), what + ".arena");
  t.offset = to_integer(o.Get("offset"), what + ".offset");
  if (!parse_dtype(to_text(o.Get("dtype"), what + ".dtype"), &t.ref.dtype)) expected(what + ".dtype", "f64, f32, bf16, f16, i32 or u8");
  const std::vector<int64_t> shape = to_ids(o.Get("shape"), what + ".shape");
  if (shape.size() > size_t(kMaxRank)) expected(what + ".shape", "at most 6 dimensions");
  for (int64_t d : shape) t.ref.dims[t.ref.rank++] = d;
  return t;
}

DType to_float(const Napi::Value& value, const std::string& what) {
  DType dtype;
  if (!parse_dtype(to_text(value, what), &dtype) || dtype == DType::i32 || dtype == DType::u8) expected(what, "f64, f32, bf16 or f16");
  return dtype;
}

Instruction to_instruction(const Napi::Value& value, const std::string& what) {
  const Napi::Object o = to_object(value, what);
  Instruction in;
  in.op = to_text(o.Get("op"), what + ".op");
  in.label = to_text(o.Get("label"), what + ".label");
  in.attrs = to_attrs(o.Get("attrs"), what + ".attrs");
  in.inputs = to_ids(o.Get("inputs"), what + ".inputs");
  in.outputs = to_ids(o.Get("outputs"), what + ".outputs");
  return in;
}

}  // namespace

int64_t to_integer(const Napi::Value& value, const std::string& what) {
  if (!value.IsNumber()) expected(what, "an integer");
  const double d = value.As<Napi::Number>().DoubleValue();
  if (!(std::abs(d) <= kMaxSafeInteger) || d != std::floor(d)) expected(what, "an integer of at most 2^53 - 1");
  return int64_t(d);
}

std::string to_text(const Napi::Value& value, const std::string& what) {
  if (!value.IsString()) expected(what, "a string");
  return value.As<Napi::String>().Utf8Value();
}

Napi::Array to_array(const Napi::Value& value, const std::string& what) {
  if (!value.IsArray()) expected(what, "an array");
  return value.As<Napi::Array>();
}

std::vector<double> to_doubles(const Napi::Value& value, const std::string& what) {
  std::vector<double> numbers;
  for_each(value, what, [&](const Napi::Value& v, const std::string& where) {
    if (!v.IsNumber()) expected(where, "a number");
    numbers.push_back(v.As<Napi::Number>().DoubleValue());
  });
  return numbers;
}

Bytes to_bytes(const Napi::Value& value, const std::string& what) {
  // The C calls: node-addon-api would go through the ArrayBuffer, which refuses shared ones.
  Bytes bytes;
  size_t length = 0;
  if (value.IsTypedArray()) {
    if (napi_get_typedarray_info(value.Env(), value, nullptr, &length, &bytes.data, nullptr, nullptr) != napi_ok) expected(what, "a readable typed array");
    bytes.size = int64_t(length) * value.As<Napi::TypedArray>().ElementSize();
  } else if (value.IsDataView()) {
    if (napi_get_dataview_info(value.Env(), value, &length, &bytes.data, nullptr, nullptr) != napi_ok) expected(what, "a readable DataView");
    bytes.size = int64_t(length);
  } else {
    expected(what, "a typed array or DataView");
  }
  return bytes;
}

TensorForm to_form(const Napi::Value& value, const std::string& what) {
  const Napi::Object o = to_object(value, what);
  TensorForm form;
  form.outside = to_float(o.Get("dtype"), what + ".dtype");
  form.inside = to_float(o.Get("arenaDtype"), what + ".arenaDtype");
  const std::vector<int64_t> shape = to_ids(o.Get("shape"), what + ".shape");
  const std::string layout = to_text(o.Get("layout"), what + ".layout");
  int64_t elements = 1;
  for (int64_t d : shape)
    if (d < 0 || __builtin_mul_overflow(elements, d, &elements) || elements > kMaxElements) expected(what + ".shape", "a shape of less than 2^44 elements");
  if (layout == "plain") {
    form.columns = elements;
  } else {  // [O, I, kh, kw], and [B, C, H, W] likewise: the second axis goes last
    if (layout != "oihw" && layout != "bchw") expected(what + ".layout", "plain, oihw or bchw");
    if (shape.size() != 4) expected(what + ".shape", "four axes");
    form.outer = shape[0], form.rows = shape[1], form.columns = elements == 0 ? 0 : shape[2] * shape[3];
  }
  return form;
}

std::shared_ptr<FileRange> to_file_range(const Napi::Value& value, int64_t bytes, const std::string& what) {
  const Napi::Object o = to_object(value, what);
  const int64_t fd = to_integer(o.Get("fd"), what + ".fd"), offset = to_integer(o.Get("offset"), what + ".offset");
  if (fd < 0 || fd > INT32_MAX) expected(what + ".fd", "a file descriptor");
  if (offset < 0) expected(what + ".offset", "a position in a file");
  return std::make_shared<FileRange>(to_text(o.Get("path"), what + ".path"), int(fd), offset, bytes);
}

TraceMode to_trace_mode(const Napi::Value& value) {
  const std::string mode = to_text(value, "trace mode");
  if (mode == "off") return TraceMode::off;
  if (mode == "time") return TraceMode::time;
  if (mode == "check") return TraceMode::check;
  throw Error("ERR_CONFIG", "trace mode: expected off, time or check, received \"" + mode + "\"");
}

Program to_program(const Napi::Value& value) {
  const Napi::Object o = to_object(value, "program");
  if (to_integer(o.Get("format"), "program.format") != 1) expected("program.format", "1");
  Program p;
  p.name = to_text(o.Get("name"), "program.name");
  for_each(o.Get("arenas"), "program.arenas", [&](const Napi::Value& v, const std::string& where) {
    const Napi::Object arena = to_object(v, where);
    p.arenas.push_back({to_text(arena.Get("name"), where + ".name"), to_integer(arena.Get("bytes"), where + ".bytes")});
  });
  for_each(o.Get("tensors"), "program.tensors", [&](const Napi::Value& v, const std::string& where) { p.tensors.push_back(to_tensor(v, where)); });
  for_each(o.Get("instructions"), "program.instructions",
           [&](const Napi::Value& v, const std::string& where) { p.instructions.push_back(to_instruction(v, where)); });
  p.inputs = to_ports(o.Get("inputs"), "program.inputs");
  p.outputs = to_ports(o.Get("outputs"), "program.outputs");
  p.scalars = to_texts(o.Get("scalars"), "program.scalars");
  return p;
}

Napi::Error to_js(Napi::Env env, const Error& error) {
  Napi::Error e = Napi::Error::New(env, error.what());
  e.Set("code", error.code);
  if (!error.op.empty()) e.Set("op", error.op);
  if (!error.label.empty()) e.Set("label", error.label);
  if (!error.file.empty()) e.Set("file", error.file), e.Set("offset", double(error.offset));
  if (error.needed > 0) e.Set("needed", double(error.needed)), e.Set("available", double(error.available));
  if (!error.cuda.empty()) e.Set("cuda", error.cuda);
  return e;
}

}  // namespace attune
