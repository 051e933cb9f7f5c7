// JavaScript values to native ones and back. Everything that arrives is checked here or in program.cc; what is wrong is an Error that names its place.
#pragma once
#include <napi.h>

#include "core/program.h"
#include "core/session.h"

namespace attune {

/// The bytes of a typed array or DataView, in place: valid as long as the view is referenced and its buffer not detached.
struct Bytes {
  void* data = nullptr;
  int64_t size = 0;
};

/// A safe integer; `what` names it in the error.
int64_t to_integer(const Napi::Value& value, const std::string& what);
std::string to_text(const Napi::Value& value, const std::string& what);
Napi::Array to_array(const Napi::Value& value, const std::string& what);
Bytes to_bytes(const Napi::Value& value, const std::string& what);
std::vector<double> to_doubles(const Napi::Value& value, const std::string& what);
TraceMode to_trace_mode(const Napi::Value& value);

/// A tensor as { dtype, shape } outside, { layout } and { arenaDtype }: lib/native.ts NativeTensorForm.
TensorForm to_form(const Napi::Value& value, const std::string& what);
/// The bytes of that tensor in { path, fd, offset }: lib/native.ts NativeSource.
std::shared_ptr<FileRange> to_file_range(const Napi::Value& value, int64_t bytes, const std::string& what);

/// A lib/graph/program.ts Program, structure checked; meaning is checked by check_program.
Program to_program(const Napi::Value& value);

/// An Error object with code, op, label, needed and available, which lib/native.ts turns into the class of that code.
Napi::Error to_js(Napi::Env env, const Error& error);

}  // namespace attune
